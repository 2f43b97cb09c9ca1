# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`wheels.py DIRECTORY`: wheels of all that the library needs, of what this Python has, and of its next version."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from library_wheels import make_library_wheel, make_wheels

_NEXT = "0.2.0"


def main() -> None:
    """Make them all anew."""
    directory = Path(sys.argv[1])
    shutil.rmtree(directory, ignore_errors=True)
    # Apart: of a directory of wheels, pip takes the newest version.
    (directory / "next").mkdir(parents=True)
    make_wheels(directory)
    make_library_wheel(directory / "next", _NEXT)


if __name__ == "__main__":
    main()
