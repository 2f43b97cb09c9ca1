"""The first moments of a tool: Ctrl-C is quiet, and heard as before once the tool runs."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scistream.cli import programs

_NAMES = ("appctrl", "s2cs", "s2uc")


class _ExitedError(Exception):
    """In place of the end of the process."""


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes that the process ended with."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise _ExitedError

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.mark.parametrize("name", _NAMES)
def test_an_interruption_while_a_tool_is_imported_is_quiet(
    name: str, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []

    def load(module: str) -> Any:
        imported.append(module)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(importlib, "import_module", load)
    with pytest.raises(_ExitedError):
        getattr(programs, name)()
    assert (imported, exits) == ([f"scistream.cli.{name}"], [130])


def test_an_interruption_before_the_tool_hears_it_is_quiet(exits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        # As it comes between the imports and the tool's own care: to Python's handler.
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(main=main))
    with pytest.raises(_ExitedError):
        programs.s2uc()
    assert exits == [130]


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_tool_hears_what_it_would_have_heard(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    signal.signal(signal.SIGINT, handler)
    main = lambda: heard.append(signal.getsignal(signal.SIGINT))  # noqa: E731
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(main=main))
    programs.s2uc()
    assert heard == [handler]


def test_the_installed_tools_begin_there_with_nothing_heavy_imported() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {name: f"scistream.cli.programs:{name}" for name in _NAMES}
    told = subprocess.run(
        [sys.executable, "-c", "import scistream.cli.programs, sys; print('click' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "False\n"
