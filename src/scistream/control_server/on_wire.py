"""What goes over the wire of `scistream.v1`: sessions, events and engines as messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from scistream.control_server.events import Event
from scistream.control_server.sessions import Session, SessionView
from scistream.engines import describe_engines
from scistream.engines.abilities import abilities
from scistream.engines.base import Engine, Feature, Installation
from scistream.protocol import operations_pb2 as wire

__all__ = ["Spelled", "engines", "event_bytes", "reply"]

# Events that are kept as they go over the wire, for those who watch and have not been told of them yet.
_SPELLED: Final = 16


class Spelled:
    """Events as bytes of the wire, each made once for all who watch; `Reading` sends bytes as they are."""

    def __init__(self) -> None:
        self._last = deque[tuple[Event, bytes]](maxlen=_SPELLED)

    def __call__(self, event: Event) -> bytes:
        """An event's bytes."""
        for known, message in reversed(self._last):
            if known is event:
                return message
        message = event_bytes(event)
        self._last.append((event, message))
        return message


def reply(sessions: Sequence[Session]) -> wire.ListSessionsReply:
    """Sessions as they are now."""
    return wire.ListSessionsReply(sessions=[_session(session.view()) for session in sessions])


def event_bytes(event: Event) -> bytes:
    """An event, as it goes over the wire."""
    session = _session(event.session)
    return wire.Event(time=event.time, kind=event.kind.value, session=session, words=event.words).SerializeToString()


def _session(view: SessionView) -> wire.Session:
    return wire.Session(
        uid=view.uid,
        direction=view.direction.value,
        state=view.state.value,
        entry_points=map(str, view.entry_points),
        targets=map(str, view.targets),
        engine=view.engine,
        encryption=view.encryption.value,
        owner=view.owner,
        connections=view.connections,
        rate=view.rate,
        opened=view.opened,
        failure=view.failure,
        lease_expires=view.lease_expires or 0,
        idle_since=view.idle_since or 0,
        restarts=view.restarts,
        traffic=wire.Traffic(**vars(view.traffic)),
        transport=view.transport.value,
        sources=map(str, view.sources),
        cipher=view.handshake.cipher,
        peer=view.handshake.peer,
        warnings=view.warnings,
        half_close=view.half_close,
        certificate_expires=view.certificate_expires or 0,
    )


def engines() -> list[wire.Engine]:
    """What each engine can do here and now; every program is asked for its version, so that it may wait."""
    return [_engine(engine, found) for engine, found in describe_engines()]


def _engine(engine: Engine, found: Installation | None) -> wire.Engine:
    table = abilities(engine)
    return wire.Engine(
        name=engine.name,
        installed=found is not None,
        version=found.version if found else "",
        program=str(found.program if found else engine.program),
        encryption=engine.encryptions[0].value,
        can_limit_rate=any(ability.feature is Feature.RATE and ability.can for ability in table),
        encryptions=[each.value for each in engine.encryptions],
        abilities=[wire.Ability(feature=each.feature.value, can=each.can, words=each.words) for each in table],
        privileges=engine.privileges,
    )
