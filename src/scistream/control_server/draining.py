"""Draining: a session takes no new connections, and is released when the running ones have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from scistream.control_server.failures import in_words
from scistream.control_server.rules import check_drain
from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.control_server.table import Table
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import Code, SciStreamError
from scistream.terms import SessionState

__all__ = ["Draining"]

_DRAINED: Final = "the last connection ended"


class Draining:
    """Drains the sessions of one control server.

    Args:
        supervisor: what has the data servers.
        table: where the sessions are.
        release: releases a session, and tells why.
    """

    def __init__(
        self, supervisor: Supervisor, table: Table, release: Callable[[Session, str], Coroutine[Any, Any, None]]
    ) -> None:
        self._supervisor = supervisor
        self._table = table
        self._release = release

    async def begin(self, sessions: Sequence[Session]) -> None:
        """Drain both directions of a uid, or one; see `Registry.drain`."""
        for session in sessions:
            check_drain(session)
        answers = await asyncio.gather(*map(self._begin, sessions), return_exceptions=True)
        pairs = list(zip(sessions, answers, strict=True))
        draining = [session for session, answer in pairs if answer is None]
        for _, answer in pairs:
            if isinstance(answer, SciStreamError) and draining:
                facts = {"uid": draining[0].asked.uid, "direction": draining[0].asked.direction.value}
                raise SciStreamError(Code.PARTLY_DRAINED, **facts, reason=answer.seen)
            if answer is not None:
                raise answer

    async def _begin(self, session: Session) -> None:
        """Drain a session; back when it accepts no new connections, and at once where it was told so already.

        Raises:
            SciStreamError: UID_UNKNOWN, SESSION_NOT_ACTIVE; ENGINE_CANNOT, JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL,
                and the session then goes on.
        """
        deaf = asyncio.Event()
        async with session.lock:
            self._table.require(session)
            check_drain(session)
            if session.state is SessionState.DRAINING or session.mark is None:
                return
            self._supervisor.move(session, SessionState.DRAINING)
            task = self.resume(session, session.mark, deaf.set)
        # Where it never is deaf, it failed or ended.
        task.add_done_callback(lambda _: deaf.set())
        await deaf.wait()
        if task.done() and not task.cancelled():
            task.result()

    def resume(
        self, session: Session, mark: ProcessMark, deaf: Callable[[], None] = lambda: None
    ) -> asyncio.Task[None]:
        """Wait until a session in state draining has drained; `deaf` is called when it accepts nothing new."""
        if session.watch is not None:
            session.watch.cancel()
        session.watch = self._supervisor.attend(self._until_drained(session, mark, deaf))
        return session.watch

    async def _until_drained(self, session: Session, mark: ProcessMark, deaf: Callable[[], None]) -> None:
        try:
            why = await self._drained(session, mark, deaf)
        except Exception as error:
            told = in_words(error, self._supervisor.at_work(session)[1].directory)
            await self._go_on(session, mark, told)
            raise told from error
        await asyncio.shield(self._supervisor.begin(self._release(session, why)))

    async def _drained(self, session: Session, mark: ProcessMark, deaf: Callable[[], None]) -> str:
        """Wait for the last connection's end, or the data server's; says which."""
        data_servers, plan = self._supervisor.at_work(session)
        drained = asyncio.ensure_future(data_servers.drain(session.engine, plan, mark, deaf))
        ended = asyncio.ensure_future(data_servers.ended(session.engine, mark))
        try:
            await asyncio.wait((drained, ended), return_when=asyncio.FIRST_COMPLETED)
            # Who asks a data server that is about to be gone gets no answer: that is no refusal.
            if drained.done() and (drained.exception() is None or data_servers.alive(session.engine, mark)):
                drained.result()
                return _DRAINED
            return f"its data server ended: {await ended}"
        finally:
            for each in (drained, ended):
                each.cancel()
            await asyncio.gather(drained, ended, return_exceptions=True)

    async def _go_on(self, session: Session, mark: ProcessMark, error: SciStreamError) -> None:
        """What cannot be drained is active still."""
        async with session.lock:
            if session.state is SessionState.DRAINING and session.mark == mark:
                self._supervisor.move(session, SessionState.ACTIVE, why=str(error), must=True)
                self._supervisor.watch(session)
