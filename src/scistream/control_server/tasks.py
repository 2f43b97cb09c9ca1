"""The work of a control server that no caller waits for, or not all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger

from scistream.errors import SciStreamError

__all__ = ["Tasks"]

_Result = TypeVar("_Result")


class Tasks:
    """Work, which is finished whatever happens, and watches, which are cut off at the end.

    Args:
        log: where it is told what nobody foresaw.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._work: set[asyncio.Task[Any]] = set()
        self._watches: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Start work that goes on where its caller goes away, so that nothing is left half done."""
        return self._begin(work, self._work)

    def attend(self, waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Wait for something as long as the control server runs; it is cut off when that ends."""
        return self._begin(waiting, self._watches)

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
