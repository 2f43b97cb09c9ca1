"""Streams as they are wished for: both ends asked, the inbound one opened, the outbound one opened, or neither."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scistream.addresses import parse_endpoints
from scistream.client import tickets
from scistream.client.channel import Connection, connect
from scistream.client.comparison import Action, Outcome, make_wish
from scistream.client.convergence import ensure_absent, ensure_session, plan_absent, plan_session
from scistream.client.negotiation import release_session
from scistream.client.opening import withdraw
from scistream.client.sessions import Session
from scistream.client.streams import StreamEnd, StreamEnds, StreamOutcome, StreamWish
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

__all__ = ["ensure_stream", "ensure_stream_absent", "look_at_stream", "plan_stream", "plan_stream_absent"]

_OPENS: Final = frozenset({Action.OPENED, Action.REOPENED})
_ANOTHER_KEY: Final = "its key is another"
_WITHDRAWN: Final = "The inbound end, which had been opened for it, was released again."


@dataclass(frozen=True)
class _Called:
    """An end whose control server is called."""

    direction: Direction
    end: StreamEnd
    connection: Connection

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Put before an error which end it is about: most of them know of one session only."""
        with _named(self.direction, self.end):
            yield

    def check_engine(self) -> None:
        """Refuse an engine that nobody asked for.

        Raises:
            SciStreamError: ENGINE_CANNOT, or why the control server cannot be asked.
        """
        if not self.end.engine or (engine := self.connection.server_facts().engine) == self.end.engine:
            return
        reason = f"{self.end.engine} was asked for, and {self.end.control_server.known_as} carries its sessions with it"
        raise SciStreamError(Code.ENGINE_CANNOT, engine=engine, reason=reason)


def plan_stream(ends: StreamEnds, wish: StreamWish) -> StreamOutcome:
    """What `ensure_stream` would do. Only reads; takes and raises what that does."""
    with _calling(ends) as called:
        return _planned(*called, wish)


def ensure_stream(ends: StreamEnds, wish: StreamWish) -> StreamOutcome:
    """Make the stream be there, with these parameters, and running: the inbound session first, then the outbound one.

    Both ends are asked before either is touched. Where the outbound one fails all the same, an inbound one that this
    call opened is released again.

    Args:
        ends: the gateways.
        wish: the stream.

    Raises:
        SciStreamError: BAD_TICKET, what `ensure_session` raises; which end it is about stands before its words.
    """
    with _calling(ends) as (inbound, outbound):
        planned = _planned(inbound, outbound, wish)
        if not planned.changed:
            return planned
        if inbound is None:
            return StreamOutcome(outbound=_opened_outbound(outbound, wish, tickets.read(_ticket_of(wish)), planned))
        return _both_or_neither(inbound, outbound, wish, planned)


def _both_or_neither(
    inbound: _Called, outbound: _Called | None, wish: StreamWish, planned: StreamOutcome
) -> StreamOutcome:
    request = wish.inbound_request(inbound.end)
    with inbound.named():
        before = make_wish(request, wish.ticket, wish.name)
        opened = ensure_session(inbound.connection, request, ticket=wish.ticket, name=wish.name)
    try:
        opened = _handed_over(inbound, wish, opened, write=True)
        ticket = _ticket(inbound, wish, opened)
        return StreamOutcome(opened, _opened_outbound(outbound, wish, ticket, planned) if outbound else None)
    except BaseException as error:
        if opened.action is Action.OPENED:
            known = len(_notes(error))
            withdraw(inbound.connection, before, error)
            # What could not be released is noted on the error, and its words are all that a module shows.
            _add(error, *(_notes(error) if len(_notes(error)) > known else (*_notes(error), _WITHDRAWN)))
        raise


def _opened_outbound(
    outbound: _Called | None, wish: StreamWish, ticket: Ticket, planned: StreamOutcome
) -> Outcome | None:
    if outbound is None or planned.outbound is None:
        return None
    with outbound.named():
        request = wish.outbound_request(outbound.end, ticket)
        if _ANOTHER_KEY in planned.outbound.differences:
            # What the two ends know each other by is never compared: the old one would look as wished.
            release_session(outbound.connection, request.uid, request.direction)
        opened = ensure_session(outbound.connection, request, name=wish.name)
    if _ANOTHER_KEY in planned.outbound.differences:
        opened = _reopened(opened, planned.outbound)
    return _as_reached(outbound, opened)


def _planned(inbound: _Called | None, outbound: _Called | None, wish: StreamWish) -> StreamOutcome:
    """Ask both ends what they would do; what one of them cannot is found out before anything is touched."""
    if inbound is None:
        return StreamOutcome(outbound=_planned_outbound(outbound, wish, tickets.read(_ticket_of(wish))))
    request = wish.inbound_request(inbound.end)
    with inbound.named():
        inbound.check_engine()
        near = plan_session(inbound.connection, request, ticket=wish.ticket, name=wish.name)
    if near.session is None or near.action in _OPENS:
        far = _foreseen_outbound(outbound, wish, near)
        return StreamOutcome(near, far)
    near = _handed_over(inbound, wish, near, write=False)
    return StreamOutcome(near, _planned_outbound(outbound, wish, _ticket(inbound, wish, near)))


def _planned_outbound(outbound: _Called | None, wish: StreamWish, ticket: Ticket) -> Outcome | None:
    if outbound is None:
        return None
    with outbound.named():
        outbound.check_engine()
        request = wish.outbound_request(outbound.end, ticket)
        request.require_key()
        return _as_reached(outbound, plan_session(outbound.connection, request, name=wish.name))


def _foreseen_outbound(outbound: _Called | None, wish: StreamWish, inbound: Outcome) -> Outcome | None:
    if outbound is None or inbound.session is None:
        return None
    with outbound.named():
        outbound.check_engine()
        request = wish.foreseen_request(outbound.end, inbound.session)
        planned = plan_session(outbound.connection, request, name=wish.name)
    if planned.before and inbound.session.is_keyed and not _keeps_key(wish):
        planned = _reopened(planned, planned)
    return _as_reached(outbound, planned)


def _keeps_key(wish: StreamWish) -> bool:
    """Whether an inbound session that is opened anew has the key that the outbound one knows."""
    return wish.ticket is not None and wish.ticket.exists() and tickets.read(wish.ticket).key is not None


def _reopened(outcome: Outcome, planned: Outcome) -> Outcome:
    found = tuple(dict.fromkeys((*planned.differences, _ANOTHER_KEY)))
    return dataclasses.replace(outcome, action=Action.REOPENED, changed=True, before=planned.before, differences=found)


def _handed_over(inbound: _Called, wish: StreamWish, outcome: Outcome, *, write: bool) -> Outcome:
    """See that the ticket has the entry points as the other end reaches them, and tell them so."""
    outcome = _as_reached(inbound, outcome)
    ticket = _ticket(inbound, wish, outcome)
    if wish.ticket is None or not wish.ticket.exists() or ticket == tickets.read(wish.ticket):
        return outcome
    if write:
        tickets.write(wish.ticket, ticket)
    if outcome.action is not Action.NOTHING:
        return outcome
    found = (*outcome.differences, f"other entry points in the ticket {wish.ticket}")
    return dataclasses.replace(outcome, action=Action.TICKET_WRITTEN, changed=True, differences=found)


def _ticket(inbound: _Called, wish: StreamWish, outcome: Outcome) -> Ticket:
    """The ticket of the inbound session that is there."""
    session = outcome.session
    assert session is not None  # noqa: S101 - whoever calls this has opened or found it
    if wish.ticket and wish.ticket.exists():
        return dataclasses.replace(tickets.read(wish.ticket), entry_points=parse_endpoints(session.entry_points))
    server, asked = inbound.end.control_server.known_as, wish.encryption or Encryption.TLS
    return tickets.of_session(session, control_server=server, name=wish.name, asked=asked)


def _ticket_of(wish: StreamWish) -> Path:
    if wish.ticket is None:
        reason = "an outbound end alone needs the ticket of its inbound one"
        raise SciStreamError(Code.BAD_TICKET, path="(none)", reason=reason)
    return wish.ticket


def _as_reached(called: _Called, outcome: Outcome) -> Outcome:
    session = outcome.session
    return dataclasses.replace(outcome, session=called.end.reached(session)) if session else outcome


def plan_stream_absent(ends: StreamEnds, uid: Uid, *, ticket: Path | None = None, drain: float = 0.0) -> StreamOutcome:
    """What `ensure_stream_absent` would do. Only reads; takes and raises what that does."""
    return _absent(ends, uid, ticket, drain, plan_absent)


def ensure_stream_absent(
    ends: StreamEnds, uid: Uid, *, ticket: Path | None = None, drain: float = 0.0
) -> StreamOutcome:
    """Make the stream not be there: the outbound session first, then the inbound one, whose ticket goes with it.

    An end that cannot be released does not keep the other one from it.

    Args:
        ends: the gateways.
        uid: of the stream.
        ticket: of the inbound session.
        drain: seconds that the connections which run have to end by themselves.

    Raises:
        SciStreamError: BAD_TICKET, what the first end that failed says, or why it cannot be talked to.
    """
    return _absent(ends, uid, ticket, drain, ensure_absent)


def _absent(
    ends: StreamEnds, uid: Uid, ticket: Path | None, drain: float, act: Callable[..., Outcome]
) -> StreamOutcome:
    released: dict[Direction, Outcome] = {}
    failures: list[SciStreamError] = []
    for direction, end in ends:
        own = ticket if direction is Direction.INBOUND else None
        try:
            with _named(direction, end), connect(end.control_server) as connection:
                released[direction] = act(connection, uid, direction, ticket=own, drain=drain)
        except SciStreamError as error:
            failures.append(error)
    if failures:
        for direction in released:
            _add(failures[0], f"The {direction.value} end was seen to all the same.")
        raise failures[0]
    return StreamOutcome(released.get(Direction.INBOUND), released.get(Direction.OUTBOUND))


def look_at_stream(ends: StreamEnds, uid: Uid) -> dict[Direction, Session]:
    """The sessions of a stream that are there, by their directions.

    Raises:
        SciStreamError: OLD_CONTROL_SERVER, what else a control server says, or why it cannot be talked to.
    """
    found = {}
    for direction, end in ends:
        with _named(direction, end), connect(end.control_server) as connection:
            if session := _described(connection, uid, direction):
                found[direction] = end.reached(session)
    return found


def _described(connection: Connection, uid: Uid, direction: Direction) -> Session | None:
    try:
        found = connection.describe(uid, direction)
    except SciStreamError as error:
        if error.code is not Code.UID_UNKNOWN:
            raise
        return None
    return next((session for session in found if session.direction is direction), None)


@contextlib.contextmanager
def _calling(ends: StreamEnds) -> Iterator[tuple[_Called | None, _Called | None]]:
    with contextlib.ExitStack() as stack:
        called = {
            direction: _Called(direction, end, stack.enter_context(_connected(direction, end)))
            for direction, end in ends
        }
        yield called.get(Direction.INBOUND), called.get(Direction.OUTBOUND)


@contextlib.contextmanager
def _connected(direction: Direction, end: StreamEnd) -> Iterator[Connection]:
    with _named(direction, end):
        connection = connect(end.control_server)
    with connection:
        yield connection


@contextlib.contextmanager
def _named(direction: Direction, end: StreamEnd) -> Iterator[None]:
    try:
        yield
    except SciStreamError as error:
        error.args = (f"{direction.value} end ({end.called}): {error}",)
        raise


def _add(error: BaseException, *sentences: str) -> None:
    """Say what else was done about it."""
    if isinstance(error, SciStreamError):
        error.args = (" ".join((str(error), *sentences)),)


def _notes(error: BaseException) -> tuple[str, ...]:
    return tuple(getattr(error, "__notes__", ()))
