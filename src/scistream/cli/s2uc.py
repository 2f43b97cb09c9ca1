"""`s2uc`, the user client: opens and releases sessions, with the deployed tool's commands, options and first lines."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from scistream.addresses import Endpoint, parse_endpoints
from scistream.cli.calling import (
    CHANNEL,
    RECEIVER_PORTS,
    RECEIVER_PORTS_OPTION,
    S2CS,
    SECONDS,
    TOKEN_VARIABLE,
    control_server,
    examples,
    options_of,
    parse_remote_host,
    targets_at,
    was_said,
)
from scistream.cli.common import CONTEXT, run, switch, version_option
from scistream.cli.telling import Teller
from scistream.errors import Code, SciStreamError
from scistream.terms import DEFAULT_RATE, HELLO_TIMEOUT, MOCK_UID, Direction, Uid, parse_direction, parse_uid

if TYPE_CHECKING:
    from scistream.client import SessionRequest, Ticket

__all__ = ["command", "main"]

_PROGRAM: Final = "s2uc"
# SIGHUP: the terminal was closed.
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)

_SITE_SECRET: Final = click.option(
    "--site-secret", type=click.Path(path_type=Path), metavar="FILE", help="What names become uids with."
)
_SESSION: Final = options_of(
    click.option("--num-conn", type=int, metavar="NUMBER", help="Entry points; default: one for each target."),
    click.option(
        "--rate",
        type=int,
        default=DEFAULT_RATE,
        metavar="KB/S",
        show_default=True,
        help="Of application bytes; recorded and shown, not enforced yet.",
    ),
    switch("--mock", default=False, help="The deployed tools' fixed uid, which never has a key."),
    click.option("--ticket", type=click.Path(path_type=Path), metavar="FILE", help="What one end hands to the other."),
    click.option("--name", help="Name the session: one name, one uid. Again, nothing changes."),
    _SITE_SECRET,
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, the words on stderr.")
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
def command() -> None:
    """Open and release the sessions of a stream."""


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
        "s2uc inbound-request --s2cs gateway.example --remote-ip localhost --receiver-ports 5074 --ticket beam.ticket",
        "s2uc inbound-request --s2cs gateway.example --receiver-ports 5074 --name beam --ticket beam.ticket",
    ),
)
@S2CS
@CHANNEL
@_JSON
@_SESSION
@_REMOTE_IP
@RECEIVER_PORTS_OPTION
def _inbound_request(remote_ip: str, receiver_ports: str, **options: Any) -> None:
    """Open the end in front of the service that is offered."""
    targets = _some(targets_at(remote_ip, receiver_ports), options["num_conn"])
    _open(_request(_chosen_uid(options), Direction.INBOUND, targets, options), options)


@command.command(
    "outbound-request",
    epilog=examples(
        "s2uc outbound-request --s2cs gateway.example --ticket beam.ticket",
        "s2uc outbound-request --s2cs gateway.example 7d1f3c5e 192.0.2.7:5100,192.0.2.7:5101",
    ),
)
@click.argument("uid_and_listeners", nargs=-1, metavar="[UID LISTENERS]")
@S2CS
@CHANNEL
@_JSON
@_SESSION
@_REMOTE_IP
@RECEIVER_PORTS_OPTION
def _outbound_request(uid_and_listeners: tuple[str, ...], **options: Any) -> None:
    """Open the end in front of the application; LISTENERS are the inbound end's, with commas between."""
    from scistream.client import SessionRequest

    ticket = _read_ticket(options["ticket"])
    words = list(uid_and_listeners)
    if len(words) != (0 if ticket else 1 if _is_named(options) else 2):
        raise click.UsageError("Name UID and LISTENERS, or --name and LISTENERS, or --ticket alone.")
    if was_said("receiver_ports"):
        _teller(options).warn("--receiver-ports of an outbound request has no effect yet: the control server chooses.")
    if ticket:
        request = SessionRequest.of_ticket(ticket, rate=options["rate"], connections=options["num_conn"])
        _open(request, options | {"name": None})
    else:
        uid = _named_uid(options) if _is_named(options) else parse_uid(words[0])
        _open(_request(uid, Direction.OUTBOUND, parse_endpoints(words[-1:]), options), options)


@command.command(
    "prod-req",
    epilog=examples("s2uc prod-req --s2cs gateway.example --num-conn 1 --ticket beam.ticket"),
)
@S2CS
@CHANNEL
@_JSON
@_SESSION
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
    _default(options, len(RECEIVER_PORTS.split(",")))
    _open(_request(_chosen_uid(options), Direction.INBOUND, (), options), options, wait=wait)


@command.command(
    "release",
    epilog=examples(
        "s2uc release --s2cs gateway.example --ticket beam.ticket",
        "s2uc release --s2cs gateway.example 7d1f3c5e --direction inbound",
    ),
)
@click.argument("uid", required=False)
@S2CS
@CHANNEL
@_JSON
@click.option("--direction", type=parse_direction, metavar="inbound|outbound", help="Default: both ends of the uid.")
@click.option("--ticket", type=click.Path(path_type=Path), metavar="FILE", help="The session of this ticket.")
@click.option("--name", help="The session of this name.")
@_SITE_SECRET
def _release(uid: str | None, direction: Direction | None, **options: Any) -> None:
    """Stop a session's data server and free its entry points."""
    from scistream.client import connect

    if [uid, options["ticket"], options["name"]].count(None) != 2:
        raise click.UsageError("Name the session by UID, by --ticket or by --name.")
    ticket = _read_ticket(options["ticket"])
    which = ticket.uid if ticket else _named_uid(options) if uid is None else parse_uid(uid)
    with connect(control_server(options["s2cs"], options)) as connection:
        connection.release(which, direction)
    teller = _teller(options)
    teller.say(f"Session {which} is released on {options['s2cs']}.")
    if ticket and direction is not Direction.OUTBOUND and ticket.control_server == options["s2cs"]:
        # Its own session's. At the other facility it is a copy, and stays.
        options["ticket"].unlink(missing_ok=True)
        teller.say(f"Its ticket {options['ticket']} is removed.")
    teller.result({"released": which})


def _without_authentication(name: str, summary: str) -> None:
    @command.command(
        name,
        help=summary,
        epilog=examples(f"s2uc {name} --scope SCOPE"),
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def refuse(words: tuple[str, ...]) -> None:
        raise SciStreamError(
            Code.UNSUPPORTED_HERE,
            what=f"s2uc {name}",
            reason="authentication is not built yet",
            alternative=f"put a token into the environment as {TOKEN_VARIABLE}, where a control server asks for one",
        )


for _name, _summary in (
    ("login", "Get a token."),
    ("check-auth", "Ask whether the token is good."),
    ("logout", "Forget the token."),
):
    _without_authentication(_name, f"{_summary} (Not in this version.)")


def _open(request: SessionRequest, options: dict[str, Any], *, wait: float | None = None) -> None:
    from scistream.cli.opening import open_and_tell
    from scistream.client import make_wish

    # An outbound session has no ticket of its own.
    ticket = options["ticket"] if request.direction is Direction.INBOUND else None
    wish = make_wish(request, ticket, options["name"] or "")
    open_and_tell(control_server(options["s2cs"], options), wish, _teller(options), wait=wait)


def _request(uid: Uid, direction: Direction, targets: tuple[Endpoint, ...], options: dict[str, Any]) -> SessionRequest:
    from scistream.client import SessionRequest

    _default(options, len(targets))
    return SessionRequest(uid, direction, targets, options["num_conn"], options["rate"])


def _default(options: dict[str, Any], connections: int) -> None:
    if options["num_conn"] is None:
        options["num_conn"] = connections


def _teller(options: dict[str, Any]) -> Teller:
    return Teller(_PROGRAM, options["as_json"], options["compat"])


def _chosen_uid(options: dict[str, Any]) -> Uid:
    if options["mock"] and _is_named(options):
        raise click.UsageError("--mock and --name are two uids; say one of them.")
    if options["mock"]:
        return Uid(MOCK_UID)
    return _named_uid(options) if _is_named(options) else Uid(str(uuid.uuid4()))


def _is_named(options: dict[str, Any]) -> bool:
    return options["name"] is not None


def _named_uid(options: dict[str, Any]) -> Uid:
    from scistream.client import default_site_secret, parse_name, site_secret, uid_of

    # First: a name that is none shall not be what makes the site's secret.
    name = parse_name(options["name"])
    return uid_of(name, site_secret(options["site_secret"] or default_site_secret()))


def _read_ticket(path: Path | None) -> Ticket | None:
    from scistream.client import tickets

    return tickets.read(path) if path else None


def _some(targets: tuple[Endpoint, ...], connections: int | None) -> tuple[Endpoint, ...]:
    """Of the default targets, as many as there shall be entry points; those that were named, all."""
    return targets if was_said("receiver_ports") or connections is None else targets[: max(connections, 1)]


if __name__ == "__main__":
    main()
