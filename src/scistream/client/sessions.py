"""What a control server tells of its sessions, as plain values.

What comes over the wire was written by another facility: addresses are parsed, texts are made printable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from scistream.addresses import Endpoint
from scistream.errors import one_line
from scistream.protocol import operations_pb2 as wire
from scistream.terms import Direction, Encryption, SessionState, Transport, Uid, parse_direction, parse_uid

__all__ = [
    "Session",
    "SessionEvent",
    "Traffic",
    "moment",
    "plain",
    "reachable",
    "read_event",
    "read_session",
]

_KEYED: Final = frozenset(each.value for each in Encryption if each.needs_key)
# What our control servers warn of; of one that warns of nothing, it is known from the request.
_READABLE: Final = {
    Encryption.NONE.value: "nothing protects the bytes between the gateways: encryption none was asked for",
    Encryption.LEGACY_PSK.value: "nothing is encrypted between the gateways, and the key that they know each other by "
    "is no secret: legacy-psk was asked for",
}
_UNTOLD: Final = (
    "of its control server that is all that is known: it speaks the old protocol only, and does not tell what it has"
)
# Seconds since the epoch: what comes after it cannot be spelled.
_YEAR_9999: Final = 253_370_764_800


@dataclass(frozen=True)
class Traffic:
    """What a data server has carried since it started, as its engine tells it.

    Connections, application bytes, and peers that were turned away because they did not prove themselves or are not
    among the sources.
    """

    connections_open: int = 0
    connections_total: int = 0
    bytes_to_targets: int = 0
    bytes_from_targets: int = 0
    refused_peers: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Session:
    """One direction on one control server.

    `entry_points` and `targets` are addresses as text; `rate` is in kb/s as asked for, 0 where none was. Times are
    seconds since the epoch: `opened`, `lease_expires` (0: it has no end) and `idle_since` (0: not known). `restarts`
    counts data servers that were started in place of one that had ended. `transport` is tcp or udp; `sources` are the
    networks whose hosts may connect, none for all. `cipher` and `peer` are what the data server and the other gateway's
    agreed on last, empty where there was no connection yet or it does not tell. `warnings` are sentences that belong
    into every status. `certificate_expires` is when the certificate ends that the data server proves itself with, 0
    where it has none; it is replaced long before. Against a control server with the old protocol only, `engine` and
    `owner` are empty, `opened` is 0, and `encryption` is what was asked for.
    """

    uid: Uid
    direction: Direction
    state: str
    entry_points: tuple[str, ...]
    targets: tuple[str, ...]
    engine: str
    encryption: str
    owner: str
    connections: int
    rate: int
    opened: float
    failure: str
    lease_expires: float = 0.0
    idle_since: float = 0.0
    restarts: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    transport: str = Transport.TCP.value
    sources: tuple[str, ...] = ()
    half_close: bool = False
    cipher: str = ""
    peer: str = ""
    warnings: tuple[str, ...] = ()
    certificate_expires: float = 0.0

    @classmethod
    def untold(  # noqa: PLR0913, PLR0917 - all that is known of a session
        cls,
        uid: Uid,
        direction: Direction,
        entry_points: Iterable[str],
        targets: Iterable[Endpoint],
        connections: int,
        rate: int,
        encryption: str = "",
    ) -> Session:
        """A running session of a control server that describes none: what its client asked for is what is known."""
        return cls(
            uid=uid,
            direction=direction,
            state=SessionState.ACTIVE.value,
            entry_points=tuple(entry_points),
            targets=tuple(map(str, targets)),
            engine="",
            encryption=encryption,
            owner="",
            connections=connections,
            rate=rate,
            opened=0.0,
            failure="",
            warnings=(f"{_READABLE[encryption]}; {_UNTOLD}",) if encryption in _READABLE else (),
        )

    @property
    def is_untold(self) -> bool:
        """Whether its control server does not describe it."""
        return not self.engine

    @property
    def is_active(self) -> bool:
        """Whether its data server carries bytes."""
        return self.state == SessionState.ACTIVE.value

    @property
    def is_keyed(self) -> bool:
        """Whether its data server needs the key that the stream's two gateways share."""
        return self.encryption in _KEYED

    @property
    def is_readable(self) -> bool:
        """Whether it is known that the bytes can be read on their way between the gateways."""
        return bool(self.encryption) and not self.is_keyed

    def as_dict(self) -> dict[str, Any]:
        """The session as plain data."""
        return plain(self) | {"direction": self.direction.value, "traffic": self.traffic.as_dict()}


@dataclass(frozen=True)
class SessionEvent:
    """Something that happened to a session, which is told as it was right after.

    `time` is in seconds since the epoch; `kind` is one of the wire's words, "there" for a session that a watcher finds;
    `words` say why, where there is something to say.
    """

    time: float
    kind: str
    session: Session
    words: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The event as plain data."""
        return plain(self) | {"session": self.session.as_dict()}


def read_session(
    message: wire.Session, server: Endpoint, *, is_hidden: bool = False, called: Collection[str] = ()
) -> Session:
    """A session as a control server describes it; all but the message as in `reachable`.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_ROLE, BAD_UID: the control server answers nonsense.
    """
    return Session(
        uid=parse_uid(message.uid),
        direction=parse_direction(message.direction),
        state=one_line(message.state),
        entry_points=reachable(message.entry_points, server, is_hidden=is_hidden, called=called),
        targets=tuple(str(Endpoint.parse(target)) for target in message.targets),
        engine=one_line(message.engine),
        encryption=one_line(message.encryption),
        owner=one_line(message.owner),
        connections=message.connections,
        rate=message.rate,
        opened=moment(message.opened),
        failure=one_line(message.failure),
        lease_expires=moment(message.lease_expires),
        idle_since=moment(message.idle_since),
        restarts=message.restarts,
        traffic=_read_traffic(message.traffic),
        # Control servers from before UDP say nothing.
        transport=one_line(message.transport) or Transport.TCP.value,
        sources=tuple(map(one_line, message.sources)),
        half_close=message.half_close,
        cipher=one_line(message.cipher),
        peer=one_line(message.peer),
        warnings=tuple(map(one_line, message.warnings)),
        certificate_expires=moment(message.certificate_expires),
    )


def _read_traffic(message: wire.Traffic) -> Traffic:
    return Traffic(
        connections_open=message.connections_open,
        connections_total=message.connections_total,
        bytes_to_targets=message.bytes_to_targets,
        bytes_from_targets=message.bytes_from_targets,
        refused_peers=message.refused_peers,
    )


def read_event(
    message: wire.Event, server: Endpoint, *, is_hidden: bool = False, called: Collection[str] = ()
) -> SessionEvent:
    """An event as a control server tells it; all but the message as in `reachable`.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_ROLE, BAD_UID: the control server tells nonsense.
    """
    session = read_session(message.session, server, is_hidden=is_hidden, called=called)
    return SessionEvent(moment(message.time), one_line(message.kind), session, one_line(message.words))


def reachable(
    entry_points: Iterable[str], server: Endpoint, *, is_hidden: bool = False, called: Collection[str] = ()
) -> tuple[str, ...]:
    """Entry points as others can connect to them.

    A control server that listens on all its addresses says `0.0.0.0`; then the address that it was called by is as
    good as any, and one that works. One that `is_hidden` behind SSH and was called at its host's loopback says that;
    then the host is as good. Most say the address that they were called at, which is one of `called` where others
    reach them by another one: `server`.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    parsed = (Endpoint.parse(entry_point) for entry_point in entry_points)
    return tuple(
        str(Endpoint(server.host, one.port) if one.host in called or _leads_nowhere(one, is_hidden=is_hidden) else one)
        for one in parsed
    )


def _leads_nowhere(entry_point: Endpoint, *, is_hidden: bool) -> bool:
    ip = entry_point.ip
    return ip is not None and (ip.is_unspecified or (is_hidden and ip.is_loopback))


def moment(seconds: float) -> float:
    """A time or a duration as a control server tells it; 0, which is not known, for one that no calendar has."""
    return seconds if 0 <= seconds < _YEAR_9999 else 0.0


def plain(facts: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain data: tuples become lists."""
    values = ((entry.name, getattr(facts, entry.name)) for entry in dataclasses.fields(facts))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}
