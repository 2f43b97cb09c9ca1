"""Where there is too little room for files, as JSON: the bytes that can be written, by directory; 0 where nothing can.

Arguments: `BYTES:DIRECTORY` each, with the bytes that are needed; a directory need not be there yet. Standard library
only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main():
    """Look, and tell."""
    needed = needs(sys.argv[1:])
    found = {path: room(expanded(path)) for path in needed}
    sys.stdout.write(json.dumps({path: free for path, free in found.items() if free < needed[path]}) + "\n")


def needs(words):
    """The bytes that are needed, by directory; where one is named twice, the more of both."""
    found = {}
    for number, path in (word.split(":", 1) for word in words):
        found[path] = max(int(number), found.get(path, 0))
    return found


def expanded(text):
    """A path; none where it begins with the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return None


def room(directory):
    """Bytes that this user may still write there."""
    if directory is None:
        return 0
    disk = next(path for path in (directory, *directory.parents) if path.is_dir())
    found = os.statvfs(disk)
    # A disk without a place for another name has room for nothing. Some disks do not count them.
    is_full = found.f_files and not found.f_favail
    return 0 if is_full or not os.access(disk, os.W_OK | os.X_OK) else found.f_bavail * found.f_frsize


if __name__ == "__main__":
    main()
