"""`s2uc list`, `status` and `watch`: what is there, and what happens to it. They change nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from scistream.cli.calling import AS_JSON, CHANNEL, S2CS, control_server, examples, spell_channel, was_said
from scistream.cli.common import tell
from scistream.cli.selecting import SELECTION, Selection, selected
from scistream.errors import Code, ExitCode, SciStreamError
from scistream.terms import SessionState

if TYPE_CHECKING:
    from scistream.client import Connection, ControlServer, Session, SessionEvent, Watch

__all__ = ["list_sessions", "status", "watch"]

_RELEASED: Final = SessionState.RELEASED.value
# Events after which a session is one that the watcher did not know before.
_BEGINNINGS: Final = frozenset({"there", "active"})


@click.command(
    "list",
    epilog=examples("s2uc list --s2cs gateway.example", "s2uc list --s2cs gateway.example --json"),
)
@S2CS
@CHANNEL
@AS_JSON
def list_sessions(*, as_json: bool, **options: Any) -> None:
    """Show your sessions on a control server, in the order of their opening."""
    from scistream.cli.tables import session_table
    from scistream.client import connect

    with connect(control_server(options["s2cs"], options)) as connection:
        sessions = connection.list_sessions()
    if as_json:
        _print_json({"sessions": [session.as_dict() for session in sessions]})
    elif sessions:
        tell(session_table(sessions, now=time.time(), width=_width()))
        for session in sessions:
            _warn(session)
    else:
        tell(f"No sessions of yours on {options['s2cs']}.")


def _warn(session: Session) -> None:
    """Every status says it, beside what machines read."""
    for warning in session.warnings:
        tell(f"s2uc: warning: {session.direction.value} session {session.uid}: {warning}", err=True)


def _width() -> int | None:
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


@click.command(
    "status",
    epilog=examples(
        "s2uc status --s2cs gateway.example 7d1f3c5e",
        "s2uc status --s2cs gateway.example --ticket beam.ticket",
        "s2uc status --s2cs gateway.example",
    ),
)
@SELECTION
@S2CS
@CHANNEL
@AS_JSON
def status(**options: Any) -> int:
    """Show all about a session; without one, about the control server itself.

    Exit code 0 where the session is well, 8 where it failed, 4 where it is not there.
    """
    which = selected(options)
    server = control_server(options["s2cs"], options)
    return _status_of_server(server, options) if which is None else _status_of_session(server, which, options)


def _status_of_server(server: ControlServer, options: dict[str, Any]) -> int:
    from scistream.cli.tables import server_card
    from scistream.client import connect

    with connect(server) as connection:
        facts = connection.server_facts()
    if options["as_json"]:
        _print_json({"control_server": {"address": str(server.address), **facts.as_dict()}})
    else:
        tell(server_card(str(server.address), facts, now=time.time()))
    return ExitCode.OK


def _status_of_session(server: ControlServer, which: Selection, options: dict[str, Any]) -> int:
    from scistream.client import connect

    with connect(server) as connection:
        sessions = connection.describe(which.uid, which.direction)
    if options["as_json"]:
        _print_json({"sessions": [session.as_dict() | {"next": _next(session, server)} for session in sessions]})
    else:
        tell("\n\n".join(_card(session, server) for session in sessions))
    failed = any(session.state == SessionState.FAILED.value for session in sessions)
    return ExitCode.DATA_SERVER if failed else ExitCode.OK


def _card(session: Session, server: ControlServer) -> str:
    from scistream.cli.tables import card

    return f"{card(session, now=time.time())}\nNext: {_next(session, server)}"


def _next(session: Session, server: ControlServer) -> str:
    """What can be done with a session in its state."""
    from scistream.cli.telling import next_step

    return next_step(session, spell_channel(server))


@click.command(
    "watch",
    epilog=examples(
        "s2uc watch --s2cs gateway.example",
        "s2uc watch --s2cs gateway.example 7d1f3c5e --until active --timeout 60",
    ),
)
@SELECTION
@S2CS
@CHANNEL
@AS_JSON
@click.option(
    "--until",
    type=click.Choice([state.value for state in SessionState]),
    help="End when the session is in this state; --timeout says how long that may take.",
)
def watch(*, until: str | None, **options: Any) -> int:
    """Tell what happens to your sessions, or to one, a line an event; with --json, a JSON object a line.

    Ctrl-C ends it with exit code 0; with --until, which was not reached then, with 130. It goes on for as long as
    nobody says --timeout.
    """
    from scistream.client import connect

    which = selected(options)
    if until and which is None:
        raise click.UsageError("--until is for one session: name it by UID, by --ticket or by --name.")
    # A user's own default is how long one call may take: a watch is to last.
    seconds = options["timeout"] if was_said("timeout", now=True) else None
    try:
        with (
            connect(control_server(options["s2cs"], options)) as connection,
            connection.watch(*_asked(which), timeout=seconds) as events,
        ):
            if which is None or until is None:
                _tell_all(events, as_json=options["as_json"], seconds=seconds)
            else:
                _Wanted(which, until, as_json=options["as_json"]).follow(connection, events, seconds)
    except KeyboardInterrupt:
        if until:
            raise
    return ExitCode.OK


def _asked(which: Selection | None) -> tuple[Any, Any]:
    return (which.uid, which.direction) if which else (None, None)


def _tell_all(events: Watch[SessionEvent], *, as_json: bool, seconds: float | None) -> None:
    try:
        for event in events:
            _tell_event(event, as_json=as_json)
            _warn_of_new(event, as_json=as_json)
    except SciStreamError as error:
        # So long was asked for, and so long was watched.
        if error.code is not Code.DEADLINE or seconds is None:
            raise


class _Wanted:
    """The state that a session is waited for in."""

    def __init__(self, which: Selection, state: str, *, as_json: bool) -> None:
        self._which = which
        self._state = state
        self._as_json = as_json
        self._last = "no session with that uid"

    def follow(self, connection: Connection, events: Watch[SessionEvent], seconds: float | None) -> None:
        """Tell the events up to the one that is waited for."""
        try:
            events.await_begin()
            if self._is_gone(connection):
                self._end()
                return
            if not any(map(self._is_last, events)):
                self._raise_gone()
        except SciStreamError as error:
            if error.code is not Code.DEADLINE or seconds is None:
                raise
            what = f"waiting for session {self._which.uid} to be {self._state}"
            raise SciStreamError(Code.DEADLINE, what=what, seconds=seconds, last=self._last) from None

    def _is_gone(self, connection: Connection) -> bool:
        try:
            connection.describe(self._which.uid, self._which.direction)
        except SciStreamError as error:
            if error.code is not Code.UID_UNKNOWN:
                raise
            return True
        return False

    def _end(self) -> None:
        # What is not there yet may come; what was released does not end a second time.
        if self._state == _RELEASED:
            tell(f"There is no session {self._which.uid}: it is released, or never was.", err=True)
            return
        self._raise_gone()

    def _is_last(self, event: SessionEvent) -> bool:
        _tell_event(event, as_json=self._as_json)
        _warn_of_new(event, as_json=self._as_json)
        self._last = f"it is {event.session.state}"
        if event.session.state == self._state:
            return True
        if event.session.state == _RELEASED:
            self._raise_gone()
        return False

    def _raise_gone(self) -> None:
        raise SciStreamError(Code.UID_UNKNOWN, uid=self._which.uid)


def _tell_event(event: SessionEvent, *, as_json: bool) -> None:
    from scistream.cli.tables import event_line

    tell(json.dumps(event.as_dict()) if as_json else event_line(event))


def _warn_of_new(event: SessionEvent, *, as_json: bool) -> None:
    """Once for each session: when it is found, or when it begins to carry bytes. JSON has it in every object."""
    if event.kind in _BEGINNINGS and not as_json:
        _warn(event.session)


def _print_json(body: dict[str, Any]) -> None:
    tell(json.dumps(body, indent=2))
