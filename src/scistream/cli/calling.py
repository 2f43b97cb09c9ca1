"""How `s2uc` and `appctrl` call a control server: the options for it, and what they mean."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scistream.addresses import Endpoint, parse_endpoints, parse_host
from scistream.cli.common import compat_option, options_of, switch
from scistream.hops import parse_via
from scistream.terms import DEFAULT_CONTROL_PORT

if TYPE_CHECKING:
    from scistream.client import ControlServer

__all__ = [
    "AS_JSON",
    "CHANNEL",
    "RECEIVER_PORTS",
    "RECEIVER_PORTS_OPTION",
    "S2CS",
    "SECONDS",
    "control_server",
    "examples",
    "options_of",
    "parse_control_server",
    "parse_remote_host",
    "spell_channel",
    "targets_at",
    "was_said",
]

# A week: gRPC takes no time without an end.
_SHORTEST, _LONGEST = 0.1, 604800
RECEIVER_PORTS: Final = "5074,5075,5076,37000,47000"


def parse_control_server(text: str) -> Endpoint:
    """Read a control server's address; without a port, it is 5000.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    return Endpoint.parse(text, default_port=DEFAULT_CONTROL_PORT)


class _Seconds(click.ParamType[float]):
    """A time to wait: positive, and one that comes to an end."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not _SHORTEST <= seconds <= _LONGEST:
            self.fail(f"{value!r} is not a number of seconds from {_SHORTEST} to {_LONGEST}.", param, ctx)
        return seconds


SECONDS: Final = _Seconds()
"""The type of an option that says how long something may take."""


def was_said(option: str, *, now: bool = False) -> bool:
    """Whether an option of the command that runs was given, and is not its default; `now`: on this command line."""
    source = click.get_current_context().get_parameter_source(option)
    if now:
        return source is click.core.ParameterSource.COMMANDLINE
    return source is not click.core.ParameterSource.DEFAULT


def examples(*commands: str) -> str:
    """The end of a command's help: lines that can be copied."""
    return "\n".join(("\b", "Examples:" if len(commands) > 1 else "Example:", *(f"  {each}" for each in commands)))


S2CS: Final = click.option(
    "--s2cs",
    type=parse_control_server,
    default="localhost:5000",
    metavar="HOST[:PORT]",
    show_default=True,
    help="The control server; without a port, 5000.",
)
CHANNEL: Final = options_of(
    click.option(
        "--server-cert",
        "--server-crt",
        "server_cert",
        default="server.crt",
        metavar="FILE",
        show_default=True,
        help="The control server's certificate, or its facility's CA.",
    ),
    switch("--ssl", default=True, help="TLS to the control server."),
    click.option(
        "--timeout",
        type=SECONDS,
        default=30.0,
        metavar="SECONDS",
        show_default=True,
        help="How long one call to the control server may take.",
    ),
    click.option(
        "--via",
        type=parse_via,
        envvar="SCISTREAM_VIA",
        show_envvar=True,
        metavar="ssh://[USER@]HOST[:PORT]",
        help="SSH host that leads to the control server, whose address is then as seen from there.",
    ),
    click.option("--scope", help="Which stored token is sent (s2uc login); default: as the last time."),
    click.option(
        "--insecure-plain-text-token",
        is_flag=True,
        help="With --ssl=False, send the token all the same: who is on its way can use it.",
    ),
    compat_option,
)
RECEIVER_PORTS_OPTION: Final = click.option(
    "--receiver-ports", default=RECEIVER_PORTS, metavar="PORTS", show_default=True, help="Ports of the targets."
)
AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, the words on stderr.")


def control_server(address: Endpoint, options: dict[str, Any], *, token: str | None = None) -> ControlServer:
    """The control server that the options of CHANNEL name; its token is the environment's or a stored one.

    Raises:
        SciStreamError: LOGIN_WANTED, PROVIDER_UNAVAILABLE, BAD_TOKEN_STORE, BAD_CONFIGURATION.
    """
    from scistream.client import ControlServer

    server = ControlServer(
        address=address,
        server_certificate=Path(options["server_cert"]) if options["ssl"] else None,
        plain_text=not options["ssl"],
        token=token,
        timeout=options["timeout"],
        via=options["via"],
        insecure_plain_text_token=options["insecure_plain_text_token"],
        reached_by=options.get("address") or "",
    )
    return server if token else replace(server, token=_token(options, server.known_as))


def _token(options: dict[str, Any], address: Endpoint) -> str | None:
    from scistream.client.environment_token import environment_token
    from scistream.client.tokens import token_for

    if options["ssl"] or options["scope"]:
        return token_for(options["scope"], str(address))
    # Where nobody named it, a stored token is not what plain text is refused for.
    return environment_token(address, [address])


def spell_channel(server: ControlServer) -> list[str]:
    """The options that reach a control server again, for commands that are printed."""
    certificate = server.server_certificate
    trust = ["--ssl=False"] if server.plain_text else ["--server-cert", str(certificate)] if certificate else []
    return ["--s2cs", str(server.address), *trust, *(["--via", str(server.via)] if server.via else [])]


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
