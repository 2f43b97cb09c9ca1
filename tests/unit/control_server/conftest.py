"""A registry whose data servers, ports and clock are in memory; everything else is what runs at a site."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import structlog

from scistream.addresses import Endpoint, PortRange
from scistream.auth import Identity
from scistream.control_server.callers import Caller
from scistream.control_server.data_servers import Survey
from scistream.control_server.events import Events
from scistream.control_server.journal import Journal
from scistream.control_server.leases import Leases
from scistream.control_server.policy import Policy
from scistream.control_server.ports import Reservation
from scistream.control_server.recovery import Recovery
from scistream.control_server.registry import Hello, Patience, Registry
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.control_server.supervisor import Supervisor
from scistream.engines.base import Engine, Feature, Handshake, Installation, Plan, Traffic
from scistream.engines.lifecycle import ProcessMark
from scistream.engines.proxy import Proxy
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, Encryption, Transport, parse_uid


class MemoryEngine(Proxy):
    """An engine that no host has; the data servers below never ask it for anything."""

    name: ClassVar[str] = "memory"
    title: ClassVar[str] = "Memory"
    program: ClassVar[str] = "memory"
    version_argument: ClassVar[str] = "-v"
    packages: ClassVar[tuple[str, ...]] = ()
    encryptions: ClassVar[tuple[Encryption, ...]] = (Encryption.TLS_PSK, Encryption.NONE)
    cannot: ClassVar[Mapping[Feature, str]] = {Feature.RATE: "it limits no rate", Feature.UDP: "it carries TCP only"}

    def rate_shortfall(self) -> str:
        # Nothing of this host.
        return self.cannot.get(Feature.RATE, "")

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        raise NotImplementedError

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        raise NotImplementedError

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        raise NotImplementedError


ANYBODY = Caller(Identity(NO_AUTH))


class MemoryDataServers:
    """Data servers in memory.

    `gate`: starts wait for it. `refusal`: what the next starts fail with. `stuck`: what the next stops fail with.
    """

    def __init__(self) -> None:
        self.running: dict[int, Plan] = {}
        self.started: list[Plan] = []
        self.stopped: list[tuple[str, ProcessMark | None]] = []
        self.wiped: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusal: SciStreamError | None = None
        self.stuck: SciStreamError | None = None
        self.words = "its last words"
        self.carried = Traffic()
        self.agreed: Handshake | None = None
        self.renewed: list[Plan] = []
        self._pids = itertools.count(1000)
        self._ends: dict[int, asyncio.Event] = {}

    async def start(self, engine: Engine, plan: Plan) -> ProcessMark:
        self.started.append(plan)
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        mark = ProcessMark(next(self._pids), 7)
        self.running[mark.pid] = plan
        return mark

    async def drain(self, engine: Engine, plan: Plan, mark: ProcessMark, deaf: Callable[[], None]) -> None:
        deaf()
        await self._ends.setdefault(mark.pid, asyncio.Event()).wait()

    async def retarget(self, engine: Engine, plan: Plan, mark: ProcessMark) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.running[mark.pid] = plan

    async def traffic(self, engine: Engine, plan: Plan, mark: ProcessMark) -> Traffic:
        return self.carried

    async def renew_certificates(self, engine: Engine, plan: Plan, mark: ProcessMark) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.renewed.append(plan)

    async def handshake(self, engine: Engine, plan: Plan, mark: ProcessMark) -> Handshake | None:
        return self.agreed

    async def stop(self, engine: Engine, plan: Plan, mark: ProcessMark | None) -> None:
        if self.stuck is not None:
            raise self.stuck
        self.stopped.append((plan.stem, mark))
        if mark is not None:
            self.running.pop(mark.pid, None)

    def survey(self, directory: Path) -> Survey:
        found: dict[str, list[ProcessMark]] = {}
        for pid, plan in self.running.items():
            found.setdefault(plan.stem, []).append(ProcessMark(pid, 7))
        return found

    def wipe(self, plan: Plan) -> None:
        self.wiped.append(plan.stem)

    def alive(self, engine: Engine, mark: ProcessMark) -> bool:
        return mark.pid in self.running

    async def ended(self, engine: Engine, mark: ProcessMark) -> str:
        await self._ends.setdefault(mark.pid, asyncio.Event()).wait()
        return "signal SIGKILL"

    def last_words(self, engine: Engine, plan: Plan) -> str:
        return self.words

    def kill(self, pid: int) -> None:
        del self.running[pid]
        self._ends.setdefault(pid, asyncio.Event()).set()


class Naps:
    """Time that passes when it is told to: `pauses` are those that were slept, and the last one may be under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._woken = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.pauses.append(seconds)
            self._woken.clear()
            await self._woken.wait()

    def wake(self) -> None:
        self.now += self.pauses[-1]
        self._woken.set()


class MemoryReservation(Reservation):
    """Ports without sockets; `retaken` says that they were bound again."""

    retaken = False

    def retake(self, host: str) -> None:
        self.retaken = True


class MemoryPool:
    """Ports without sockets. `foreign`: ports that somebody else is on."""

    def __init__(self, first: int = 22100, last: int = 22109) -> None:
        self.host = "127.0.20.1"
        self.ports = PortRange(first, last)
        self.taken: set[int] = set()
        self.foreign: set[int] = set()

    @property
    def free(self) -> int:
        return len(self.ports) - len(self.taken)

    def reserve(
        self, count: int, *, owner: str = "", named: Sequence[int] = (), transport: Transport = Transport.TCP
    ) -> Reservation:
        if named:
            return self._hold(tuple(named))
        taken = self.taken | self.foreign
        free = [port for port in self.ports if port not in taken]
        if len(free) < count:
            facts = {"wanted": count, "free": len(free), "size": len(self.ports), "range": str(self.ports)}
            raise SciStreamError(Code.PORTS_EXHAUSTED, **facts, others="")
        return self._hold(free[:count])

    def claim(
        self,
        host: str,
        ports: tuple[int, ...],
        *,
        in_use: bool,
        owner: str = "",
        transport: Transport = Transport.TCP,
    ) -> Reservation:
        if not in_use and self.foreign.intersection(ports):
            raise SciStreamError(Code.ENTRY_POINT_IN_USE, entry_point=f"{host}:{ports[0]}", process="python3 (pid 1)")
        return self._hold(ports)

    def _hold(self, ports: list[int] | tuple[int, ...]) -> Reservation:
        self.taken.update(ports)
        return MemoryReservation(dict.fromkeys(ports), self.taken.difference_update)


class Site:
    """A control server's inside. Made within an event loop, by `site_factory`."""

    def __init__(
        self,
        directory: Path,
        patience: Patience,
        data_servers: MemoryDataServers | None = None,
        leases: Leases | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.engine = MemoryEngine()
        # What its sessions ask for.
        self.encryption = Encryption.TLS_PSK
        self.pool = MemoryPool()
        self.data_servers = data_servers or MemoryDataServers()
        self.events = structlog.testing.LogCapture()
        self.directory = directory
        self.naps = Naps()
        self.journal = Journal(directory / "journal.sqlite3", "boot-1")
        self.supervisor = Supervisor(
            journal=self.journal,
            directory=directory,
            data_servers=self.data_servers,
            events=Events(),
            log=structlog.wrap_logger(None, processors=[structlog.stdlib.add_log_level, self.events]),
            uptime=lambda: self.naps.now,
            sleep=self.naps.sleep,
        )
        ticks = itertools.count(1_000_000)
        clock = lambda: float(next(ticks))  # noqa: E731
        self.registry = Registry(
            self.engine, self.pool, self.supervisor, patience=patience, clock=clock, leases=leases, policy=policy
        )

    async def recover(self) -> None:
        """What a start does first."""
        recovery = Recovery(self.journal, self.directory, self.pool, self.data_servers, self.supervisor, self.engine)
        self.registry.take_over(recovery.sessions(self.data_servers.survey(self.directory)))

    def ask(self, uid: str, direction: Direction = Direction.INBOUND, connections: int = 1) -> asyncio.Task[Session]:
        """A `req`, which is on its way."""
        own = {"encryption": self.encryption}
        asked = SessionRequest(parse_uid(uid), direction, connections, 0, NO_AUTH, "127.0.20.1", **own)
        return asyncio.get_running_loop().create_task(self.registry.request(asked))

    async def say_hello(
        self,
        uid: str,
        role: Direction = Direction.INBOUND,
        targets: tuple[str, ...] = ("t.example:5074",),
        only: Direction | None = None,
    ) -> Session:
        parse = Endpoint.parse
        hello = Hello(parse_uid(uid), role, lambda: tuple(map(parse, targets)), only)
        return await self.registry.hello(hello, ANYBODY)

    async def register(self, uid: str, direction: Direction = Direction.INBOUND, connections: int = 1) -> Session:
        request = self.ask(uid, direction, connections)
        await self.say_hello(uid, direction)
        return await request

    async def update(
        self,
        uid: str,
        *targets: str,
        direction: Direction = Direction.INBOUND,
        key: bytes | None = None,
    ) -> Session:
        parsed = tuple(map(Endpoint.parse, targets or ("t.example:5074",)))
        return await self.registry.update(Update(parse_uid(uid), direction, parsed, key), ANYBODY)

    def find(self, uid: str) -> Sequence[Session]:
        return self.registry.find(parse_uid(uid), None, ANYBODY)

    async def release(self, uid: str, direction: Direction | None = None) -> Sequence[Session]:
        return await self.registry.release(parse_uid(uid), direction, ANYBODY)

    async def open(self, uid: str, direction: Direction = Direction.INBOUND, connections: int = 1) -> Session:
        await self.register(uid, direction, connections)
        return await self.update(uid, direction=direction)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of any session is left."""
        return not (self.registry.sessions() or self.pool.taken or self.data_servers.running or self.journal.records())


SiteFactory = Callable[..., Site]


@pytest.fixture
def site_factory(tmp_path: Path) -> SiteFactory:
    """`site_factory()` within a running loop; again for what a restart finds: `site_factory(data_servers=...)`."""

    def make(
        *,
        hello: float = 180,
        request: float = 5,
        data_servers: MemoryDataServers | None = None,
        leases: Leases | None = None,
        policy: Policy | None = None,
    ) -> Site:
        return Site(tmp_path, Patience(hello=hello, request=request), data_servers, leases, policy)

    return make


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def settle() -> Callable[[], object]:
    """Lets everything run that can run, without waiting for time to pass."""
    return _settle
