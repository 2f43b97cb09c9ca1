"""The supervisor: starts, watches and ends the data server of a session, and writes down what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from structlog.typing import FilteringBoundLogger

from scistream.control_server.books import Books
from scistream.control_server.data_servers import DataServers
from scistream.control_server.event_facts import facts_of
from scistream.control_server.events import Event, EventKind, Events
from scistream.control_server.failures import in_words
from scistream.control_server.journal import Journal
from scistream.control_server.restarts import Backoff, announce
from scistream.control_server.session_keys import forget_key, keep_key
from scistream.control_server.sessions import Session, Update
from scistream.control_server.states import is_allowed
from scistream.control_server.tasks import Tasks
from scistream.engines.base import Plan
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import Code, SciStreamError
from scistream.terms import SessionState

__all__ = ["Supervisor"]

_Result = TypeVar("_Result")

# Data servers that are started again at the same time: a gateway that lost all of them has to serve its callers too.
_STARTS: Final = 4


class Supervisor:
    """One for a control server. Whoever calls `start` or `end` holds the session's lock.

    Args:
        journal: where sessions survive a restart.
        directory: where the data servers' files lie.
        data_servers: what starts and ends them.
        events: where they are told to those who watch.
        log: where they are told to the operator.
        uptime: seconds that only go forward.
        sleep: waits some seconds.
    """

    def __init__(  # noqa: PLR0913 - all that it works with, by name
        self,
        *,
        journal: Journal,
        directory: Path,
        data_servers: DataServers,
        events: Events,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.events = events
        self._clock = clock
        self._uptime = uptime
        self._sleep = sleep
        self._starts = asyncio.Semaphore(_STARTS)
        self._books = Books(journal, lambda session, why: self.tell(session, "session not written", why=why))
        self._directory = directory
        self._data_servers = data_servers
        self._log = log
        self._tasks = Tasks(log)

    async def start(self, session: Session, change: Update) -> None:
        """Start the data server of a session; of a failed one, anew.

        Raises:
            SciStreamError: what `engines.lifecycle.start` and `end` raise; the session is then failed, with its words.
        """
        if session.state is SessionState.FAILED:
            await self._end(session)
        key = change.key if session.asked.encryption.needs_key else None
        # Written before the process is there: whatever happens now, the next start knows where to look for it.
        self.move(session, SessionState.REGISTERED, mark=None, failure="", targets=change.targets, key=key)
        try:
            # Of a failed session, somebody may have them by now.
            session.reservation.retake(session.bound_host)
            mark = await self._launch(session)
            await self._activate(session, mark)
        except Exception as error:
            raise self._failed(session, error) from None
        self.watch(session)

    async def _launch(self, session: Session) -> ProcessMark:
        session.may_run = True
        with session.reservation.admitted():
            return await self._data_servers.start(session.engine, session.plan(self._directory))

    async def _activate(self, session: Session, mark: ProcessMark) -> None:
        try:
            self.move(session, SessionState.ACTIVE, mark=mark, wanted=True, in_step=True)
        except SciStreamError:
            # A data server that no journal knows would outlive its session.
            await self.clear(session, mark)
            raise

    async def end_strays(self, session: Session) -> None:
        """End what an earlier control server left of a session's data server; the session has its ports from then on.

        Raises:
            SciStreamError: DATA_SERVER_STUCK, FILE_UNWRITABLE, INTERNAL; the session is then failed.
        """
        try:
            await self.clear(session, session.mark)
            if session.targets:
                forget_key(session.plan(self._directory))
            session.reservation.retake(session.bound_host)
        except Exception as error:
            raise self._failed(session, error) from None
        self.move(session, session.state, must=True, mark=None)

    async def end(self, session: Session) -> None:
        """End the data server for good, if one runs, and remove its files.

        Raises:
            SciStreamError: DATA_SERVER_STUCK, FILE_UNWRITABLE, INTERNAL; the session is then failed.
        """
        # Written before the end: no crash in between brings the session back. Without that it is released all the same.
        self._books.announce_release(session)
        await self._end(session)

    async def _end(self, session: Session) -> None:
        session.wanted = False
        # Before the end, which it would call a loss, and whose leader it would reap too early.
        if session.watch is not None:
            session.watch.cancel()
        try:
            await self.clear(session, session.mark)
            if session.targets:
                forget_key(session.plan(self._directory))
        except Exception as error:
            raise self._failed(session, error) from None

    async def clear(self, session: Session, mark: ProcessMark | None) -> None:
        """End what runs of a data server, and remove its files; see `DataServers.stop`. Where none can run: nothing."""
        if not session.may_run:
            return
        # Proving that an entry point is free means to bind it, beside the reservation.
        with session.reservation.admitted():
            await self._data_servers.stop(session.engine, session.plan(self._directory), mark)
        session.may_run = False

    def at_work(self, session: Session) -> tuple[DataServers, Plan]:
        """What runs the session's data server, and what that one was told."""
        return self._data_servers, session.plan(self._directory)

    def watch(self, session: Session) -> None:
        """Bring the data server of a session back whenever it ends by itself; at once, where it has."""
        if session.wanted:
            session.watch = self.attend(self._keep(session))

    async def _keep(self, session: Session) -> None:
        """It ends with the session: whoever takes that over cancels it."""
        backoff = Backoff()
        if session.state is SessionState.FAILED:
            backoff.count(0.0)
        while session.wanted:
            if session.state is SessionState.ACTIVE and session.mark is not None:
                await self._until_lost(session, session.mark, backoff)
            if session.state is not SessionState.FAILED:
                return
            await self._sleep(backoff.pause)
            async with self._starts:
                await asyncio.shield(self.begin(self._restart(session, backoff)))

    async def _until_lost(self, session: Session, mark: ProcessMark, backoff: Backoff) -> None:
        came = self._uptime()
        ending = await self._data_servers.ended(session.engine, mark)
        async with session.lock:
            if session.state is SessionState.ACTIVE and session.mark == mark:
                backoff.count(self._uptime() - came)
                self._fail(session, self.lost(session, ending), EventKind.LOST, backoff)

    async def _restart(self, session: Session, backoff: Backoff) -> None:
        async with session.lock:
            if session.state is not SessionState.FAILED or not session.wanted:
                return
            try:
                mark = await self._replace(session)
            except Exception as error:
                backoff.count(0.0)
                self._fail(session, self._told(error), EventKind.FAILED, backoff)
                return
            back: dict[str, Any] = {"mark": mark, "failure": "", "restarts": session.restarts + 1, "in_step": True}
            self.move(session, SessionState.ACTIVE, EventKind.RESTARTED, must=True, **back)

    async def _replace(self, session: Session) -> ProcessMark:
        """Start a data server in place of one that is dead, with the same ports, targets and key."""
        plan = session.plan(self._directory)
        # The key has to outlive both the files of the one and a crash before those of the other.
        keep_key(plan)
        if session.mark is not None:
            session.engine.bury(plan, session.mark)
        await self.clear(session, session.mark)
        session.reservation.retake(session.bound_host)
        mark = await self._launch(session)
        with contextlib.suppress(SciStreamError):
            forget_key(plan)
        return mark

    def lost(self, session: Session, ending: str) -> SciStreamError:
        """What there is to say of a data server that ended by itself: its last words are still in its log."""
        return SciStreamError(
            Code.DATA_SERVER_LOST,
            engine=session.engine.title,
            uid=session.asked.uid,
            ending=ending,
            output=self._data_servers.last_words(session.engine, session.plan(self._directory)),
        )

    def _fail(
        self,
        session: Session,
        error: SciStreamError,
        kind: EventKind = EventKind.FAILED,
        backoff: Backoff | None = None,
    ) -> None:
        words = announce(str(error), self._clock() + backoff.pause) if backoff else str(error)
        # A journal that fails must not stand in for what went wrong first; a restart finds the data server dead, or its
        # strays.
        self.move(session, SessionState.FAILED, kind, why=words, must=True, failure=words)

    def _failed(self, session: Session, error: Exception) -> SciStreamError:
        """Note that a session failed, also by what nobody foresaw: it is never taken for one that serves (U28)."""
        told = self._told(error)
        self._fail(session, told)
        return told

    def _told(self, error: Exception) -> SciStreamError:
        if not isinstance(error, SciStreamError):
            self._log.error("unforeseen error", exc_info=error)
        return in_words(error, self._directory)

    def move(
        self,
        session: Session,
        state: SessionState,
        kind: EventKind | None = None,
        *,
        why: str = "",
        must: bool = False,
        **changes: Any,
    ) -> None:
        """Bring a session into a state: written to the journal, then done, then logged and told to those who watch.

        Args:
            session: whose turn it is.
            state: the new state, or the old one where only other things change.
            kind: what is told; by default the new state, and of a state that stays nothing.
            why: what there is to say of it.
            must: it is done also where the journal cannot be written.
            changes: the session's fields that change with it.

        Raises:
            SciStreamError: JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL; nothing has changed then.
        """
        if not is_allowed(session.state, state):
            raise ValueError(f"no session goes from {session.state.value} to {state.value}")
        if kind is None and state is not session.state:
            kind = EventKind(state.value)
        changed = copy.copy(session)
        vars(changed).update(changes, state=state)
        self._books.write(changed, must=must)
        vars(session).update(changes, state=state)
        if kind is not None:
            self.announce(session, kind, why)

    def announce(self, session: Session, kind: EventKind, why: str = "") -> None:
        """Tell those who watch, and log, what happened to a session."""
        self.events.publish(Event(self._clock(), kind, session.view(), why))
        facts = facts_of(kind, session) | ({"why": why} if why else {})
        self.tell(session, f"session {kind.value}", **facts)

    def tell(self, session: Session, event: str, **facts: Any) -> None:
        """Log an event of a session."""
        uid, direction = session.identity
        self._log.info(event, uid=uid, direction=direction.value, **facts)

    def attend(self, waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """See `Tasks.attend`."""
        return self._tasks.attend(waiting)

    def begin(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """See `Tasks.begin`."""
        return self._tasks.begin(work)

    async def finish(self) -> None:
        """Finish what is under way, watch no longer, and write what could not be written before."""
        await self._tasks.finish()
        self._books.close()
