"""Tickets that a user named no place for: kept by the uid, so that the same user's outbound request finds them."""

from __future__ import annotations

from pathlib import Path

from scistream.addresses import Endpoint
from scistream.client import tickets
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, Uid

__all__ = ["check_place", "kept_ticket", "own_place", "place_for"]


def place_for(uid: Uid) -> Path | None:
    """Where the ticket of an inbound session goes that was asked for without one.

    None for the mock uid: it is everybody's, and what was kept for one such session would be taken for another's.
    """
    return None if uid == MOCK_UID else tickets.place_of(uid)


def kept_ticket(uid: Uid) -> Ticket | None:
    """The ticket that this user's inbound request left on this machine; None where it left none.

    Raises:
        SciStreamError: BAD_TICKET.
    """
    path = place_for(uid)
    if path is None or not path.exists():
        return None
    held = tickets.read(path)
    return held if held.uid == uid else None


def check_place(path: Path | None, held: Ticket, control_server: Endpoint) -> None:
    """See that a new ticket takes no other session's kept place: that one's key would be lost with it.

    Args:
        path: where the new ticket goes; one whose place a user named is theirs to overwrite.
        held: the ticket that is there.
        control_server: the new session's.

    Raises:
        SciStreamError: KEPT_TICKET_ELSEWHERE.
    """
    if path == place_for(held.uid) and held.control_server != control_server:
        facts = {"path": str(path), "uid": held.uid, "server": str(held.control_server)}
        raise SciStreamError(Code.KEPT_TICKET_ELSEWHERE, **facts)


def own_place(uid: Uid, control_server: Endpoint) -> Path | None:
    """Where the ticket of a session on this very control server is kept; None where there is none, or another's.

    The outbound end of a stream has the same uid, and another control server: there the ticket is no matter.
    """
    try:
        held = kept_ticket(uid)
    except SciStreamError:
        # What cannot be read is not known to be its own.
        return None
    return tickets.place_of(uid) if held and held.control_server == control_server else None
