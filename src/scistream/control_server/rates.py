"""Sessions with a rate are kept to it, also when somebody loads the host's firewall anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.errors import SciStreamError
from scistream.terms import SessionState

__all__ = ["keep_rates"]

# Seconds from the end of one look to the next: for so long a session may run without its limit.
_LOOK: Final = 60.0


async def keep_rates(
    sessions: Callable[[], Iterable[Session]],
    supervisor: Supervisor,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Put back the limits of running sessions, once a minute, until cancelled. What fails is logged each time."""
    while True:
        await sleep(_LOOK)
        for session in [each for each in sessions() if each.asked.rate]:
            async with session.lock:
                await _keep(supervisor, session)


async def _keep(supervisor: Supervisor, session: Session) -> None:
    if session.state is not SessionState.ACTIVE:
        return
    try:
        await session.engine.keep_rate(supervisor.at_work(session)[1])
    except SciStreamError as error:
        supervisor.tell(session, "rate not kept", why=str(error))
