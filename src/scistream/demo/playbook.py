"""One run of `ansible-playbook`, in a process group of its own, that can be interrupted for certain."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import psutil

from scistream.demo.leash import leashed

__all__ = ["Playbook"]

# Seconds between an interrupt and the next, stronger one.
_PATIENCE: Final = 3.0
_LOOK_EVERY: Final = 0.5
# In the environment of a playbook and of all that it starts: which run they are of.
_RUN: Final = "SCISTREAM_DEMO_RUN"
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
        self._command = [sys.executable, "-c", _ANSIBLE_PLAYBOOK, *options, str(path)]
        self._run = str(uuid.uuid4())
        self._process = subprocess.Popen(
            leashed(self._command, signal.SIGINT),
            cwd=root,
            env={**environment, _RUN: self._run},
            stdin=subprocess.DEVNULL,
            stdout=_heard(sys.stdout),
            stderr=_heard(sys.stderr),
            process_group=0,
        )
        self._is_heard = not _is_gone(sys.stdout)

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
            os.killpg(self._process.pid, signal.SIGINT)

    def end(self) -> int:
        """After `interrupt`: the exit code, when it and its workers have ended, whatever that takes."""
        # Ansible can lose the first interrupt; at the second it has its handler no more.
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
                break
            self._signal(number)
        code = self._process.wait()
        self._end_workers()
        return code

    def _end_workers(self) -> None:
        """End the workers that Ansible had just forked when it was interrupted, or that lost what it passed on."""
        # A worker passes the interrupt to what it runs; what does not take it is ended when no worker can start more.
        for number in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
            left = self._find_left()
            for process in left:
                # psutil signals no other process that got the number meanwhile.
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            psutil.wait_procs(left, _PATIENCE)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _find_left(self) -> list[psutil.Process]:
        """The workers, forks of Ansible with its command line, and all that runs in their sessions.

        A control server, a data server and an SSH connection that the playbook started lead sessions of their own.
        """
        return [one for one in psutil.process_iter() if self._is_of_run(one) and self._is_of_worker(one)]

    def _is_of_worker(self, process: psutil.Process) -> bool:
        if self._is_worker(process):
            return True
        try:
            leader = psutil.Process(os.getsid(process.pid))
            return leader.status() == psutil.STATUS_ZOMBIE or (self._is_of_run(leader) and self._is_worker(leader))
        except (psutil.NoSuchProcess, ProcessLookupError):
            # The worker ended first: no other session of a playbook outlives its leader.
            return process.is_running()

    def _is_worker(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.cmdline() == self._command
        return False

    def _is_of_run(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.environ().get(_RUN) == self._run
        return False


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
