"""Where the control server listens: exactly where it was told, and nowhere that somebody else does."""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote

import grpc
import psutil

from scistream.addresses import Endpoint
from scistream.engines.holders import who_listens
from scistream.engines.processes import plain_ip
from scistream.errors import Code, SciStreamError

__all__ = ["OPTIONS", "RPC_LIMIT", "bind", "listen", "told_host"]

_MESSAGE_LIMIT: Final = 256 * 1024
_METADATA_LIMIT: Final = 32 * 1024
# Calls of one connection at once, and of all: a thousand requests may well wait for their hellos. Who wants more of one
# connection waits, and of all is refused.
_STREAM_LIMIT: Final = 4096
RPC_LIMIT: Final = 16384
# Scrapers that wait for their turn.
_BACKLOG: Final = 16

OPTIONS: Final = (
    # Two servers that share one port silently (U27).
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    # A source list of 256 IPv6 addresses has 11 kB; beyond the soft limit gRPC refuses calls at random.
    ("grpc.max_metadata_size", _METADATA_LIMIT),
    ("grpc.absolute_max_metadata_size", 2 * _METADATA_LIMIT),
    ("grpc.max_concurrent_streams", _STREAM_LIMIT),
    # A client whose host vanished holds a reservation no longer than this, in ms.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


def bind(server: grpc.aio.Server, address: Endpoint, credentials: grpc.ServerCredentials | None) -> None:
    """Give a server its port; without credentials the channel is plain text.

    Raises:
        SciStreamError: CONTROL_PORT_IN_USE naming the process, LISTEN_ADDRESS_FOREIGN.
    """
    _try(address)
    try:
        with _ipv4_only(address):
            if credentials is None:
                server.add_insecure_port(str(address))
            else:
                server.add_secure_port(str(address), credentials)
    except RuntimeError:  # taken in between
        raise _in_use(Code.CONTROL_PORT_IN_USE, address) from None


def listen(address: Endpoint) -> socket.socket:
    """A socket that listens at the metrics' address, and nowhere else.

    Raises:
        SciStreamError: METRICS_PORT_IN_USE naming the process, LISTEN_ADDRESS_FOREIGN.
    """
    listener = socket.socket(_family(address))
    try:
        if address.is_ipv6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _take(listener, address, Code.METRICS_PORT_IN_USE)
    except BaseException:
        listener.close()
        raise
    return listener


def _family(address: Endpoint) -> socket.AddressFamily:
    return socket.AF_INET6 if address.is_ipv6 else socket.AF_INET


def _try(address: Endpoint) -> None:
    """Bind as gRPC will, whose own errors are words for its log only."""
    with socket.socket(_family(address)) as trial:
        _take(trial, address, Code.CONTROL_PORT_IN_USE)


def _take(listener: socket.socket, address: Endpoint, taken: Code) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _in_use(taken, address) from None
        reason = error.strerror or str(error)
        raise SciStreamError(Code.LISTEN_ADDRESS_FOREIGN, address=str(address), reason=reason) from None


def _in_use(taken: Code, address: Endpoint) -> SciStreamError:
    process = who_listens(address) or "another process"
    return SciStreamError(taken, address=str(address), process=process)


@contextlib.contextmanager
def _ipv4_only(address: Endpoint) -> Iterator[None]:
    """Inside, 0.0.0.0 is what it says: gRPC takes it for every address, [::] too, unless [::] cannot be had (U04)."""
    with contextlib.ExitStack() as stack:
        if address.host == str(ipaddress.IPv4Address(0)):
            with contextlib.suppress(OSError):
                keeper = stack.enter_context(socket.socket(socket.AF_INET6))
                keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                keeper.bind(("::", address.port))
        yield


def told_host(address: Endpoint) -> Callable[[str], str]:
    """Under which address the entry points are told to a peer, as gRPC names it (`ipv4:192.0.2.7:41000`).

    Entry points that listen on one address are told by that one. 0.0.0.0 and [::] are no addresses that a client
    could connect to (the deployed server tells them all the same): there it is the address at which this client
    reached the control server, read from the kernel's table. The wildcard itself is told where that cannot be seen,
    and where a client came by IPv4 to [::]: the entry points of [::] accept IPv6 only. Where the other facility
    reaches the gateway by another address, `--listener-ip` has to name it.

    Args:
        address: where entry points listen, with the control port, which may be at another address.
    """
    if address.ip is None or not address.ip.is_unspecified:
        return lambda _peer: address.host
    return functools.partial(_reached, address)


def _reached(address: Endpoint, peer: str) -> str:
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        remote = (plain_ip(host.strip("[]")), int(port))
        connections = psutil.Process().net_connections("tcp")
    except (ValueError, psutil.Error):
        return address.host
    found = [
        plain_ip(each.laddr.ip)
        for each in connections
        if each.raddr and each.laddr.port == address.port and (plain_ip(each.raddr.ip), each.raddr.port) == remote
    ]
    return next((str(ip) for ip in found if type(ip) is type(address.ip)), address.host)
