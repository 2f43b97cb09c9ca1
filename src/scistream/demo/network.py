"""Two facilities as four hosts on one machine, each a network namespace: application, gateway, gateway, target.

    with Network("test") as network:
        network.target.popen(["iperf3", "--server"])
        network.application.run(["iperf3", "--client", network.target.addresses[0]])

| host | towards the application | towards the target |
| --- | --- | --- |
| application | | 198.18.1.1, 2001:db8:1::1 |
| outbound_gateway | 198.18.1.2, 2001:db8:1::2 | 198.18.2.1, 2001:db8:2::1 |
| inbound_gateway | 198.18.2.2, 2001:db8:2::2 | 198.18.3.1, 2001:db8:3::1 |
| target | 198.18.3.2, 2001:db8:3::2 | |

A host's interface is called `near` where it looks towards the application, `far` where it looks towards the target.
Each host knows a way to every other one; only the gateways forward; there is no way out. The namespaces have no names,
so that any number of networks stand at once, and nothing is left of one whose process was killed (`namespaces`).
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scistream.demo.namespaces import entered, inside
from scistream.engines.host import find_program
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["Host", "Network"]

# Link n joins host n - 1, there the interface `far`, and host n, there the interface `near`.
_LINKS: Final = (1, 2, 3)
_NAMES: Final = ("application", "outbound gateway", "inbound gateway", "target")
# By IP version: a link's network, and the address of its first or second end.
_NETWORK: Final = {4: "198.18.{}.0/24", 6: "2001:db8:{}::/64"}
_ADDRESS: Final = {4: "198.18.{}.{}", 6: "2001:db8:{}::{}"}
_SYSTEM: Final = Path("/proc/sys/net")
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
# Seconds that the kernel gets to end what runs on the hosts.
_ENDING: Final = 20.0


@dataclass(frozen=True)
class Host:
    """One of the four.

    Attributes:
        name: what it is called in errors.
        addresses: its IPv4 addresses, the one towards the application first.
        addresses_v6: its IPv6 addresses, likewise.
        namespace: the kernel's file for its network namespace, as `nsenter --net=` takes it; good while the network is.
    """

    name: str
    addresses: tuple[str, ...]
    addresses_v6: tuple[str, ...]
    namespace: Path

    def entered(self) -> AbstractContextManager[None]:
        """Take the calling thread onto this host, for the time of the context: see `namespaces.entered`.

        `with host.entered(): asyncio.run(...)` runs code of the library here, in the main thread or in one of its own.
        """
        return entered(self.namespace)

    def command(self, command: Sequence[str]) -> list[str]:
        """A command that runs another one on this host, for whoever starts processes in ways of their own."""
        return ["nsenter", f"--net={self.namespace}", "--", *command]

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process on this host, which ends when the network does. `options` are those of `subprocess.Popen`."""
        with self.entered():
            return subprocess.Popen(command, **options)

    def run(self, command: Sequence[str], *, timeout: float = 30.0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end; its output is text.

        Args:
            command: the program and its arguments.
            timeout: seconds.
            options: others of `subprocess.run`; `check=False` where it may fail.

        Raises:
            subprocess.CalledProcessError: it failed.
            subprocess.TimeoutExpired: it took longer, and was killed.
        """
        standard: dict[str, Any] = {"check": True, "capture_output": True, "text": True}
        with self.entered():
            return subprocess.run(command, timeout=timeout, **(standard | options))  # noqa: PLW1510 - as given

    def pids(self) -> list[int]:
        """The processes that run on this host, but for the one that keeps the network."""
        keeper = int(self.namespace.parts[2])
        return [pid for pid in inside([self.namespace.stat().st_ino]) if pid != keeper]

    def set(self, key: str, value: object) -> None:
        """Set one of the kernel's network settings on this host alone, as `ipv4/ip_local_port_range`.

        Raises:
            OSError: there is no such setting, or it does not take this value.
        """
        with self.entered():
            (_SYSTEM / key).write_text(f"{value}\n")


class Network:
    """The four hosts and what is between them, while the context lasts.

    Leaving it ends every process that still runs on one of the hosts, but never the caller; LEFT_BEHIND is raised where
    one does not end.

    Args:
        name: tells whose it is, in the command line of the process that keeps it.
        congestion: the congestion control of every route, as `cubic`; None for the machine's default.
    """

    application: Host
    outbound_gateway: Host
    inbound_gateway: Host
    target: Host

    def __init__(self, name: str, *, congestion: str | None = None) -> None:
        self._name = name
        self._congestion = congestion
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def hosts(self) -> tuple[Host, Host, Host, Host]:
        """All of them, from the application to the target."""
        return self.application, self.outbound_gateway, self.inbound_gateway, self.target

    def __enter__(self) -> Self:
        """Build it.

        Raises:
            SciStreamError: NETWORK_UNAVAILABLE, as where this user is not root; nothing is left then.
        """
        self._ip = _program()
        self._keeper = _keeper(self._name)
        try:
            self._take_place(self._keeper)
            self._join()
        except OSError as error:
            self._end()
            raise _unavailable(str(error)) from None
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            keeper.communicate(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            # Something inside heeds no SIGKILL. Without its keeper, the network goes when that does.
            keeper.kill()
            keeper.wait()
            raise SciStreamError(Code.LEFT_BEHIND, what=f"a process of the network {self._name}") from None

    def _take_place(self, keeper: subprocess.Popen[bytes]) -> None:
        if keeper.stdout is None or keeper.stderr is None:
            raise AssertionError("the keeper was started with pipes")
        descriptors = keeper.stdout.readline().split()
        if len(descriptors) != len(_NAMES):
            raise _unavailable(keeper.stderr.read().decode(errors="replace") or "its keeper ended at once")
        hosts = [_host(index, Path(f"/proc/{keeper.pid}/fd/{int(each)}")) for index, each in enumerate(descriptors)]
        self.application, self.outbound_gateway, self.inbound_gateway, self.target = hosts

    def _join(self) -> None:
        for host in self.hosts:
            # No second's wait until an address is good: nobody else has it.
            host.set("ipv6/conf/default/dad_transmits", 0)
        for host, onward in itertools.pairwise(self.hosts):
            self._tell(host, [f"link add far type veth peer near netns {onward.namespace}"])
        for index, host in enumerate(self.hosts):
            for key in _FORWARDING:
                host.set(key, int(host in (self.outbound_gateway, self.inbound_gateway)))
            self._tell(host, ["link set lo up", *_interfaces(index), *self._routes(index)])

    def _tell(self, host: Host, lines: Iterable[str]) -> None:
        done = host.run([str(self._ip), "-batch", "-"], input="\n".join(lines), check=False)
        if done.returncode:
            raise _unavailable(done.stderr)

    def _routes(self, index: int) -> Iterator[str]:
        attributes = f" congctl {self._congestion}" if self._congestion else ""
        # A neighbour is known only where the way to its link is.
        links = sorted(_LINKS, key=lambda link: link not in (index, index + 1))
        for link, version in itertools.product(links, _NETWORK):
            yield f"route add {_NETWORK[version].format(link)} {_way(index, link, version)}{attributes}"


def _keeper(name: str) -> subprocess.Popen[bytes]:
    # Of a session of its own: what ends the caller's group must not end the one that cleans up.
    return subprocess.Popen(
        [sys.executable, "-m", "scistream.demo.namespaces", name, str(len(_NAMES))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _host(index: int, namespace: Path) -> Host:
    found = [tuple(_ADDRESS[version].format(*end) for end in _ends(index)) for version in (4, 6)]
    return Host(_NAMES[index], found[0], found[1], namespace)


def _ends(index: int) -> list[tuple[int, int]]:
    """The links of a host, each with which end of it the host is."""
    return [(link, end) for link, end in ((index, 2), (index + 1, 1)) if link in _LINKS]


def _interfaces(index: int) -> Iterator[str]:
    for link, end in _ends(index):
        device = _device(index, link)
        yield f"link set {device} up"
        # The routes are ours to make, with their attributes.
        yield f"address add {_ADDRESS[4].format(link, end)}/24 dev {device} noprefixroute"
        yield f"address add {_ADDRESS[6].format(link, end)}/64 dev {device} noprefixroute nodad"


def _device(index: int, link: int) -> str:
    return "near" if link <= index else "far"


def _way(index: int, link: int, version: int) -> str:
    """How a host comes to a link: it has an end of it, or its neighbour knows."""
    device = _device(index, link)
    if link in (index, index + 1):
        return f"dev {device}"
    neighbour = (index, 1) if link < index else (index + 1, 2)
    return f"via {_ADDRESS[version].format(*neighbour)} dev {device}"


def _program() -> Path:
    program = find_program(("ip",))
    if program is None:
        raise _unavailable("there is no program ip (package iproute2)")
    return program


def _unavailable(reason: str) -> SciStreamError:
    return SciStreamError(Code.NETWORK_UNAVAILABLE, reason=one_line(reason))
