"""`s2uc`, the user client: opens sessions with the deployed tool's commands, options and first lines, and more."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from scistream.addresses import Endpoint, parse_ports
from scistream.cli import changing, completion, looking, preferences, tokens
from scistream.cli.calling import (
    AS_JSON,
    CHANNEL,
    RECEIVER_PORTS,
    RECEIVER_PORTS_OPTION,
    S2CS,
    SECONDS,
    control_server,
    examples,
    parse_remote_host,
    targets_at,
    was_said,
)
from scistream.cli.common import CONTEXT, run, version_option
from scistream.cli.requesting import ADDRESS, SESSION, inbound_request, outbound_request
from scistream.cli.telling import Teller
from scistream.terms import HELLO_TIMEOUT, Direction, Transport

if TYPE_CHECKING:
    from scistream.client import SessionRequest

__all__ = ["command", "main"]

_PROGRAM: Final = "s2uc"
# SIGHUP: the terminal was closed.
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)

_REMOTE_IP: Final = click.option(
    "--remote-ip",
    type=parse_remote_host,
    default="localhost",
    metavar="HOST",
    show_default=True,
    help="Host of the targets.",
)


@click.group(context_settings=CONTEXT)
@version_option
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="SCISTREAM_S2UC_CONFIG",
    show_envvar=True,
    help="TOML file with your defaults of options. [default: ~/.config/scistream/s2uc.toml, else the host's "
    "/etc/xdg/scistream/s2uc.toml, where they are there]",
)
@click.pass_context
def command(context: click.Context, config: Path | None) -> None:
    """Open, see and release the sessions of a stream."""
    context.default_map = preferences.load(command, config, context.invoked_subcommand)


def main() -> NoReturn:
    """The program."""
    for number in _ENDS:
        # Who ignores one of them (nohup) goes on doing so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    run(command, _PROGRAM)


def _end(number: int, _: object) -> NoReturn:
    # A shell and a terminal that are closed send one each: the second shall not end what undoes the work.
    for one in _ENDS:
        signal.signal(one, signal.SIG_IGN)
    # As an exception: what was begun is undone on its way out.
    raise SystemExit(128 + number)


@command.command(
    "inbound-request",
    epilog=examples(
        "s2uc inbound-request --s2cs gateway.example --remote-ip localhost --receiver-ports 5074",
        "s2uc inbound-request --s2cs gateway.example --receiver-ports 5074 --name beam --ticket beam.ticket",
        "s2uc inbound-request --s2cs gateway.lan --address gateway.example --receiver-ports 5074",
    ),
)
@S2CS
@CHANNEL
@AS_JSON
@SESSION
@ADDRESS
@_REMOTE_IP
@RECEIVER_PORTS_OPTION
def _inbound_request(remote_ip: str, receiver_ports: str, **options: Any) -> None:
    """Open the end in front of the service that is offered."""
    targets = _some(targets_at(remote_ip, receiver_ports), options["num_conn"])
    _open(inbound_request(options, targets, len(targets)), options)


@command.command(
    "outbound-request",
    epilog=examples(
        "s2uc outbound-request --s2cs gateway.example 7d1f3c5e 192.0.2.7:5100,192.0.2.7:5101",
        "s2uc outbound-request --s2cs gateway.example --ticket beam.ticket",
    ),
)
@click.argument("uid_and_listeners", nargs=-1, metavar="[UID LISTENERS]")
@S2CS
@CHANNEL
@AS_JSON
@SESSION
@_REMOTE_IP
@RECEIVER_PORTS_OPTION
@click.option(
    "--verify", is_flag=True, help="See that each entry point leads to a target; one that does not is no session."
)
def _outbound_request(uid_and_listeners: tuple[str, ...], **options: Any) -> None:
    """Open the end in front of the application; LISTENERS are the inbound end's, with commas between.

    What your own inbound-request left on this machine is found by UID; from elsewhere, its ticket is handed over. With
    --receiver-ports, its entry points are at these ports of the gateway.
    """
    # Those of the targets stand in LISTENERS: here they are the entry points' own (U53).
    ports = parse_ports(options["receiver_ports"]) if was_said("receiver_ports") else ()
    _open(outbound_request(uid_and_listeners, options, ports), options)


@command.command(
    "prod-req",
    epilog=examples("s2uc prod-req --s2cs gateway.example --num-conn 1"),
)
@S2CS
@CHANNEL
@AS_JSON
@SESSION
@ADDRESS
@click.option(
    "--wait",
    type=SECONDS,
    default=HELLO_TIMEOUT,
    metavar="SECONDS",
    show_default=True,
    help="How long to wait for the application controller.",
)
def _prod_req(wait: float, **options: Any) -> None:
    """Open an inbound end whose targets an application controller (appctrl) registers."""
    _open(inbound_request(options, (), len(RECEIVER_PORTS.split(","))), options, wait=wait)


for _command in (
    looking.list_sessions,
    looking.status,
    looking.watch,
    changing.renew,
    changing.renew_certificates,
    changing.drain,
    changing.release,
    completion.complete,
):
    command.add_command(_command)
tokens.register(command)


def _open(request: SessionRequest, options: dict[str, Any], *, wait: float | None = None) -> None:
    from scistream.cli.opening import open_and_tell
    from scistream.client import make_wish, place_for

    if options.get("verify") and request.transport is Transport.UDP:
        raise click.UsageError("--verify tries connections, and UDP has none: leave it out, and see what arrives.")
    # An outbound session has no ticket of its own.
    ticket = (options["ticket"] or place_for(request.uid)) if request.direction is Direction.INBOUND else None
    wish = make_wish(request, ticket, options["name"] or "")
    teller = Teller(_PROGRAM, options["as_json"], options["compat"])
    server = control_server(options["s2cs"], options)
    open_and_tell(server, wish, teller, wait=wait, verify=options.get("verify", False))


def _some(targets: tuple[Endpoint, ...], connections: int | None) -> tuple[Endpoint, ...]:
    """Of the default targets, as many as there shall be entry points; those that were named, all."""
    return targets if was_said("receiver_ports") or connections is None else targets[: max(connections, 1)]


if __name__ == "__main__":
    main()
