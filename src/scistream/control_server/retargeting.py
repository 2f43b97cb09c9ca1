"""Retargeting: the new connections of a session that runs go to other targets."""

from __future__ import annotations

from scistream.addresses import Endpoint
from scistream.control_server.events import EventKind
from scistream.control_server.failures import in_words
from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import SciStreamError
from scistream.terms import SessionState

__all__ = ["bring_into_step", "retarget"]


async def retarget(supervisor: Supervisor, session: Session, mark: ProcessMark, targets: tuple[Endpoint, ...]) -> None:
    """Have an active session's data server send new connections elsewhere. The caller holds the session's lock.

    Raises:
        SciStreamError: what `DataServers.retarget` raises; JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL. The session then
            keeps the targets that it had.
    """
    before = session.targets, session.in_step
    supervisor.move(session, session.state, targets=targets, in_step=False)
    data_servers, plan = supervisor.at_work(session)
    try:
        with session.reservation.admitted():
            await data_servers.retarget(session.engine, plan, mark)
    except Exception as error:
        supervisor.move(session, session.state, must=True, targets=before[0], in_step=before[1])
        raise in_words(error, plan.directory) from error
    # It has them now, whatever can be written.
    supervisor.move(session, session.state, EventKind.RETARGETED, must=True, in_step=True)


async def bring_into_step(supervisor: Supervisor, session: Session) -> None:
    """Finish a retarget that the control server's end cut off; where that fails, the next update tries again."""
    async with session.lock:
        if session.state is not SessionState.ACTIVE or session.mark is None or session.in_step:
            return
        try:
            await retarget(supervisor, session, session.mark, session.targets)
        except SciStreamError as error:
            supervisor.tell(session, "session not in step", why=str(error))
