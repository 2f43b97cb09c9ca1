"""The control groups of hosts: one for each in every hierarchy that the machine has mounted. Two never share one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .plan import HostPlan, Plan

__all__ = ["enter", "groups_left", "memory_of", "pids", "remove", "usable"]

# A group of it has no processors until it is told which, and takes no process until then.
_EXCEPT = "cpuset"


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and _EXCEPT not in options.split(",")):
            yield Path(directory)


def usable() -> bool:
    """Whether there are hierarchies in which groups can be made."""
    return all(os.access(each, os.W_OK) for each in _hierarchies()) and any(_hierarchies())


def enter(plan: Plan, host: HostPlan) -> None:
    """Put this process into the groups of a host.

    Raises:
        OSError: the kernel does not permit it.
    """
    for hierarchy in _hierarchies():
        group = hierarchy / plan.prefix / host.name
        group.mkdir(parents=True, exist_ok=True)
        # 0 is the process that writes, whatever its number is in this namespace.
        (group / "cgroup.procs").write_text("0\n")


def groups_left(plan: Plan) -> list[Path]:
    return [group for hierarchy in _hierarchies() if (group := hierarchy / plan.prefix).exists()]


def pids(plan: Plan, host: HostPlan | None = None) -> set[int]:
    """The processes in the groups of a host, or of all hosts."""
    found = set()
    for group in groups_left(plan):
        for file in (group / host.name if host else group).rglob("cgroup.procs"):
            # A group may go while it is read; 0 stands for processes that are not of this namespace.
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in file.read_text().split()}
    return found - {0}


def remove(plan: Plan) -> None:
    """Remove the groups, as far as nobody is in them."""
    for group in groups_left(plan):
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def memory_of(plan: Plan, host: HostPlan) -> int | None:
    """Bytes that a host has, as the kernel counts them; None where it does not."""
    for group in groups_left(plan):
        for name in ("memory.usage_in_bytes", "memory.current"):
            with contextlib.suppress(OSError, ValueError):
                return int((group / host.name / name).read_text())
    return None
