"""Which control server is called, and how."""

from __future__ import annotations

import contextlib
import functools
import socket
from dataclasses import dataclass, field
from pathlib import Path

from scistream.addresses import Endpoint
from scistream.hops import Via

__all__ = ["ControlServer"]


@dataclass(frozen=True)
class ControlServer:
    """A control server as its users name it.

    Args:
        address: where it listens.
        server_certificate: PEM file that vouches for it, its own certificate or its facility's CA; None takes the
            public authorities that come with gRPC.
        plain_text: talk without TLS; for networks where everybody is trusted.
        token: sent with every call; None where authentication is off.
        insecure_plain_text_token: send the token without TLS as well; whoever is on its way can read it, and use it.
        timeout: seconds that one call may take.
        via: the SSH host that leads to it; its address is then as seen from there.
        reached_by: the host that its entry points are reached by, where it listens on all its addresses; empty for the
            one that it is called by.
    """

    address: Endpoint
    server_certificate: Path | None = None
    plain_text: bool = False
    token: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    via: Via | None = None
    insecure_plain_text_token: bool = False
    reached_by: str = ""

    @functools.cached_property
    def hosts(self) -> frozenset[str]:
        """What it is called by, a name's addresses as well: one that listens on all of its own tells one of these."""
        hosts = {self.address.host, self.known_as.host}
        if not self.via and self.address.ip is None:
            with contextlib.suppress(OSError):
                found = socket.getaddrinfo(self.address.host, None, type=socket.SOCK_STREAM)
                hosts |= {str(address[0]) for *_, address in found}
        return frozenset(hosts)

    @property
    def known_as(self) -> Endpoint:
        """What tells it from others: its address, with the SSH host's name where the address is that host's loopback.

        Every gateway has a 127.0.0.1. Its certificate is checked for this host, tokens are sent and tickets are kept by
        this address.
        """
        ip = self.address.ip
        is_loopback = ip.is_loopback if ip else self.address.host == "localhost"
        return Endpoint(self.via.host, self.address.port) if self.via and is_loopback else self.address
