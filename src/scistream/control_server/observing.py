"""Whoever looks on while a control server works: metrics, audit file, sampler. Without them it would do the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Sequence

from structlog.typing import FilteringBoundLogger

from scistream.control_server import listening, sampling
from scistream.control_server.answering import Observer
from scistream.control_server.appending import LineFile
from scistream.control_server.audit import Audit
from scistream.control_server.configuration import Settings
from scistream.control_server.data_servers import DataServers
from scistream.control_server.events import Events
from scistream.control_server.metrics import Metrics, Snapshot
from scistream.control_server.operations import ServerIdentity
from scistream.control_server.registry import Registry
from scistream.control_server.sampling import Sampler
from scistream.control_server.scraping import serve_metrics
from scistream.control_server.sessions import Session
from scistream.engines.base import Traffic
from scistream.engines.lifecycle import ProcessMark

__all__ = ["Observers", "open_audit"]


def open_audit(settings: Settings, events: Events, log: FilteringBoundLogger) -> Audit | None:
    """The audit file, where one is asked for; from now on it hears of the events.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    if settings.audit_file is None:
        return None
    audit = Audit(LineFile(settings.audit_file), log)
    events.listen(audit.note_event)
    return audit


class Observers:
    """What the settings ask for, opened before there is anything to look at.

    Args:
        identity: the server's own facts.
        events: what happens to the sessions.
        log: where it is told what goes wrong here.

    Raises:
        SciStreamError: FILE_UNWRITABLE, METRICS_PORT_IN_USE, LISTEN_ADDRESS_FOREIGN.
    """

    def __init__(self, identity: ServerIdentity, events: Events, log: FilteringBoundLogger) -> None:
        self._identity = identity
        self._events = events
        self._log = log
        self._metrics = Metrics()
        events.listen(self._metrics.note_event)
        self._audit = open_audit(identity.settings, events, log)
        address = identity.metrics_address
        self._listener: socket.socket | None = listening.listen(address) if address else None

    def of_calls(self) -> Sequence[Observer]:
        """Who wants to know of calls."""
        counted: list[Observer] = [self._metrics.note_call]
        return [*counted, self._audit.note_call] if self._audit is not None else counted

    def warnings(self) -> Sequence[str]:
        """What the operator should know of them now, a sentence each."""
        lost = self._audit.lost if self._audit else 0
        return (f"{lost} lines of the audit file were lost: it could not be written",) if lost else ()

    @contextlib.asynccontextmanager
    async def observing(self, registry: Registry, data_servers: DataServers) -> AsyncIterator[None]:
        """Inside, data servers are asked for their traffic, and the metrics are served."""
        directory = self._identity.settings.state_directory

        async def ask(session: Session, mark: ProcessMark) -> Traffic:
            seen = await data_servers.traffic(session.engine, session.plan(directory), mark)
            if seen.connections_total != session.traffic.connections_total:
                await registry.observe([session])
            return seen

        sampler = Sampler(registry.sessions, ask, self._log, interval=sampling.INTERVAL)
        work = asyncio.create_task(sampler.run())
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._listener is not None:
                    taken = serve_metrics(self._listener, lambda: self._metrics.taken(self._seen(registry, sampler)))
                    await stack.enter_async_context(taken)
                yield
        finally:
            work.cancel()

    def close(self) -> None:
        """Listen and record no more."""
        if self._listener is not None:
            self._listener.close()
        if self._audit is not None:
            self._audit.close()

    def _seen(self, registry: Registry, sampler: Sampler) -> Snapshot:
        certificate = self._identity.certificate
        return Snapshot(
            now=time.time(),
            started=self._identity.started,
            engine=registry.engine.name,
            sessions=[session.view() for session in registry.sessions()],
            ports=len(registry.pool.ports),
            ports_free=registry.pool.free,
            watchers=self._events.watchers,
            refused_peers=sampler.refused_peers,
            audit_lines_lost=self._audit.lost if self._audit else 0,
            certificate_expires=certificate.not_after.timestamp() if certificate else None,
        )
