"""Sessions with a rate or with sources are kept to them, also when somebody loads the host's firewall anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.terms import SessionState

__all__ = ["keep_bounds"]

# Seconds from the end of one look to the next: for so long a session may run without its bounds.
_LOOK: Final = 60.0


async def keep_bounds(
    sessions: Callable[[], Iterable[Session]],
    supervisor: Supervisor,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Put back the bounds of running sessions, once a minute, until cancelled. What fails is logged each time."""
    while True:
        # First a look: while no control server ran, nobody put anything back.
        for session in [each for each in sessions() if each.asked.rate or each.asked.sources]:
            async with session.lock:
                await _keep(supervisor, session)
        await sleep(_LOOK)


async def _keep(supervisor: Supervisor, session: Session) -> None:
    if session.state not in {SessionState.ACTIVE, SessionState.DRAINING}:
        return
    try:
        await session.engine.keep_bounds(supervisor.at_work(session)[1])
    except Exception as error:  # One look that fails must not be the last.
        supervisor.tell(session, "bounds not kept", why=str(error) or type(error).__name__)
