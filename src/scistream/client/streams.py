"""Streams as they are wished for: an inbound and an outbound session with one uid.

An end that is left out is another facility's. The inbound end alone writes the ticket that this one needs; the outbound
end alone reads the ticket that came from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scistream.addresses import Endpoint, Network, parse_endpoints
from scistream.client import tickets
from scistream.client.comparison import Outcome
from scistream.client.control_servers import ControlServer
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.client.tickets import Ticket
from scistream.terms import Direction, Encryption, Transport, Uid

__all__ = ["StreamEnd", "StreamEnds", "StreamOutcome", "StreamWish"]

_ENCRYPTIONS: Final = frozenset(each.value for each in Encryption)


@dataclass(frozen=True)
class StreamEnd:
    """The gateway at one end of a stream.

    `control_server` is called. `address` is the host that its entry points are reached by, where the control server
    listens on all its addresses; empty for the one that it is called by. `engine` is the engine that it has to have,
    empty for any. `sources` are the networks whose hosts may connect to the entry points, none for all. `gateway` is
    what its operator calls it, for sentences only; empty for none.
    """

    control_server: ControlServer
    address: str = ""
    engine: str = ""
    sources: tuple[Network, ...] = ()
    gateway: str = ""

    @property
    def called(self) -> str:
        """What a sentence calls it."""
        return ", ".join(filter(None, (self.gateway, str(self.control_server.known_as))))

    def reached(self, session: Session) -> Session:
        """A session of this end, with its entry points as others reach them."""
        if not self.address:
            return session
        entry_points = tuple(
            str(Endpoint(self.address, one.port)) if one.host in self.control_server.hosts else str(one)
            for one in parse_endpoints(session.entry_points)
        )
        return dataclasses.replace(session, entry_points=entry_points)


@dataclass(frozen=True)
class StreamEnds:
    """The ends of a stream that are at hand, one or both."""

    inbound: StreamEnd | None = None
    outbound: StreamEnd | None = None

    def __iter__(self) -> Iterator[tuple[Direction, StreamEnd]]:
        """Outbound first: whoever closes a stream lets nobody in before the way out is gone."""
        if self.outbound:
            yield Direction.OUTBOUND, self.outbound
        if self.inbound:
            yield Direction.INBOUND, self.inbound


@dataclass(frozen=True)
class StreamWish:
    """A stream as it is wished for; what is None is left to the ticket, and else to the defaults.

    `ticket` is the file of the ticket: the inbound end writes it, the outbound end alone reads it. `rate` is in kb/s, 0
    for none; `lease` is in seconds, 0 for no end, None for the control servers' defaults.
    """

    uid: Uid
    targets: tuple[Endpoint, ...] = ()
    connections: int | None = None
    ticket: Path | None = None
    name: str = ""
    encryption: Encryption | None = None
    transport: Transport | None = None
    rate: int = 0
    lease: float | None = None
    half_close: bool = False

    def inbound_request(self, end: StreamEnd) -> SessionRequest:
        """What is asked of the inbound end.

        Raises:
            SciStreamError: as SessionRequest.
        """
        return SessionRequest(
            uid=self.uid,
            direction=Direction.INBOUND,
            targets=self.targets,
            connections=max(len(self.targets), 1) if self.connections is None else self.connections,
            rate=self.rate,
            encryption=self.encryption or Encryption.TLS,
            lease=self.lease,
            transport=self.transport or Transport.TCP,
            sources=end.sources,
            half_close=self.half_close,
        )

    def outbound_request(self, end: StreamEnd, ticket: Ticket) -> SessionRequest:
        """What is asked of the outbound end, whose inbound one is there.

        Raises:
            SciStreamError: as SessionRequest.of_ticket.
        """
        return SessionRequest.of_ticket(
            ticket,
            connections=self.connections,
            encryption=self.encryption,
            transport=self.transport,
            rate=self.rate,
            lease=self.lease,
            sources=end.sources,
            half_close=self.half_close,
        )

    def foreseen_request(self, end: StreamEnd, inbound: Session) -> SessionRequest:
        """What would be asked of the outbound end: the inbound one would be opened, and has no entry points yet."""
        told = inbound.encryption in _ENCRYPTIONS
        encryption = Encryption(inbound.encryption) if told else self.encryption or Encryption.TLS
        return SessionRequest(
            uid=self.uid,
            direction=Direction.OUTBOUND,
            targets=(),
            connections=inbound.connections,
            rate=self.rate,
            # Any key: with one, the outbound end has to be able to do exactly what the inbound one does.
            key=tickets.new_key() if encryption.needs_key else None,
            encryption=encryption,
            lease=self.lease,
            transport=self.transport or Transport.TCP,
            sources=end.sources,
            half_close=self.half_close,
            other_is_ours=not inbound.is_untold,
            peer=inbound.engine,
        )


@dataclass(frozen=True)
class StreamOutcome:
    """What was found at each end and what came of it; None for an end that is not at hand."""

    inbound: Outcome | None = None
    outbound: Outcome | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was done, or would be."""
        return any(end.changed for end in (self.inbound, self.outbound) if end)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about both ends."""
        return tuple(words for end in (self.inbound, self.outbound) if end for words in end.warnings)
