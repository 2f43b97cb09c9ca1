"""A session: one direction of a stream on this control server, and the states of its life."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from scistream.addresses import Endpoint, Network
from scistream.control_server.journal import Record
from scistream.control_server.ports import Reservation
from scistream.engines.abilities import Wishes
from scistream.engines.base import Engine, Handshake, Plan, Route, Traffic
from scistream.engines.lifecycle import ProcessMark
from scistream.terms import Direction, Encryption, SessionState, Transport, Uid

__all__ = ["Session", "SessionRequest", "SessionView", "Update"]


@dataclass(frozen=True)
class SessionRequest:
    """What a `req` asks for.

    `rate` is in kb/s of application bytes, 0 where none was asked for. `host` is the address under which this gateway
    tells its entry points. `lease` is in seconds, None for the control server's default. `named_ports` are the entry
    points' where the caller names them, one for each connection. `encryption` is what the engine gives for what was
    asked. `sources` are the networks whose hosts may connect, all where there are none; `half_close` says that the
    application half-closes its connections. `peer` is the engine of the other gateway, where the caller knows it.
    """

    uid: Uid
    direction: Direction
    connections: int
    rate: int
    owner: str
    host: str
    lease: float | None = None
    named_ports: tuple[int, ...] = ()
    # Said by whoever asks: nobody forgets it, and gets none.
    encryption: Encryption = field(kw_only=True)
    transport: Transport = Transport.TCP
    sources: tuple[Network, ...] = ()
    half_close: bool = False
    peer: str = ""

    @property
    def wishes(self) -> Wishes:
        """What is asked of the engine."""
        asked = (bool(self.sources), self.half_close, bool(self.rate))
        return Wishes(self.transport, *asked, self.peer, encryption=self.encryption)


@dataclass(frozen=True)
class Update:
    """What an `update` asks for. `direction` picks the session where the uid has both; `key` is the stream's secret."""

    uid: Uid
    direction: Direction
    targets: tuple[Endpoint, ...]
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SessionView:
    """A session as it was at one moment; the fields are those of `Session` and of what was asked for."""

    uid: Uid
    direction: Direction
    state: SessionState
    entry_points: tuple[Endpoint, ...]
    targets: tuple[Endpoint, ...]
    engine: str
    encryption: Encryption
    owner: str
    connections: int
    rate: int
    opened: float
    failure: str
    lease_expires: float | None
    idle_since: float | None
    restarts: int
    traffic: Traffic
    transport: Transport = Transport.TCP
    sources: tuple[Network, ...] = ()
    half_close: bool = False
    handshake: Handshake = field(default_factory=Handshake)
    warnings: tuple[str, ...] = ()
    certificate_expires: float | None = None


@dataclass(eq=False)
class Session:
    """One session. Found by uid and direction; its state is changed by `Supervisor.move` alone.

    `bound_host` is where its entry points listen, `asked.host` the address under which they are told. `opened`,
    `lease_expires` and `idle_since` are in seconds since the epoch, None where there is no end, or nothing is known;
    `failure` says why it failed; `restarts` counts data servers that were started in place of one that had ended.
    """

    asked: SessionRequest
    opened: float
    engine: Engine
    stem: str
    bound_host: str
    reservation: Reservation
    state: SessionState = SessionState.REQUESTED
    targets: tuple[Endpoint, ...] = ()
    failure: str = ""
    lease_expires: float | None = None
    # The end of the lease on this boot's clock (CLOCK_BOOTTIME), which no change of the wall clock moves.
    lease_boottime: float | None = None
    idle_since: float | None = None
    restarts: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    # What the last of its encrypted connections agreed on, as its data server told it.
    handshake: Handshake = field(default_factory=Handshake)
    certificate_expires: float | None = None
    mark: ProcessMark | None = None
    # A process of it may be there, whose mark may not be known.
    may_run: bool = False
    # Its data server is to run: where it ends by itself, it is started again.
    wanted: bool = False
    # Its data server has the targets; not known while that is told of others, also where a crash cut the telling off.
    in_step: bool = True
    key: bytes | None = field(default=None, repr=False)
    # Done when the hello has come; None for a session from before a restart.
    registered: asyncio.Future[None] | None = field(default=None, repr=False)
    # What waits for its data server's end, for that of its last connection, or for an update.
    watch: asyncio.Task[None] | None = field(default=None, repr=False)
    # The update that started the data server, as long as nobody but who it is from relies on it.
    change: Update | None = field(default=None, repr=False)
    # Held while the data server starts or stops, so that an update and a release take turns.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    ports: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.ports = self.reservation.ports

    @property
    def identity(self) -> tuple[Uid, Direction]:
        """What the registry finds it by: uid and direction."""
        return self.asked.uid, self.asked.direction

    @property
    def entry_points(self) -> tuple[Endpoint, ...]:
        """Where the session accepts, as it is told to people."""
        return tuple(Endpoint(self.asked.host, port) for port in self.ports)

    @property
    def awaits_update(self) -> bool:
        """Whether nothing happens to it without an `update`: it is registered, or failed with nobody to start it."""
        is_failed = self.state is SessionState.FAILED and not self.wanted
        return is_failed or self.state is SessionState.REGISTERED

    def view(self) -> SessionView:
        """The session as it is now, for those who only look."""
        return SessionView(
            uid=self.asked.uid,
            direction=self.asked.direction,
            state=self.state,
            entry_points=self.entry_points,
            targets=self.targets,
            engine=self.engine.name,
            encryption=self.asked.encryption,
            owner=self.asked.owner,
            connections=self.asked.connections,
            rate=self.asked.rate,
            opened=self.opened,
            failure=self.failure,
            lease_expires=self.lease_expires,
            idle_since=self.idle_since,
            restarts=self.restarts,
            traffic=self.traffic,
            transport=self.asked.transport,
            sources=self.asked.sources,
            half_close=self.asked.half_close,
            handshake=self.handshake,
            certificate_expires=self.certificate_expires,
            warnings=self.engine.warnings(self.asked.encryption, self.asked.transport),
        )

    def plan(self, directory: Path) -> Plan:
        """What the session's data server shall do; targets are used in turn where they are fewer (protocol, 3)."""
        targets = self.targets
        routes = tuple(
            Route(Endpoint(self.bound_host, port), targets[index % len(targets)])
            for index, port in enumerate(self.ports if targets else ())
        )
        return Plan(
            self.asked.uid,
            self.asked.direction,
            routes,
            directory,
            self.stem,
            self.key,
            encryption=self.asked.encryption,
            transport=self.asked.transport,
            sources=self.asked.sources,
            rate=self.asked.rate,
        )

    def record(self) -> Record:
        """The session as the journal keeps it: everything but the key."""
        return Record(
            uid=self.asked.uid,
            direction=self.asked.direction,
            state=self.state,
            engine=self.engine.name,
            stem=self.stem,
            bound_host=self.bound_host,
            told_host=self.asked.host,
            ports=self.ports,
            targets=tuple(str(target) for target in self.targets),
            connections=self.asked.connections,
            rate=self.asked.rate,
            owner=self.asked.owner,
            opened=self.opened,
            failure=self.failure,
            pid=self.mark.pid if self.mark else None,
            started=self.mark.started if self.mark else None,
            lease_expires=self.lease_expires,
            lease_boottime=self.lease_boottime,
            restarts=self.restarts,
            wanted=self.wanted,
            in_step=self.in_step,
            encryption=self.asked.encryption,
            transport=self.asked.transport,
            sources=tuple(map(str, self.asked.sources)),
            half_close=self.asked.half_close,
        )
