"""Files that lines are added to, for years: private, bounded in size, whole lines only, and never in anybody's way."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from scistream.control_server.private_files import open_private
from scistream.errors import Code, SciStreamError

__all__ = ["GENERATIONS", "SIZE", "LineFile"]

# Bytes after which a file becomes `FILE.1`, and how many of those are kept: some 100,000 lines each.
SIZE: Final = 16 * 1024 * 1024
GENERATIONS: Final = 5

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class LineFile:
    """A file of lines that is renamed to `FILE.1` when it is full, and that one to `FILE.2`.

    Somebody else may rename or remove it as well, logrotate for one: the next line begins a new file. What cannot be
    written is lost and counted: a full disk ends nothing. Half a line is taken back, so that every line can be read.

    Args:
        path: a regular file and no link. It is made with mode 0600.
        size: in bytes; a line never makes the file larger.
        generations: how many renamed ones are kept.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """

    def __init__(self, path: Path, *, size: int = SIZE, generations: int = GENERATIONS) -> None:
        self._path = path
        self._size = size
        self._generations = generations
        self._limit = size
        self.lost = 0
        """Lines that could not be written."""
        try:
            self._descriptor = open_private(path, _FLAGS)
        except OSError as error:
            raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None

    def add(self, line: str) -> bool:
        """Write a line, with the end of the line in it; whether that went well."""
        data = line.encode(errors="backslashreplace")
        try:
            self._make_room(len(data))
            _write(self._descriptor, data)
        except OSError:
            self.lost += 1
            return False
        return True

    def _make_room(self, count: int) -> None:
        if self._is_moved():
            self._reopen()
        size = os.fstat(self._descriptor).st_size
        if size and size + count > self._limit:
            self._turn(size)

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _turn(self, size: int) -> None:
        try:
            for number in range(self._generations, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._generation(number - 1).rename(self._generation(number))
            self._reopen()
            self._limit = self._size
        except OSError:
            # Its directory is not ours to change: better a large file than a lost line. It is tried again later.
            self._limit = size + self._size

    def _generation(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _reopen(self) -> None:
        fresh = open_private(self._path, _FLAGS)
        os.close(self._descriptor)
        self._descriptor = fresh

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)
        # The number may be another file's soon.
        self._descriptor = -1


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written < len(data):
        # A full disk takes what fits. This is the only writer, and what it wrote stands at the end.
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise OSError
