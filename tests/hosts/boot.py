"""Boots one host: `python -m hosts.boot PLACE NAME`, as process 1 of a process and a mount namespace (supervisor.py).

The host's root is an overlay of its own directory over the base image. All mounts are made in here, and go with it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from . import cgroups
from .plan import HostPlan, Plan, plan_of
from .programs import run

__all__: list[str] = []

_RUNNING = Path("/run/systemd/nspawn")
# The host sees one hierarchy of control groups, and may set what is its network's.
_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
# A host that has nothing but sshd, below a process 1 that waits for what is left of its sessions.
_BARE = ("--as-pid2", "/bin/sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D")


def _root(plan: Plan, host: HostPlan) -> Path:
    directory = plan.directory(host)
    parts = {"lowerdir": plan.base.resolve(), "upperdir": directory / "upper", "workdir": directory / "work"}
    root = directory / "root"
    options = ",".join(f"{key}={value}" for key, value in parts.items())
    run(["mount", "-t", "overlay", "-o", options, "overlay", root])
    return root


def _command(plan: Plan, host: HostPlan, root: Path) -> list[str]:
    return [
        *("systemd-nspawn", "--quiet", "-D", str(root), "-M", f"{plan.tag}-{host.hostname}"),
        *(f"--hostname={host.hostname}", "--register=no", "--keep-unit"),
        f"--network-namespace-path=/run/netns/{plan.namespace(host)}",
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
        f"--bind-ro={plan.packages.resolve()}:/srv/debs",
        "--capability=CAP_NET_ADMIN",
        *(_BARE if plan.bare(host).exists() else ("--boot",)),
    ]


def _main() -> None:
    # Process 1 of a namespace heeds only what it has asked for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    place, name = sys.argv[1:]
    plan, host = Plan.found(Path(place)), plan_of(name)
    cgroups.enter(plan, host)
    # What systemd-nspawn notes of a host there is gone with it.
    _RUNNING.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "tmpfs", _RUNNING])
    command = _command(plan, host, _root(plan, host))
    os.execvpe(command[0], command, os.environ | _ENVIRONMENT)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    _main()
