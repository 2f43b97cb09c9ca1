"""The `scistream.v1.Operations` service: what this control server is, and what runs on it."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass

from scistream import __version__
from scistream.certificates import CertificateFacts
from scistream.control_server.answering import Calls, Context
from scistream.control_server.configuration import Settings
from scistream.control_server.registry import Registry
from scistream.control_server.sessions import SessionView
from scistream.engines import describe_engines
from scistream.engines.base import Engine, Installation
from scistream.protocol import operations_pb2 as wire
from scistream.protocol import operations_pb2_grpc
from scistream.terms import parse_direction, parse_uid

__all__ = ["Operations", "ServerIdentity"]


@dataclass(frozen=True)
class ServerIdentity:
    """What does not change while a control server runs. `started` is in seconds since the epoch."""

    settings: Settings
    certificate: CertificateFacts | None
    started: float


class Operations(operations_pb2_grpc.OperationsServicer):
    """Reads of the registry and of the server's own facts; changes nothing."""

    def __init__(self, registry: Registry, identity: ServerIdentity, calls: Calls) -> None:
        self._registry = registry
        self._identity = identity
        self._calls = calls

    async def ListSessions(  # noqa: N802 - the wire's names
        self, request: wire.ListSessionsRequest, context: Context
    ) -> wire.ListSessionsReply:
        """The caller's sessions, in the order of their opening."""
        async with self._calls.answering(context, "ListSessions", request) as caller:
            views = (session.view() for session in self._registry.sessions() if caller.may_use(session.asked.owner))
            return wire.ListSessionsReply(sessions=map(_on_wire, views))

    async def DescribeSession(  # noqa: N802
        self, request: wire.DescribeSessionRequest, context: Context
    ) -> wire.ListSessionsReply:
        """The caller's sessions with one uid."""
        async with self._calls.answering(context, "DescribeSession", request) as caller:
            direction = parse_direction(request.direction) if request.direction else None
            sessions = self._registry.find(parse_uid(request.uid), direction, caller)
            return wire.ListSessionsReply(sessions=[_on_wire(session.view()) for session in sessions])

    async def GetServerFacts(  # noqa: N802
        self, request: wire.GetServerFactsRequest, context: Context
    ) -> wire.ServerFacts:
        """What this control server is."""
        async with self._calls.answering(context, "GetServerFacts", request):
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
                authentication=self._calls.verifier.name,
                tls=settings.ssl,
                certificate_names=certificate.names if certificate else (),
                certificate_expires=certificate.not_after.timestamp() if certificate else 0,
                started=self._identity.started,
                sessions=len(self._registry.sessions()),
                scope=self._calls.verifier.scope,
                default_lease=settings.lease,
                longest_lease=settings.longest_lease,
            )


def _on_wire(view: SessionView) -> wire.Session:
    return wire.Session(
        uid=view.uid,
        direction=view.direction.value,
        state=view.state.value,
        entry_points=map(str, view.entry_points),
        targets=map(str, view.targets),
        engine=view.engine,
        encryption=view.encryption.value,
        owner=view.owner,
        connections=view.connections,
        rate=view.rate,
        opened=view.opened,
        failure=view.failure,
        lease_expires=view.lease_expires or 0,
        idle_since=view.idle_since or 0,
        restarts=view.restarts,
        traffic=wire.Traffic(**dataclasses.asdict(view.traffic)),
    )


def _engine_on_wire(engine: Engine, found: Installation | None) -> wire.Engine:
    return wire.Engine(
        name=engine.name,
        installed=found is not None,
        version=found.version if found else "",
        program=str(found.program if found else engine.program),
        encryption=engine.encryption.value,
    )
