"""Programs of the machine, run to their end; and waiting that has an end."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["HostsError", "died_with_us", "run", "until"]

_LOOK_AGAIN = 0.05
_LAST_WORDS = 300


class HostsError(Exception):
    """Why hosts cannot be had or do not answer: one sentence with the thing, the cause and the next step."""


def run(command: Sequence[str | Path], *, stdin: str = "", timeout: float = 60.0, cwd: Path | None = None) -> str:
    """Run a program to its end; what it wrote on its standard output.

    Raises:
        HostsError: it is missing, failed or took longer.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=timeout, cwd=cwd)
    except FileNotFoundError:
        raise HostsError(f"The program {words[0]} is missing: install it with `make packages`.") from None
    except subprocess.TimeoutExpired:
        raise HostsError(f"`{' '.join(words)}` took longer than {timeout:g} seconds: see what keeps it.") from None
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip() or "nothing").split())[-_LAST_WORDS:]
        raise HostsError(f"`{' '.join(words)}` ended with {done.returncode} and said: {said}")
    return done.stdout


def died_with_us(command: Sequence[str | Path]) -> list[str | Path]:
    """The command of a process that the kernel kills when the thread that starts it is gone."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came to hold in this time."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(_LOOK_AGAIN)
    return True
