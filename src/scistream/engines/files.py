"""A data server's files: written for their owner only, read from the end, removed without a trace (U43)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scistream.engines.base import FILE_KINDS, Plan
from scistream.engines.texts import without_places
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["last_words", "log_size", "remove_files", "tail", "words_since", "write_files"]

# Bytes at the end of a log that are worth quoting.
_TAIL: Final = 4096
# A ledger that was read on would be counted twice.
_MADE_BY_ENGINES: Final = ("pid", "sock", "traffic")


def write_files(plan: Plan, files: Mapping[Path, str]) -> None:
    """Write a data server's files and an empty log, all with mode 0600. What an earlier one left goes first.

    The log that was put aside stays: it may tell why the earlier one ended.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    for path, text in [*_left(plan), *files.items(), (plan.path("log"), "")]:
        try:
            _write(path, text)
        except OSError as error:
            raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None


def _left(plan: Plan) -> list[tuple[Path, None]]:
    return [(plan.path(kind), None) for kind in _MADE_BY_ENGINES]


def _write(path: Path, text: str | None) -> None:
    path.unlink(missing_ok=True)
    if text is None:
        return
    # O_EXCL: neither a link nor another's file with wider rights is written through.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def tail(plan: Plan) -> str:
    """The end of a data server's log; empty where there is none."""
    try:
        with plan.path("log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def log_size(plan: Plan) -> int:
    """Bytes in a data server's log by now."""
    try:
        return plan.path("log").stat().st_size
    except OSError:
        return 0


def words_since(plan: Plan, size: int) -> str:
    """What a data server's log got since it had that size; all of it, where it was begun anew."""
    try:
        with plan.path("log").open("rb") as log:
            log.seek(size if log.seek(0, os.SEEK_END) >= size else 0)
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def last_words(plan: Plan) -> str:
    """The end of a data server's log as one line, without this host's directories: it is told to remote callers."""
    return one_line(without_places(tail(plan))) or "it said nothing"


def remove_files(plan: Plan, *pids: int) -> None:
    """Remove whatever files the data server may have left; one that stays keeps none of the others.

    `pids` were its processes: HAProxy makes its socket under a name with its pid, and may have got no further.

    Raises:
        SciStreamError: FILE_UNWRITABLE, naming the first that stayed.
    """
    failures: list[tuple[Path, OSError]] = []
    for path in map(plan.path, (*FILE_KINDS, *(f"sock.{pid}.tmp" for pid in pids))):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            failures.append((path, error))
    for path, failure in failures:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=failure.strerror or str(failure))
