"""Open a session and write its ticket: both or neither."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay

from scistream.client import tickets
from scistream.client.channel import Connection
from scistream.client.comparison import Wish
from scistream.client.negotiation import Pause, open_session, release_session
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError

__all__ = ["Opener", "open_with_ticket", "withdraw", "write_ticket"]

Opener = Callable[[Connection, SessionRequest], Session]
"""Opens a session."""

# Seconds: an operator may let ports rest for longer, and then nobody waits for them here.
_LONGEST_REST: Final = 10.0
_MARGIN: Final = 0.05


def open_with_ticket(
    connection: Connection, wish: Wish, opened: Opener = open_session, *, pause: Pause = time.sleep
) -> Session:
    """Open a session and write its ticket, or neither.

    Where all that is missing are ports that rest for a moment after another session, that moment is waited for.

    Args:
        connection: to the control server.
        wish: the session, with the place of its ticket or without one.
        opened: how it is opened: `open_session`, or `await_session`.
        pause: waits that many seconds.

    Raises:
        SciStreamError: FILE_UNWRITABLE, what the control server says, or why it cannot be talked to.
    """
    request = wish.keyed_request
    stop = stop_after_delay(connection.control_server.timeout)
    again = Retrying(retry=retry_if_exception(_rests), wait=_rest, stop=stop, sleep=pause, reraise=True)
    session = again(opened, connection, request)
    try:
        write_ticket(connection, wish, session, request.key)
    except BaseException:
        release_session(connection, request.uid, request.direction)
        raise
    return session


def _rests(error: BaseException) -> bool:
    return _seconds(error) is not None


def _rest(state: RetryCallState) -> float:
    return (_seconds(state.outcome.exception() if state.outcome else None) or 0.0) + _MARGIN


def _seconds(error: BaseException | None) -> float | None:
    """How soon there will be enough ports; None where that is not soon, or nobody knows."""
    if not isinstance(error, SciStreamError) or error.code is not Code.PORTS_EXHAUSTED:
        return None
    seconds = error.facts.get("retry_after")
    return seconds if isinstance(seconds, float | int) and 0 < seconds <= _LONGEST_REST else None


def withdraw(connection: Connection, wish: Wish, error: BaseException) -> None:
    """Undo the opening of a session that nobody learned of, because of `error`; what is left over is noted on it."""
    request = wish.request
    try:
        release_session(connection, request.uid, request.direction)
    except SciStreamError as failure:
        error.add_note(f"Session {request.uid} may be left over there: {failure.seen}.")
        return
    # One that was there before holds the key for the next time.
    if wish.ticket and wish.held is None:
        with contextlib.suppress(OSError):
            wish.ticket.unlink()


def write_ticket(connection: Connection, wish: Wish, session: Session, key: bytes | None) -> None:
    """Write the ticket that was asked for, where one was."""
    if wish.ticket:
        server, asked = connection.control_server.known_as, wish.request.encryption
        ticket = tickets.of_session(session, control_server=server, name=wish.name, key=key, asked=asked)
        tickets.write(wish.ticket, ticket)
