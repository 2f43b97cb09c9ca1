"""Files and directories that are this user's alone: made so, and refused where they are not."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from scistream.errors import Code, SciStreamError

__all__ = ["check_directory", "check_holder", "open_private", "prepare_directory"]


def open_private(path: Path, flags: int) -> int:
    """Open a regular file, never through a link; where it is made, with mode 0600. Returns the descriptor.

    Raises:
        OSError: also where it is a link, a pipe or a device.
    """
    try:
        # O_NONBLOCK: a pipe in the file's place would be waited for.
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def prepare_directory(path: Path) -> None:
    """Make the state directory with mode 0700 where it is not there; one that is there is checked.

    Raises:
        SciStreamError: FILE_UNWRITABLE, BAD_CONFIGURATION.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
    check_directory(path)


def check_directory(path: Path) -> None:
    """Refuse a state directory that another user owns or may write into.

    Raises:
        SciStreamError: BAD_CONFIGURATION, FILE_UNWRITABLE.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
    if found.st_uid != os.geteuid():
        raise _foreign(path, f"it belongs to the user with id {found.st_uid}, and this is {os.geteuid()}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _foreign(path, f"others may write into it (mode {stat.S_IMODE(found.st_mode):04o}); it needs 0700")


def check_holder(path: Path, pid: int) -> None:
    """Refuse a process that the lock of a state directory names, and that is another user's than the directory.

    Whoever owns the directory may write there what he likes. One that has ended is nobody's.

    Raises:
        SciStreamError: BAD_CONFIGURATION.
    """
    try:
        # Not the owner of the directory in /proc: that is root for one with rights of its own.
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        user = int(next(line for line in lines if line.startswith("Uid:")).split()[2])
        owner = path.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return
    if user != owner:
        reason = f"its lock names process {pid} of the user with id {user}, and it belongs to the one with id {owner}"
        raise _foreign(path, reason)


def _foreign(path: Path, reason: str) -> SciStreamError:
    facts = {"key": "state_directory", "value": str(path), "source": "the settings"}
    return SciStreamError(Code.BAD_CONFIGURATION, **facts, reason=reason)
