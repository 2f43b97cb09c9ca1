"""The connections of a session as the kernel tracks them (ctnetlink): which there are, and their end.

No program of another package is asked: the kernel itself picks them out by their mark. Source: linux/netfilter/
nfnetlink_conntrack.h; nf_conntrack_netlink.c.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scistream.engines.nft_names import NUMBER_MASK, PROBE_NUMBER

__all__ = ["Connection", "End", "connections", "forget", "open_by_number", "parse"]

_NETLINK_NETFILTER: Final = 12
_GET: Final = 0x0101
_DELETE: Final = 0x0102
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_KIND: Final = 0x3FFF
_TUPLE_ORIGINAL, _TUPLE_REPLY, _PROTOCOL_STATE, _MARK, _MARK_MASK = 1, 2, 4, 8, 21
_ONE: Final = 0xFFFFFFFF
# TCP states from the first SYN until both ends have closed; TIME_WAIT and CLOSE come after them.
_LAST_OPEN_STATE: Final = 6
_BUFFER: Final = 1 << 20
_RECEIVE_BUFFER: Final = 8 << 20
_TIMEOUT: Final = 10.0

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class End:
    """One end of a connection, seen from this host.

    Attributes:
        local: this host's address and port.
        peer: the other's.
    """

    local: tuple[str, int]
    peer: tuple[str, int]


@dataclass(frozen=True)
class Connection:
    """A connection through this host.

    Attributes:
        number: its conntrack mark, a session's number.
        is_tcp: TCP, not UDP.
        is_open: it is not over; a UDP flow never is until it is forgotten.
        client: the end that began it.
        target: the end that it was sent to.
    """

    number: int
    is_tcp: bool
    is_open: bool
    client: End
    target: End


def connections(number: int) -> list[Connection]:
    """The connections of a session.

    Raises:
        OSError: the kernel does not tell.
    """
    return list(_dump(number, _ONE))


def open_by_number() -> Counter[int]:
    """How many connections each session has open, in one look.

    Raises:
        OSError: the kernel does not tell.
    """
    return Counter(each.number for each in _dump(PROBE_NUMBER, NUMBER_MASK) if each.is_open)


def forget(number: int) -> None:
    """Have the kernel forget every connection of a session: it translates none of their packets from now on.

    Raises:
        OSError: it does not.
    """
    with _connected() as kernel:
        kernel.send(_message(_DELETE, _REQUEST | _ACKNOWLEDGE, number, _ONE))
        for _ in _answers(kernel):
            pass


def _dump(mark: int, mask: int) -> Iterator[Connection]:
    with _connected() as kernel:
        kernel.send(_message(_GET, _REQUEST | _DUMP, mark, mask))
        for body in _answers(kernel):
            found = parse(body)
            # An old kernel heeds no filter.
            if found is not None and found.number & mask == mark:
                yield found


def _connected() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    kernel.settimeout(_TIMEOUT)
    kernel.connect((0, 0))
    return kernel


def _message(kind: int, flags: int, mark: int, mask: int) -> bytes:
    # nfgenmsg: any address family, version 0.
    body = bytes(4) + _attribute(_MARK, mark) + _attribute(_MARK_MASK, mask)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _attribute(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, kind) + value.to_bytes(4, "big")


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """The bodies of the messages of an answer, until it ends."""
    while True:
        data = kernel.recv(_BUFFER)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if kind in (_ERROR, _DONE):
                # A dump that went well ends without a number, or with 0.
                number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                if number:
                    raise OSError(number, os.strerror(number))
                return
            yield body


def parse(body: bytes) -> Connection | None:
    """Read a message of the kernel's, from behind its netlink header; None where it is neither TCP nor UDP."""
    found = dict(_attributes(body[4:]))
    original, reply = (_tuple(found.get(kind, b"")) for kind in (_TUPLE_ORIGINAL, _TUPLE_REPLY))
    if original is None or reply is None or original.protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    return Connection(
        number=int.from_bytes(found.get(_MARK, b""), "big"),
        is_tcp=original.protocol == socket.IPPROTO_TCP,
        is_open=_state(found.get(_PROTOCOL_STATE, b"")) <= _LAST_OPEN_STATE,
        client=End(original.to, original.origin),
        target=End(reply.to, reply.origin),
    )


@dataclass(frozen=True)
class _Tuple:
    protocol: int
    origin: tuple[str, int]
    to: tuple[str, int]


def _tuple(data: bytes) -> _Tuple | None:
    parts = dict(_attributes(data))
    addresses = [str(ipaddress.ip_address(value)) for _, value in sorted(_attributes(parts.get(1, b"")))]
    numbers = {kind: int.from_bytes(value, "big") for kind, value in _attributes(parts.get(2, b""))}
    if len(addresses) != 2 or 2 not in numbers:
        return None
    return _Tuple(numbers[1], (addresses[0], numbers[2]), (addresses[1], numbers[3]))


def _state(data: bytes) -> int:
    tcp = dict(_attributes(dict(_attributes(data)).get(1, b"")))
    return int.from_bytes(tcp.get(1, b""), "big")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _KIND, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
