"""The registry: all sessions of a control server, and everything that people may do with them.

It knows no gRPC. Everything runs on one event loop; what has to be whole happens between two awaits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scistream.addresses import Endpoint
from scistream.control_server.callers import Caller
from scistream.control_server.ports import PortPool
from scistream.control_server.rules import bounded, check, preferred
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.control_server.supervisor import Supervisor, spell
from scistream.engines.base import Engine
from scistream.errors import Code, SciStreamError
from scistream.terms import HELLO_TIMEOUT, Direction, SessionState, Uid

__all__ = ["Hello", "Patience", "Registry"]

# File names of the control server itself in the state directory.
_OWN_STEMS: Final = frozenset({"journal", "s2cs"})


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


class Registry:
    """The sessions of one control server.

    Args:
        engine: what new sessions are carried by.
        pool: the ports for them.
        supervisor: what starts and ends their data servers.
        patience: how long things are waited for.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        engine: Engine,
        pool: PortPool,
        supervisor: Supervisor,
        *,
        patience: Patience = Patience(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self.pool = pool
        self._supervisor = supervisor
        self._patience = patience
        self._clock = clock
        self._sessions: dict[tuple[Uid, Direction], Session] = {}
        self._arrival = asyncio.Event()
        self._ending = False

    def sessions(self) -> Sequence[Session]:
        """All sessions, in the order of their opening."""
        return sorted(self._sessions.values(), key=lambda session: session.opened)

    def find(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """The caller's sessions with a uid, of one direction or of both.

        Raises:
            SciStreamError: UID_UNKNOWN where there is none, NOT_OWNER where there are only others'.
        """
        found = self._there(uid, direction)
        if not found:
            raise SciStreamError(Code.UID_UNKNOWN, uid=uid)
        theirs = [session for session in found if caller.may_use(session.asked.owner)]
        if not theirs:
            raise SciStreamError(Code.NOT_OWNER, uid=uid)
        return theirs

    def _there(self, uid: Uid, direction: Direction | None) -> list[Session]:
        wanted = (direction,) if direction else tuple(Direction)
        return [self._sessions[uid, each] for each in wanted if (uid, each) in self._sessions]

    async def request(self, asked: SessionRequest) -> Session:
        """Reserve entry points, then wait for the hello. On any failure, also the caller's going away, nothing stays.

        Raises:
            SciStreamError: UID_EXISTS, PORTS_EXHAUSTED, HELLO_TIMEOUT, CONTROL_SERVER_ENDING.
        """
        session = self._open(asked)
        try:
            registered = session.registered = asyncio.get_running_loop().create_future()
            entry_points = spell(session.entry_points)
            self._supervisor.tell(session, "session requested", entry_points=entry_points, rate=asked.rate)
            self._arrival.set()
            self._arrival = asyncio.Event()
            async with asyncio.timeout(self._patience.hello):
                await registered
        except TimeoutError:
            self._drop(session)
            raise SciStreamError(Code.HELLO_TIMEOUT, uid=asked.uid, seconds=self._patience.hello) from None
        except BaseException:
            self._drop(session)
            raise
        return session

    def _open(self, asked: SessionRequest) -> Session:
        if self._ending:
            raise SciStreamError(Code.CONTROL_SERVER_ENDING)
        there = self._sessions.get((asked.uid, asked.direction))
        if there is not None:
            raise SciStreamError(Code.UID_EXISTS, uid=asked.uid, state=there.state.value)
        session = Session(
            asked=asked,
            opened=self._clock(),
            engine=self.engine,
            stem=self._stem(asked.uid, asked.direction),
            bound_host=self.pool.host,
            reservation=self.pool.reserve(asked.connections),
        )
        self._sessions[session.identity] = session
        return session

    def _stem(self, uid: Uid, direction: Direction) -> str:
        taken = {session.stem for session in self._sessions.values()} | _OWN_STEMS
        return f"{uid}.{direction.value}" if uid in taken else uid

    async def hello(self, hello: Hello, caller: Caller) -> Session:
        """Register the application's end of a session; one that comes before its `req` is held for a while.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER; BAD_ADDRESS and TOO_MANY_TARGETS, and the `req` waits on for better
                ones.
        """
        session = await self._awaited(hello, caller)
        caller.require(session.asked.owner, hello.uid)
        registered = session.registered
        if session.state is not SessionState.REQUESTED or registered is None or registered.done():
            return session
        if session.asked.direction is Direction.INBOUND:
            session.targets = bounded(hello.targets(), session)
        self._supervisor.register(session)
        registered.set_result(None)
        self._expect_update(session)
        self._supervisor.tell(session, "session registered", targets=spell(session.targets))
        return session

    async def _awaited(self, hello: Hello, caller: Caller) -> Session:
        """The session that a hello is for: one that waits for it, else one that had it already."""
        if hello.only is not None and (hello.uid, hello.only) in self._sessions:
            return self._sessions[hello.uid, hello.only]
        try:
            async with asyncio.timeout(self._patience.request):
                while not (waiting := self._waiting(hello)):
                    await self._arrival.wait()
        except TimeoutError:
            return preferred(self.find(hello.uid, hello.only, caller), hello.role)
        return preferred(waiting, hello.role)

    def _waiting(self, hello: Hello) -> list[Session]:
        there = self._there(hello.uid, hello.only)
        return [session for session in there if session.state is SessionState.REQUESTED]

    async def update(self, change: Update, caller: Caller) -> Session:
        """Name the targets and start the data server; back when the entry points accept (U28).

        Again with the same targets: nothing happens. After a failure: it is tried anew. Where the caller goes away
        before the answer, what it started is released: nobody else would.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER, SESSION_NOT_REGISTERED, NO_TARGETS, TOO_MANY_TARGETS,
                RETARGET_REFUSED, TARGET_IN_USE, CONTROL_SERVER_ENDING, and what `engines.lifecycle.start` raises.
        """
        session = preferred(self.find(change.uid, None, caller), change.direction)
        work = self._supervisor.begin(self._update(session, change))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._supervisor.begin(self._abandon(session, change, work))
            raise

    async def _abandon(self, session: Session, change: Update, work: asyncio.Task[Session]) -> None:
        """Release what an update made whose caller waits no longer, unless another caller relies on it by now."""
        await asyncio.wait([work])
        await self._release(session, unless=lambda: session.change is not change)

    async def _update(self, session: Session, change: Update) -> Session:
        async with session.lock:
            if self._sessions.get(session.identity) is not session:
                raise SciStreamError(Code.UID_UNKNOWN, uid=session.asked.uid)
            check(session, change)
            if session.state is not SessionState.ACTIVE:
                if self._ending:
                    raise SciStreamError(Code.CONTROL_SERVER_ENDING)
                session.change = change
                await self._supervisor.start(session, change)
            session.change = change
            return session

    def _expect_update(self, session: Session) -> None:
        self._supervisor.attend(self._until_unwanted(session))

    async def _until_unwanted(self, session: Session) -> None:
        """Release a session whose update does not come: its client is gone."""
        await asyncio.sleep(self._patience.hello)
        work = self._release(session, unless=lambda: session.state is not SessionState.REGISTERED)
        await asyncio.shield(self._supervisor.begin(work))

    async def release(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """End the sessions of a uid: no process, port or file of theirs stays.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER; DATA_SERVER_STUCK, and then the session stays, as failed.
        """
        found = self.find(uid, direction, caller)
        await self._release_each(found)
        return found

    async def _release_each(self, sessions: Iterable[Session]) -> None:
        work = [asyncio.shield(self._supervisor.begin(self._release(session))) for session in sessions]
        results = await asyncio.gather(*work, return_exceptions=True)
        for failure in filter(None, results):
            raise failure

    async def _release(self, session: Session, unless: Callable[[], bool] = lambda: False) -> None:
        async with session.lock:
            if self._sessions.get(session.identity) is session and not unless():
                # A session that waits for its hello never had a data server, and its file names may be another's.
                if session.state is not SessionState.REQUESTED:
                    await self._supervisor.end(session)
                self._drop(session)

    def _drop(self, session: Session) -> None:
        """Forget a session whose data server does not run. Again: nothing."""
        if self._sessions.get(session.identity) is not session:
            return
        del self._sessions[session.identity]
        _refuse(session, SciStreamError(Code.UID_UNKNOWN, uid=session.asked.uid))
        session.reservation.close()
        session.key = session.change = None
        session.state = SessionState.RELEASED
        self._supervisor.forget(session)
        self._supervisor.tell(session, "session released")

    def take_over(self, sessions: Iterable[Session]) -> None:
        """Go on with sessions from before a restart."""
        for session in sessions:
            self._sessions[session.identity] = session
            self._supervisor.write(session)
            if session.state is SessionState.ACTIVE:
                self._supervisor.watch(session)
            elif session.state is SessionState.REGISTERED:
                self._expect_update(session)
            self._supervisor.tell(session, "session taken over", state=session.state.value, why=session.failure or None)

    async def close(self) -> None:
        """Take no more sessions, fail the requests that wait, and finish what is under way. Data servers go on."""
        self._ending = True
        for session in self.sessions():
            _refuse(session, SciStreamError(Code.CONTROL_SERVER_ENDING))
        await self._supervisor.finish()

    async def release_all(self) -> int:
        """Release every session; returns how many there were.

        Raises:
            SciStreamError: DATA_SERVER_STUCK, after all the others were released.
        """
        sessions = self.sessions()
        await self._release_each(sessions)
        return len(sessions)


def _refuse(session: Session, error: SciStreamError) -> None:
    """Fail the `req` that waits, if one does."""
    if session.registered is not None and not session.registered.done():
        session.registered.set_exception(error)
        # Retrieved once here: a request whose caller went away reads it no more.
        session.registered.exception()
