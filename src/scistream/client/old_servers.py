"""Sessions as they are wished for, on a control server that has the old protocol only and describes nothing.

There, a request that finds the uid taken tells that the session is there; what it was opened with stands in the ticket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from scistream.client.abilities import check_server
from scistream.client.channel import Connection
from scistream.client.comparison import Decision, Outcome, Wish, differences, outcome
from scistream.client.negotiation import release_session
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction

__all__ = ["ensure_blindly", "is_old", "plan_blindly", "warn_blind"]

_UNCOMPARED: Final = (
    "The control server {server} speaks the old protocol only: session {uid} is there, and what it was opened with "
    "could not be compared{entry_points}."
)
_UNSEEN: Final = (
    "The control server {server} speaks the old protocol only: whether session {uid} is there cannot be told without "
    "asking for it."
)
_NO_ENTRY_POINTS: Final = ", nor its entry points read; without its ticket, only releasing it and opening it anew tells"


def is_old(error: SciStreamError) -> bool:
    """Whether a control server failed to answer because it is an old one; anything else is raised again."""
    if error.code is not Code.OLD_CONTROL_SERVER:
        raise error
    return True


def warn_blind(connection: Connection, uid: str) -> str:
    """That a session could not be looked at."""
    return _UNSEEN.format(server=connection.control_server.address, uid=uid)


def plan_blindly(connection: Connection, wish: Wish) -> Outcome:
    """What would be done, as far as the ticket tells.

    Raises:
        SciStreamError: OLD_CONTROL_SERVER, for what is wished for and cannot be had there.
    """
    check_server(connection, wish.request)
    before, request = _remembered(wish), wish.request
    found = differences(before, request, any_targets=wish.any_targets) if before else ()
    opens = before is None or bool(found)
    decision = Decision(before, opens, differences=found, warnings=(warn_blind(connection, request.uid),))
    return outcome(wish, decision, request.untold(()) if opens else before)


def ensure_blindly(connection: Connection, wish: Wish, opened: Callable[[], Session]) -> Outcome:
    """Ask for the session; where the uid is taken, it is there already.

    Raises:
        SciStreamError: what the control server says, or why it cannot be talked to.
    """
    try:
        return outcome(wish, Decision(None, opens=True), opened())
    except SciStreamError as error:
        if error.code is not Code.UID_EXISTS:
            raise
    before = _remembered(wish)
    warnings: tuple[str, ...] = ()
    if before is None:
        before, warnings = _recovered(connection, wish.request)
    found = differences(before, wish.request, any_targets=wish.any_targets)
    decision = Decision(before, opens=bool(found), differences=found, warnings=warnings)
    if not found:
        return outcome(wish, decision, before)
    release_session(connection, wish.request.uid, wish.request.direction)
    return outcome(wish, decision, opened())


def _remembered(wish: Wish) -> Session | None:
    """The session as its ticket tells it."""
    held, request = wish.held, wish.request
    if held is None:
        return None
    encryption = (held.encryption or request.encryption).value
    there = map(str, held.entry_points)
    return Session.untold(held.uid, request.direction, there, held.targets, held.connections, request.rate, encryption)


def _recovered(connection: Connection, request: SessionRequest) -> tuple[Session, tuple[str, ...]]:
    entry_points = _entry_points(connection, request)
    lack = "" if entry_points else _NO_ENTRY_POINTS
    warning = _UNCOMPARED.format(server=connection.control_server.address, uid=request.uid, entry_points=lack)
    return request.untold(entry_points), (warning,)


def _entry_points(connection: Connection, request: SessionRequest) -> tuple[str, ...]:
    """A `hello` that is not an inbound end's changes nothing, and is answered with the entry points."""
    if request.direction is Direction.INBOUND:
        return ()
    try:
        return connection.hello(request.uid, request.direction, request.targets).result()
    except SciStreamError:
        return ()
