"""Role library in scope `user` on this machine, with a home of its own: releases, sentences, and no trace.

The controller has no package index, as at a site: the wheels come out of a directory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import Run, run_play
from library_wheels import OFFLINE, make_library_wheel, make_wheels

_ROLE = {"ansible.builtin.include_role": {"name": "scistream.core.library"}}
_LONG = 400

Library = Callable[..., Run]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of wheels."""
    directory = tmp_path_factory.mktemp("site")
    make_wheels(directory)
    return directory


@pytest.fixture
def library(tmp_path: Path, site: Path) -> Library:
    """Runs the role on this machine as if it were another: with a home of its own, which the controller has as well."""

    def run(*options: str, **variables: Any) -> Run:
        told = {"name": "told", "ansible.builtin.debug": {"msg": "{{ library_release | default({}) }}"}}
        given = {
            "library_scope": "user",
            "library_python": sys.executable,
            "library_source": str(site / "scistream-0.1.0-py3-none-any.whl"),
            "library_controller_directory": str(tmp_path / "wheelhouses"),
            **variables,
        }
        environment = OFFLINE | {"PIP_FIND_LINKS": str(site)}
        return run_play([_ROLE, told], directory=tmp_path, options=options, vars=given, environment=environment)

    return run


def fine(run: Run) -> Run:
    assert run.code == 0, run.output
    return run


def release(run: Run) -> dict[str, str]:
    return dict(run.named("told")["msg"])


def releases(home: Path) -> set[str]:
    return {path.name for path in (home / ".local/share/scistream/releases").iterdir()}


@pytest.mark.timeout(_LONG)
def test_releases_come_side_by_side_and_go_when_nobody_runs_them(tmp_path: Path, library: Library, site: Path) -> None:
    home, place = tmp_path / "home", tmp_path / "home/.local/share/scistream"
    predicted = fine(library("--check"))
    assert predicted.changed("localhost")
    assert not place.exists()
    first = release(fine(library()))
    assert first["version"] == "0.1.0"
    said = subprocess.run([home / ".local/bin/s2cs", "--version"], capture_output=True, text=True, check=True).stdout
    assert "0.1.0" in said
    for again in (library(), library("--check")):
        assert fine(again).changed("localhost") == 0
    # A process that runs from the first one, as a control server does.
    python = str(place / "releases" / first["digest"] / "bin/python")
    running = subprocess.Popen([python, "-c", "import psutil, time; time.sleep(300)"])
    try:
        newer = [str(make_library_wheel(tmp_path, version)) for version in ("0.2.0", "0.3.0")]
        second = release(fine(library(library_source=newer[0])))
        assert second["version"] == "0.2.0"
        assert releases(home) == {first["digest"], second["digest"]}
        third = release(fine(library(library_source=newer[1])))
        assert releases(home) == {first["digest"], second["digest"], third["digest"]}
        refused = library(library_state="absent")
        assert "stays, since processes run from it" in " ".join(refused.output.split())
        assert "needed_by" in {path.name for path in place.iterdir()}
    finally:
        running.kill()
        running.wait()
    assert fine(library(library_source=newer[1])).changed("localhost") == 1
    assert releases(home) == {second["digest"], third["digest"]}
    assert (place / "current").resolve().name == third["digest"]


@pytest.mark.timeout(_LONG)
def test_it_goes_when_nobody_needs_it_and_leaves_nothing(tmp_path: Path, library: Library) -> None:
    home = tmp_path / "home"
    place = home / ".local/share/scistream"
    for consumer in ("control_server", "user_client"):
        fine(library(library_consumer=consumer))
    fine(library(library_consumer="user_client", library_state="absent"))
    assert (home / ".local/bin/s2cs").exists()
    predicted = fine(library("--check", library_consumer="control_server", library_state="absent"))
    assert predicted.changed("localhost")
    assert place.exists()
    fine(library(library_consumer="control_server", library_state="absent"))
    assert not place.exists()
    assert not (home / ".local").exists()
    assert fine(library(library_consumer="control_server", library_state="absent")).changed("localhost") == 0


@pytest.mark.timeout(_LONG)
def test_an_installation_that_was_interrupted_is_begun_anew(tmp_path: Path, library: Library) -> None:
    first = release(fine(library()))
    place = tmp_path / "home/.local/share/scistream/releases" / first["digest"]
    (place / ".complete").unlink()
    (place / "bin/s2cs").unlink()
    fine(library())
    assert (place / "bin/s2cs").exists()
    assert releases(tmp_path / "home") == {first["digest"]}


def other_python(directory: Path, **facts: Any) -> str:
    """A Python whose host is as these facts say: what looks at it is told so."""
    program = directory / "python3"
    edit = "import json, sys; print(json.dumps({**json.load(sys.stdin), **json.loads(sys.argv[1])}))"
    words = [sys.executable, "-c", edit, json.dumps(facts)]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    program.write_text(f'#!/bin/sh\n{sys.executable} "$@" | {quoted}\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"python": "3.9"},
            "is Python 3.9, and the library needs 3.11 or newer. Install one, name it with library_python",
        ),
        ({"has_venv": False}, "has no module venv. Install it (apt-get install python3-venv)"),
        ({"glibc": ""}, "without the GNU C library"),
        ({"writable": False}, "where this user may not write. Name another directory"),
        ({"ahead": -9999}, "9999 s late by the controller's (library_clock_tolerance is 60)"),
        ({"ahead": 9999}, "9999 s early by the controller's"),
        ({"free": 1000}, "where 1000.00 Bytes are free, and the library needs"),
        ({"links": {"s2cs": "-"}}, "/.local/bin/s2cs is there, and is none of this role"),
    ],
)
def test_a_host_where_it_cannot_run_is_told_before_it_is_touched(
    tmp_path: Path, library: Library, facts: dict[str, Any], words: str
) -> None:
    run = library(library_python=other_python(tmp_path, **facts))
    assert run.code == 2
    told = " ".join(str(next(one["msg"] for one in run.results if one.outcome == "failed")).split())
    assert words in told
    assert told.startswith("localhost: ")
    assert told.endswith("and run it again.")
    assert not (tmp_path / "home/.local").exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"library_python": "/nowhere/python3"}, "Install Python 3.11 or newer there"),
        ({"library_python": "false"}, "cannot be looked at"),
    ],
)
def test_a_host_without_python_is_told_so(
    tmp_path: Path, library: Library, variables: dict[str, str], words: str
) -> None:
    run = library(**variables)
    assert run.code == 2
    told = " ".join(run.output.split())
    assert "localhost cannot be looked at: " in told
    assert words in told
    assert not (tmp_path / "home/.local").exists()
