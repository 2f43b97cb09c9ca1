"""The kernel's limit of inotify instances: systemd takes some for each host, and the usual limit bears about 17.

It is the whole machine's, and so is the note of what it was: the last hosts that go set it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from .plan import Plan
from .programs import HostsError

__all__ = ["lift", "notes_left", "restore"]

_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_ENOUGH = 4096
_BORNE_BY_ALL = 14
# A file for each place that has hosts, and one that has the limit of before.
_NOTES = Path("/run/scistream-test-hosts")
_BEFORE = _NOTES / "inotify_before"


def lift(plan: Plan) -> None:
    """Raise the limit, where it is low.

    Raises:
        HostsError: the kernel does not permit it, and these are too many hosts to go without.
    """
    with _alone():
        _NOTES.mkdir(exist_ok=True)
        (_NOTES / plan.tag).write_text(f"{plan.place}\n")
        before = int(_LIMIT.read_text())
        if before >= _ENOUGH:
            return
        if os.access(_LIMIT, os.W_OK):
            if not _BEFORE.exists():
                _BEFORE.write_text(f"{before}\n")
            _LIMIT.write_text(f"{_ENOUGH}\n")
        elif len(plan.names) > _BORNE_BY_ALL:
            raise HostsError(
                f"{len(plan.names)} hosts need more inotify instances than {before}, and this user cannot raise"
                f" {_LIMIT}: take {_BORNE_BY_ALL} hosts at most."
            )


def restore(plan: Plan) -> None:
    """Set it back, if there are no other hosts."""
    with _alone():
        (_NOTES / plan.tag).unlink(missing_ok=True)
        if not _NOTES.exists() or set(_NOTES.iterdir()) - {_BEFORE}:
            return
        if _BEFORE.exists():
            _LIMIT.write_text(_BEFORE.read_text())
            _BEFORE.unlink()
        _NOTES.rmdir()


def notes_left(plan: Plan) -> list[Path]:
    return [note for note in [_NOTES / plan.tag] if note.exists()]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with _LIMIT.open("rb") as limit:
        fcntl.flock(limit, fcntl.LOCK_EX)
        yield
