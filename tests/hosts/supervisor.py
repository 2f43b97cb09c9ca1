"""Keeps one host running: `python -m hosts.supervisor PLACE NAME`.

It gives the host a network namespace, boots it, and boots it again when it asks for a reboot. SIGTERM makes the host
power off in order. When this process is killed, so is the host: the kernel sees to it, at each step.

| process | dies when |
| --- | --- |
| supervisor | |
| unshare | the supervisor does (setpriv) |
| boot.py, then systemd-nspawn: process 1 of its process namespace | unshare does (--kill-child) |
| all of the host, with its mounts | process 1 of its namespaces does |
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil

from . import wiring
from .plan import HostPlan, Plan, plan_of
from .programs import HostsError, died_with_us, until

__all__ = ["Supervisor", "begin", "is_on"]

# systemd-nspawn's word for a host that asks to be started again.
_REBOOT = 133
# Seconds.
_MOMENT = 0.3
_TESTS = Path(__file__).parents[1]


def begin(plan: Plan, host: HostPlan) -> None:
    """Start the supervisor of a host, if it has none; it outlives whoever does so.

    Raises:
        HostsError: it cannot be started.
    """
    with plan.console(host).open("ab") as console, plan.power(host).open("ab") as power:
        # Who only looks has it for a moment too.
        if not until(lambda: _locked(power), _MOMENT):
            return
        # As a child of process 1, which waits for it.
        done = subprocess.run(
            ["/usr/bin/env", "setsid", "--fork", sys.executable, "-m", "hosts.supervisor", plan.place, host.name],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            pass_fds=[power.fileno()],
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(_TESTS), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
    if done.returncode:
        raise HostsError(f"The supervisor of {host.name} did not start: see {plan.console(host)}.")


def is_on(plan: Plan, host: HostPlan) -> bool:
    """Whether a host has a supervisor that lives."""
    try:
        with plan.power(host).open("rb") as power:
            return not _locked(power)
    except FileNotFoundError:
        return False


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Supervisor:
    """One host, for as long as it runs."""

    def __init__(self, plan: Plan, host: HostPlan) -> None:
        self._plan = plan
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def run(self) -> int:
        """Until the host has powered off; how it ended.

        Raises:
            HostsError: there is no network for it.
        """
        while True:
            wiring.plug(self._plan, self._host)
            code = self._boot()
            # Without power there is nobody at its addresses.
            wiring.unplug(self._plan, self._host)
            if code != _REBOOT or self._ending:
                return code

    def power_off(self, *_: object) -> None:
        """For SIGTERM."""
        self._ending = True
        if self._process is None:
            sys.exit()
        until(self._has_heard, _MOMENT)

    def _boot(self) -> int:
        command: list[str | Path] = [
            *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-m", "hosts.boot", self._plan.place, self._host.name),
        ]
        self._process = subprocess.Popen(died_with_us(command), stdin=subprocess.DEVNULL)
        code = self._process.wait()
        self._process = None
        return code

    def _has_heard(self) -> bool:
        # unshare heeds no SIGTERM; what it starts does, once it is there.
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._process.pid).children() if self._process else []
            for child in children:
                child.terminate()
        return bool(children)


def _main() -> int:
    place, name = sys.argv[1:]
    supervisor = Supervisor(Plan.found(Path(place)), plan_of(name))
    signal.signal(signal.SIGTERM, supervisor.power_off)
    try:
        return supervisor.run()
    except HostsError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(_main())
