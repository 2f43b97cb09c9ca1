"""Takes hosts down when whoever had them is gone.

Its standard input is its life line. A word on it says that the hosts are down; its end without one, that the process
was killed that would have taken them down.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Guard", "main"]

_TESTS = Path(__file__).parents[1]
# Not `-m`: the package imports this module, and it would be there twice.
_PROGRAM = "from hosts.guard import main; main()"


class Guard:
    """The one of this process' hosts."""

    def __init__(self, place: Path) -> None:
        # Of a session of its own: what ends the caller's group must not end the one that cleans up.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(place)],
            stdin=subprocess.PIPE,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(_TESTS)},
            start_new_session=True,
        )

    def dismiss(self) -> None:
        self._process.communicate(b"down")


def main() -> None:
    """The guard's process."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    from .hosts import Hosts

    Hosts(Path(sys.argv[1])).down()
