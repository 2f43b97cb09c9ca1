"""What hosts leave on the machine, and how it ends: also what a crash left at any moment.

Nothing is kept in a record that could be wrong: all that belongs to a place is known by its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psutil

from . import cgroups, limits, wiring
from .plan import HostPlan, Plan
from .programs import HostsError, until

__all__ = ["cut_power", "end", "leftovers"]

# Seconds to power off in order; and for the kernel to take away what was killed.
_ORDERLY = 5.0
_ENDING = 15.0
# The modules that run with the place in their command line.
_MARKS = (".supervisor", ".boot")


def cut_power(plan: Plan, host: HostPlan) -> None:
    """Kill all that makes a host run, at once.

    Raises:
        HostsError: the kernel does not end it.
    """

    def living() -> set[int]:
        own = {each.pid for each in _marked(plan, _MARKS) if each.info["cmdline"][-1] == host.name}
        return own | cgroups.pids(plan, host)

    if not until(lambda: not _killed(living()), _ENDING):
        raise HostsError(f"{host.name} was killed and still runs: see what its processes wait for.")


def end(plan: Plan) -> None:
    """End and remove all that belongs to a place; hosts that run power off in order.

    Raises:
        HostsError: something is left.
    """
    _require_own(plan)
    for process in _marked(plan, _MARKS[:1]):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    until(lambda: not any(_marked(plan, _MARKS)), _ORDERLY)
    until(lambda: not _killed(_processes(plan)), _ENDING)
    wiring.tear_down(plan)
    until(lambda: _gone(cgroups.remove, plan), _ENDING)
    limits.restore(plan)
    if plan.place.exists():
        _empty(plan)
    if not until(lambda: not leftovers(plan), _ENDING):
        left = ", ".join(leftovers(plan))
        raise HostsError(f"Of the hosts of {plan.place} there is left: {left}. End that by hand, then say down again.")


def leftovers(plan: Plan) -> list[str]:
    """What is on the machine of the hosts of a place; nothing after `end`."""
    found: dict[str, Collection[object]] = {
        "process": sorted(_processes(plan)),
        "mount": _mounts(plan),
        "network namespace": wiring.namespaces_left(plan),
        "link": wiring.links_left(plan),
        "control group": cgroups.groups_left(plan),
        "note": limits.notes_left(plan),
        "directory": sorted(plan.place.glob("*")),
    }
    return [f"{what} {each}" for what, some in found.items() for each in some]


def _gone(remove: Callable[[Plan], None], plan: Plan) -> bool:
    remove(plan)
    return not cgroups.groups_left(plan)


def _require_own(plan: Plan) -> None:
    """All of the directory goes: nobody's home is to be one by mistake. The base comes first, and goes last."""
    if plan.place.exists() and any(plan.place.iterdir()) and not plan.base.is_symlink():
        raise HostsError(f"{plan.place} is no directory of hosts, and not empty: name another one with --place.")


def _empty(plan: Plan) -> None:
    for each in sorted(plan.place.iterdir(), key=plan.base.__eq__):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _marked(plan: Plan, marks: tuple[str, ...]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(plan.place) in words and any(word.endswith(marks) for word in words):
            yield process


def _processes(plan: Plan) -> set[int]:
    """Those of the hosts, and others in their network namespaces; but for this one and those that wait for it."""
    found = {process.pid for process in _marked(plan, _MARKS)} | cgroups.pids(plan) | set(_in_namespaces(plan))
    return found - {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}


def _in_namespaces(plan: Plan) -> Iterator[int]:
    ours = {Path("/run/netns", name).stat().st_ino for name in wiring.namespaces_left(plan)}
    for pid in psutil.pids() if ours else ():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/ns/net").stat().st_ino in ours:
                yield pid


def _mounts(plan: Plan) -> list[str]:
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
            found |= {where for line in lines if (where := line.split()[4]).startswith(f"{plan.place}/")}
    return sorted(found)


def _killed(pids: set[int]) -> set[int]:
    """The same processes, of which none was spared."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids
