"""The end of connections that only pass through: both ends are told at once, also where nobody sends.

A rule can reset whoever sends. One that only waits to receive would wait for ever, and so each end is made to send: it
gets a segment that does not fit into its connection, and answers with one that does (RFC 5961, challenge ACK). The rule
answers that with a reset.

The segments come from sockets that repair mode (CAP_NET_ADMIN) connects without a handshake, and closes without a word.
conntrack does not see them: it would take them for a connection that is in the way of the one that they are meant for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Final

from scistream.engines.nft_conntrack import Connection, End
from scistream.engines.nft_names import PROBE_NUMBER

__all__ = ["provoke"]

# linux/tcp.h, linux/in.h, linux/in6.h
_TCP_REPAIR: Final = 19
_TCP_REPAIR_WINDOW: Final = 29
_REPAIR_OFF: Final = -1
# struct tcp_repair_window: what the other end seems to have room for, so that a byte leaves at once.
_WINDOW: Final = struct.pack("=5I", 0, 1024, 1024, 1024, 0)
_IP_TRANSPARENT: Final = (socket.IPPROTO_IP, 19)
_IPV6_TRANSPARENT: Final = (socket.IPPROTO_IPV6, 75)


def provoke(connections: Iterable[Connection]) -> None:
    """Make both ends of each open TCP connection send a segment. One that cannot be reached learns of the end later."""
    for connection in connections:
        if connection.is_tcp and connection.is_open:
            for end in (connection.client, connection.target):
                with contextlib.suppress(OSError):
                    _probe(end)


def _probe(end: End) -> None:
    is_ipv6 = ":" in end.peer[0]
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A target on this very host sees the client's own address, which is not ours.
        probe.setsockopt(*(_IPV6_TRANSPARENT if is_ipv6 else _IP_TRANSPARENT), 1)
        probe.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROBE_NUMBER)
        probe.bind(end.local)
        probe.connect(end.peer)
        probe.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW)
        probe.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF)
        # To what has no bytes, an end answers twice a second at most.
        probe.send(b"\0")
        probe.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
