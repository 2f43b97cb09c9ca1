"""Where the sockets of keepers lie: a directory that nobody else can enter, with names that fit into an address."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scistream.errors import Code, SciStreamError

__all__ = ["is_own_peer", "locked", "socket_directory"]

_VARIABLE: Final = "XDG_RUNTIME_DIR"
_NAME: Final = "scistream"
_LOCK: Final = "lock"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# sun_path has 108 bytes, the last of which is 0. A keeper's name has 16 digits; a target's 12 come after it.
_LONGEST: Final = 107 - len("/0123456789abcdef.0123456789ab")
# SO_PEERCRED: pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("3i")


def socket_directory() -> Path:
    """The directory, made where it is not there: below XDG_RUNTIME_DIR, or else where temporary files are.

    Raises:
        SciStreamError: SSH_DIRECTORY_UNSAFE.
    """
    reasons = []
    for directory in _candidates():
        reason = _fault(directory)
        if reason is None:
            return directory
        reasons.append(reason)
    raise SciStreamError(Code.SSH_DIRECTORY_UNSAFE, reason="; ".join(reasons))


def _candidates() -> Iterator[Path]:
    runtime = os.environ.get(_VARIABLE)
    if runtime and Path(runtime).is_absolute():
        yield Path(runtime) / _NAME
    # Its name is known to everybody: whoever makes it first is found out by its owner.
    yield Path(tempfile.gettempdir()) / f"{_NAME}-{os.geteuid()}"


def _fault(directory: Path) -> str | None:
    """Why the directory does not do; None where it does."""
    if len(os.fsencode(directory)) > _LONGEST:
        return f"{directory} is too long a name for sockets"
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        return f"{directory} cannot be made: {error.strerror or error}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is not a directory"
    if found.st_uid != os.geteuid():
        return f"{directory} belongs to the user with id {found.st_uid}, and this is {os.geteuid()}"
    mode = stat.S_IMODE(found.st_mode)
    return f"{directory} is not for its owner alone (mode {mode:04o})" if mode & _OTHERS else None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Inside, no other process starts or ends a keeper of this directory.

    Raises:
        OSError: the directory went away.
    """
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_own_peer(connection: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket is this user's."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(found)[1]
    return uid == os.geteuid()
