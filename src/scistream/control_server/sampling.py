"""What the sessions carry, asked of their data servers every few seconds."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from structlog.typing import FilteringBoundLogger

from scistream.control_server.sessions import Session
from scistream.engines.base import Traffic
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import SciStreamError
from scistream.terms import SessionState

__all__ = ["INTERVAL", "Sampler"]

INTERVAL: Final = 10.0

# Data servers that are asked at once. One that does not answer holds one place for so many seconds.
_AT_ONCE: Final = 16
_PATIENCE: Final = 2.0

_CARRYING: Final = frozenset({SessionState.ACTIVE, SessionState.DRAINING})
_TOTALS: Final = ("connections_total", "bytes_to_targets", "bytes_from_targets", "refused_peers")


@dataclass
class _Count:
    """What is known of one session.

    `before` is what data servers of its carried that are no more, `last` what the present one had at the last sample.
    """

    mark: ProcessMark
    before: Traffic = field(default_factory=Traffic)
    last: Traffic = field(default_factory=Traffic)

    def take(self, mark: ProcessMark, seen: Traffic) -> Traffic:
        """The session's traffic, now that its data server tells `seen`: the totals never fall."""
        fell = any(getattr(seen, name) < getattr(self.last, name) for name in _TOTALS)
        if mark != self.mark or fell:
            self.mark, self.before = mark, _sum(self.before, self.last)
        self.last = seen
        return _sum(self.before, seen)


def _sum(before: Traffic, now: Traffic) -> Traffic:
    return dataclasses.replace(now, **{name: getattr(before, name) + getattr(now, name) for name in _TOTALS})


class Sampler:
    """Brings `Session.traffic` and `Session.idle_since` up to date, and touches nothing else.

    Args:
        sessions: what to ask about, each time anew.
        ask: has a session's data server tell what it has carried since it started.
        log: where it is told which data servers do not answer.
        interval: seconds from the end of one round to the next.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        sessions: Callable[[], Sequence[Session]],
        ask: Callable[[Session, ProcessMark], Awaitable[Traffic]],
        log: FilteringBoundLogger,
        *,
        interval: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sessions = sessions
        self._ask = ask
        self._log = log
        self._interval = interval
        self._clock = clock
        self._counts: dict[Session, _Count] = {}
        self._silent: set[Session] = set()
        self.refused_peers = 0
        """Peers that were turned away, by data servers of released sessions too."""

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.sample()
            except Exception:  # What only counts must not end for good.
                self._log.exception("unforeseen error")

    async def sample(self) -> None:
        """Ask about every session that carries something, once."""
        sessions = self._sessions()
        # One whose data server is being replaced goes on counting from where it was.
        self._counts = {session: self._counts[session] for session in sessions if session in self._counts}
        self._silent.intersection_update(sessions)
        carrying = [session for session in sessions if session.state in _CARRYING]
        for session in sessions:
            if session.state not in _CARRYING and session.traffic.connections_open:
                session.traffic = dataclasses.replace(session.traffic, connections_open=0)
        waiting = iter(carrying)
        await asyncio.gather(*(self._work_off(waiting) for _ in range(min(_AT_ONCE, len(carrying)))))

    async def _work_off(self, waiting: Iterator[Session]) -> None:
        for session in waiting:
            await self._look_at(session)

    async def _look_at(self, session: Session) -> None:
        mark = session.mark
        if mark is None or session.state not in _CARRYING:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                seen = await self._ask(session, mark)
        except (SciStreamError, OSError, ValueError) as error:
            self._note_silent(session, error)
            return
        self._silent.discard(session)
        if session.mark == mark:
            self._note(session, mark, seen)

    def _note(self, session: Session, mark: ProcessMark, seen: Traffic) -> None:
        is_new = session not in self._counts
        count = self._counts.setdefault(session, _Count(mark))
        before, now = session.traffic, count.take(mark, seen)
        self._note_refused(session, now.refused_peers - before.refused_peers)
        if session.idle_since is None or is_new or _moved(before, now):
            session.idle_since = self._clock()
        session.traffic = now

    def _note_refused(self, session: Session, number: int) -> None:
        if number > 0:
            self.refused_peers += number
            uid, direction = session.identity
            # Who they were stands in the data server's own log.
            self._log.warning("peers refused", uid=uid, direction=direction.value, number=number)

    def _note_silent(self, session: Session, error: Exception) -> None:
        if session not in self._silent:
            self._silent.add(session)
            uid, direction = session.identity
            self._log.warning("traffic not known", uid=uid, direction=direction.value, why=str(error) or "no answer")


def _moved(before: Traffic, now: Traffic) -> bool:
    return any(getattr(before, name) != getattr(now, name) for name in _TOTALS)
