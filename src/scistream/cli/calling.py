"""How `s2uc` and `appctrl` call a control server: the options for it, and what they mean."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from scistream.addresses import Endpoint, parse_endpoints, parse_host
from scistream.cli.common import compat_option, switch

if TYPE_CHECKING:
    from scistream.client import ControlServer

__all__ = [
    "CHANNEL",
    "RECEIVER_PORTS",
    "RECEIVER_PORTS_OPTION",
    "S2CS",
    "TOKEN_VARIABLE",
    "control_server",
    "options_of",
    "parse_remote_host",
    "targets_at",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

RECEIVER_PORTS: Final = "5074,5075,5076,37000,47000"
# The only place where a token may come from: an argument is everybody's to read.
TOKEN_VARIABLE: Final = "SCISTREAM_TOKEN"  # noqa: S105 - its name


def options_of(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Several options as one decorator, in the order of the help."""
    return lambda function: functools.reduce(lambda inner, option: option(inner), reversed(options), function)


S2CS: Final = click.option(
    "--s2cs", type=Endpoint.parse, default="localhost:5000", metavar="HOST:PORT", show_default=True
)
CHANNEL: Final = options_of(
    click.option("--server-cert", default="server.crt", metavar="FILE", show_default=True, help="Vouches for it."),
    switch("--ssl", default=True, help="TLS to the control server."),
    click.option("--timeout", type=click.FloatRange(0.1), default=30.0, metavar="SECONDS", show_default=True),
    click.option("--scope", hidden=True, help="Accepted; without authentication it says nothing."),
    compat_option,
)
RECEIVER_PORTS_OPTION: Final = click.option(
    "--receiver-ports", default=RECEIVER_PORTS, metavar="PORTS", show_default=True, help="Of the targets."
)


def control_server(address: Endpoint, options: dict[str, Any], *, token: str | None = None) -> ControlServer:
    """The control server that the options of CHANNEL name; its token is the environment's where none is given."""
    from scistream.client import ControlServer

    return ControlServer(
        address=address,
        server_certificate=Path(options["server_cert"]) if options["ssl"] else None,
        plain_text=not options["ssl"],
        token=token or os.environ.get(TOKEN_VARIABLE) or None,
        timeout=options["timeout"],
    )


def parse_remote_host(text: str) -> str:
    """Read a host; an IPv6 address with brackets or without.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    return parse_host(text[1:-1] if text.startswith("[") and text.endswith("]") else text)


def targets_at(host: str, ports: str) -> tuple[Endpoint, ...]:
    """The targets at a parsed host, one for each of the ports with commas between.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    name = f"[{host}]" if ":" in host else host
    return parse_endpoints(f"{name}:{port.strip()}" for port in ports.split(","))
