"""How a session is opened: a `req` reserves entry points and waits, a `hello` registers the application's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from scistream.addresses import Endpoint
from scistream.control_server.callers import Caller
from scistream.control_server.events import EventKind
from scistream.control_server.leases import Leases
from scistream.control_server.policy import Policy
from scistream.control_server.ports import PortPool
from scistream.control_server.rules import bounded, check_ports, check_sources, granted, preferred
from scistream.control_server.sessions import Session, SessionRequest
from scistream.control_server.supervisor import Supervisor
from scistream.control_server.table import Table
from scistream.engines.base import Engine
from scistream.errors import Code, SciStreamError
from scistream.terms import HELLO_TIMEOUT, Direction, SessionState, Uid

__all__ = ["Hello", "Offer", "Opening", "Patience", "Release"]


@dataclass(frozen=True)
class Patience:
    """How long things are waited for, in seconds.

    `hello`: a `req` for its hello, and a registered session for its update. `request`: a hello that came first, for its
    `req` (U30).
    """

    hello: float = HELLO_TIMEOUT
    request: float = 5.0


@dataclass(frozen=True)
class Hello:
    """The registration of the application's end.

    `role` is what the caller says it is. Deployed clients say PROD for either end, so it only decides where both
    ends wait; `only` is the direction that is meant, from callers who know it. `targets` counts for an inbound
    session; it is called for those alone, since what deployed clients put there for the others means nothing.
    """

    uid: Uid
    role: Direction
    targets: Callable[[], tuple[Endpoint, ...]]
    only: Direction | None = None


@dataclass(frozen=True)
class Offer:
    """What new sessions are made of. `clock` tells seconds since the epoch."""

    engine: Engine
    pool: PortPool
    leases: Leases
    clock: Callable[[], float]
    policy: Policy = field(default_factory=Policy)


class Release(Protocol):
    """Releases a session and tells why, unless something holds when its turn comes."""

    def __call__(self, session: Session, why: str = "", unless: Callable[[], bool] = ...) -> Coroutine[Any, Any, None]:
        """See `Registry`."""


class Opening:
    """Opens the sessions of one control server.

    Args:
        table: where they are.
        supervisor: what writes and tells.
        offer: what they are made of.
        patience: how long things are waited for.
        lease_watch: what heeds their leases.
        release: what ends them.
    """

    def __init__(
        self, table: Table, supervisor: Supervisor, *, offer: Offer, patience: Patience, release: Release
    ) -> None:
        self._table = table
        self._supervisor = supervisor
        self._offer = offer
        self._patience = patience
        self._release = release
        # What held hellos wait for; an event lasts as long as somebody waits for it.
        self._arrivals: WeakValueDictionary[Uid, asyncio.Event] = WeakValueDictionary()

    async def request(self, asked: SessionRequest, entered: Callable[[Session], None]) -> Session:
        """See `Registry.request`; `entered` is told of the session when it is there."""
        registered = asyncio.get_running_loop().create_future()
        if asked.rate or asked.sources:
            # Whether the kernel can keep them is asked of a program, once in a while.
            await asyncio.to_thread(granted, asked, self._offer.engine)
        session = self._open(asked, registered)
        try:
            self._enter(session)
            entered(session)
            async with asyncio.timeout(self._patience.hello):
                await registered
        except TimeoutError:
            self._give_up(session, "no hello came")
            raise SciStreamError(Code.HELLO_TIMEOUT, uid=asked.uid, seconds=self._patience.hello) from None
        except SciStreamError as error:
            self._give_up(session, error.seen)
            raise
        except BaseException:
            self._give_up(session, "its client went away")
            raise
        return session

    def _give_up(self, session: Session, why: str) -> None:
        if session.state is SessionState.REQUESTED:
            self._table.drop(session, why)
        else:
            # Its hello came in the same moment, and its data server may be starting.
            self._supervisor.begin(self._release(session, why))

    def _open(self, asked: SessionRequest, registered: asyncio.Future[None]) -> Session:
        if self._table.is_closed:
            raise SciStreamError(Code.CONTROL_SERVER_ENDING)
        for there in self._table.there(asked.uid, asked.direction):
            # How far a stranger's session has come is nobody's business.
            state = there.state.value if there.asked.owner == asked.owner else "another user's"
            raise SciStreamError(Code.UID_EXISTS, uid=asked.uid, state=state)
        engine, pool = self._offer.engine, self._offer.pool
        asked = granted(asked, engine)
        check_ports(asked, self._table)
        check_sources(asked, pool.host)
        self._offer.policy.check_ports(asked, self._table)
        lease = self._offer.leases.grant(asked.lease)
        return Session(
            asked=asked,
            opened=self._offer.clock(),
            engine=engine,
            stem=self._table.stem(asked.uid, asked.direction),
            bound_host=pool.host,
            reservation=pool.reserve(
                asked.connections, owner=asked.owner, named=asked.named_ports, transport=asked.transport
            ),
            registered=registered,
            **lease._asdict(),
        )

    def _enter(self, session: Session) -> None:
        self._table.add(session)
        try:
            self._supervisor.move(session, SessionState.REQUESTED, EventKind.REQUESTED)
        except SciStreamError:
            # It was never there.
            self._table.strike(session)
            raise
        if arrival := self._arrivals.pop(session.asked.uid, None):
            arrival.set()

    def close(self) -> None:
        """Fail the hellos that are held: no `req` will come."""
        for arrival in list(self._arrivals.values()):
            arrival.set()

    async def hello(self, hello: Hello, caller: Caller) -> Session:
        """See `Registry.hello`."""
        session = await self._awaited(hello, caller)
        caller.require(session.asked.owner, hello.uid)
        registered = session.registered
        if session.state is not SessionState.REQUESTED or registered is None or registered.done():
            return session
        inbound = session.asked.direction is Direction.INBOUND
        targets = bounded(hello.targets(), session) if inbound else session.targets
        self._offer.policy.check_targets(session, targets, self._table)
        self._supervisor.move(session, SessionState.REGISTERED, targets=targets)
        registered.set_result(None)
        self.expect_update(session)
        return session

    async def _awaited(self, hello: Hello, caller: Caller) -> Session:
        """The session that a hello is for: one that waits for it, else one that had it already."""
        if hello.only is not None and (there := self._table.there(hello.uid, hello.only)):
            return there[0]
        try:
            async with asyncio.timeout(self._patience.request):
                while not (waiting := self._waiting(hello, caller)):
                    if self._table.is_closed:
                        raise SciStreamError(Code.CONTROL_SERVER_ENDING)
                    await self._arrivals.setdefault(hello.uid, asyncio.Event()).wait()
        except TimeoutError:
            return preferred(self._table.find(hello.uid, hello.only, caller), hello.role)
        return preferred(waiting, hello.role)

    def _waiting(self, hello: Hello, caller: Caller) -> list[Session]:
        there = self._table.there(hello.uid, hello.only)
        waiting = (session for session in there if session.state is SessionState.REQUESTED)
        return [session for session in waiting if caller.may_use(session.asked.owner)]

    def expect_update(self, session: Session) -> None:
        """Have a session released that is registered, or did not start, and whose update does not come in time."""
        if session.watch is not None:
            session.watch.cancel()
        session.watch = self._supervisor.attend(self._until_unwanted(session))

    async def _until_unwanted(self, session: Session) -> None:
        await asyncio.sleep(self._patience.hello)
        work = self._release(session, "no update came", lambda: not session.awaits_update)
        await asyncio.shield(self._supervisor.begin(work))
