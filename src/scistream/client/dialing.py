"""The channel to a control server: TLS or plain text, over which way, trusted by which certificate, how patiently."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

# What gRPC's core thinks of a connection is no message to a user; ours is. It reads this when it is loaded.
os.environ["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "NONE")

import grpc

from scistream.addresses import Endpoint
from scistream.client.control_servers import ControlServer
from scistream.client.hop import name_to_verify, open_hop
from scistream.errors import Code, SciStreamError, one_line
from scistream.hops.reaching import Hop

__all__ = ["Dialed", "dial"]

_OPTION: Final = "--server-cert (module: server_certificate)"
_CHANNEL_OPTIONS: Final = (
    # Every connection stands for itself: the failures of one are not remembered by the next.
    ("grpc.use_local_subchannel_pool", 1),
    # A gateway's control port is not behind a web proxy, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A watch waits for hours, and hears nothing of a gateway that lost its power. gRPC servers take a ping every five
    # minutes, and hang up on who asks more often.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True)
class Dialed:
    """A channel, and the hop below it where the control server is behind SSH."""

    channel: grpc.Channel
    hop: Hop | None = None

    def close(self) -> None:
        """Close both; calls under way are cancelled."""
        self.channel.close()
        if self.hop:
            self.hop.close()


def dial(control_server: ControlServer) -> Dialed:
    """A channel to a control server; nothing is sent to it yet. An SSH host on the way there is connected to.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE, AUTHENTICATION_REFUSED, TOKEN_IN_PLAIN_TEXT;
            SSH_... and CONTROL_PORT_CLOSED, of a control server behind SSH.
    """
    _check_token(control_server)
    credentials = None
    if not control_server.plain_text:
        credentials = grpc.ssl_channel_credentials(_roots(control_server.server_certificate))
    hop = open_hop(control_server)
    try:
        return Dialed(_open_channel(control_server, credentials, hop), hop)
    except BaseException:
        if hop:
            hop.close()
        raise


def _open_channel(
    control_server: ControlServer, credentials: grpc.ChannelCredentials | None, hop: Hop | None
) -> grpc.Channel:
    target = f"unix:{quote(hop.path)}" if hop else _target(control_server.address)
    options: tuple[tuple[str, Any], ...] = _CHANNEL_OPTIONS
    if credentials is None:
        if hop:
            options += (("grpc.default_authority", str(control_server.address)),)
        return grpc.insecure_channel(target, options)
    if hop:
        # A socket in a directory has no name that a certificate could have.
        options += (("grpc.ssl_target_name_override", name_to_verify(control_server, hop)),)
    return grpc.secure_channel(target, credentials, options)


def _target(address: Endpoint) -> str:
    # Without the scheme, gRPC would take a host called "unix" for one.
    scheme = "ipv6" if address.is_ipv6 else "ipv4" if address.ip else "dns"
    return f"{scheme}:{address}"


def _roots(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except (OSError, ValueError):
        return _explained(path)
    return content


def _explained(path: Path) -> bytes:
    """What is wrong with a certificate, in the words of the library that takes 50 ms to load."""
    from scistream import certificates  # noqa: PLC0415

    certificates.read(path, option=_OPTION)
    return path.read_bytes()


def _check_token(control_server: ControlServer) -> None:
    # gRPC refuses it as well, and quotes it.
    token = control_server.token
    if token is not None and not (token.isascii() and token.isprintable() and token):
        words = "what is in SCISTREAM_TOKEN has characters that no token has"
        raise SciStreamError(Code.AUTHENTICATION_REFUSED, server=one_line(str(control_server.address)), words=words)
    if token is not None and control_server.plain_text and not control_server.insecure_plain_text_token:
        raise SciStreamError(Code.TOKEN_IN_PLAIN_TEXT, server=str(control_server.address))
