"""Run a command that ends when its parent ends: `python -m scistream.demo.leash PID SIGNAL COMMAND...`.

PID is the parent's, SIGNAL the number of the signal that the command gets. The leash outlasts the exec (prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["leashed", "main"]

# linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
# What a shell says of a command that it cannot find.
_NOT_FOUND: Final = 127


def leashed(command: Sequence[str], end_with: signal.Signals = signal.SIGKILL) -> list[str]:
    """A command that runs another one, and ends it with a signal when the calling process ends."""
    return [sys.executable, "-m", "scistream.demo.leash", str(os.getpid()), str(int(end_with)), *command]


def main(arguments: Sequence[str]) -> int:
    """Put this process on the leash, then become the command; returns only where that fails."""
    parent, number, *command = arguments
    # No traceback where it is interrupted on the way; the command begins with the system's own reactions.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0):
        sys.stderr.write(f"cannot tie {command[0]} to its parent: {os.strerror(ctypes.get_errno())}\n")
        return 1
    if os.getppid() != int(parent):
        # It ended before the leash was on.
        return 1
    try:
        os.execvp(command[0], command)  # noqa: S606 - a list, and no shell
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
    return _NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
