"""The cgroup that one session's data server lives in: what the kernel tells its packets from all others by.

Only cgroup v2 tells sockets apart. On hosts with both versions it is mounted below `/sys/fs/cgroup`, else right there.
A data server has to be in its cgroup before it opens its first socket, since a socket keeps the one it was made in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from scistream.engines.base import Plan

__all__ = ["Cgroup", "Slot", "entering", "find_mount", "left_over", "remove", "shortfall"]

# Where nft looks for a cgroup that it is told by name, whatever is mounted elsewhere.
_NFT_ROOT: Final = Path("/sys/fs/cgroup")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN: Final = Path("/proc/self/cgroup")
_PREFIX: Final = "scistream-"
# `sh` becomes the program: no code of ours runs between fork and exec, where the threads of this process forbid it.
_ENTER: Final = 'echo $$ > "$0" && exec "$@"'


@dataclass(frozen=True)
class Slot:
    """One session of one control server of this host; `directory` tells the control servers apart."""

    instance: str
    stem: str

    @classmethod
    def of(cls, plan: Plan) -> Slot:
        """The slot of a plan's session."""
        return cls(cls.instance_of(plan.directory), plan.stem)

    @staticmethod
    def instance_of(directory: Path) -> str:
        """What stands for the directory where a control server has its data servers' files."""
        return hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:8]

    @property
    def name(self) -> str:
        """The session among all of this host."""
        return f"{self.instance}-{self.stem}"


@dataclass(frozen=True)
class Cgroup:
    """A cgroup as nft knows it: its path below `/sys/fs/cgroup`, and how deep it lies below the root cgroup."""

    path: Path
    level: int

    @classmethod
    def of(cls, slot: Slot) -> Cgroup:
        """The session's place, below the cgroup of this process. It need not be there yet.

        Raises:
            OSError: there is no cgroup v2, or nft cannot name what lies in it.
        """
        own = _own_cgroup(_OWN.read_text())
        mount = find_mount(_MOUNTS.read_text())
        if own is None or mount is None or not mount.is_relative_to(_NFT_ROOT):
            raise FileNotFoundError(f"cgroup v2 is not mounted below {_NFT_ROOT}")
        return cls(mount / own / f"{_PREFIX}{slot.name}", len(own.parts) + 1)

    @property
    def name(self) -> str:
        """What nft calls it."""
        return str(self.path.relative_to(_NFT_ROOT))


def find_mount(mountinfo: str) -> Path | None:
    """Where cgroup v2 is mounted, from /proc/self/mountinfo (proc(5))."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def _own_cgroup(cgroups: str) -> PurePosixPath | None:
    """The cgroup of this process below the root one, from /proc/self/cgroup (cgroups(7))."""
    own = next((line for line in cgroups.splitlines() if line.startswith("0::/")), None)
    return PurePosixPath(own.removeprefix("0::/")) if own is not None else None


def shortfall() -> str:
    """Why no session can have a cgroup of its own here, in a sentence; empty where it can."""
    try:
        cgroup = Cgroup.of(Slot("", ""))
    except OSError as error:
        return f"{error}, and this kernel tells a data server's packets from others' by it alone"
    if not (os.access(cgroup.path.parent, os.W_OK) and os.access(cgroup.path.parent / "cgroup.procs", os.W_OK)):
        return f"the control server may not make cgroups in {cgroup.path.parent}: its unit needs Delegate=yes"
    return ""


def entering(plan: Plan, command: list[str]) -> list[str]:
    """The command that puts itself into the session's cgroup and then becomes `command`, with its pid.

    `shaping.limit` has to have been called. Where the cgroup is not there, it ends with words on standard error.

    Raises:
        OSError: there is no cgroup v2.
    """
    if not plan.rate:
        return command
    return ["/bin/sh", "-c", _ENTER, str(Cgroup.of(Slot.of(plan)).path / "cgroup.procs"), *command]


def remove(slot: Slot) -> None:
    """Remove the session's cgroup, wherever an earlier control server had made it.

    One in which a process still runs stays.
    """
    with contextlib.suppress(OSError):
        if (own := Cgroup.of(slot).path).exists():
            own.rmdir()
            return
    for found in _find(f"{_PREFIX}{slot.name}"):
        if found.name == f"{_PREFIX}{slot.name}":
            with contextlib.suppress(OSError):
                found.rmdir()


def left_over(instance: str) -> Iterator[Slot]:
    """The sessions of a control server that have a cgroup."""
    for found in _find(f"{_PREFIX}{instance}-"):
        yield Slot(instance, found.name.removeprefix(f"{_PREFIX}{instance}-"))


def _find(beginning: str) -> list[Path]:
    """The cgroups of this host whose name begins so; others come and go meanwhile."""
    mount = find_mount(_MOUNTS.read_text())
    places = os.walk(mount) if mount else ()
    return [Path(place, name) for place, names, _ in places for name in names if name.startswith(beginning)]
