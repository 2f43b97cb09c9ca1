"""Whether the control server may change packet filters, and whether nft and the kernel take what is meant for them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final

from scistream.engines.host import find_program

__all__ = ["STATUS", "is_privileged", "privilege_shortfall", "takes"]

STATUS: Final = Path("/proc/self/status")
"""What the kernel tells of this process: proc(5)."""

_NET_ADMIN: Final = 1 << 12
_TIMEOUT: Final = 20.0
# Seconds after which what the kernel did not take is asked again: somebody may load a module, or upgrade nft.
_AGAIN: Final = 60.0
_answers: Final[dict[str, tuple[bool, float]]] = {}


def privilege_shortfall(status: Path | None = None) -> str:
    """What this process lacks for changing packet filters and queues, in a sentence; empty where it may."""
    if is_privileged((status or STATUS).read_text(), root=os.geteuid() == 0):
        return ""
    return (
        "the control server has not the capability CAP_NET_ADMIN "
        "(root has it; its unit: AmbientCapabilities=CAP_NET_ADMIN)"
    )


def is_privileged(status: str, *, root: bool) -> bool:
    """Whether our programs can change the network, from /proc/self/status; others than root have to hand it on."""
    wanted = "CapEff:" if root else "CapAmb:"
    held = next((line.split()[1] for line in status.splitlines() if line.startswith(wanted)), "0")
    return bool(int(held, 16) & _NET_ADMIN)


def takes(commands: str) -> bool:
    """Whether nft and this kernel take such commands; nothing is changed. It runs a program where it does not know.

    What they take, they take for good; what they do not is asked again after a minute.
    """
    able, asked = _answers.get(commands, (False, float("-inf")))
    if not able and time.monotonic() - asked > _AGAIN:
        able = _check(commands)
        _answers[commands] = able, time.monotonic()
    return able


def _check(commands: str) -> bool:
    nft = find_program(("nft",)) or "nft"
    try:
        done = subprocess.run(
            [nft, "--check", "--file", "-"],
            input=commands.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            check=False,
        )
    except (subprocess.SubprocessError, OSError):
        return False
    return done.returncode == 0
