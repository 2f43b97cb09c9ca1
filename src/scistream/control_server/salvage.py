"""A damaged journal: set aside as it is, with what can still be read of it in a new one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scistream.control_server.journal import Journal, readable_records
from scistream.errors import Code, SciStreamError

__all__ = ["open_journal"]

# What SQLite keeps beside its file, by the end of the name; the file itself first.
_PARTS: Final = ("", "-wal", "-shm")


def open_journal(path: Path, boot: str) -> tuple[Journal, Sequence[str]]:
    """The journal that can be read, and what its operator has to know: a sentence where it had been damaged.

    Raises:
        SciStreamError: JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL.
    """
    try:
        return _checked(path, boot), ()
    except SciStreamError as error:
        if error.code is not Code.JOURNAL_DAMAGED:
            raise
        return _anew(path, boot, error)


def _checked(path: Path, boot: str) -> Journal:
    journal = Journal(path, boot)
    try:
        journal.records()
    except SciStreamError:
        journal.close()
        raise
    return journal


def _anew(path: Path, boot: str, error: SciStreamError) -> tuple[Journal, Sequence[str]]:
    records = readable_records(path, boot)
    aside = _set_aside(path)
    journal = Journal(path, boot)
    journal.put(*records)
    known = f"{len(records)} of its sessions could be read" if records else "none of its sessions could be read"
    return journal, (f"{error.seen}; it was kept as {aside}, and {known}",)


def _set_aside(path: Path) -> Path:
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for part in _PARTS:
        file = path.with_name(path.name + part)
        try:
            file.rename(path.with_name(name + part))
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = f"it is damaged, and cannot be set aside: {error.strerror or error}"
            raise SciStreamError(Code.JOURNAL_UNREADABLE, path=str(path), reason=reason) from None
    return path.with_name(name)
