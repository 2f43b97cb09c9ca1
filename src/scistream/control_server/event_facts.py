"""What a log line about a session has beside its uid and direction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from scistream.addresses import Endpoint
from scistream.control_server.events import EventKind
from scistream.control_server.sessions import Session

__all__ = ["facts_of", "spell"]


def spell(endpoints: Iterable[Endpoint]) -> str:
    """Endpoints as one word of a log line or message."""
    return ",".join(map(str, endpoints))


def _mark(session: Session) -> dict[str, Any]:
    """What to look for on this host: a process, or what the kernel marks the session's connections with."""
    if session.mark is None:
        return {}
    return {"pid": session.mark.pid} if session.engine.has_processes else {"mark": hex(session.mark.pid)}


_FACTS: Final[dict[EventKind, Callable[[Session], dict[str, Any]]]] = {
    EventKind.REQUESTED: lambda session: {"entry_points": spell(session.entry_points), "rate": session.asked.rate},
    EventKind.REGISTERED: lambda session: {"targets": spell(session.targets)},
    EventKind.ACTIVE: lambda session: _mark(session) | {"targets": spell(session.targets)},
    EventKind.RETARGETED: lambda session: {"targets": spell(session.targets)},
    EventKind.RENEWED: lambda session: {"lease_expires": session.lease_expires},
    EventKind.RESTARTED: lambda session: _mark(session) | {"restarts": session.restarts},
}


def facts_of(kind: EventKind, session: Session) -> dict[str, Any]:
    """What there is to say of an event."""
    return _FACTS[kind](session) if kind in _FACTS else {}
