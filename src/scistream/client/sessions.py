"""What a control server tells of itself and of its sessions, as plain values.

What comes over the wire was written by another facility: addresses are parsed, texts are made printable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scistream.addresses import Endpoint
from scistream.errors import one_line
from scistream.protocol import operations_pb2 as wire
from scistream.terms import Direction, Encryption, SessionState, Uid, parse_direction, parse_uid

__all__ = ["EngineFacts", "ServerFacts", "Session", "reachable", "read_facts", "read_session"]


@dataclass(frozen=True)
class Session:
    """One direction on one control server.

    `entry_points` and `targets` are addresses as text; `rate` is in kb/s as asked for, `opened` in seconds since the
    epoch. Against a control server with the old protocol only, `engine`, `encryption` and `owner` are empty and
    `opened` is 0.
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

    @classmethod
    def untold(  # noqa: PLR0913, PLR0917 - all that is known of a session
        cls,
        uid: Uid,
        direction: Direction,
        entry_points: Iterable[str],
        targets: Iterable[Endpoint],
        connections: int,
        rate: int,
    ) -> Session:
        """A running session of a control server that describes none: what its client knows of it."""
        return cls(
            uid=uid,
            direction=direction,
            state=SessionState.ACTIVE.value,
            entry_points=tuple(entry_points),
            targets=tuple(map(str, targets)),
            engine="",
            encryption="",
            owner="",
            connections=connections,
            rate=rate,
            opened=0.0,
            failure="",
        )

    @property
    def is_active(self) -> bool:
        """Whether its data server carries bytes."""
        return self.state == SessionState.ACTIVE.value

    @property
    def is_keyed(self) -> bool:
        """Whether its data server needs the key that the stream's two gateways share."""
        return self.encryption == Encryption.TLS_PSK.value

    def as_dict(self) -> dict[str, Any]:
        """The session as plain data."""
        return _plain(self) | {"direction": self.direction.value}


@dataclass(frozen=True)
class EngineFacts:
    """One engine of a control server; `version` and `program` are empty where it is not installed."""

    name: str
    installed: bool
    version: str
    program: str
    encryption: str

    def as_dict(self) -> dict[str, Any]:
        """The engine as plain data."""
        return _plain(self)


@dataclass(frozen=True)
class ServerFacts:
    """What a control server is; times are seconds since the epoch, `certificate_expires` is 0 without a certificate."""

    version: str
    listen_address: str
    port_range: str
    ports_free: int
    engine: str
    engines: tuple[EngineFacts, ...]
    authentication: str
    tls: bool
    certificate_names: tuple[str, ...]
    certificate_expires: float
    started: float
    sessions: int

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data."""
        return _plain(self) | {"engines": [engine.as_dict() for engine in self.engines]}

    @property
    def encryption(self) -> str:
        """What protects the bytes of the sessions that are opened now: the encryption of the engine in use."""
        return next((engine.encryption for engine in self.engines if engine.name == self.engine), "")


def read_session(message: wire.Session, server: Endpoint) -> Session:
    """A session as `server` describes it.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_ROLE, BAD_UID: the control server answers nonsense.
    """
    return Session(
        uid=parse_uid(message.uid),
        direction=parse_direction(message.direction),
        state=one_line(message.state),
        entry_points=reachable(message.entry_points, server),
        targets=tuple(str(Endpoint.parse(target)) for target in message.targets),
        engine=one_line(message.engine),
        encryption=one_line(message.encryption),
        owner=one_line(message.owner),
        connections=message.connections,
        rate=message.rate,
        opened=message.opened,
        failure=one_line(message.failure),
    )


def read_facts(message: wire.ServerFacts) -> ServerFacts:
    """What a control server says of itself."""
    return ServerFacts(
        version=one_line(message.version),
        listen_address=one_line(message.listen_address),
        port_range=one_line(message.port_range),
        ports_free=message.ports_free,
        engine=one_line(message.engine),
        engines=tuple(_read_engine(engine) for engine in message.engines),
        authentication=one_line(message.authentication),
        tls=message.tls,
        certificate_names=tuple(one_line(name) for name in message.certificate_names),
        certificate_expires=message.certificate_expires,
        started=message.started,
        sessions=message.sessions,
    )


def reachable(entry_points: Iterable[str], server: Endpoint) -> tuple[str, ...]:
    """Entry points as others can connect to them.

    A control server that listens on all its addresses says `0.0.0.0`; then the address that it was called by is as
    good as any, and one that works.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    parsed = (Endpoint.parse(entry_point) for entry_point in entry_points)
    return tuple(str(Endpoint(server.host, one.port) if one.ip and one.ip.is_unspecified else one) for one in parsed)


def _read_engine(message: wire.Engine) -> EngineFacts:
    return EngineFacts(
        name=one_line(message.name),
        installed=message.installed,
        version=one_line(message.version),
        program=one_line(message.program),
        encryption=one_line(message.encryption),
    )


def _plain(facts: Any) -> dict[str, Any]:
    values = ((entry.name, getattr(facts, entry.name)) for entry in dataclasses.fields(facts))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}
