"""Data servers as children of this process.

Not asyncio's: its transports kill the child when the loop closes, and a data server outlives the control server.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from typing import Final

from scistream.engines.base import Plan
from scistream.engines.marks import ProcessMark
from scistream.engines.processes import ProcessFacts

__all__ = [
    "ProcessMark",
    "alive",
    "ending",
    "environment",
    "farewell",
    "present",
    "raise_descriptor_limit",
    "reap",
    "spawn",
]

# Open files that a data server gets where the host allows as many; the usual soft limit of 1024 ends at 500 streams.
_DESCRIPTORS: Final = 65536
# How the control server was started is no data server's business, its secrets even less.
_FOREIGN_ENVIRONMENT: Final = ("SCISTREAM_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_", "NGINX")

# Who ends a data server holds its mark only; but a parent has to ask for a child's status, or it stays as a zombie.
_children: Final[dict[int, subprocess.Popen[bytes]]] = {}


def alive(mark: ProcessMark) -> bool:
    """Whether the very process runs: not another one with its pid, and not its zombie."""
    facts = ProcessFacts.of(mark.pid)
    return facts is not None and facts.started == mark.started and not facts.gone


def present(mark: ProcessMark) -> bool:
    """Whether the process is there, be it as a zombie."""
    facts = ProcessFacts.of(mark.pid)
    return facts is not None and facts.started == mark.started


def spawn(command: list[str], plan: Plan) -> ProcessMark:
    """Run a command in a session of its own, in the plan's directory, with the log as its output.

    Raises:
        OSError: it cannot be run.
    """
    raise_descriptor_limit()
    with plan.path("log").open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=plan.directory,
            env=environment(),
            start_new_session=True,
            umask=0o077,
        )
    _children[child.pid] = child
    facts = ProcessFacts.of(child.pid)
    assert facts is not None, "a child that nobody has waited for is there, be it as a zombie"  # noqa: S101
    return ProcessMark(child.pid, facts.started)


def environment() -> dict[str, str]:
    """What a data server gets of this process's environment."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_ENVIRONMENT)}


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files, which children inherit, as far as is useful and allowed.

    The control server needs it itself: each reserved port, pending call and connection is a descriptor.
    """
    # Raising our own is the way that needs no code between fork and exec.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def ending(mark: ProcessMark) -> str | None:
    """How a child ended, or None while it runs. It stays as a zombie, and so its pid remains its own."""
    result = os.waitid(os.P_PID, mark.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return f"exit status {result.si_status}"
    return f"signal {signal.Signals(result.si_status).name}"


def reap(mark: ProcessMark) -> bool:
    """Take leave of a process; False where it is a child that still runs. Another's child is another's to reap."""
    child = _children.get(mark.pid)
    if child is None:
        return True
    if child.poll() is None:
        return False
    del _children[mark.pid]
    return True


def farewell(mark: ProcessMark) -> str | None:
    """How a child ended, and its reaping; None where it runs, or is another's child."""
    if mark.pid not in _children:
        return None
    how = ending(mark)
    reap(mark)
    return how
