# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what lies on the controller is its user's own: what others could have put there is not sent to hosts."""

from __future__ import annotations

import os
import pathlib
import stat

__all__ = ["foreign"]

_WRITERS = stat.S_IWGRP | stat.S_IWOTH


def foreign(path: pathlib.Path, *, follow: bool = False) -> str:
    """Why a file or directory is not this user's (or root's) alone to write; empty where it is, or nothing is there.

    Args:
        path: of it.
        follow: whether a link to it will do: a user's own home may be one.
    """
    try:
        found = path.stat() if follow else path.lstat()
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(found.st_mode):
        return "it is a link"
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to the user with id {found.st_uid}, and this is {os.geteuid()}"
    mode = stat.S_IMODE(found.st_mode)
    return f"others can write it (mode {mode:04o})" if mode & _WRITERS else ""
