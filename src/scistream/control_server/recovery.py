"""After a restart: go on with the sessions whose data servers live, and clear away what is left of the others."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scistream.addresses import Endpoint
from scistream.control_server.data_servers import DataServers, Survey
from scistream.control_server.events import EventKind
from scistream.control_server.journal import Journal, Record
from scistream.control_server.ports import PortPool, Reservation
from scistream.control_server.session_keys import forget_key, keep_key, recall_key
from scistream.control_server.sessions import Session, SessionRequest
from scistream.control_server.supervisor import Supervisor
from scistream.engines import ENGINES, find_engine
from scistream.engines.base import Engine
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import SciStreamError
from scistream.terms import SessionState

__all__ = ["Recovery"]

_RUNNING: Final = frozenset({SessionState.ACTIVE, SessionState.DRAINING})
_ANY_WITH_PROCESSES: Final = next(engine for engine in ENGINES.values() if engine.has_processes)


@dataclass(frozen=True)
class Recovery:
    """Makes sessions of the journal's records."""

    journal: Journal
    directory: Path
    pool: PortPool
    data_servers: DataServers
    supervisor: Supervisor
    engine: Engine

    def sessions(self, found: Survey) -> Sequence[Session]:
        """Every session that goes on, in the state that it is in now; what is left of the others is cleared away.

        Those that are `wanted` and do not run are yet to be started (`Supervisor.watch`).

        Args:
            found: the data servers that run.
        """
        pairs = [(record, self._session(record, found.get(record.stem, ()))) for record in self.journal.records()]
        sessions = []
        for record, session in pairs:
            if session is None:
                self.journal.remove(record.uid, record.direction)
            else:
                sessions.append(session)
        self._write_down(pairs)
        for record, session in pairs:
            if session is not None and (record.state, session.state) == (SessionState.ACTIVE, SessionState.FAILED):
                self.supervisor.announce(session, EventKind.LOST, session.failure)
        return sessions

    def _write_down(self, pairs: Iterable[tuple[Record, Session | None]]) -> None:
        changed = [after for record, session in pairs if session and (after := session.record()) != record]
        # On a full disk the records stay as they are, and the next start comes to the same conclusions.
        with contextlib.suppress(SciStreamError):
            self.journal.put(*changed)

    def _session(self, record: Record, strays: Sequence[ProcessMark]) -> Session | None:
        if record.state is SessionState.REQUESTED:
            return None  # Nobody waits for its hello any more.
        mark = None if record.pid is None or record.started is None else ProcessMark(record.pid, record.started)
        session = self._make(record, mark)
        if record.state in _RUNNING and mark is not None and self.data_servers.alive(session.engine, mark):
            session.may_run = True
            if not session.engine.has_processes:
                # No process is on its ports: they are to be held as they were before, where the host has the address.
                with contextlib.suppress(OSError):
                    session.reservation.retake(session.bound_host)
        else:
            self._stopped(session, strays)
        return session

    def _stopped(self, session: Session, strays: Sequence[ProcessMark]) -> None:
        """A session whose data server does not run: to be started, ready for its update, failed, or to be released.

        The last kind is draining and not wanted. What is left of its processes is not waited for: a frozen one takes
        seconds. Until then its ports are kept.
        """
        is_over = session.state in {SessionState.RELEASED, SessionState.DRAINING}
        session.wanted = session.wanted and not is_over
        if session.state is SessionState.ACTIVE:
            # Its log is about to go.
            _fail(session, self.supervisor.lost(session, "while no control server ran"))
        elif is_over:
            session.state = SessionState.DRAINING
        # Of more than one, all are looked for when they are ended.
        session.mark = strays[0] if len(strays) == 1 else None
        session.may_run = bool(strays)
        if strays:
            return
        try:
            self._wipe(session)
            if not is_over:
                session.reservation.close()
                session.reservation = self._claim(session, in_use=False)
        except (SciStreamError, OSError) as error:
            # The ports stay out of the pool until the session is released.
            session.reservation = self._claim(session, in_use=True)
            _fail(session, error)

    def _claim(self, session: Session, *, in_use: bool) -> Reservation:
        asked = session.asked
        return self.pool.claim(
            session.bound_host, session.ports, in_use=in_use, owner=asked.owner, transport=asked.transport
        )

    def _wipe(self, session: Session) -> None:
        if not session.targets:
            return  # It never had a data server.
        plan = session.plan(self.directory)
        if session.wanted:
            keep_key(plan)
        self.data_servers.wipe(plan)
        if not session.wanted:
            forget_key(plan)

    def _make(self, record: Record, mark: ProcessMark | None) -> Session:
        asked = SessionRequest(
            record.uid,
            record.direction,
            record.connections,
            record.rate,
            record.owner,
            record.told_host,
            encryption=record.encryption,
            transport=record.transport,
            sources=tuple(map(ipaddress.ip_network, record.sources)),
            half_close=record.half_close,
        )
        session = Session(
            asked=asked,
            opened=record.opened,
            engine=self._engine(record.engine),
            stem=record.stem,
            bound_host=record.bound_host,
            reservation=self.pool.claim(
                record.bound_host, record.ports, in_use=True, owner=record.owner, transport=record.transport
            ),
            state=record.state,
            targets=tuple(Endpoint.parse(target) for target in record.targets),
            failure=record.failure,
            lease_expires=record.lease_expires,
            lease_boottime=record.lease_boottime,
            restarts=record.restarts,
            mark=mark,
            wanted=record.wanted,
            in_step=record.in_step,
        )
        if session.targets and record.encryption.needs_key:
            session.key = recall_key(session.plan(self.directory))
        return session

    def _engine(self, name: str) -> Engine:
        try:
            return find_engine(name)
        except SciStreamError:
            # Of a later version, which was rolled back: what ends processes is the same for every engine that has some.
            return self.engine if self.engine.has_processes else _ANY_WITH_PROCESSES


def _fail(session: Session, error: Exception) -> None:
    # What went wrong first says more than what followed from it.
    failure = session.failure if session.state is SessionState.FAILED and session.failure else str(error)
    session.state, session.failure = SessionState.FAILED, failure
