"""What the registry grants: which session is meant, and whether an update fits it."""

from __future__ import annotations

from collections.abc import Sequence

from scistream.addresses import Endpoint
from scistream.control_server.sessions import Session, Update
from scistream.control_server.supervisor import spell
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState

__all__ = ["bounded", "check", "preferred"]


def preferred(sessions: Sequence[Session], direction: Direction) -> Session:
    """The session of a direction, else the first."""
    return next((session for session in sessions if session.asked.direction is direction), sessions[0])


def bounded(targets: tuple[Endpoint, ...], session: Session) -> tuple[Endpoint, ...]:
    """Targets that have an entry point each.

    Raises:
        SciStreamError: TOO_MANY_TARGETS.
    """
    if len(targets) > len(session.ports):
        raise SciStreamError(Code.TOO_MANY_TARGETS, targets=len(targets), entry_points=len(session.ports))
    return targets


def check(session: Session, change: Update) -> None:
    """Whether an update can be meant for a session as it stands.

    Raises:
        SciStreamError: SESSION_NOT_REGISTERED, NO_TARGETS, TOO_MANY_TARGETS, RETARGET_REFUSED, TARGET_IN_USE.
    """
    uid, targets = session.asked.uid, change.targets
    if session.state is SessionState.REQUESTED:
        raise SciStreamError(Code.SESSION_NOT_REGISTERED, uid=uid, what="the update")
    if not targets:
        raise SciStreamError(Code.NO_TARGETS, uid=uid)
    bounded(targets, session)
    if session.state is not SessionState.ACTIVE:
        return
    if targets != session.targets:
        raise SciStreamError(Code.RETARGET_REFUSED, uid=uid, current=spell(session.targets), asked=spell(targets))
    # After a restart the key is known to the data server only, and cannot be compared.
    if change.key is not None and session.key is not None and change.key != session.key:
        raise SciStreamError(Code.TARGET_IN_USE, uid=uid, differences="the session key")
