"""Files that are there whole or not at all, with their mode from the first byte on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scistream.errors import Code, SciStreamError

__all__ = ["PRIVATE", "move", "prepare", "publish", "write"]

PRIVATE = 0o600
"""The mode of what is nobody else's to read."""


def write(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file, or replace the one that is there.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    with prepare(path, content, mode) as temporary:
        move(temporary, path)


@contextlib.contextmanager
def prepare(path: Path, content: bytes, mode: int = PRIVATE) -> Iterator[Path]:
    """A temporary file beside `path` with that content, on the disk; gone at the end, where it was not moved.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    temporary = Path(name)
    try:
        _fill(descriptor, content, mode, path)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def move(temporary: Path, path: Path) -> None:
    """Put a prepared file into its place, whatever is there.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    try:
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def publish(temporary: Path, path: Path) -> None:
    """Put a prepared file into its place, unless there is one: then that one stays.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    # A link is made only where nothing is yet: like O_EXCL, but nobody ever reads a file that is half written.
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError as error:
        raise _unwritable(path, error) from None


def _fill(descriptor: int, content: bytes, mode: int, path: Path) -> None:
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> SciStreamError:
    return SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error))
