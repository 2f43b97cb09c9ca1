"""`s2uc`, the user client: opens and releases sessions, with the deployed tool's commands, options and first lines."""

from __future__ import annotations

import functools
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
    TOKEN_VARIABLE,
    control_server,
    options_of,
    parse_remote_host,
    targets_at,
)
from scistream.cli.common import CONTEXT, run, switch, version_option
from scistream.cli.telling import Teller
from scistream.errors import Code, SciStreamError
from scistream.terms import DEFAULT_RATE, HELLO_TIMEOUT, MOCK_UID, Direction, Uid, parse_direction, parse_uid

if TYPE_CHECKING:
    from scistream.client import Ticket

__all__ = ["command", "main"]

_PROGRAM: Final = "s2uc"

_SESSION: Final = options_of(
    click.option("--num-conn", type=int, metavar="NUMBER", help="Entry points; default: one for each target."),
    click.option("--rate", type=int, default=DEFAULT_RATE, metavar="KB/S", show_default=True),
    switch("--mock", default=False, help="The deployed tools' fixed uid, which never has a key."),
    click.option("--ticket", type=click.Path(path_type=Path), metavar="FILE", help="What one end hands to the other."),
    click.option("--name", help="Name the session: one name, one uid."),
    click.option("--site-secret", type=click.Path(path_type=Path), metavar="FILE", help="What names become uids with."),
)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, the words on stderr.")
_REMOTE_IP: Final = click.option(
    "--remote-ip",
    type=parse_remote_host,
    default="localhost",
    metavar="HOST",
    show_default=True,
    help="Of the targets.",
)


@click.group(context_settings=CONTEXT)
@version_option
def command() -> None:
    """Open and release the sessions of a stream."""


def main() -> NoReturn:
    """The program."""
    signal.signal(signal.SIGTERM, _end)
    run(command, _PROGRAM)


def _end(number: int, _: object) -> NoReturn:
    # As an exception: what was begun is undone on its way out.
    raise SystemExit(128 + number)


@command.command("inbound-request")
@S2CS
@CHANNEL
@_JSON
@_SESSION
@_REMOTE_IP
@RECEIVER_PORTS_OPTION
def _inbound_request(remote_ip: str, receiver_ports: str, **options: Any) -> None:
    """Open the end in front of the service that is offered."""
    targets = _some(targets_at(remote_ip, receiver_ports), options["num_conn"])
    _open(_chosen_uid(options), Direction.INBOUND, targets, options)


@command.command("outbound-request")
@click.argument("uid_and_listeners", nargs=-1, metavar="[UID LISTENERS]")
@S2CS
@CHANNEL
@_JSON
@_SESSION
@_REMOTE_IP
@RECEIVER_PORTS_OPTION
def _outbound_request(uid_and_listeners: tuple[str, ...], **options: Any) -> None:
    """Open the end in front of the application; LISTENERS are the inbound end's, with commas between."""
    ticket = _read_ticket(options["ticket"])
    words = list(uid_and_listeners)
    if len(words) != (0 if ticket else 1 if _is_named(options) else 2):
        raise click.UsageError("Name UID and LISTENERS, or --name and LISTENERS, or --ticket alone.")
    if _was_said("receiver_ports"):
        _teller(options).warn("--receiver-ports of an outbound request has no effect yet: the control server chooses.")
    if ticket:
        _default(options, max(ticket.connections, len(ticket.entry_points)))
        _open(ticket.uid, Direction.OUTBOUND, ticket.entry_points, options, key=ticket.key)
    else:
        uid = _named_uid(options) if _is_named(options) else parse_uid(words[0])
        _open(uid, Direction.OUTBOUND, parse_endpoints(words[-1:]), options)


@command.command("prod-req")
@S2CS
@CHANNEL
@_JSON
@_SESSION
@click.option("--wait", type=click.FloatRange(0.1), default=HELLO_TIMEOUT, metavar="SECONDS", show_default=True)
def _prod_req(wait: float, **options: Any) -> None:
    """Open an inbound end whose targets an application controller (appctrl) registers."""
    _default(options, len(RECEIVER_PORTS.split(",")))
    _open(_chosen_uid(options), Direction.INBOUND, (), options, wait=wait)


@command.command("release")
@click.argument("uid", required=False)
@S2CS
@CHANNEL
@_JSON
@click.option("--direction", type=parse_direction, metavar="inbound|outbound", help="Default: both ends of the uid.")
@click.option("--ticket", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--name")
@click.option("--site-secret", type=click.Path(path_type=Path), metavar="FILE")
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
    teller.result({"released": which})


def _without_authentication(name: str, summary: str) -> None:
    @command.command(name, help=summary, context_settings={"ignore_unknown_options": True})
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


def _open(  # noqa: PLR0917 - one session
    uid: Uid,
    direction: Direction,
    targets: tuple[Endpoint, ...],
    options: dict[str, Any],
    key: bytes | None = None,
    wait: float | None = None,
) -> None:
    from scistream.client import SessionRequest, Wish, await_session, connect, open_session, open_with_ticket

    teller, server = _teller(options), control_server(options["s2cs"], options)
    _default(options, len(targets))
    request = SessionRequest(uid, direction, targets, options["num_conn"], options["rate"], key)
    ticket = options["ticket"] if direction is Direction.INBOUND else None
    opened = open_session if wait is None else functools.partial(await_session, wait=wait)
    with connect(server) as connection:
        teller.heading(uid, server, direction)
        if _was_said("rate"):
            teller.warn("--rate is recorded and shown, and not enforced yet.")
        if wait is not None:
            teller.say(f"Waiting {wait:g} s for: appctrl create-appctrl {uid} {server.address} NO_AUTH PROD HOST")
        session = open_with_ticket(connection, Wish(request, ticket, options["name"] or ""), opened)
    teller.session(session, server, ticket=ticket)


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
    from scistream.client import default_site_secret, site_secret, uid_of

    return uid_of(options["name"], site_secret(options["site_secret"] or default_site_secret()))


def _read_ticket(path: Path | None) -> Ticket | None:
    from scistream.client import tickets

    return tickets.read(path) if path else None


def _some(targets: tuple[Endpoint, ...], connections: int | None) -> tuple[Endpoint, ...]:
    """Of the default targets, as many as there shall be entry points; those that were named, all."""
    return targets if _was_said("receiver_ports") or connections is None else targets[: max(connections, 1)]


def _was_said(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not click.core.ParameterSource.DEFAULT


if __name__ == "__main__":
    main()
