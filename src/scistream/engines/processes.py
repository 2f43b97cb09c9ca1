"""Processes and listening sockets, as the kernel shows them: who is there, who listens, when it ends.

Everything here only looks or signals; `scistream.engines.lifecycle` decides. Source of the formats: proc(5).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import itertools
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

from scistream.addresses import Endpoint
from scistream.terms import Transport

__all__ = [
    "Listener",
    "ProcessFacts",
    "bind_failure",
    "catches",
    "group_of",
    "has_socket",
    "is_in_use",
    "listeners",
    "parse_listeners",
    "pauses",
    "plain_ip",
    "send",
    "socket_inodes",
    "wait_exit",
]

_PROC: Final = Path("/proc")
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.1
# By transport: the kernel's tables, and what a socket's state is there that anybody may send to.
_TABLES: Final = {Transport.TCP: (("tcp", "tcp6"), "0A"), Transport.UDP: (("udp", "udp6"), "07")}
_KINDS: Final = {Transport.TCP: socket.SOCK_STREAM, Transport.UDP: socket.SOCK_DGRAM}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class ProcessFacts:
    """One line of /proc/PID/stat.

    Attributes:
        started: clock ticks between the host's start and the process's; with the pid it is unique until a reboot.
        gone: it has ended, and its parent has not asked for its status yet.
    """

    pid: int
    started: int
    group: int
    session: int
    gone: bool

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read the line."""
        # The second field is the program's name, which may hold spaces and parentheses.
        fields = line[line.rindex(")") + 2 :].split()
        return cls(
            pid=int(line.split(maxsplit=1)[0]),
            started=int(fields[19]),
            group=int(fields[2]),
            session=int(fields[3]),
            gone=fields[0] in ("Z", "X"),
        )

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Look at a process; None where there is none."""
        try:
            return cls.parse((_PROC / str(pid) / "stat").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            return None

    def writes_to(self, path: Path) -> bool:
        """Whether its standard output is this file. False also where this user may not see it."""
        return self.output() == Path(os.path.realpath(path))

    def output(self) -> Path | None:
        """The file that is its standard output, also a removed one. None where this user may not see it."""
        try:
            output = (_PROC / str(self.pid) / "fd" / "1").readlink()
        except OSError:
            return None
        return Path(str(output).removesuffix(" (deleted)"))


def group_of(leader: int) -> list[ProcessFacts]:
    """The processes that run in the process group or the session of a number, also after the leader's end."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return []  # the usual answer at the end of a wait, without a walk over /proc
    except PermissionError:
        pass
    found = (ProcessFacts.of(pid) for pid in psutil.pids() if _belongs(pid, leader))
    return [facts for facts in found if facts and not facts.gone and leader in (facts.group, facts.session)]


def _belongs(pid: int, leader: int) -> bool:
    # A fiftieth of what reading a file of /proc takes, and the host may have thousands of processes.
    try:
        return leader in (os.getpgid(pid), os.getsid(pid))
    except ProcessLookupError:
        return False


def send(facts: ProcessFacts, number: signal.Signals) -> None:
    """Signal a process, and no other one that has got its pid meanwhile."""
    try:
        descriptor = os.pidfd_open(facts.pid)
    except ProcessLookupError:
        return
    try:
        current = ProcessFacts.of(facts.pid)
        if current and current.started == facts.started:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal; without one, most signals end it."""
    try:
        status = (_PROC / str(pid) / "status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


async def wait_exit(pid: int, seconds: float | None) -> bool:
    """Wait until a process ends, a child of ours or not; False where it still runs after so many seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True


@dataclass(frozen=True)
class Listener:
    """A TCP socket that accepts connections, or a UDP socket that takes what anybody sends."""

    ip: _Address
    port: int
    inode: int

    def is_at(self, endpoint: Endpoint) -> bool:
        """Whether it is this entry point's very address; a host name stands for any."""
        return self.port == endpoint.port and endpoint.ip in (None, self.ip)


def listeners(transport: Transport = Transport.TCP) -> Iterator[Listener]:
    """The listening sockets of this network namespace, without a connection to any."""
    tables, state = _TABLES[transport]
    for table in tables:
        try:
            with (_PROC / "net" / table).open() as lines:
                yield from parse_listeners(lines, state)
        except FileNotFoundError:
            continue  # a kernel without IPv6


def parse_listeners(lines: Iterable[str], state: str = _TABLES[Transport.TCP][1]) -> Iterator[Listener]:
    """Read /proc/net/tcp, udp or their twins of IPv6: the sockets in that state.

    The kernel puts TCP's listening sockets first: the connections need not be read.
    """
    rows = (line.split() for line in lines)
    next(rows, None)
    for row in rows:
        if row[3] == state:
            address, port = row[1].split(":")
            yield Listener(_parse_ip(address), int(port, 16), int(row[9]))
        elif state == _TABLES[Transport.TCP][1]:
            return


# A thousand entry points have few addresses, and every start reads them all.
@functools.lru_cache(maxsize=256)
def _parse_ip(text: str) -> _Address:
    """The kernel prints the address as words of 32 bits in the host's byte order."""
    words = (text[start : start + 8] for start in range(0, len(text), 8))
    return _unmapped(ipaddress.ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)))


def _unmapped(found: _Address) -> _Address:
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


def has_socket(pid: int, inode: int) -> bool:
    """Whether a process holds a socket. False also where this user may not see it."""
    return inode in socket_inodes(pid)


def socket_inodes(pid: int) -> Iterator[int]:
    """The sockets that a process holds; none where this user may not see them."""
    try:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            kind, _, rest = (_link(entry) or "").partition(":[")
            if kind == "socket":
                yield int(rest.rstrip("]"))
    except OSError:
        return


def pauses() -> Iterator[float]:
    """Seconds between two looks: first so short that a start is not slowed, then so long that waiting costs little."""
    return (min(_FIRST_PAUSE * 1.25**step, _LONGEST_PAUSE) for step in itertools.count())


def _link(entry: Path) -> str | None:
    try:
        return str(entry.readlink())
    except OSError:
        return None  # closed meanwhile


def bind_failure(endpoint: Endpoint, transport: Transport = Transport.TCP) -> OSError | None:
    """What the kernel has against a listener on an entry point, or None. Nothing listens in the meantime.

    A socket that is bound with SO_REUSEADDR and does not listen, a control server's reservation, is no hindrance. Any
    UDP socket that is bound so lets others in, and then takes their datagrams: there, another process's is one.
    """
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    with socket.socket(family, _KINDS[transport]) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.is_ipv6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            if transport is Transport.UDP and _is_received(endpoint):
                return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            probe.bind((endpoint.host, endpoint.port))
        except OSError as error:
            return error
    return None


def _is_received(endpoint: Endpoint) -> bool:
    """Whether another process takes the datagrams to an address."""
    own = set(socket_inodes(os.getpid()))
    return any(found.is_at(endpoint) and found.inode not in own for found in listeners(Transport.UDP))


def is_in_use(error: OSError) -> bool:
    """Whether a failure to bind is another socket's presence."""
    return error.errno == errno.EADDRINUSE


def plain_ip(text: str) -> _Address:
    """An IP address; an IPv4 one also where the kernel writes it as IPv6 (::ffff:192.0.2.7)."""
    return _unmapped(ipaddress.ip_address(text))
