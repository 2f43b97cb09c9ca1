"""What happens to sessions, told to those who watch."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from scistream.control_server.sessions import SessionView
from scistream.errors import Code, SciStreamError

__all__ = ["Event", "EventKind", "Events"]

# Events that wait for one watcher; a thousand sessions that are released at once fit in.
_WAITING: Final = 4096


class EventKind(enum.Enum):
    """What can happen to a session."""

    THERE = "there"
    REQUESTED = "requested"
    REGISTERED = "registered"
    ACTIVE = "active"
    RETARGETED = "retargeted"
    RENEWED = "renewed"
    DRAINING = "draining"
    LOST = "lost"
    RESTARTED = "restarted"
    FAILED = "failed"
    RELEASED = "released"


@dataclass(frozen=True)
class Event:
    """One thing that happened; `session` is as it was right after, `time` in seconds since the epoch."""

    time: float
    kind: EventKind
    session: SessionView
    words: str = ""


class Events:
    """From those who know to those who watch; nobody who tells ever waits for one who watches."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def publish(self, event: Event) -> None:
        """Tell everyone who watches."""
        for watcher in self._watchers:
            watcher.take(event)

    @contextlib.contextmanager
    def watched(self, wanted: Callable[[Event], bool] = lambda _: True) -> Iterator[AsyncIterator[Event]]:
        """The events from now on that are wanted; the iteration raises WATCH_TOO_SLOW for whoever falls behind."""
        watcher = _Watcher(wanted)
        self._watchers.add(watcher)
        try:
            yield watcher.events()
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    def __init__(self, wanted: Callable[[Event], bool]) -> None:
        self._wanted = wanted
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(_WAITING)
        self._overrun = False

    def take(self, event: Event) -> None:
        if self._overrun or not self._wanted(event):
            return
        if self._waiting.full():
            # What waits is still told; what comes after it would leave a hole.
            self._overrun = True
        else:
            self._waiting.put_nowait(event)

    async def events(self) -> AsyncIterator[Event]:
        while not (self._overrun and self._waiting.empty()):
            yield await self._waiting.get()
        raise SciStreamError(Code.WATCH_TOO_SLOW, waiting=_WAITING)
