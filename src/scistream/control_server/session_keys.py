"""The keys of sessions on disk, so that data servers can be started again.

A key lies in the data server's own file while that runs (`<stem>.psk`), and in `<stem>.key` from the data server's end
until it runs again. Both are this user's alone (0600), and go with the session.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from scistream.control_server.private_files import open_private
from scistream.engines.base import Plan
from scistream.errors import Code, SciStreamError
from scistream.protocol import SESSION_KEY_SIZE

__all__ = ["forget_key", "keep_key", "recall_key"]

_KEPT: Final = "key"
# Bytes: a uid, a colon and the key in hexadecimal are far fewer.
_LONGEST: Final = 1024


def keep_key(plan: Plan) -> None:
    """Write the plan's key down, where it has one.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    if plan.key is None:
        return
    path = plan.path(_KEPT)
    try:
        descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{plan.uid}:{plan.key.hex()}\n")
    except OSError as error:
        raise _unwritable(path, error) from None


def recall_key(plan: Plan) -> bytes | None:
    """The key that a session was opened with; None where none is to be found."""
    return next(filter(None, map(_read, (plan.path("psk"), plan.path(_KEPT)))), None)


def forget_key(plan: Plan) -> None:
    """Remove what `keep_key` wrote. Again: nothing.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    path = plan.path(_KEPT)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _read(path: Path) -> bytes | None:
    try:
        with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
            key = bytes.fromhex(file.read(_LONGEST).decode().rpartition(":")[2])
    except (OSError, ValueError):
        return None
    return key if len(key) == SESSION_KEY_SIZE else None


def _unwritable(path: Path, error: OSError) -> SciStreamError:
    return SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error))
