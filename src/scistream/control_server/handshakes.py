"""What the data servers of encrypted sessions agreed on with their peers, as they tell it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.errors import SciStreamError
from scistream.terms import Encryption, SessionState

__all__ = ["learn"]

# Seconds for one data server: one that is frozen must not keep a status from being told.
_PATIENCE: Final = 1.0
_CARRYING: Final = frozenset({SessionState.ACTIVE, SessionState.DRAINING})


async def learn(supervisor: Supervisor, session: Session) -> None:
    """Bring a session's `handshake` and `certificate_expires` up to date; where nobody tells, they stay as they are."""
    mark = session.mark
    if mark is None or session.state not in _CARRYING or session.asked.encryption is Encryption.NONE:
        return
    data_servers, plan = supervisor.at_work(session)
    session.certificate_expires = session.engine.certificate_expires(plan)
    with contextlib.suppress(SciStreamError, OSError, ValueError):
        async with asyncio.timeout(_PATIENCE):
            found = await data_servers.handshake(session.engine, plan, mark)
        if found is not None and session.mark == mark:
            session.handshake = found
