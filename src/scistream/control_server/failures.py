"""What went wrong with a data server, in the catalogue's words."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from scistream.errors import Code, SciStreamError

__all__ = ["in_words"]

_NO_ROOM: Final = frozenset({os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)})


def in_words(error: Exception, directory: Path) -> SciStreamError:
    """An error of the catalogue for whatever was raised; a full disk under the state directory is told as that."""
    told = _told(error)
    if told.code is Code.FILE_UNWRITABLE and told.facts["reason"] in _NO_ROOM:
        return SciStreamError(Code.STATE_DIRECTORY_FULL, directory=str(directory), reason=told.facts["reason"])
    return told


def _told(error: Exception) -> SciStreamError:
    if isinstance(error, SciStreamError):
        return error
    if isinstance(error, OSError) and error.filename is not None:
        reason = error.strerror or str(error)
        return SciStreamError(Code.FILE_UNWRITABLE, path=str(error.filename), reason=reason)
    return SciStreamError(Code.INTERNAL, words=f"{type(error).__name__}: {error}")
