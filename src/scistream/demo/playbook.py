"""One run of `ansible-playbook`, in a process group of its own, that can be interrupted for certain."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import psutil

from scistream.demo.leash import leashed

__all__ = ["Playbook"]

# Seconds between an interrupt and the next, stronger one.
_PATIENCE: Final = 3.0
_LOOK_EVERY: Final = 0.5
# What the command ansible-playbook does. An interrupt during its imports is no error: nothing has been started then.
_ANSIBLE_PLAYBOOK: Final = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
from ansible.cli.playbook import main
sys.exit(main())
"""


class Playbook:
    """A playbook that runs. It ends with this process also where that is killed.

    Args:
        path: the playbook.
        inventories: what tells it of the gateways; the later one wins.
        root: the checkout, where it runs.
        environment: all of its environment.
    """

    def __init__(self, path: Path, inventories: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        options = [word for inventory in inventories for word in ("-i", inventory)]
        command = [sys.executable, "-c", _ANSIBLE_PLAYBOOK, *options, str(path)]
        self._process = subprocess.Popen(
            leashed(command, signal.SIGINT),
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=_heard(sys.stdout),
            stderr=_heard(sys.stderr),
            process_group=0,
        )
        self._is_heard = not _is_gone(sys.stdout)
        self._workers: Sequence[psutil.Process] = ()

    @property
    def is_mute(self) -> bool:
        """Whether it lost the reader of its output. Ansible hangs then: the thread that takes its results ends."""
        return self._is_heard and _is_gone(sys.stdout)

    def wait(self) -> int | None:
        """The exit code, or None where it still runs after a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_LOOK_EVERY)
        return None

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does; its workers are sessions of their own, and Ansible passes it on."""
        if self._process.poll() is None:
            self._workers = self._find_workers()
            os.killpg(self._process.pid, signal.SIGINT)

    def end(self) -> int:
        """After `interrupt`: the exit code, when it and its workers have ended, whatever that takes."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._ended(_PATIENCE)
        # Ansible can lose the first interrupt; at the second it has its handler no more.
        self._signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._ended(_PATIENCE)
        self._signal(signal.SIGKILL)
        return self._ended(None)

    def _ended(self, seconds: float | None) -> int:
        code = self._process.wait(seconds)
        for worker in self._workers:
            # psutil signals no other process that got the number meanwhile.
            with contextlib.suppress(psutil.Error):
                worker.kill()
        return code

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _find_workers(self) -> list[psutil.Process]:
        """Ansible's workers are forks of it, with its command line; a control server that it just started is none."""
        with contextlib.suppress(psutil.Error):
            main = psutil.Process(self._process.pid)
            own = main.cmdline()
            return [child for child in main.children(recursive=True) if _command(child) == own]
        return []


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def _heard(stream: IO[str]) -> int:
    """Where to write to: the stream, or nowhere once nobody reads it."""
    return subprocess.DEVNULL if _is_gone(stream) else stream.fileno()


def _is_gone(stream: IO[str]) -> bool:
    """Whether a stream's terminal or reader is gone."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):
        return True
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _descriptor, events in poll.poll(0))
