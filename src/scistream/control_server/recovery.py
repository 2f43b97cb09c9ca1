"""After a restart: go on with the sessions whose data servers live, and clear away what is left of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scistream.addresses import Endpoint
from scistream.control_server.data_servers import DataServers
from scistream.control_server.journal import Journal, Record
from scistream.control_server.ports import PortPool, Reservation
from scistream.control_server.sessions import Session, SessionRequest
from scistream.control_server.supervisor import Supervisor
from scistream.engines import find_engine
from scistream.engines.base import Engine
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import SciStreamError
from scistream.terms import SessionState

__all__ = ["Recovery"]


@dataclass(frozen=True)
class Recovery:
    """Makes sessions of the journal's records."""

    journal: Journal
    pool: PortPool
    data_servers: DataServers
    supervisor: Supervisor
    engine: Engine

    async def sessions(self) -> Sequence[Session]:
        """Every session that the journal knows, in the state that it is in now."""
        return [await self._session(record) for record in self.journal.records()]

    async def _session(self, record: Record) -> Session:
        mark = None if record.pid is None or record.started is None else ProcessMark(record.pid, record.started)
        if mark is not None and record.state is SessionState.ACTIVE and self.data_servers.alive(mark):
            return self._make(record, self.pool.claim(record.bound_host, record.ports, in_use=True), mark)
        return await self._stopped(record, mark)

    async def _stopped(self, record: Record, mark: ProcessMark | None) -> Session:
        """A session whose data server does not run: ready for its update as it was, or failed."""
        session = self._make(record, self.pool.claim(record.bound_host, record.ports, in_use=True), None)
        if record.state is SessionState.ACTIVE:
            # Its log is about to go.
            _fail(session, self.supervisor.lost(session, "while no control server ran"))
        try:
            # First by the mark: what is left of a group whose leader died names no configuration.
            for each in (mark, None) if mark else (None,):
                await self.supervisor.clear(session, each)
            session.reservation.close()
            session.reservation = self.pool.claim(record.bound_host, record.ports, in_use=False)
        except (SciStreamError, OSError) as error:
            # The ports stay out of the pool until the session is released.
            session.reservation = self.pool.claim(record.bound_host, record.ports, in_use=True)
            _fail(session, error)
        return session

    def _make(self, record: Record, reservation: Reservation, mark: ProcessMark | None) -> Session:
        asked = SessionRequest(
            record.uid, record.direction, record.connections, record.rate, record.owner, record.told_host
        )
        return Session(
            asked=asked,
            opened=record.opened,
            engine=self._engine(record.engine),
            stem=record.stem,
            bound_host=record.bound_host,
            reservation=reservation,
            state=record.state,
            targets=tuple(Endpoint.parse(target) for target in record.targets),
            failure=record.failure,
            mark=mark,
        )

    def _engine(self, name: str) -> Engine:
        try:
            return find_engine(name)
        except SciStreamError:
            # Of a later version, which was rolled back: what ends processes does not depend on the engine's kind.
            return self.engine


def _fail(session: Session, error: Exception) -> None:
    # What went wrong first says more than what followed from it.
    session.state, session.failure = SessionState.FAILED, session.failure or str(error)
