"""Why root does not make a directory at a place and give it to a user, in words; nothing where it may.

Arguments: the directory, and the user. Who owns a directory on the way, or may write into it, could lead root
elsewhere; and what lies in a directory of root's would be the user's to replace. Standard library only.
"""

from __future__ import annotations

import pwd
import stat
import sys
from pathlib import Path

# As many as the kernel follows.
MOST_LINKS = 40
# A disk that was made for this has it.
OF_THE_DISK = {"lost+found"}


def main():
    """Look, and tell."""
    sys.stdout.write(hindrance(*sys.argv[1:3]) + "\n")


def hindrance(place, user):
    """What is wrong with the place, or with the first on the way to it that is not as it should be."""
    if not place.startswith("/"):
        return f"{place} does not begin with /"
    if ".." in place.split("/"):
        return f"{place} has .. in it"
    here, way, links = Path("/"), ahead(place), 0
    while not (wrong := of_directory(here, user, is_end=not way)) and way:
        name, link = way.pop()
        path = here.parent if name == ".." else here / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            return f"{link} is a link that leads nowhere" if link else ""
        except OSError as error:
            return f"{path} cannot be looked at ({error.strerror})"
        if not stat.S_ISLNK(found.st_mode):
            here = path
            continue
        links += 1
        wrong = of_link(path, found, is_end=not way, is_circle=links > MOST_LINKS)
        if wrong:
            break
        here = Path("/") if path.readlink().is_absolute() else here
        way += ahead(str(path.readlink()), link or path)
    return wrong


def ahead(place, link=None):
    """The names of a path, the first one last, with the link that they came of."""
    return [(name, link) for name in reversed(place.split("/")) if name not in ("", ".")]


def of_link(path, found, is_end, is_circle):
    """What is wrong with a link on the way: whoever owns it may lead it elsewhere."""
    if is_end:
        return f"{path} is a link, to {path.readlink()}"
    if found.st_uid != 0:
        return f"{path} is a link, and {owner_of(found)}'s"
    return f"{path} is a link that leads in a circle" if is_circle else ""


def of_directory(path, user, is_end):
    """What is wrong with one that is no link."""
    found = path.lstat()
    owner = owner_of(found)
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is no directory"
    if owner not in ("root", user):
        return f"{path} is {owner}'s"
    if is_end:
        held = sorted({each.name for each in path.iterdir()} - OF_THE_DISK) if owner != user else []
        return f"{path} is root's, with {held[0]}{' and more' if held[1:] else ''} in it" if held else ""
    # Into one with the sticky bit others may put something, and take nothing out.
    others = stat.S_IWOTH if found.st_gid == 0 else stat.S_IWGRP | stat.S_IWOTH
    if found.st_mode & others and not found.st_mode & stat.S_ISVTX:
        return f"others may write into {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def owner_of(found):
    """The owner's name, or number."""
    try:
        return pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        return str(found.st_uid)


if __name__ == "__main__":
    main()
