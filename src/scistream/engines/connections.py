"""The sockets of this network namespace, TCP connections with the bytes they carried: sock_diag(7)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scistream.addresses import Endpoint
from scistream.engines.processes import Listener, listeners, plain_ip, socket_inodes
from scistream.engines.traffic import Peer
from scistream.terms import Transport

__all__ = ["Socket", "accepting", "connections", "listening", "parse_sockets"]

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_AND_DUMP: Final = 0x301
_ERROR: Final = 2
_DONE: Final = 3
_WITH_TCP_INFO: Final = 1 << 1
_TCP_INFO: Final = 2
# By transport: the protocol, and the states of what anybody may send to. A bound UDP socket counts as closed.
_LISTENING: Final = {Transport.TCP: (socket.IPPROTO_TCP, 1 << 10), Transport.UDP: (socket.IPPROTO_UDP, 1 << 7)}
# Established, SYN sent, both FIN_WAITs, CLOSE_WAIT, LAST_ACK, CLOSING: what a process may still hold.
_CONNECTED: Final = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
# FIN_WAIT2; CLOSE_WAIT, LAST_ACK, CLOSING.
_END_ACKNOWLEDGED: Final = frozenset({5})
_END_RECEIVED: Final = frozenset({8, 9, 11})
_HEADER: Final = struct.Struct("=IHHII")
# family, protocol, extensions, states; then the socket's ports (network order), and zeros for any address.
_QUESTION: Final = struct.Struct("=BBBxI")
_PORTS: Final = struct.Struct("!HH")
# Both addresses, any interface, and the cookie for "not known".
_ANY: Final = bytes(36) + b"\xff" * 8
_SOCKET: Final = struct.Struct("=BBBB4s16s16sI8sIIIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
# Behind 120 bytes of struct tcp_info: bytes that the other end has acknowledged, bytes received.
_BYTES: Final = struct.Struct("=120xQQ")
_ENOUGH: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Socket:
    """A TCP socket: its own address, the other end's (port 0 for a listener), the bytes each way, its inode."""

    local: Peer
    peer: Peer
    sent: int
    received: int
    inode: int

    def is_at(self, endpoint: Endpoint) -> bool:
        """Whether its own end has this address; a host name and a wildcard stand for any."""
        ip = endpoint.ip
        return self.local[1] == endpoint.port and (ip is None or ip.is_unspecified or ip == self.local[0])


def connections() -> list[Socket]:
    """The connections that processes hold, those that the kernel ends for nobody left out.

    Raises:
        OSError: the kernel does not tell.
    """
    return [found for found in _ask(_CONNECTED, _WITH_TCP_INFO) if found.inode]


def listening(port: int, transport: Transport = Transport.TCP) -> list[Listener]:
    """The listeners of a port, on whatever address; also where the kernel has to be asked for all there are."""
    protocol, states = _LISTENING[transport]
    try:
        # Of UDP the kernel tells all there are: it knows no listeners.
        found = [Listener(*each.local, each.inode) for each in _ask(states, 0, port, protocol)]
    except OSError:
        found = list(listeners(transport))
    return [each for each in found if each.port == port]


def accepting(
    pids: Iterable[int], entry_points: Iterable[Endpoint], transport: Transport = Transport.TCP
) -> dict[Endpoint, int]:
    """The entry points on whose very address one of the processes listens, each with the listener's inode."""
    own = {inode for pid in pids for inode in socket_inodes(pid)}
    return {
        entry_point: found.inode
        for entry_point in entry_points
        for found in listening(entry_point.port, transport)
        if found.is_at(entry_point) and found.inode in own
    }


def _ask(states: int, extensions: int, port: int = 0, protocol: int = socket.IPPROTO_TCP) -> Iterator[Socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.bind((0, 0))
        for family in (socket.AF_INET, socket.AF_INET6):
            question = _QUESTION.pack(family, protocol, extensions, states) + _PORTS.pack(port, 0) + _ANY
            size = _HEADER.size + len(question)
            kernel.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, family, 0) + question)
            try:
                yield from _answers(kernel)
            except FileNotFoundError:
                if family == socket.AF_INET:
                    raise  # the kernel cannot be asked; of IPv6 it only says that there is none


def _answers(kernel: socket.socket) -> Iterator[Socket]:
    more = True
    while more:
        found, more = parse_sockets(kernel.recv(_ENOUGH))
        yield from found


def parse_sockets(answer: bytes) -> tuple[list[Socket], bool]:
    """Read one datagram of the kernel's answer; the flag says whether more is to come.

    Raises:
        OSError: the kernel refuses.
    """
    found: list[Socket] = []
    offset = 0
    while offset < len(answer):
        size, kind, *_ = _HEADER.unpack_from(answer, offset)
        if kind == _DONE:
            return found, False
        if kind == _ERROR:
            number = -struct.unpack_from("=i", answer, offset + _HEADER.size)[0]
            raise OSError(number, os.strerror(number))
        found.append(_parse(answer[offset + _HEADER.size : offset + size]))
        offset += size + -size % 4
    return found, True


def _parse(message: bytes) -> Socket:
    family, state, _, _, ports, source, other, *_, inode = _SOCKET.unpack_from(message)
    mine, theirs = _PORTS.unpack(ports)
    sent, received = _carried(message[_SOCKET.size :])
    # The kernel counts the end of a direction as a byte.
    sent, received = sent - (state in _END_ACKNOWLEDGED), received - (state in _END_RECEIVED)
    return Socket((_ip(family, source), mine), (_ip(family, other), theirs), sent, received, inode)


def _ip(family: int, packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return plain_ip(socket.inet_ntop(family, packed[: 4 if family == socket.AF_INET else 16]))


def _carried(attributes: bytes) -> tuple[int, int]:
    offset = 0
    while offset < len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if kind == _TCP_INFO:
            # An old kernel's is shorter.
            with contextlib.suppress(struct.error):
                sent, received = _BYTES.unpack_from(attributes, offset + _ATTRIBUTE.size)
                return sent, received
        offset += size + -size % 4
    return 0, 0
