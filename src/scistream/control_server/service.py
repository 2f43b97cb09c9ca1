"""The `scistream.Control` service: the deployed protocol, spoken unchanged (protocol reference, Service)."""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from scistream.addresses import parse_endpoints
from scistream.control_server.answering import Context, answering, metadata_bytes, metadata_text, owner_of
from scistream.control_server.registry import Hello, Registry
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.errors import Code, SciStreamError
from scistream.protocol import DIRECTION_METADATA, SESSION_KEY_METADATA, SESSION_KEY_SIZE, control_pb2_grpc
from scistream.protocol import control_pb2 as wire
from scistream.terms import DEFAULT_RATE, Direction, Uid, parse_connections, parse_direction, parse_rate, parse_uid

__all__ = ["ControlService"]


class ControlService(control_pb2_grpc.ControlServicer):
    """Reads calls, asks the registry, writes replies.

    Args:
        registry: the sessions.
        log: where calls are told.
        tls: whether the channel is encrypted. A key that came over a plain one is no secret, and is not used.
        told_host: under which of this host's addresses the entry points are told to a peer (as gRPC names it).
    """

    def __init__(
        self, registry: Registry, log: FilteringBoundLogger, *, tls: bool, told_host: Callable[[str], str]
    ) -> None:
        self._registry = registry
        self._log = log
        self._tls = tls
        self._told_host = told_host

    async def req(self, request: wire.Request, context: Context) -> wire.Response:
        """Reserve entry points; answered when the hello has come."""
        async with answering(context, self._log, "req"):
            return _response(await self._registry.request(self._asked(request, context)))

    def _asked(self, request: wire.Request, context: Context) -> SessionRequest:
        return SessionRequest(
            uid=parse_uid(request.uid),
            direction=parse_direction(request.role),
            connections=parse_connections(request.num_conn),
            # Nothing on the wire is a zero there.
            rate=parse_rate(request.rate or DEFAULT_RATE),
            owner=owner_of(context),
            host=self._told_host(context.peer()),
        )

    async def hello(self, request: wire.Hello, context: Context) -> wire.AppResponse:
        """Register the application's end of a session."""
        async with answering(context, self._log, "hello"):
            session = await self._registry.hello(
                Hello(
                    uid=parse_uid(request.uid),
                    role=parse_direction(request.role),
                    targets=lambda: parse_endpoints(request.prod_listeners),
                    only=_direction(context),
                )
            )
            return wire.AppResponse(message="session registered", listeners=_entry_points(session))

    async def update(self, request: wire.UpdateTargets, context: Context) -> wire.Response:
        """Name the targets; answered when the entry points accept."""
        async with answering(context, self._log, "update"):
            uid = parse_uid(request.uid)
            change = Update(
                uid=uid,
                direction=parse_direction(request.role),
                targets=parse_endpoints(request.remote_listeners),
                key=self._key(uid, context),
            )
            return _response(await self._registry.update(change))

    async def release(self, request: wire.Release, context: Context) -> wire.Response:
        """End the sessions of a uid."""
        async with answering(context, self._log, "release"):
            released = await self._registry.release(parse_uid(request.uid), _direction(context))
            return _response(*released)

    def _key(self, uid: Uid, context: Context) -> bytes | None:
        key = metadata_bytes(context, SESSION_KEY_METADATA)
        if key is None:
            return None
        if not self._tls:
            self._log.warning("session key ignored: it came over a plain-text channel", uid=uid)
            return None
        if len(key) != SESSION_KEY_SIZE:
            raise SciStreamError(Code.BAD_SESSION_KEY, uid=uid, size=len(key), wanted=SESSION_KEY_SIZE)
        return key


def _direction(context: Context) -> Direction | None:
    text = metadata_text(context, DIRECTION_METADATA)
    return parse_direction(text) if text is not None else None


def _entry_points(*sessions: Session) -> list[str]:
    return [str(endpoint) for session in sessions for endpoint in session.entry_points]


def _response(*sessions: Session) -> wire.Response:
    targets = [str(target) for session in sessions for target in session.targets]
    return wire.Response(listeners=_entry_points(*sessions), prod_listeners=targets)
