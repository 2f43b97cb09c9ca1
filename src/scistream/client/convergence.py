"""Sessions as they are wished for: read, compare, act, read again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from scistream.addresses import PortRange
from scistream.client import tickets
from scistream.client.abilities import check_facts, check_server, granted
from scistream.client.channel import Connection
from scistream.client.comparison import Action, Decision, Outcome, Wish, decide, displaced, make_wish, outcome
from scistream.client.draining import drain_session
from scistream.client.facts import ServerFacts
from scistream.client.kept_tickets import check_place
from scistream.client.negotiation import open_session, release_session
from scistream.client.old_servers import ensure_blindly, is_old, plan_blindly, warn_blind
from scistream.client.opening import Opener, open_with_ticket, write_ticket
from scistream.client.requests import SessionRequest
from scistream.client.retargeting import reopening, retarget
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState, Uid

__all__ = ["ensure_absent", "ensure_session", "plan_absent", "plan_session"]

_IN_THE_MAKING: Final = frozenset({SessionState.REQUESTED.value, SessionState.REGISTERED.value})


def plan_session(
    connection: Connection, request: SessionRequest, *, ticket: Path | None = None, name: str = ""
) -> Outcome:
    """What `ensure_session` would do. Only reads.

    Raises:
        SciStreamError: BAD_TICKET, KEPT_TICKET_ELSEWHERE, UID_EXISTS, what the control server says, or why it cannot
            be talked to.
    """
    wish = make_wish(request, ticket, name)
    try:
        decision = _decided(connection, wish)
    except SciStreamError as error:
        if is_old(error):
            return plan_blindly(connection, wish)
    return outcome(wish, decision, _foreseen(connection, request, decision))


def ensure_session(
    connection: Connection,
    request: SessionRequest,
    *,
    ticket: Path | None = None,
    name: str = "",
    opener: Opener = open_session,
) -> Outcome:
    """Make the session be there, with these parameters, and running.

    One that runs and has nothing but other targets gets them, and its connections go on. One that failed, has other
    parameters or cannot be retargeted is released and opened anew, which cuts its connections: ask only for sessions of
    your own.

    Args:
        connection: to the control server.
        request: what is wished for. An inbound one needs no key: it comes from the ticket, or is made.
        ticket: where the ticket of an inbound session is, or shall be. An outbound one has none of its own.
        name: of the session, for the ticket.
        opener: how it is opened: `open_session`, or `await_session`, whose targets are any.

    Raises:
        SciStreamError: BAD_TICKET, FILE_UNWRITABLE, KEPT_TICKET_ELSEWHERE, UID_EXISTS (another run waits for it), what
            the control server says, or why it cannot be talked to.
    """
    wish = dataclasses.replace(make_wish(request, ticket, name), any_targets=opener is not open_session)
    opened = functools.partial(open_with_ticket, connection, wish, opener)
    try:
        decision = _decided(connection, wish)
    except SciStreamError as error:
        if is_old(error):
            return ensure_blindly(connection, wish, opened)
    return _carry_out(connection, wish, decision, opened)


def _decided(connection: Connection, wish: Wish) -> Decision:
    server = connection.control_server.known_as
    try:
        before = _settled(_look(connection, wish.request.uid, wish.request.direction))
        decision = decide(wish, before, reached_by=connection.control_server.reached_by)
    except SciStreamError as error:
        # An old one cannot be asked whether the ticket is that of a session there.
        if is_old(error) and wish.held:
            check_place(wish.ticket, wish.held, server)
        raise
    if other := displaced(wish, decision):
        check_place(wish.ticket, other, server)
    return decision


def _carry_out(connection: Connection, wish: Wish, decision: Decision, opened: Callable[[], Session]) -> Outcome:
    request = wish.request
    if decision.retargets:
        try:
            return outcome(wish, decision, retarget(connection, wish))
        except SciStreamError as error:
            decision = reopening(wish, decision, error)
    if not decision.opens:
        if decision.before and decision.writes_ticket:
            write_ticket(connection, wish, decision.before, wish.held.key if wish.held else None)
        return outcome(wish, decision, decision.before)
    if decision.before:
        check_server(connection, request)
        release_session(connection, request.uid, request.direction)
    return outcome(wish, decision, opened())


def plan_absent(
    connection: Connection,
    uid: Uid,
    direction: Direction | None = None,
    *,
    ticket: Path | None = None,
    drain: float = 0.0,
) -> Outcome:
    """What `ensure_absent` would do. Only reads; takes what that takes.

    Raises:
        SciStreamError: BAD_TICKET, what the control server says, or why it cannot be talked to.
    """
    left = _ticket_of(uid, direction, ticket) is not None
    try:
        before = _look_at_all(connection, uid, direction)
    except SciStreamError as error:
        if is_old(error):
            return _gone(left or ticket is None, None, warn_blind(connection, uid))
    return _gone(before is not None or left, before)


def ensure_absent(
    connection: Connection,
    uid: Uid,
    direction: Direction | None = None,
    *,
    ticket: Path | None = None,
    drain: float = 0.0,
) -> Outcome:
    """Make the session not be there, without a direction both with that uid; its inbound end's ticket goes with it.

    With `drain`, running connections have so many seconds to end by themselves.

    Raises:
        SciStreamError: BAD_TICKET, OLD_CONTROL_SERVER where it cannot drain, what the control server says, or why
            it cannot be talked to.
    """
    left = _ticket_of(uid, direction, ticket)
    before: dict[str, Any] | None = None
    present = True
    try:
        before = _look_at_all(connection, uid, direction)
        present = before is not None
    except SciStreamError as error:
        is_old(error)
    drained = present and drain > 0 and drain_session(connection, uid, direction, patience=drain)
    released = present and release_session(connection, uid, direction)
    if left:
        left.unlink(missing_ok=True)
    return _gone(drained or released or left is not None, before)


def _gone(changed: bool, before: dict[str, Any] | None, *warnings: str) -> Outcome:
    action = Action.RELEASED if changed else Action.NOTHING
    return Outcome(None, changed, before, None, warnings=warnings, action=action)


def _look(connection: Connection, uid: Uid, direction: Direction) -> Session | None:
    try:
        found = connection.describe(uid, direction)
    except SciStreamError as error:
        if error.code is Code.UID_UNKNOWN:
            return None
        raise
    there = (session for session in found if session.direction is direction)
    return next((session for session in there if session.state != SessionState.RELEASED.value), None)


def _settled(session: Session | None) -> Session | None:
    """A session that another run just opens is not this one's to replace: that run waits for it.

    Raises:
        SciStreamError: UID_EXISTS.
    """
    if session and session.state in _IN_THE_MAKING:
        state = f"another request waits for it already: it is {session.state}"
        raise SciStreamError(Code.UID_EXISTS, uid=session.uid, state=state)
    return session


def _look_at_all(connection: Connection, uid: Uid, direction: Direction | None) -> dict[str, Any] | None:
    """One session as plain data; both ends of a stream by their directions."""
    wanted = (direction,) if direction else tuple(Direction)
    found = [session for session in (_look(connection, uid, one) for one in wanted) if session]
    if len(found) > 1:
        return {session.direction.value: session.as_dict() for session in found}
    return found[0].as_dict() if found else None


def _foreseen(connection: Connection, request: SessionRequest, decision: Decision) -> Session | None:
    """The session as it would be."""
    if decision.opens:
        return _predicted(connection, request, decision.before)
    if decision.before and decision.retargets:
        return dataclasses.replace(decision.before, targets=tuple(map(str, request.targets)))
    return decision.before


def _predicted(connection: Connection, request: SessionRequest, before: Session | None) -> Session:
    facts = connection.server_facts()
    check_facts(connection, request, facts)
    _check_ports(facts, request, len(before.entry_points) if before else 0)
    planned = Session.untold(request.uid, request.direction, (), request.targets, request.connections, request.rate)
    return dataclasses.replace(
        planned,
        engine=facts.engine,
        encryption=granted(connection, request, facts),
        transport=request.transport.value,
        sources=tuple(map(str, request.sources)),
        half_close=request.half_close,
    )


def _check_ports(facts: ServerFacts, request: SessionRequest, held: int) -> None:
    """What the control server would say, as far as it tells; `held` are those of the session that makes way."""
    free = facts.ports_free + held
    if free < request.connections:
        size = len(PortRange.parse(facts.port_range))
        numbers = {"wanted": request.connections, "free": free, "size": size}
        raise SciStreamError(Code.PORTS_EXHAUSTED, range=facts.port_range, others="", **numbers)


def _ticket_of(uid: Uid, direction: Direction | None, ticket: Path | None) -> Path | None:
    """The ticket that goes with an inbound session; an outbound one's is a copy, and not its own."""
    if ticket is None or direction is Direction.OUTBOUND or not ticket.exists():
        return None
    return ticket if tickets.read(ticket).uid == uid else None
