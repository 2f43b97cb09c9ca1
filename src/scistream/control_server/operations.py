"""The `scistream.v1.Operations` service: what this control server is, what runs on it, and for how long."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from scistream import __version__
from scistream.addresses import Endpoint
from scistream.certificates import CertificateFacts
from scistream.control_server.answering import Calls, Context
from scistream.control_server.callers import Caller
from scistream.control_server.configuration import Settings
from scistream.control_server.events import Event, EventKind, Events
from scistream.control_server.leases import LeaseTerms
from scistream.control_server.on_wire import Spelled, engines, event_bytes, reply
from scistream.control_server.registry import Registry
from scistream.errors import Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.protocol import operations_pb2_grpc
from scistream.terms import NO_AUTH, Direction, Uid, parse_direction, parse_lease, parse_uid

__all__ = ["Operations", "ServerIdentity"]

# Seconds after which it is asked again who watches: a token ends, or is withdrawn.
_ASK_AGAIN: Final = 30.0
# Seconds that a watch goes on while the identity provider cannot be asked; new calls are refused sooner.
_UNANSWERED: Final = 300.0


@dataclass(frozen=True)
class ServerIdentity:
    """What does not change while a control server runs. `started` is in seconds since the epoch."""

    settings: Settings
    certificate: CertificateFacts | None
    started: float

    @property
    def metrics_address(self) -> Endpoint | None:
        """Where the metrics are, where they are anywhere."""
        port = self.settings.metrics_port
        return Endpoint(self.settings.metrics_ip, port) if port else None


class Operations(operations_pb2_grpc.OperationsServicer):
    """Reads of the registry and of the server's own facts; leases and drains.

    Args:
        registry: the sessions.
        identity: the server's own facts.
        calls: the frame of every call.
        events: what happens to the sessions.
        warnings: what the server's operator should know now, a sentence each.
        clock: seconds since the epoch.
    """

    def __init__(  # noqa: PLR0913 - all that it answers from
        self,
        registry: Registry,
        identity: ServerIdentity,
        calls: Calls,
        events: Events,
        *,
        warnings: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._identity = identity
        self._calls = calls
        self._events = events
        self._warnings = warnings
        self._clock = clock
        self._spelled = Spelled()

    async def ListSessions(  # noqa: N802 - the wire's names
        self, request: wire.ListSessionsRequest, context: Context
    ) -> wire.ListSessionsReply:
        """The caller's sessions, in the order of their opening."""
        async with self._calls.answering(context, "ListSessions", request) as call:
            sessions = self._registry.sessions()
            return reply([session for session in sessions if call.caller.may_use(session.asked.owner)])

    async def DescribeSession(  # noqa: N802
        self, request: wire.DescribeSessionRequest, context: Context
    ) -> wire.ListSessionsReply:
        """The caller's sessions with one uid."""
        async with self._calls.answering(context, "DescribeSession", request) as call:
            uid, direction = parse_uid(request.uid), _direction(request.direction)
            found = self._registry.find(uid, direction, call.caller)
            await self._registry.observe(found)
            return reply(found)

    async def WatchSessions(self, request: wire.WatchSessionsRequest, context: Context) -> None:  # noqa: N802
        """Every session of the caller's as it is, then what happens to them, until somebody ends."""
        async with self._calls.answering(context, "WatchSessions", request) as call:
            uid = parse_uid(request.uid) if request.uid else None
            wanted = _Wanted(uid, _direction(request.direction), call.caller)
            with self._events.watched(wanted, owner=self._owner(call.caller)) as events:
                # Nothing may come between: what happens from now on is told as an event.
                there = [Event(self._clock(), EventKind.THERE, each.view()) for each in self._registry.sessions()]
                # Whoever waits for a state may look at the session now: nothing is missed from here on.
                await context.send_initial_metadata(())
                for event in filter(wanted, there):
                    await context.write(event_bytes(event))
                answered = time.monotonic()
                while True:
                    await self._tell(events, context)
                    if caller := await self._recognised(context, wanted.caller, answered):
                        wanted.caller, answered = caller, time.monotonic()

    def _owner(self, caller: Caller) -> str:
        """Whose watch it is; with authentication off everybody has one name, and is told apart from nobody."""
        return caller.owner if self._authenticates else ""

    @property
    def _authenticates(self) -> bool:
        return self._calls.verifier.name != NO_AUTH

    async def _recognised(self, context: Context, caller: Caller, answered: float) -> Caller | None:
        """Who watches, asked again. None where nobody can say, and the last answer, at `answered`, is young enough."""
        try:
            return await self._calls.authenticate(context)
        except SciStreamError as error:
            has_expired = (caller.identity.expires or math.inf) <= self._clock()
            is_late = time.monotonic() - answered > _UNANSWERED
            if error.code is not Code.PROVIDER_UNAVAILABLE or has_expired or is_late:
                raise
            return None

    async def _tell(self, events: AsyncIterator[Event], context: Context) -> None:
        """Tell what happens for a while."""
        end = time.monotonic() + _ASK_AGAIN
        while (left := end - time.monotonic()) > 0:
            try:
                # Only the waiting may be cut off: half a message would be the end of the stream.
                async with asyncio.timeout(left):
                    event = await anext(events)
            except TimeoutError:
                return
            await context.write(self._spelled(event))

    async def RenewSession(  # noqa: N802
        self, request: wire.RenewSessionRequest, context: Context
    ) -> wire.ListSessionsReply:
        """Lengthen or shorten the lease."""
        async with self._calls.answering(context, "RenewSession", request) as call:
            uid, direction = parse_uid(request.uid), _direction(request.direction)
            lease = _lease(request.lease)
            return reply([*map(call.about, await self._registry.renew(uid, direction, lease, call.caller))])

    async def DrainSession(  # noqa: N802
        self, request: wire.DrainSessionRequest, context: Context
    ) -> wire.ListSessionsReply:
        """Take no new connections; answered when that has begun."""
        async with self._calls.answering(context, "DrainSession", request) as call:
            uid, direction = parse_uid(request.uid), _direction(request.direction)
            return reply([*map(call.about, await self._registry.drain(uid, direction, call.caller))])

    async def RenewCertificates(  # noqa: N802
        self, request: wire.RenewCertificatesRequest, context: Context
    ) -> wire.ListSessionsReply:
        """Replace certificates under running connections."""
        async with self._calls.answering(context, "RenewCertificates", request) as call:
            uid, direction = parse_uid(request.uid), _direction(request.direction)
            return reply([*map(call.about, await self._registry.renew_certificates(uid, direction, call.caller))])

    async def CheckAuthentication(  # noqa: N802
        self, request: wire.CheckAuthenticationRequest, context: Context
    ) -> wire.AuthenticationFacts:
        """Who the caller is."""
        async with self._calls.answering(context, "CheckAuthentication", request) as call:
            identity, verifier = call.caller.identity, self._calls.verifier
            return wire.AuthenticationFacts(
                owner=identity.subject,
                authentication=verifier.name,
                scope=verifier.scope,
                scopes=identity.scopes,
                expires=identity.expires or 0,
                username=identity.username,
                is_operator=call.caller.is_operator,
            )

    async def GetServerFacts(  # noqa: N802
        self, request: wire.GetServerFactsRequest, context: Context
    ) -> wire.ServerFacts:
        """What this control server is."""
        async with self._calls.answering(context, "GetServerFacts", request) as call:
            settings, certificate = self._identity.settings, self._identity.certificate
            described = await asyncio.to_thread(engines)
            return wire.ServerFacts(
                version=__version__,
                listen_address=str(settings.address),
                port_range=str(self._registry.pool.ports),
                ports_free=self._registry.pool.free,
                engine=self._registry.engine.name,
                engines=described,
                authentication=self._calls.verifier.name,
                tls=settings.ssl,
                certificate_names=certificate.names if certificate else (),
                certificate_expires=certificate.not_after.timestamp() if certificate else 0,
                started=self._identity.started,
                sessions=len(self._registry.sessions()),
                scope=self._calls.verifier.scope,
                default_lease=LeaseTerms(settings.lease, settings.longest_lease).granted(None),
                longest_lease=settings.longest_lease,
                metrics_address=str(self._identity.metrics_address or ""),
                old_clients=settings.for_old_clients.value,
                # They name others' sessions, and files of this host.
                warnings=() if self._authenticates and not call.caller.is_operator else self._warnings(),
            )


@dataclass
class _Wanted:
    """Whether an event is for one who watches."""

    uid: Uid | None
    direction: Direction | None
    caller: Caller

    def __call__(self, event: Event) -> bool:
        session = event.session
        right = self.uid in {None, session.uid} and self.direction in {None, session.direction}
        return right and self.caller.may_use(session.owner)


def _lease(seconds: float) -> float | None:
    """The wire's 0 is the default, and what shall have no end is infinite there."""
    if seconds == math.inf:
        return 0.0
    return parse_lease(str(seconds)) if seconds else None


def _direction(text: str) -> Direction | None:
    return parse_direction(text) if text else None
