"""What happens to sessions, told to those who watch."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from scistream.control_server.sessions import SessionView
from scistream.errors import Code, SciStreamError

__all__ = ["Event", "EventKind", "Events"]

# Events that wait for one watcher; a thousand sessions that are released at once fit in.
_WAITING: Final = 4096
# Every event is told to each of those who watch, on the event loop.
_WATCHERS: Final = 1024
# Of those, one owner's: nobody takes them all.
_WATCHERS_OF_OWNER: Final = 32


class EventKind(enum.Enum):
    """What can happen to a session."""

    THERE = "there"
    REQUESTED = "requested"
    REGISTERED = "registered"
    ACTIVE = "active"
    RETARGETED = "retargeted"
    RENEWED = "renewed"
    CERTIFICATES_RENEWED = "certificates renewed"
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
        self._owners = Counter[str]()
        self._listeners: list[Callable[[Event], None]] = []
        self._closed = False

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def publish(self, event: Event) -> None:
        """Tell everyone who watches."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # It happened, whoever cannot count it.
                structlog.get_logger().exception("unforeseen error")
        for watcher in self._watchers:
            watcher.take(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have a function called with every event from now on; it must be quick. Where it fails, the log says so."""
        self._listeners.append(listener)

    @contextlib.contextmanager
    def watched(
        self, wanted: Callable[[Event], bool] = lambda _: True, *, owner: str = ""
    ) -> Iterator[AsyncIterator[Event]]:
        """The events from now on that are wanted; `owner` is who watches, empty where nobody can be told apart.

        The iteration raises WATCH_TOO_SLOW for whoever falls behind, and CONTROL_SERVER_ENDING at the end; waiting for
        the next event may be cut off and begun again.

        Raises:
            SciStreamError: TOO_MANY_WATCHERS.
        """
        self._require_room(owner)
        watcher = _Watcher(wanted)
        self._watchers.add(watcher)
        self._owners[owner] += 1
        if self._closed:
            watcher.end()
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]

    def _require_room(self, owner: str) -> None:
        if owner and self._owners[owner] >= _WATCHERS_OF_OWNER:
            raise SciStreamError(Code.TOO_MANY_WATCHERS, limit=_WATCHERS_OF_OWNER, whose="clients of yours")
        if len(self._watchers) >= _WATCHERS:
            raise SciStreamError(Code.TOO_MANY_WATCHERS, limit=_WATCHERS, whose="clients")

    def close(self) -> None:
        """Tell everyone who watches that the control server ends, after all that they have not read yet."""
        self._closed = True
        for watcher in self._watchers:
            watcher.end()


class _Watcher(AsyncIterator[Event]):
    """What waits for one who watches. Without a bound of the queue's own: the last word always finds room."""

    def __init__(self, wanted: Callable[[Event], bool]) -> None:
        self._wanted = wanted
        self._waiting: asyncio.Queue[Event | SciStreamError] = asyncio.Queue()
        self._is_full = False

    def take(self, event: Event) -> None:
        if self._is_full or not self._wanted(event):
            return
        if self._waiting.qsize() < _WAITING:
            self._waiting.put_nowait(event)
        else:
            # What waits is still told; what comes after it would leave a hole.
            self._end(SciStreamError(Code.WATCH_TOO_SLOW, waiting=_WAITING))

    def end(self) -> None:
        if not self._is_full:
            self._end(SciStreamError(Code.CONTROL_SERVER_ENDING))

    def _end(self, error: SciStreamError) -> None:
        self._is_full = True
        self._waiting.put_nowait(error)

    async def __anext__(self) -> Event:
        found = await self._waiting.get()
        if isinstance(found, SciStreamError):
            raise found
        return found
