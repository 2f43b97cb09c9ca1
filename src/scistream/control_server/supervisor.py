"""The supervisor: starts, watches and ends the data server of a session, and writes down what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger

from scistream.addresses import Endpoint
from scistream.control_server.data_servers import DataServers
from scistream.control_server.events import Events
from scistream.control_server.journal import Journal
from scistream.control_server.sessions import Session, Update
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, SessionState

__all__ = ["Supervisor", "spell"]

_Result = TypeVar("_Result")


def spell(endpoints: Iterable[Endpoint]) -> str:
    """Endpoints as one word of a log line or message."""
    return ",".join(map(str, endpoints))


def _in_words(error: Exception) -> SciStreamError:
    if isinstance(error, OSError) and error.filename is not None:
        reason = error.strerror or str(error)
        return SciStreamError(Code.FILE_UNWRITABLE, path=str(error.filename), reason=reason)
    return SciStreamError(Code.INTERNAL, words=f"{type(error).__name__}: {error}")


class Supervisor:
    """One for a control server. Whoever calls `start` or `end` holds the session's lock.

    Args:
        journal: where sessions survive a restart.
        directory: where the data servers' files lie.
        data_servers: what starts and ends them.
        events: where they are told to those who watch.
        log: where they are told to the operator.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        directory: Path,
        data_servers: DataServers,
        events: Events,
        log: FilteringBoundLogger,
    ) -> None:
        self.events = events
        self._journal = journal
        self._directory = directory
        self._data_servers = data_servers
        self._log = log
        self._work: set[asyncio.Task[Any]] = set()
        self._watches: set[asyncio.Task[Any]] = set()

    async def start(self, session: Session, change: Update) -> None:
        """Start the data server of a session; of a failed one, anew.

        Raises:
            SciStreamError: what `engines.lifecycle.start` and `end` raise; the session is then failed, with its words.
        """
        if session.state is SessionState.FAILED:
            await self.end(session)
        session.mark, session.failure, session.state = None, "", SessionState.REGISTERED
        session.targets = change.targets
        session.key = change.key if session.engine.encryption is not Encryption.NONE else None
        # Written before the process is there: whatever happens now, the next start knows where to look for it.
        self.write(session)
        try:
            with session.reservation.admitted():
                session.mark = await self._data_servers.start(session.engine, session.plan(self._directory))
        except Exception as error:
            raise self._failed(session, error) from None
        session.state = SessionState.ACTIVE
        self.watch(session)
        self.write(session)
        self.tell(session, "session active", pid=session.mark.pid, targets=spell(session.targets))

    async def end(self, session: Session) -> None:
        """End the data server, if one runs, and remove its files.

        Raises:
            SciStreamError: DATA_SERVER_STUCK, FILE_UNWRITABLE, INTERNAL; the session is then failed.
        """
        # Before the end, which it would call a loss, and whose leader it would reap too early.
        if session.watch is not None:
            session.watch.cancel()
        try:
            await self.clear(session, session.mark)
        except Exception as error:
            raise self._failed(session, error) from None

    async def clear(self, session: Session, mark: ProcessMark | None) -> None:
        """End what runs of a data server, and remove its files; see `DataServers.stop`."""
        if not session.targets and mark is None:
            return  # It never had one.
        # Proving that an entry point is free means to bind it, beside the reservation.
        with session.reservation.admitted():
            await self._data_servers.stop(session.engine, session.plan(self._directory), mark)

    def watch(self, session: Session) -> None:
        """Notice when the data server of an active session ends by itself."""
        if session.mark is not None:
            session.watch = self._begin(self._until_lost(session, session.mark), self._watches)

    async def _until_lost(self, session: Session, mark: ProcessMark) -> None:
        ending = await self._data_servers.ended(mark)
        async with session.lock:
            if session.state is SessionState.ACTIVE and session.mark == mark:
                self._fail(session, self.lost(session, ending))

    def lost(self, session: Session, ending: str) -> SciStreamError:
        """What there is to say of a data server that ended by itself: its last words are still in its log."""
        return SciStreamError(
            Code.DATA_SERVER_LOST,
            engine=session.engine.title,
            uid=session.asked.uid,
            ending=ending,
            output=self._data_servers.last_words(session.plan(self._directory)),
        )

    def _fail(self, session: Session, error: SciStreamError) -> None:
        session.state, session.failure = SessionState.FAILED, str(error)
        self.tell(session, "session failed", why=str(error))
        try:
            self.write(session)
        except SciStreamError as unwritten:
            # It must not stand in for what went wrong first; a restart finds the data server dead, or its strays.
            self.tell(session, "session not written", why=str(unwritten))

    def _failed(self, session: Session, error: Exception) -> SciStreamError:
        """Note that a session failed, also by what nobody foresaw: it is never taken for one that serves (U28)."""
        told = error if isinstance(error, SciStreamError) else _in_words(error)
        if told is not error:
            self._log.error("unforeseen error", exc_info=error)
        self._fail(session, told)
        return told

    def register(self, session: Session) -> None:
        """Note that the hello has come: from now on a restart keeps the session.

        Raises:
            SciStreamError: JOURNAL_UNREADABLE; the session then waits for its hello as before.
        """
        session.state = SessionState.REGISTERED
        try:
            self.write(session)
        except SciStreamError:
            session.state = SessionState.REQUESTED
            raise

    def write(self, session: Session) -> None:
        """Bring the journal up to date with a session."""
        self._journal.put(session.record())

    def forget(self, session: Session) -> None:
        """Strike a session off the journal."""
        self._journal.remove(*session.identity)

    def tell(self, session: Session, event: str, **facts: Any) -> None:
        """Log an event of a session."""
        uid, direction = session.identity
        self._log.info(event, uid=uid, direction=direction.value, **facts)

    def attend(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something as long as the control server runs; it is cut off when that ends."""
        self._begin(waiting, self._watches)

    def begin(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Start work that goes on where its caller goes away, so that nothing is left half done."""
        return self._begin(work, self._work)

    def _begin(self, work: Coroutine[Any, Any, _Result], kind: set[asyncio.Task[Any]]) -> asyncio.Task[_Result]:
        task = asyncio.get_running_loop().create_task(work)
        # The loop itself holds its tasks weakly.
        kind.add(task)
        task.add_done_callback(kind.discard)
        task.add_done_callback(self._tell_unforeseen)
        return task

    def _tell_unforeseen(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SciStreamError):
            self._log.error("unforeseen error", exc_info=error)

    async def finish(self) -> None:
        """Wait for all work that is under way, then watch no longer."""
        while self._work:
            await asyncio.wait(self._work)
        for watch in self._watches:
            watch.cancel()
