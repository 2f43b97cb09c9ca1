"""What is asked of a control server when a session is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from scistream.addresses import Endpoint, Network
from scistream.client.sessions import Session
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.terms import (
    MOCK_UID,
    Direction,
    Encryption,
    Transport,
    Uid,
    parse_connections,
    parse_lease,
    parse_rate,
    parse_uid,
)

__all__ = ["SessionRequest"]

# What a user means by `tls`.
_TLS = frozenset({Encryption.TLS, Encryption.TLS_PSK})


class _Wishes(TypedDict, total=False):
    """What a ticket does not say."""

    rate: int
    lease: float | None
    ports: tuple[int, ...]
    sources: tuple[Network, ...]
    half_close: bool


@dataclass(frozen=True)
class SessionRequest:
    """What is asked of a control server: a uid, a direction, `connections` entry points, and where they lead to.

    `rate` is in kb/s, 0 for none; `key` is the secret of the stream's two gateways. `encryption` protects the bytes
    between the gateways: at the inbound end `tls` is what the engine does best, at the outbound end it is exactly what
    the inbound one has. `lease` is in seconds, 0 for no end, None for the control server's default; `ports` are those
    of the entry points, none for any that are free. `sources` are the networks whose hosts may connect, none for all;
    `half_close` says that the application half-closes its connections. `other_is_ours` says that the other end is
    known not to be a deployed one; `peer` is the engine of the inbound gateway, where that was told.

    Raises:
        SciStreamError: BAD_UID, BAD_CONNECTIONS, BAD_RATE, BAD_LEASE, TOO_MANY_TARGETS, PORTS_MISCOUNTED,
            UID_PUBLISHED (the mock uid never has a key), UDP_UNENCRYPTED.
    """

    uid: Uid
    direction: Direction
    targets: tuple[Endpoint, ...]
    connections: int
    rate: int = 0
    key: bytes | None = field(default=None, repr=False)
    encryption: Encryption = Encryption.TLS
    lease: float | None = None
    ports: tuple[int, ...] = ()
    transport: Transport = Transport.TCP
    sources: tuple[Network, ...] = ()
    half_close: bool = False
    other_is_ours: bool = False
    peer: str = ""

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
        self._check_encryption()

    def _check_encryption(self) -> None:
        if self.encryption is Encryption.NONE:
            return
        facts = {"uid": self.uid, "encryption": self.encryption.value}
        # Deployed tools derive their key from the uid as well: with this one, everybody has it (U06).
        if self.uid == MOCK_UID:
            raise SciStreamError(Code.UID_PUBLISHED, **facts)
        if self.transport is Transport.UDP:
            raise SciStreamError(Code.UDP_UNENCRYPTED, **facts)

    def takes(self, encryption: str) -> bool:
        """Whether a session that has this encryption is what was asked for."""
        if self.asks_for_best:
            return encryption in {each.value for each in _TLS}
        return encryption == self.encryption.value

    @property
    def asks_for_best(self) -> bool:
        """Whether it is left to the engine in which way it encrypts.

        The outbound end has to be as the inbound one; without its key, that is not known yet.
        """
        return self.encryption in _TLS and (self.direction is Direction.INBOUND or self.key is None)

    @property
    def sent_key(self) -> bytes | None:
        """The key, where the session's encryption needs it: nobody else is told of it."""
        return self.key if self.encryption.needs_key else None

    def untold(self, entry_points: Iterable[str], targets: tuple[Endpoint, ...] = ()) -> Session:
        """The session that comes of this on a control server that describes none."""
        towards, encryption = targets or self.targets, self.encryption.value
        connections = len(entry_points := tuple(entry_points)) or self.connections
        return Session.untold(self.uid, self.direction, entry_points, towards, connections, self.rate, encryption)

    def require_key(self) -> None:
        """Refuse an encrypted session without a key: no byte would go through it.

        Raises:
            SciStreamError: SESSION_KEY_MISSING.
        """
        if self.encryption.needs_key and self.key is None:
            engine = f"encryption {self.encryption.value}"
            raise SciStreamError(Code.SESSION_KEY_MISSING, uid=self.uid, engine=engine)

    @classmethod
    def of_ticket(
        cls,
        ticket: Ticket,
        *,
        connections: int | None = None,
        targets: tuple[Endpoint, ...] = (),
        encryption: Encryption | None = None,
        transport: Transport | None = None,
        **wishes: Unpack[_Wishes],
    ) -> SessionRequest:
        """The outbound session that belongs to a ticket's inbound one; its encryption and transport are that one's.

        Connections and targets are the ticket's where they are not named; with a relay between, they may be others.
        Ports that are named are as many as the connections. An encryption or a transport that is named has to be the
        ticket's; legacy-psk has to be named.

        Raises:
            SciStreamError: ENCRYPTION_MISMATCH, LEGACY_PSK_REFUSED, LEGACY_PSK_UNASKED, TRANSPORT_MISMATCH, and as
                the class.
        """
        _check_transport(ticket, transport)
        towards = targets or ticket.entry_points
        if connections is None:
            connections = len(wishes.get("ports", ())) or max(ticket.connections, len(towards))
        return cls(
            uid=ticket.uid,
            direction=Direction.OUTBOUND,
            targets=towards,
            connections=connections,
            key=ticket.key,
            encryption=_agreed(ticket, encryption),
            transport=ticket.transport,
            other_is_ours=not ticket.deployed,
            peer=ticket.engine,
            **_with_half_close(wishes, ticket),
        )


def _with_half_close(wishes: _Wishes, ticket: Ticket) -> _Wishes:
    """What one end's application needs, both ends have to keep."""
    return {**wishes, "half_close": wishes.get("half_close", False) or ticket.half_close}


def _agreed(ticket: Ticket, asked: Encryption | None) -> Encryption:
    """What the inbound end has; a ticket of an earlier version does not always tell it.

    A ticket is the other facility's word: the deployed form has to be asked for here, too (U01).
    """
    told = ticket.encryption
    if told is None:
        return asked or Encryption.TLS
    if told is Encryption.LEGACY_PSK and asked is None:
        raise SciStreamError(Code.LEGACY_PSK_UNASKED, uid=ticket.uid)
    if asked in {None, told} or (asked is Encryption.TLS and told in _TLS):
        return told
    if asked is Encryption.LEGACY_PSK:
        reason = f"its inbound end is none of the deployed form, its ticket says encryption {told.value}"
        raise SciStreamError(Code.LEGACY_PSK_REFUSED, uid=ticket.uid, reason=reason)
    wanted = asked.value if asked else ""
    raise SciStreamError(
        Code.ENCRYPTION_MISMATCH, uid=ticket.uid, inbound=told.value, whose="what was asked for is", outbound=wanted
    )


def _check_transport(ticket: Ticket, asked: Transport | None) -> None:
    if asked not in {None, ticket.transport}:
        raise SciStreamError(
            Code.TRANSPORT_MISMATCH,
            uid=ticket.uid,
            inbound=ticket.transport.value.upper(),
            outbound=asked.value.upper() if asked else "",
        )
