"""What a host is and which releases of the library it has, as JSON; run on the host by the Python that is to run it.

Arguments: the library's directory, where its programs are linked, and the controller's time. Standard library only; an
old Python runs it too, to be told that it is too old.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import pwd
import re
import shutil
import sys
import time
from pathlib import Path

PROGRAMS = ("appctrl", "s2cs", "s2uc")


def main():
    """Look, and tell."""
    directory, programs = (Path(path).expanduser() for path in sys.argv[1:3])
    ahead = round(time.time() - float(sys.argv[3]))
    sys.stdout.write(json.dumps({**of_host(directory), **of_library(directory, programs), "ahead": ahead}) + "\n")


def of_host(directory):
    """Its Python, its kind, and the disk that a release will lie on."""
    python = ".".join(platform.python_version_tuple()[:2])
    name, glibc = platform.libc_ver()
    disk = next(path for path in (directory, *directory.parents) if path.is_dir())
    return {
        "python": python,
        "python_path": sys.executable,
        "has_venv": importlib.util.find_spec("venv") is not None,
        "system": f"{os_release()} ({platform.machine()})",
        "glibc": glibc if name == "glibc" else "",
        "kind": f"{python} {platform.machine()} {glibc}",
        "home": str(Path("~").expanduser()),
        "free": shutil.disk_usage(str(disk)).free,
        "systemd": Path("/run/systemd/system").is_dir(),
        "writable": os.access(str(disk), os.W_OK | os.X_OK),
    }


def of_library(directory, programs):
    """Its releases, those that are current or run, who needs them, and where the programs' names lead."""
    releases, current = directory / "releases", directory / "current"
    there = newest_first(releases)
    versions = {path.parent.name: path.read_text().strip() for path in releases.glob("*/.complete")}
    return {
        "directory": str(directory),
        "programs": str(programs),
        "releases": there,
        "versions": versions,
        "complete": sorted(versions),
        "current": current.resolve().name if current.is_symlink() else "",
        "running": sorted(set(running(str(releases.resolve()))).intersection(there)),
        "consumers": sorted(path.name for path in (directory / "needed_by").glob("*")),
        "links": {name: target(programs / name) for name in PROGRAMS},
        "missing": missing(directory, programs),
        "made": lines(directory / "made"),
    }


def missing(*paths):
    """Those of these directories, and of those above them, that are not there."""
    return sorted({str(each) for path in paths for each in (path, *path.parents) if not each.exists()})


def lines(path):
    """The lines of a file; none where it is not there."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def os_release():
    """The distribution, in its own words."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return platform.system()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return found.get("PRETTY_NAME", platform.system()).strip("\"'")


def newest_first(releases):
    """Releases, and what became of interrupted installations."""
    found = list(releases.glob("*"))
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def target(path):
    """Where a link leads; empty where there is nothing, and `-` where there is something else."""
    if path.is_symlink():
        return str(path.readlink())
    return "-" if path.exists() else ""


def running(releases):
    """The releases that a process of this host runs from: its program is theirs, or it has their files mapped.

    Only where it is of those whose library this is: anybody may write a release on a command line, or map its files.
    """
    # The whole path, with what module wheelhouse calls a release.
    pattern = re.compile(r"(?m)(?:^|\s)" + re.escape(releases) + r"/([0-9a-f]{8,64})/")
    trusted = owners()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.stat().st_uid in trusted:
                yield from pattern.findall(f"{(place / 'exe').readlink()}\n{(place / 'maps').read_text()}")
        except (OSError, UnicodeDecodeError):
            continue  # it has ended


def owners():
    """Whose processes are believed: this user's, and those of the user of the control server."""
    try:
        return {os.getuid(), pwd.getpwnam("scistream").pw_uid}
    except KeyError:
        return {os.getuid()}


if __name__ == "__main__":
    main()
