"""New certificates for sessions that run: when somebody asks, and by itself long before the old ones end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from scistream.certificates.sessions import LIFETIME, RENEWAL
from scistream.control_server.events import EventKind
from scistream.control_server.failures import in_words
from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.terms import Encryption, SessionState

__all__ = ["is_due", "keep_renewing", "renew_certificates"]

# Seconds from the end of one look at all certificates to the next.
_LOOK: Final = 60.0
# A clock that is corrected by seconds makes no certificate a stranger.
_LONGEST: Final = LIFETIME.total_seconds() + 86_400
_MARGIN: Final = (LIFETIME - RENEWAL).total_seconds()


async def renew_certificates(supervisor: Supervisor, session: Session) -> None:
    """Have an active session's new connections prove this gateway with a new certificate; its lock is held.

    Raises:
        SciStreamError: what `DataServers.renew_certificates` raises; the session then keeps the certificate it had.
    """
    data_servers, plan = supervisor.at_work(session)
    if session.mark is None:
        return
    try:
        with session.reservation.admitted():
            await data_servers.renew_certificates(session.engine, plan, session.mark)
    except Exception as error:
        raise in_words(error, plan.directory) from error
    supervisor.announce(session, EventKind.CERTIFICATES_RENEWED)


def is_due(session: Session, supervisor: Supervisor, now: float) -> bool:
    """Whether a session's certificate is so old that the next one shall take its place; `now` since the epoch."""
    if session.asked.encryption is not Encryption.TLS or session.state is not SessionState.ACTIVE:
        return False
    expires = session.engine.certificate_expires(supervisor.at_work(session)[1])
    # One from a time when the clock was far ahead is good for nobody yet.
    return expires is not None and not _MARGIN <= expires - now <= _LONGEST


async def keep_renewing(
    sessions: Callable[[], Iterable[Session]],
    supervisor: Supervisor,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Renew what is due, once a minute, until cancelled. What fails is logged, and tried again a minute later."""
    while True:
        await sleep(_LOOK)
        for session in list(sessions()):
            if is_due(session, supervisor, clock()):
                async with session.lock:
                    await _renew(supervisor, session)


async def _renew(supervisor: Supervisor, session: Session) -> None:
    if session.state is not SessionState.ACTIVE:
        return
    try:
        await renew_certificates(supervisor, session)
    except Exception as error:  # One renewal that fails must not be the last.
        supervisor.tell(session, "certificate not renewed", why=str(error) or type(error).__name__)
