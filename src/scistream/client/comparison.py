"""A session as it is wished for against the one that is there. The comparison alone says what changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from scistream.addresses import Endpoint, parse_endpoints
from scistream.client import tickets
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction

__all__ = ["Action", "Decision", "Outcome", "Wish", "decide", "differences", "displaced", "make_wish", "outcome"]

_KEY_LOST: Final = (
    "The key of session {uid} is lost: the ticket {ticket} is missing or of an earlier session. "
    "The session is opened anew, and its outbound end has to be opened anew with the new ticket."
)
_NO_TICKET: Final = (
    "The gateways of session {uid} share a key, and no ticket was asked for: "
    "without one the outbound end cannot be opened."
)


class Action(StrEnum):
    """What was done about a session, or would be."""

    NOTHING = "none"
    OPENED = "opened"
    REOPENED = "reopened"
    RETARGETED = "retargeted"
    TICKET_WRITTEN = "ticket_written"
    RELEASED = "released"


@dataclass(frozen=True)
class Outcome:
    """What was found and what came of it.

    `before` and `after` are sessions as plain data, None where there is none; `differences` say what was not as
    wished; `warnings` are sentences; `action` is what was done.
    """

    session: Session | None
    changed: bool
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    differences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    action: Action = Action.NOTHING


@dataclass(frozen=True)
class Wish:
    """What is wished for, and what is known of it without asking anybody: the ticket of an inbound session.

    With `any_targets`, an application controller names them, and those of a session that is there are good.
    """

    request: SessionRequest
    ticket: Path | None = None
    name: str = ""
    held: Ticket | None = field(default=None, repr=False)
    any_targets: bool = False

    @property
    def keyed_request(self) -> SessionRequest:
        """The request with the session's key: the ticket's, so that the other end's copy stays good, or a new one."""
        request = self.request
        if request.direction is Direction.OUTBOUND or request.key:
            return request
        return dataclasses.replace(request, key=(self.held and self.held.key) or tickets.new_key())


@dataclass(frozen=True)
class Decision:
    """What has to be done about a session.

    Open it (anew, where there is one before), tell the one that runs its new targets, write its ticket, or nothing.
    """

    before: Session | None
    opens: bool
    writes_ticket: bool = False
    differences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    retargets: bool = False

    @property
    def action(self) -> Action:
        """The decision in one word."""
        if self.opens:
            return Action.REOPENED if self.before else Action.OPENED
        if self.retargets:
            return Action.RETARGETED
        return Action.TICKET_WRITTEN if self.writes_ticket else Action.NOTHING


def make_wish(request: SessionRequest, ticket: Path | None, name: str) -> Wish:
    """Put together what is wished for. An outbound session has no ticket of its own.

    Raises:
        SciStreamError: BAD_TICKET.
    """
    if ticket is None or request.direction is Direction.OUTBOUND:
        return Wish(request, None, name)
    if not ticket.exists():
        return Wish(request, ticket, name)
    held = tickets.read(ticket)
    if held.uid != request.uid:
        reason = f"it is of session {held.uid}, and {request.uid} is wished for: name another file, or remove this one"
        raise SciStreamError(Code.BAD_TICKET, path=str(ticket), reason=reason)
    return Wish(request, ticket, name, held)


def decide(wish: Wish, before: Session | None, *, reached_by: str = "") -> Decision:
    """Compare. Keys are never compared; an inbound session whose key nobody has any more is opened anew.

    Where nothing but the targets differs, the session runs on with the new ones. Where it was said what its entry
    points are `reached_by`, a ticket that has others is written again.
    """
    if before is None:
        return Decision(None, opens=True)
    found = differences(before, wish.request, any_targets=wish.any_targets)
    if differences(before, wish.request, any_targets=True):
        return Decision(before, opens=True, differences=found)
    fits = wish.ticket is None or (wish.held is not None and _fits(wish.held, before))
    if before.is_keyed and not fits:
        warning = _KEY_LOST.format(uid=before.uid, ticket=wish.ticket)
        return Decision(before, opens=True, differences=(*found, "its key is lost"), warnings=(warning,))
    if not fits:
        found += (f"no ticket {wish.ticket}",)
    elif reached_by and wish.held and wish.held.entry_points != parse_endpoints(before.entry_points):
        fits = False
        found += (f"other entry points in the ticket {wish.ticket}",)
    # A ticket tells the targets, too.
    retargets = _is_retargeted(wish, before)
    writes = not fits or (retargets and wish.ticket is not None)
    return Decision(before, opens=False, writes_ticket=writes, differences=found, retargets=retargets)


def displaced(wish: Wish, decision: Decision) -> Ticket | None:
    """The ticket that would be overwritten, and is not that of the session that is there; None where there is none."""
    if wish.held is None or not (decision.opens or decision.writes_ticket):
        return None
    return None if decision.before and _fits(wish.held, decision.before) else wish.held


def differences(session: Session, request: SessionRequest, *, any_targets: bool = False) -> tuple[str, ...]:
    """What about a session is not as wished, in words; addresses are compared by value."""
    found = []
    if not session.is_active:
        found.append(f"state {session.state}" + (f" ({session.failure})" if session.failure else ""))
    if session.connections != request.connections:
        found.append(f"connections {session.connections}, not {request.connections}")
    # Who says nothing of a rate is content with any; a deployed client always says one, and means nothing by it.
    if request.rate and session.rate != request.rate:
        found.append(f"rate {session.rate or 'none'}, not {request.rate}")
    found += _unlike_carried(session, request)
    ports = tuple(entry_point.port for entry_point in parse_endpoints(session.entry_points))
    if request.ports and ports != request.ports:
        found.append(f"ports {_listed(ports)}, not {_listed(request.ports)}")
    if not any_targets and _leads_elsewhere(session, request):
        found.append(f"targets {_listed(session.targets)}, not {_listed(request.targets)}")
    return tuple(found)


def _is_retargeted(wish: Wish, before: Session) -> bool:
    return not wish.any_targets and _leads_elsewhere(before, wish.request)


def _leads_elsewhere(session: Session, request: SessionRequest) -> bool:
    return _in_turn(parse_endpoints(session.targets), request) != _in_turn(request.targets, request)


def _unlike_carried(session: Session, request: SessionRequest) -> Iterator[str]:
    """How the bytes are carried otherwise than it is wished for."""
    if session.encryption and not request.takes(session.encryption):
        yield f"encryption {session.encryption}, not {request.encryption.value}"
    if session.transport != request.transport.value:
        yield f"transport {session.transport}, not {request.transport.value}"
    if session.sources != (sources := tuple(map(str, request.sources))):
        yield f"sources {_listed(session.sources) or 'all'}, not {_listed(sources) or 'all'}"
    # Who says nothing of half-closed connections is content with a session that keeps them.
    if request.half_close and not session.half_close:
        yield "half-close False, not True"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def outcome(wish: Wish, decision: Decision, after: Session | None) -> Outcome:
    """What is told of a decision that was carried out, or would be."""
    warnings = decision.warnings
    if after and after.is_keyed and decision.opens and not wish.ticket and after.direction is Direction.INBOUND:
        warnings += (_NO_TICKET.format(uid=after.uid),)
    return Outcome(
        session=after,
        changed=decision.action is not Action.NOTHING,
        before=_told(wish, decision.before, has_ticket=wish.held is not None),
        after=_told(wish, after, has_ticket=True),
        differences=decision.differences,
        warnings=warnings,
        action=decision.action,
    )


def _fits(held: Ticket, session: Session) -> bool:
    """Whether a ticket was written for this session, and not for one that had the uid before it."""
    # Ports only: one control server can be called by several names.
    ports = [entry_point.port for entry_point in parse_endpoints(session.entry_points)]
    return ports == [entry_point.port for entry_point in held.entry_points] and (
        held.key is not None or not session.is_keyed
    )


def _in_turn(targets: tuple[Endpoint, ...], request: SessionRequest) -> list[Endpoint]:
    """The target of each entry point: fewer names than entry points are used in turn."""
    return [targets[index % len(targets)] for index in range(request.connections)] if targets else []


def _told(wish: Wish, session: Session | None, *, has_ticket: bool) -> dict[str, Any] | None:
    if session is None:
        return None
    ticket = {"ticket": str(wish.ticket) if has_ticket else None} if wish.ticket else {}
    return session.as_dict() | ticket
