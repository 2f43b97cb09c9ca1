"""The `scistream.v1.Operations` service: what this control server is, and what runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from scistream import __version__
from scistream.certificates import CertificateFacts
from scistream.control_server.answering import Context, answering, owner_of
from scistream.control_server.configuration import Settings
from scistream.control_server.registry import Registry
from scistream.control_server.sessions import Session
from scistream.engines import describe_engines
from scistream.engines.base import Engine, Installation
from scistream.errors import Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.protocol import operations_pb2_grpc
from scistream.terms import NO_AUTH, parse_direction, parse_uid

__all__ = ["Operations", "ServerIdentity"]


@dataclass(frozen=True)
class ServerIdentity:
    """What does not change while a control server runs. `started` is in seconds since the epoch."""

    settings: Settings
    certificate: CertificateFacts | None
    started: float


class Operations(operations_pb2_grpc.OperationsServicer):
    """Reads of the registry and of the server's own facts; changes nothing."""

    def __init__(self, registry: Registry, identity: ServerIdentity, log: FilteringBoundLogger) -> None:
        self._registry = registry
        self._identity = identity
        self._log = log

    async def ListSessions(  # noqa: N802 - the wire's names
        self, request: wire.ListSessionsRequest, context: Context
    ) -> wire.ListSessionsReply:
        """The caller's sessions, in the order of their opening."""
        async with answering(context, self._log, "ListSessions"):
            sessions = _of_caller(context, self._registry.sessions())
            return wire.ListSessionsReply(sessions=map(_on_wire, sessions))

    async def DescribeSession(  # noqa: N802
        self, request: wire.DescribeSessionRequest, context: Context
    ) -> wire.ListSessionsReply:
        """The caller's sessions with one uid."""
        async with answering(context, self._log, "DescribeSession"):
            direction = parse_direction(request.direction) if request.direction else None
            sessions = _of_caller(context, self._registry.find(parse_uid(request.uid), direction))
            if not sessions:
                # Another's session is not told apart from none.
                raise SciStreamError(Code.UID_UNKNOWN, uid=request.uid)
            return wire.ListSessionsReply(sessions=map(_on_wire, sessions))

    async def GetServerFacts(  # noqa: N802
        self, request: wire.GetServerFactsRequest, context: Context
    ) -> wire.ServerFacts:
        """What this control server is."""
        async with answering(context, self._log, "GetServerFacts"):
            settings, certificate = self._identity.settings, self._identity.certificate
            # Each program is asked for its version, once.
            engines = await asyncio.to_thread(describe_engines)
            return wire.ServerFacts(
                version=__version__,
                listen_address=str(settings.address),
                port_range=str(self._registry.pool.ports),
                ports_free=self._registry.pool.free,
                engine=self._registry.engine.name,
                engines=[_engine_on_wire(engine, found) for engine, found in engines],
                authentication=NO_AUTH,
                tls=settings.ssl,
                certificate_names=certificate.names if certificate else (),
                certificate_expires=certificate.not_after.timestamp() if certificate else 0,
                started=self._identity.started,
                sessions=len(self._registry.sessions()),
            )


def _of_caller(context: Context, sessions: Sequence[Session]) -> list[Session]:
    owner = owner_of(context)
    return [session for session in sessions if session.asked.owner == owner]


def _on_wire(session: Session) -> wire.Session:
    return wire.Session(
        uid=session.asked.uid,
        direction=session.asked.direction.value,
        state=session.state.value,
        entry_points=map(str, session.entry_points),
        targets=map(str, session.targets),
        engine=session.engine.name,
        encryption=session.engine.encryption.value,
        owner=session.asked.owner,
        connections=session.asked.connections,
        rate=session.asked.rate,
        opened=session.opened,
        failure=session.failure,
    )


def _engine_on_wire(engine: Engine, found: Installation | None) -> wire.Engine:
    return wire.Engine(
        name=engine.name,
        installed=found is not None,
        version=found.version if found else "",
        program=str(found.program if found else engine.program),
        encryption=engine.encryption.value,
    )
