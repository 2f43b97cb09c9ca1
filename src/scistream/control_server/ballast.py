"""Room that is kept in the state directory, so that a full disk cannot keep a session from being released."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from scistream.control_server.private_files import open_private

__all__ = ["Ballast"]

# Bytes; a release takes some ten pages of 4 KiB, and takes them back at once.
_SIZE: Final = 256 * 1024


class Ballast:
    """A file that is in the way of everybody else, and goes when it is our turn.

    Args:
        path: the file; it is made with mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._filled = False

    def fill(self) -> None:
        """Take what is lacking of the room, as far as there is some."""
        if not self._filled:
            # Less than all is of use as well; the rest is taken when there is room.
            with contextlib.suppress(OSError):
                self._write()
                self._filled = True

    def _write(self) -> None:
        descriptor = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # No zeros: a file system that compresses would keep no room for them.
            data = os.urandom(max(0, _SIZE - os.fstat(descriptor).st_size))
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def free(self) -> bool:
        """Give the room back; False where there was none."""
        self._filled = False
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False
