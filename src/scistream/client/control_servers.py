"""Which control server is called, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scistream.addresses import Endpoint

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
        timeout: seconds that one call may take.
    """

    address: Endpoint
    server_certificate: Path | None = None
    plain_text: bool = False
    token: str | None = field(default=None, repr=False)
    timeout: float = 30.0
