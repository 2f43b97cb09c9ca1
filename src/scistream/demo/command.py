"""The command behind `make demo`: checks what was asked for before anything is started, then runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from scistream.cli.common import CONTEXT
from scistream.engines import find_engine
from scistream.errors import Code, SciStreamError

__all__ = ["demo"]

_MAX_FRAMES: Final = 1_000_000


@click.command(context_settings=CONTEXT)
@click.option("--engine", default="haproxy", envvar="ENGINE", show_envvar=True, help="The data server.")
@click.option("--data", envvar="DATA", show_envvar=True, help="A file to stream in place of detector frames.")
@click.option("--frames", default="128", envvar="FRAMES", show_envvar=True, help="Detector frames of 8 MiB each.")
@click.option("--state-directory", default=".state/demo", show_default=True, help="Where the demo keeps its files.")
def demo(engine: str, data: str | None, frames: str, state_directory: str) -> int:
    """Show the main job on this machine: two facilities, one stream, real bytes."""
    from scistream.demo.driver import Demo, Wanted, only_demo  # noqa: PLC0415 - a wrong word is answered at once

    wanted = Wanted(find_engine(engine or "haproxy").name, _frames(frames or "128"), _data(data))
    root = _checkout(Path.cwd())
    with only_demo():
        return Demo(root, root / state_directory, wanted).run()


def _checkout(directory: Path) -> Path:
    if (directory / "playbooks/demo.yml").is_file():
        return directory
    reason = f"{directory} has no playbooks/demo.yml: run the demo in the checkout"
    raise SciStreamError(Code.FILE_UNREADABLE, path="playbooks/demo.yml", reason=reason)


def _frames(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_FRAMES:
        return int(text)
    reason = f"it is not a number from 1 to {_MAX_FRAMES}"
    raise SciStreamError(Code.BAD_CONFIGURATION, key="FRAMES", value=text, source="the command", reason=reason)


def _data(text: str | None) -> Path | None:
    if not text:
        return None
    path = Path(text).absolute()
    if not path.exists():
        raise SciStreamError(Code.FILE_UNREADABLE, path=text, reason="there is no such file")
    if not path.is_file():
        raise SciStreamError(Code.FILE_UNREADABLE, path=text, reason="it is not a regular file")
    if not os.access(path, os.R_OK):
        raise SciStreamError(Code.FILE_UNREADABLE, path=text, reason="permission denied")
    return path
