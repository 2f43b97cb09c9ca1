"""What is asked of a control server when a session is opened."""

from __future__ import annotations

from dataclasses import dataclass, field

from scistream.addresses import Endpoint
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid, parse_connections, parse_lease, parse_rate, parse_uid

__all__ = ["SessionRequest"]


@dataclass(frozen=True)
class SessionRequest:
    """What is asked of a control server: a uid, a direction, `connections` entry points, and where they lead to.

    `rate` is in kb/s, 0 for none; `key` is the secret of the stream's two gateways, where there is one; `encryption` is
    what the other end's gateway protects the bytes with, empty where nobody said. `lease` is in seconds, 0 for no end,
    None for the control server's default; `ports` are those of the entry points, none for any that are free.

    Raises:
        SciStreamError: BAD_UID, BAD_CONNECTIONS, BAD_RATE, BAD_LEASE, TOO_MANY_TARGETS, PORTS_MISCOUNTED.
    """

    uid: Uid
    direction: Direction
    targets: tuple[Endpoint, ...]
    connections: int
    rate: int = 0
    key: bytes | None = field(default=None, repr=False)
    encryption: str = ""
    lease: float | None = None
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        parse_uid(self.uid)
        parse_connections(self.connections)
        if self.rate:
            parse_rate(self.rate)
        if self.lease is not None:
            parse_lease(str(self.lease))
        if len(self.targets) > self.connections:
            raise SciStreamError(Code.TOO_MANY_TARGETS, targets=len(self.targets), entry_points=self.connections)
        if self.ports and len(self.ports) != self.connections:
            raise SciStreamError(Code.PORTS_MISCOUNTED, ports=len(self.ports), connections=self.connections)

    @classmethod
    def of_ticket(  # noqa: PLR0913 - what a ticket does not say
        cls,
        ticket: Ticket,
        *,
        rate: int = 0,
        connections: int | None = None,
        targets: tuple[Endpoint, ...] = (),
        lease: float | None = None,
        ports: tuple[int, ...] = (),
    ) -> SessionRequest:
        """The outbound session that belongs to a ticket's inbound one.

        Connections and targets are the ticket's where they are not named; with a relay between, they may be others.
        Ports that are named are as many as the connections.
        """
        towards = targets or ticket.entry_points
        number = connections if connections is not None else len(ports) or max(ticket.connections, len(towards))
        return cls(
            uid=ticket.uid,
            direction=Direction.OUTBOUND,
            targets=towards,
            connections=number,
            rate=rate,
            key=ticket.key,
            encryption=ticket.encryption,
            lease=lease,
            ports=ports,
        )
