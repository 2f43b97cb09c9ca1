"""Who has an address of this host, for people to read."""

from __future__ import annotations

import ipaddress
from typing import Final

import psutil

from scistream.addresses import Endpoint
from scistream.engines.processes import has_socket, listeners
from scistream.terms import Transport

__all__ = ["who_listens"]

# The wildcard addresses: 0.0.0.0 and ::.
_ANY: Final = frozenset({ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")})  # noqa: S104


def who_listens(endpoint: Endpoint, transport: Transport = Transport.TCP) -> str | None:
    """Who accepts connections, or takes datagrams, at an address, `nginx (pid 123)`, or None where nobody is seen to.

    A listener on all addresses counts. What belongs to another user and may not be seen is "another user's process".
    """
    inodes = [
        found.inode for found in listeners(transport) if found.port == endpoint.port and _covers(found.ip, endpoint)
    ]
    if not inodes:
        return None
    owners = (pid for pid in psutil.pids() if any(has_socket(pid, inode) for inode in inodes))
    return next((_name(pid) for pid in owners), "another user's process")


def _covers(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, endpoint: Endpoint) -> bool:
    return endpoint.ip in (None, ip) or not _ANY.isdisjoint((ip, endpoint.ip))


def _name(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{_module(process) or process.name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"


def _module(process: psutil.Process) -> str | None:
    """What a Python interpreter runs by `-m`: its own name says nothing. Other arguments may be secret."""
    words = iter(process.cmdline())
    if "python" not in process.name() or "-m" not in words:
        return None
    return next(words, None)
