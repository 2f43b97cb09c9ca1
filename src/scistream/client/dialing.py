"""The channel to a control server: TLS or plain text, trusted by which certificate, and with which patience."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

# What gRPC's core thinks of a connection is no message to a user; ours is. It reads this when it is loaded.
os.environ["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "NONE")

import grpc

from scistream.addresses import Endpoint
from scistream.client.control_servers import ControlServer
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["open_channel"]

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


def open_channel(control_server: ControlServer) -> grpc.Channel:
    """A channel to a control server; nothing is sent yet.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE, AUTHENTICATION_REFUSED.
    """
    _check_token(control_server)
    target = _target(control_server.address)
    if control_server.plain_text:
        return grpc.insecure_channel(target, _CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(_roots(control_server.server_certificate))
    return grpc.secure_channel(target, credentials, _CHANNEL_OPTIONS)


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
