"""Real hosts on this machine: systemd as process 1, sshd, apt, addresses of their own.

    from hosts import Hosts, require

    require()
    with Hosts(tmp_path / "hosts") as hosts:
        hosts["gateway_a"].run(["systemctl", "is-system-running"])
        hosts["gateway_b"].reboot()

Where they are, stands in plan.py. Users are root, operator (sudo without a password) and scientist.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import image, leftovers, limits, supervisor, wiring
from .abilities import NO_ROOT, lacking
from .guard import Guard
from .image import Say
from .plan import SSH, HostPlan, Plan
from .programs import HostsError, run, until

__all__ = ["Host", "Hosts"]

# Seconds until a host answers, or answers again; and that another command may take.
_BOOT = 60.0
_TURN = 120.0
# Hosts that something is done to at one time.
_AT_ONCE = 8
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# ssh's own code, where there was no connection.
_NO_CONNECTION = 255


class Host:
    """One of them.

    Attributes:
        name: as in an inventory.
        addresses: by network: ssh, instrument, wan, compute.
        namespace: its network namespace, as `ip netns exec` takes it. Each boot has a new one of the same name.
    """

    def __init__(self, plan: Plan, host: HostPlan) -> None:
        self._plan = plan
        self._host = host
        self.name = host.name
        self.addresses: Mapping[str, str] = host.addresses
        self.namespace = plan.namespace(host)

    def answers(self) -> bool:
        """Whether somebody who is not root can log in."""
        return self._boot_id() is not None

    @property
    def is_on(self) -> bool:
        """Whether it has power; not, whether it answers."""
        return supervisor.is_on(self._plan, self._host)

    @property
    def networks_cut(self) -> list[str]:
        return [each for each in self.addresses if not wiring.is_connected(self._plan, self._host, each)]

    def ssh(self, *words: str, user: str = "root") -> list[str]:
        """The command that runs another one there, whose words are taken as they are."""
        return ["ssh", "-F", str(self._plan.ssh_config), "-l", user, self.name, *([shlex.join(words)] if words else [])]

    def popen(self, command: Sequence[str], *, user: str = "root", **options: Any) -> subprocess.Popen[Any]:
        """Start a command there; `options` are those of `subprocess.Popen`."""
        return subprocess.Popen(self.ssh(*command, user=user), **options)

    def run(
        self, command: Sequence[str], *, user: str = "root", timeout: float = 60.0, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end.

        Raises:
            HostsError: it failed (with `check`), it took longer than `timeout` seconds, or the host does not answer.
        """
        said = f"{self.name}: `{shlex.join(command)}`"
        try:
            done = subprocess.run(
                self.ssh(*command, user=user), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise HostsError(f"{said} took longer than {timeout:g} seconds.") from None
        if done.returncode == _NO_CONNECTION or (check and done.returncode):
            raise HostsError(f"{said} ended with {done.returncode} and said: {(done.stderr or done.stdout).strip()}")
        return done

    def copy(self, source: Path, target: str, *, user: str = "root") -> None:
        """Copy a file or a directory to the host.

        Raises:
            HostsError: it cannot be read or written.
        """
        self._scp(str(source), f"{user}@{self.name}:{target}")

    def fetch(self, source: str, target: Path, *, user: str = "root") -> None:
        """Copy a file or a directory from the host.

        Raises:
            HostsError: it cannot be read or written.
        """
        self._scp(f"{user}@{self.name}:{source}", str(target))

    def _scp(self, source: str, target: str) -> None:
        run(["scp", "-F", str(self._plan.ssh_config), "-rpq", source, target])

    def reboot(self) -> None:
        """Reboot it, and wait until it answers.

        Raises:
            HostsError: it did not answer before, or does not afterwards.
        """
        before = self.run(["cat", _BOOT_ID]).stdout
        # The connection may end before its answer.
        with contextlib.suppress(HostsError):
            self.run(["systemctl", "reboot"], check=False)
        self._until(lambda: self._boot_id() not in {None, before}, "came back")

    def kill(self) -> None:
        """Take its power and its cables away at once: nobody hears of it any more.

        What it has written to its disk is there when it is started again.

        Raises:
            HostsError: it still runs.
        """
        wiring.unplug(self._plan, self._host)
        leftovers.cut_power(self._plan, self._host)
        wiring.unplug(self._plan, self._host)

    def start(self, *, systemd: bool = True) -> None:
        """Give it power again, and wait until it answers.

        Args:
            systemd: whether that is its process 1; else it runs sshd and nothing beside.

        Raises:
            HostsError: it does not.
        """
        mark = self._plan.bare(self._host)
        mark.unlink(missing_ok=True) if systemd else mark.touch()
        supervisor.begin(self._plan, self._host)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            HostsError: it does not.
        """
        self._until(self.answers, "answered on SSH")

    def cut(self, *networks: str) -> None:
        """Pull its cables in these networks; without any, in all but that for SSH.

        Raises:
            HostsError: it is not in such a network.
        """
        self._connect(networks, up=False)

    def mend(self, *networks: str) -> None:
        """Put its cables back in these networks; without any, in all.

        Raises:
            HostsError: it is not in such a network.
        """
        self._connect(networks or tuple(self.addresses), up=True)

    def _connect(self, networks: Sequence[str], *, up: bool) -> None:
        for network in networks or [each for each in self.addresses if each != SSH]:
            wiring.connect(self._plan, self._host, network, up=up)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        if until(lambda: condition() or not self.is_on, _BOOT) and self.is_on:
            return
        console = self._plan.console(self._host)
        words = console.read_text(errors="replace").split("\n") if console.exists() else []
        last = next((line.strip() for line in reversed(words) if line.strip()), "nothing")
        state = f"has not {what} within {_BOOT:g} seconds" if self.is_on else "is off"
        raise HostsError(f"{self.name} {state}; its console ({console}) says last: {last}")

    def _boot_id(self) -> str | None:
        # ssh would wait for long where nobody listens yet.
        with contextlib.suppress(OSError, HostsError, subprocess.TimeoutExpired):
            socket.create_connection((self.addresses[SSH], 22), timeout=0.5).close()
            return self.run(["cat", _BOOT_ID], user="operator", timeout=10).stdout
        return None


class Hosts(Mapping[str, Host]):
    """All hosts of a place, by name: up while the context lasts.

    They are gone as well when the process is killed. `up` and `down` without the context are for hosts that stay.

    Args:
        place: the directory of their state, which is removed with them: ssh_config, id_ed25519, known_hosts; packages,
            the directory that the hosts see as /srv/debs; hosts/NAME/console.log.
        more: how many light hosts beside the four, fleet_01 and on, in the network for SSH alone.
        say: is told what takes long.

    Attributes:
        plan: what stands for them on the machine.
    """

    def __init__(self, place: Path, *, more: int = 0, say: Say = lambda _: None) -> None:
        self._set(Plan.at(place, more))
        self._say = say
        self._guard: Guard | None = None

    @classmethod
    def found(cls, place: Path) -> Self:
        """Those that were made at a place before.

        Raises:
            HostsError: there are none.
        """
        hosts = cls(place)
        hosts._set(Plan.found(place))
        if not len(hosts):
            raise HostsError(f"There are no hosts at {place}: `python -m tests.hosts up` makes them.")
        return hosts

    def _set(self, plan: Plan) -> None:
        self.plan = plan
        self._hosts = {host.name: Host(plan, host) for host in plan.hosts}

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def place(self) -> Path:
        return self.plan.place

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`."""
        return self.plan.ssh_config

    @property
    def packages(self) -> Path:
        """The packages that the hosts can install, with apt's index of them."""
        return self.plan.packages.resolve()

    def __enter__(self) -> Self:
        self._guard = Guard(self.place)
        try:
            return self.up()
        except BaseException:
            self._guard.dismiss()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()
        if self._guard is not None:
            self._guard.dismiss()

    def up(self) -> Self:
        """Make them anew, and wait until all of them answer. Where that fails, nothing is left.

        Raises:
            HostsError: they cannot be made here, or one does not answer.
        """
        if reason := lacking():
            raise HostsError(reason)
        with _turn(self.place):
            try:
                self._make()
            except BaseException:
                leftovers.end(self.plan)
                raise
        return self

    def down(self) -> None:
        """Take them down, and whatever a crash has left of them.

        Raises:
            HostsError: something is left, or this user is not root.
        """
        if os.geteuid() != 0:
            raise HostsError(NO_ROOT)
        with _turn(self.place):
            leftovers.end(self.plan)

    def all(self, do: Callable[[Host], object]) -> None:
        """Do something to each of them, with some at a time.

        Raises:
            HostsError: what the first one said that failed.
        """
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(do, self.values()))

    def _make(self) -> None:
        # Here and not in the head: what supervises a host needs no cryptography.
        from . import keys

        plan = self.plan
        leftovers.end(plan)
        base, packages = image.base(self._say), image.packages(self._say)
        plan.base.symlink_to(base)
        plan.packages.symlink_to(packages)
        for host in plan.hosts:
            for name in ("upper", "work", "root"):
                (plan.directory(host) / name).mkdir(parents=True)
        keys.write(plan)
        limits.lift(plan)
        wiring.build(plan)
        self._say("The hosts boot")
        for host in plan.hosts:
            supervisor.begin(plan, host)
        self.all(Host.wait)
        # Without lists, apt's modules take them for fresh.
        self.all(lambda host: host.run(["apt-get", "-qq", "update"]))


@contextlib.contextmanager
def _turn(place: Path) -> Iterator[None]:
    """One command after the other at a place. Who is killed gives its turn away; nothing is left of it."""
    mask = os.umask(0o022)
    try:
        descriptor = _locked(place)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                place.rmdir()
            os.close(descriptor)
    finally:
        os.umask(mask)


def _locked(place: Path) -> int:
    descriptors: list[int] = []

    def locked() -> bool:
        place.mkdir(parents=True, exist_ok=True)
        descriptors.append(os.open(place, os.O_RDONLY | os.O_CLOEXEC))
        with contextlib.suppress(OSError):
            fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed it.
            if place.stat().st_ino == os.fstat(descriptors[-1]).st_ino:
                return True
        os.close(descriptors.pop())
        return False

    if not until(locked, _TURN):
        raise HostsError(f"Another command is at work on the hosts of {place}: wait for its end, then again.")
    return descriptors[0]
