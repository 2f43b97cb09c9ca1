"""The registry: everything that people may do with the sessions of a control server.

It knows no gRPC. Everything runs on one event loop; what has to be whole happens between two awaits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from scistream.control_server.callers import Caller
from scistream.control_server.draining import Draining
from scistream.control_server.events import EventKind
from scistream.control_server.handshakes import learn
from scistream.control_server.leases import Leases, LeaseWatch
from scistream.control_server.leftovers import Leftovers
from scistream.control_server.opening import Hello, Offer, Opening, Patience
from scistream.control_server.policy import Policy
from scistream.control_server.ports import PortPool
from scistream.control_server.rates import keep_bounds
from scistream.control_server.renewing import keep_renewing, renew_certificates
from scistream.control_server.retargeting import bring_into_step, retarget
from scistream.control_server.rules import check, check_renewal, preferred
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.control_server.supervisor import Supervisor
from scistream.control_server.table import Table
from scistream.engines.base import Engine
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState, Uid

__all__ = ["Hello", "Patience", "Registry"]

_PATIENCE: Final = Patience()


class Registry:
    """The sessions of one control server.

    Args:
        engine: what new sessions are carried by.
        pool: the ports for them.
        supervisor: what starts and ends their data servers.
        patience: how long things are waited for.
        clock: seconds since the epoch.
        leases: how long sessions may last.
        leftovers: data servers that run and are no session's.
        policy: what sessions may be.
    """

    def __init__(  # noqa: PLR0913 - all that it works with
        self,
        engine: Engine,
        pool: PortPool,
        supervisor: Supervisor,
        *,
        patience: Patience = _PATIENCE,
        clock: Callable[[], float] = time.time,
        leases: Leases | None = None,
        leftovers: Leftovers | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.engine = engine
        self.pool = pool
        self._supervisor = supervisor
        self._table = Table(supervisor)
        self._leases = leases or Leases()
        self._leftovers = leftovers
        self._policy = policy or Policy()
        offer = Offer(engine, pool, self._leases, clock, self._policy)
        self._opening = Opening(self._table, supervisor, offer=offer, patience=patience, release=self._release)
        self._draining = Draining(supervisor, self._table, self._release)
        self._lease_watch = LeaseWatch(self._leases, supervisor, sessions=self._table, release=self._expire)

    def sessions(self) -> Sequence[Session]:
        """All sessions, in the order of their opening."""
        return self._table.sessions()

    def find(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """The caller's sessions with a uid, of one direction or of both.

        Raises:
            SciStreamError: UID_UNKNOWN where there is none, NOT_OWNER where there are only others'.
        """
        return self._table.find(uid, direction, caller)

    async def request(self, asked: SessionRequest) -> Session:
        """Reserve entry points, then wait for the hello. On any failure, also the caller's going away, nothing stays.

        Raises:
            SciStreamError: UID_EXISTS, ENGINE_CANNOT, BAD_LEASE, PORTS_MISCOUNTED, OWNER_PORTS_EXHAUSTED, what
                `PortPool.reserve` raises, HELLO_TIMEOUT, CONTROL_SERVER_ENDING, JOURNAL_UNREADABLE,
                STATE_DIRECTORY_FULL.
        """
        if self._leftovers is not None:
            self._leftovers.refuse(asked.uid)
        return await self._opening.request(asked, self._lease_watch.note)

    def warnings(self) -> Sequence[str]:
        """What the operator should know of this start, a sentence each."""
        return self._leftovers.warnings() if self._leftovers is not None else ()

    def stems(self) -> Sequence[str]:
        """What begins the names of the files of everything that is there, sessions or not."""
        left = self._leftovers.stems if self._leftovers is not None else ()
        return *(session.stem for session in self.sessions()), *left

    async def hello(self, hello: Hello, caller: Caller) -> Session:
        """Register the application's end of a session; one that comes before its `req` is held for a while.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER, JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL; BAD_ADDRESS,
                TOO_MANY_TARGETS and TARGET_REFUSED, and the `req` waits on for better ones.
        """
        return await self._opening.hello(hello, caller)

    async def update(self, change: Update, caller: Caller) -> Session:
        """Name the targets and start the data server; back when the entry points accept (U28).

        Again with the same targets: nothing happens; with others: new connections go there (U29). After a failure: it
        is tried anew. Where the caller goes away before the answer, what it started is released: nobody else would.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER, TARGET_REFUSED, CONTROL_SERVER_ENDING, and what `check`, `retarget`
                and `Supervisor.start` raise.
        """
        session = preferred(self._table.find(change.uid, None, caller), change.direction)
        work = self._supervisor.begin(self._update(session, change))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._supervisor.begin(self._abandon(session, change, work))
            raise

    async def _abandon(self, session: Session, change: Update, work: asyncio.Task[Session]) -> None:
        """Release what an update made whose caller waits no longer, unless another caller relies on it by now."""
        await asyncio.wait([work])
        await self._release(session, "its client went away", lambda: session.change is not change)

    async def _update(self, session: Session, change: Update) -> Session:
        async with session.lock:
            self._table.require(session)
            check(session, change)
            self._policy.check_targets(session, change.targets, self._table)
            if session.state is SessionState.ACTIVE and session.mark is not None:
                # From here on it is not the starter's alone.
                session.change = None
                if change.targets != session.targets or not session.in_step:
                    await retarget(self._supervisor, session, session.mark, change.targets)
                return session
            if self._table.is_closed:
                raise SciStreamError(Code.CONTROL_SERVER_ENDING)
            session.change = change
            try:
                await self._supervisor.start(session, change)
            finally:
                self._heed(session)
            return session

    def _heed(self, session: Session) -> None:
        """Have what failed given up as well, where nobody tries it anew: its ports are others' to use."""
        if session.awaits_update:
            self._opening.expect_update(session)

    async def renew(
        self, uid: Uid, direction: Direction | None, lease: float | None, caller: Caller
    ) -> Sequence[Session]:
        """Have the sessions of a uid last for so many seconds from now, 0 without an end; None: the default.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER, BAD_LEASE, JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL.
        """
        found = self._table.find(uid, direction, caller)
        for session in found:
            async with session.lock:
                self._table.require(session)
                granted = self._leases.grant(lease)
                self._supervisor.move(session, session.state, EventKind.RENEWED, **granted._asdict())
                self._lease_watch.note(session)
        return found

    async def _expire(self, session: Session) -> None:
        if session.state is SessionState.REQUESTED and self._leases.has_ended(session):
            seconds = self._leases.terms.granted(session.asked.lease)
            self._table.refuse(session, SciStreamError(Code.HELLO_TIMEOUT, uid=session.asked.uid, seconds=seconds))
        await self._release(session, "the lease ended", lambda: not self._leases.has_ended(session))

    async def drain(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """Have the sessions of a uid take no new connections; each is released when its last one has ended.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER, SESSION_NOT_ACTIVE, ENGINE_CANNOT, JOURNAL_UNREADABLE,
                STATE_DIRECTORY_FULL; PARTLY_DRAINED where that is so of one direction, and the other drains.
        """
        found = self._table.find(uid, direction, caller)
        await self._draining.begin(found)
        return found

    async def renew_certificates(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """Have the sessions of a uid prove this gateway with new certificates; running connections go on.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER, SESSION_NOT_ACTIVE, ENGINE_CANNOT, DATA_SERVER_UNRESPONSIVE,
                FILE_UNWRITABLE.
        """
        found = self._table.find(uid, direction, caller)
        for session in found:
            async with session.lock:
                self._table.require(session)
                check_renewal(session)
                await renew_certificates(self._supervisor, session)
        return found

    async def observe(self, sessions: Iterable[Session]) -> None:
        """Bring up to date what the data servers of encrypted sessions agreed on with their peers."""
        await asyncio.gather(*(learn(self._supervisor, session) for session in sessions))

    async def keep_promises(self) -> None:
        """Renew certificates before they end, and keep sessions to their rates and sources, until cancelled."""
        await asyncio.gather(
            keep_renewing(self.sessions, self._supervisor), keep_bounds(self.sessions, self._supervisor)
        )

    async def release(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """End the sessions of a uid: no process, port or file of theirs stays.

        Raises:
            SciStreamError: UID_UNKNOWN, NOT_OWNER; DATA_SERVER_STUCK, and then the session stays, as failed.
        """
        found = self._table.find(uid, direction, caller)
        await self._release_each(found)
        return found

    async def _release_each(self, sessions: Iterable[Session], why: str = "") -> None:
        work = [asyncio.shield(self._supervisor.begin(self._release(session, why))) for session in sessions]
        results = await asyncio.gather(*work, return_exceptions=True)
        for failure in filter(None, results):
            raise failure

    async def _release(self, session: Session, why: str = "", unless: Callable[[], bool] = lambda: False) -> None:
        async with session.lock:
            if session in self._table and not unless():
                # A session that waits for its hello never had a data server, and its file names may be another's.
                try:
                    if session.state is not SessionState.REQUESTED:
                        await self._supervisor.end(session)
                except SciStreamError:
                    self._heed(session)
                    raise
                self._table.drop(session, why)

    def take_over(self, sessions: Iterable[Session]) -> None:
        """Go on with sessions from before a restart; those whose lease has ended are released meanwhile."""
        for session in sessions:
            self._table.add(session)
            if self._leases.is_stale(session):
                lease = self._leases.reckoned(session)
                self._supervisor.move(session, session.state, must=True, **lease._asdict())
            self._supervisor.tell(session, "session taken over", state=session.state.value, why=session.failure or None)
            if not self._leases.has_ended(session):
                self._go_on(session)
        self._lease_watch.look()

    def _go_on(self, session: Session) -> None:
        if session.awaits_update:
            self._opening.expect_update(session)
            self._supervisor.begin(self._end_strays(session))
        elif session.state is SessionState.DRAINING and session.wanted and session.mark is not None:
            self._draining.resume(session, session.mark)
        elif session.state is SessionState.DRAINING:
            self._supervisor.begin(self._release(session, "it was about to end when the control server did"))
        else:
            self._supervisor.watch(session)
            if session.state is SessionState.ACTIVE and not session.in_step:
                self._supervisor.begin(bring_into_step(self._supervisor, session))

    async def _end_strays(self, session: Session) -> None:
        async with session.lock:
            if session.awaits_update and session.may_run:
                await self._supervisor.end_strays(session)

    async def close(self) -> None:
        """Take no more sessions, fail the calls that wait, and finish what is under way. Data servers go on."""
        self._table.close()
        self._opening.close()
        self._lease_watch.close()
        await self._supervisor.finish()

    async def release_all(self) -> int:
        """Release every session, and end what is no session's; returns how many there were.

        Raises:
            SciStreamError: DATA_SERVER_STUCK, LEFT_BEHIND, after all the others were released.
        """
        sessions = self.sessions()
        try:
            await self._release_each(sessions, "the control server released everything at its end")
        finally:
            others = await self._leftovers.end() if self._leftovers is not None else 0
        return len(sessions) + others
