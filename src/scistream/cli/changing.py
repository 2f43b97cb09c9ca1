"""`s2uc renew`, `renew-certificates`, `drain` and `release`: how a session that is there goes on, and ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scistream.addresses import Endpoint
from scistream.cli.calling import AS_JSON, CHANNEL, S2CS, control_server, examples
from scistream.cli.selecting import SELECTION, Selection, required
from scistream.cli.telling import Teller
from scistream.durations import parse_duration
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction

if TYPE_CHECKING:
    from scistream.client import Connection

__all__ = ["drain", "release", "renew", "renew_certificates"]

_PROGRAM: Final = "s2uc"


@click.command(
    "renew",
    epilog=examples(
        "s2uc renew --s2cs gateway.example 7d1f3c5e --lease 8h",
        "s2uc renew --s2cs gateway.example --ticket beam.ticket --lease unlimited",
    ),
)
@SELECTION
@S2CS
@CHANNEL
@AS_JSON
@click.option(
    "--lease",
    type=parse_duration,
    metavar="TIME",
    help="From now: 90 (seconds), 30m, 8h, unlimited; default: as the control server says.",
)
def renew(*, lease: float | None, as_json: bool, **options: Any) -> None:
    """Let a session last longer, or end earlier: its lease is counted from now."""
    from scistream.cli.tables import spell_lease, spell_time
    from scistream.client import connect

    which = required(options)
    with connect(control_server(options["s2cs"], options)) as connection:
        sessions = connection.renew(which.uid, which.direction, lease)
    teller = Teller(_PROGRAM, as_json)
    for session in sessions:
        until = f"lasts until {spell_time(session.lease_expires)}" if session.lease_expires else "has no end"
        left = f" ({spell_lease(session, time.time())})" if session.lease_expires else ""
        teller.say(f"The {session.direction.value} session {session.uid} {until}{left}.")
    teller.result({"sessions": [session.as_dict() for session in sessions]})


@click.command(
    "renew-certificates",
    epilog=examples(
        "s2uc renew-certificates --s2cs gateway.example 7d1f3c5e",
        "s2uc renew-certificates --s2cs gateway.example --ticket beam.ticket --direction inbound",
    ),
)
@SELECTION
@S2CS
@CHANNEL
@AS_JSON
def renew_certificates(*, as_json: bool, **options: Any) -> None:
    """Have new connections prove the gateway with a new certificate; running ones go on.

    Only for sessions whose encryption is tls: with tls-psk there is a key, and no certificate.
    """
    from scistream.cli.tables import spell_time
    from scistream.client import connect

    which = required(options)
    with connect(control_server(options["s2cs"], options)) as connection:
        sessions = connection.renew_certificates(which.uid, which.direction)
    teller = Teller(_PROGRAM, as_json)
    for session in sessions:
        until = f", until {spell_time(session.certificate_expires)}" if session.certificate_expires else ""
        teller.say(f"The {session.direction.value} session {session.uid} has a new certificate{until}.")
    teller.result({"sessions": [session.as_dict() for session in sessions]})


@click.command(
    "drain",
    epilog=examples(
        "s2uc drain --s2cs gateway.example 7d1f3c5e",
        "s2uc drain --s2cs gateway.example 7d1f3c5e --wait",
    ),
)
@SELECTION
@S2CS
@CHANNEL
@AS_JSON
@click.option("--wait", is_flag=True, help="Back when the running connections have ended and the session is released.")
def drain(*, wait: bool, as_json: bool, **options: Any) -> None:
    """Let no new connections in; the session is released when the running ones have ended.

    Ctrl-C ends the waiting, and not the draining.
    """
    from scistream.client import connect

    which = required(options)
    teller = Teller(_PROGRAM, as_json)
    with connect(control_server(options["s2cs"], options)) as connection:
        sessions = connection.drain(which.uid, which.direction)
        teller.say(f"Session {which.uid} lets no new connections in.")
        if wait:
            _wait(connection, which)
            teller.say(f"Session {which.uid} is released.")
    result = {"released": which.uid} if wait else {"sessions": [session.as_dict() for session in sessions]}
    teller.result(result)


def _wait(connection: Connection, which: Selection) -> None:
    from scistream.client.draining import await_drained

    progress = _Progress()
    try:
        await_drained(connection, which.uid, which.direction, go_on=progress.say)
    finally:
        progress.end()


class _Progress:
    """How many connections are left: on a terminal one line that is written over, else a line a change."""

    def __init__(self) -> None:
        self._is_live = sys.stderr.isatty()
        self._said = ""

    def say(self, left: int) -> bool:
        """Tell it, where it is news; it goes on for as long as it takes."""
        words = f"{left} connection{'s' * (left != 1)} left"
        if words != self._said:
            click.echo(f"\r\x1b[K{words}" if self._is_live else words, err=True, nl=not self._is_live)
        self._said = words
        return True

    def end(self) -> None:
        """Leave the line."""
        if self._is_live and self._said:
            click.echo(err=True)


@click.command(
    "release",
    epilog=examples(
        "s2uc release --s2cs gateway.example --ticket beam.ticket",
        "s2uc release --s2cs gateway.example 7d1f3c5e --direction inbound",
    ),
)
@SELECTION
@S2CS
@CHANNEL
@AS_JSON
def release(*, as_json: bool, s2cs: Endpoint, **options: Any) -> None:
    """Stop a session's data server and free its entry points."""
    from scistream.client import connect

    which = required(options)
    teller = Teller(_PROGRAM, as_json)
    server = control_server(s2cs, options)
    with connect(server) as connection:
        try:
            connection.release(which.uid, which.direction)
        except SciStreamError as error:
            if error.code is Code.UID_UNKNOWN:
                _remove_tickets(which, server.known_as, None, teller)
            raise
    teller.say(f"Session {which.uid} is released on {s2cs}.")
    _remove_tickets(which, server.known_as, options["ticket"], teller)
    teller.result({"released": which.uid})


def _remove_tickets(which: Selection, s2cs: Endpoint, named: Path | None, teller: Teller) -> None:
    """Those of an inbound session that is gone: the one that was named, and the one that was kept without a name.

    At the other facility a ticket is a copy, and stays.
    """
    from scistream.client import own_place

    if which.direction is Direction.OUTBOUND:
        return
    is_its_own = which.ticket is not None and which.ticket.control_server == s2cs
    for ticket in (own_place(which.uid, s2cs), named if is_its_own else None):
        if ticket and ticket.exists():
            ticket.unlink(missing_ok=True)
            teller.say(f"Its ticket {ticket} is removed.")
