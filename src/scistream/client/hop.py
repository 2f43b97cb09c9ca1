"""A control server behind SSH: the hop that leads to it, and the name that its certificate has to have."""

from __future__ import annotations

import ssl
from typing import Final

from scistream.client.control_servers import ControlServer
from scistream.client.trust import tls_context
from scistream.hops.reaching import Hop, reach

__all__ = ["name_to_verify", "open_hop"]

# Seconds of silence in a handshake with a control server that was reached a moment ago.
_PATIENCE: Final = 10.0


def open_hop(server: ControlServer, *, timeout: float | None = None) -> Hop | None:
    """The way to a control server behind SSH; None where it is called directly.

    Raises:
        SciStreamError: SSH_... and CONTROL_PORT_CLOSED: why there is no way; BAD_CONFIGURATION.
    """
    return reach(server.via, server.address, timeout=timeout or server.timeout) if server.via else None


def name_to_verify(server: ControlServer, hop: Hop | None) -> str:
    """The name that the certificate is checked for.

    A control server that is called at its host's loopback is to prove that it is the one on the SSH host: by the name
    in `via`, or by the one that the SSH configuration has for it (HostName). Both are what the user said, and neither
    is what the other side says.
    """
    name = server.known_as.host
    if hop is None or server.plain_text or server.known_as == server.address or hop.host_name == name:
        return name
    return next((each for each in (name, hop.host_name) if _is_proven(server, hop, each)), name)


def _is_proven(server: ControlServer, hop: Hop, name: str) -> bool:
    try:
        with hop.connect(_PATIENCE) as plain, tls_context(server).wrap_socket(plain, server_hostname=name):
            return True
    except (OSError, ssl.SSLError, ValueError):
        # What is wrong beside the name, gRPC finds too.
        return False
