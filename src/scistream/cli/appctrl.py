"""`appctrl`, the application controller: registers the application's end of a session (`hello`).

It starts and ends nothing on this host: what listens on a port is the application's own business (U59).
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import click

from scistream.addresses import Endpoint
from scistream.cli.calling import (
    CHANNEL,
    RECEIVER_PORTS_OPTION,
    control_server,
    examples,
    options_of,
    parse_control_server,
    parse_remote_host,
    targets_at,
)
from scistream.cli.common import CONTEXT, run, tell, version_option
from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, NO_AUTH, OLD_NO_AUTH, Direction, Uid, parse_direction, parse_uid

__all__ = ["command", "main"]

_PROGRAM: Final = "appctrl"
# Where a token would stand: take it from the environment.
_FROM_ENVIRONMENT: Final = "-"


def _parse_role(text: str) -> Direction:
    try:
        return parse_direction(text)
    except SciStreamError:
        # Not quoted: who swaps two arguments has put the token here.
        raise SciStreamError(Code.BAD_ROLE, role="the fourth argument, ROLE,") from None


_ARGUMENTS: Final = options_of(
    click.argument("uid", type=parse_uid),
    click.argument("s2cs", type=parse_control_server),
    click.argument("token"),
    click.argument("role", type=_parse_role),
    click.argument("ip", type=parse_remote_host, default="localhost"),
    RECEIVER_PORTS_OPTION,
    CHANNEL,
)


@click.group(context_settings=CONTEXT)
@version_option
def command() -> None:
    """Register the application's end of a session."""


def main() -> NoReturn:
    """The program."""
    run(command, _PROGRAM)


def _register(  # noqa: PLR0917 - the deployed tool's arguments, in its order
    uid: Uid, s2cs: Endpoint, token: str, role: Direction, ip: str, receiver_ports: str, **options: Any
) -> None:
    from scistream.client import connect, register

    targets = targets_at(ip, receiver_ports)
    server = control_server(s2cs, options, token=_token(token, compat=options["compat"]))
    with connect(server) as connection:
        entry_points = register(connection, uid, role, targets)
    tell(f"Registered the {role.value} end of session {uid} with {s2cs}:")
    for target in targets:
        tell(f"  target {target}")
    if entry_points:
        tell(f"Listeners: {list(entry_points)}")


def _token(text: str, *, compat: bool) -> str | None:
    """The token of the command line, where somebody insists on it; the environment's otherwise."""
    if text in {NO_AUTH, OLD_NO_AUTH, _FROM_ENVIRONMENT}:
        return None
    if not compat:
        raise SciStreamError(Code.TOKEN_EXPOSED)
    return text


for _name, _summary in (
    ("create-appctrl", "Send the hello for session UID to the control server S2CS: its targets are at IP."),
    ("mock", "The same, under the deployed tool's other name for it."),
):
    _example = f"appctrl {_name} {MOCK_UID} gateway.example:5000 NO_AUTH PROD localhost --receiver-ports 5074"
    command.command(_name, help=_summary, epilog=examples(_example))(_ARGUMENTS(_register))


if __name__ == "__main__":
    main()
