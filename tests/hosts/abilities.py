"""What keeps hosts from being made on this machine."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from . import cgroups, image

__all__ = ["NO_ROOT", "lacking", "require"]

NO_ROOT = "The test hosts need root: run this as root, or with sudo."

# By package of the distribution.
_PROGRAMS = {
    "systemd-container": ("systemd-nspawn",),
    "iproute2": ("ip",),
    "util-linux": ("unshare", "setpriv", "setsid", "nsenter", "mount"),
    "openssh-client": ("ssh", "scp"),
    "procps": ("sysctl",),
}
_BUILDERS = {"mmdebstrap": ("mmdebstrap",), "dpkg-dev": ("dpkg-scanpackages",)}
_TRIAL = "link add trial type bridge\nlink add one type veth peer name other\n"


@functools.cache
def lacking() -> str:
    """One sentence of what is missing; empty where nothing is."""
    if os.geteuid() != 0:
        return NO_ROOT
    packages = _PROGRAMS if image.is_at_hand() else _PROGRAMS | _BUILDERS
    missing = sorted(name for name, programs in packages.items() if not all(map(shutil.which, programs)))
    if missing:
        return f"The test hosts need {', '.join(missing)}: install that with `make packages`."
    if not cgroups.usable():
        return "The test hosts need control groups that can be written to below /sys/fs/cgroup: leave this container."
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _runs(["modprobe", "overlay"]):
        return "The test hosts need the overlay file system, and this kernel has none: take another one."
    if not _runs(["unshare", "--net", "--mount", "ip", "-batch", "-"], _TRIAL):
        return "The test hosts need network and mount namespaces, bridges and veth: take a kernel that permits them."
    return ""


def require() -> None:
    """For a fixture of pytest: skip where hosts cannot be had, but fail in continuous integration (CI is set)."""
    import pytest

    reason = lacking()
    if reason and os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


def _runs(command: list[str], stdin: str = "") -> bool:
    try:
        return subprocess.run(command, input=stdin.encode(), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
