"""The `scistream.Control` service: the deployed protocol, spoken unchanged (protocol reference, Service)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from structlog.typing import FilteringBoundLogger

from scistream.addresses import Network, parse_endpoints, parse_networks, parse_ports
from scistream.control_server.answering import Calls, Context, metadata_bytes, metadata_text
from scistream.control_server.callers import Caller
from scistream.control_server.registry import Hello, Registry
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.errors import Code, SciStreamError
from scistream.protocol import (
    DIRECTION_METADATA,
    ENCRYPTION_METADATA,
    HALF_CLOSE_METADATA,
    LEASE_METADATA,
    PEER_ENGINE_METADATA,
    PORTS_METADATA,
    RATE_METADATA,
    SESSION_KEY_METADATA,
    SESSION_KEY_SIZE,
    SOURCES_METADATA,
    TRANSPORT_METADATA,
    control_pb2_grpc,
)
from scistream.protocol import control_pb2 as wire
from scistream.terms import (
    DEFAULT_RATE,
    MAX_RATE,
    Direction,
    Encryption,
    OldClients,
    Transport,
    Uid,
    parse_connections,
    parse_direction,
    parse_encryption,
    parse_lease,
    parse_rate,
    parse_transport,
    parse_uid,
)

__all__ = ["ControlService"]

_DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


class ControlService(control_pb2_grpc.ControlServicer):
    """Reads calls, asks the registry, writes replies. `name` is what a call is called in log and audit file.

    Args:
        registry: the sessions.
        calls: the frame of every call.
        log: where it is told what became of a key.
        tls: whether the channel is encrypted. A key that came over a plain one is no secret, and is not used.
        told_host: under which of this host's addresses the entry points are told to a peer (as gRPC names it).
        old_clients: what clients get that do not say what shall protect the bytes between the gateways.
    """

    def __init__(  # noqa: PLR0913 - all that it answers from
        self,
        registry: Registry,
        calls: Calls,
        log: FilteringBoundLogger,
        *,
        tls: bool,
        told_host: Callable[[str], str],
        old_clients: OldClients = OldClients.REFUSE,
    ) -> None:
        self._registry = registry
        self._calls = calls
        self._log = log
        self._tls = tls
        self._told_host = told_host
        self._old_clients = old_clients

    async def req(self, request: wire.Request, context: Context, name: str = "req") -> wire.Response:
        """Reserve entry points; answered when the hello has come."""
        async with self._calls.answering(context, name, request) as call:
            asked = self._asked(request, context, call.caller)
            return _response(call.about(await self._registry.request(asked)))

    def _asked(self, request: wire.Request, context: Context, caller: Caller) -> SessionRequest:
        named_ports = _named_ports(context)
        uid = parse_uid(request.uid)
        return SessionRequest(
            uid=uid,
            direction=parse_direction(request.role),
            connections=parse_connections(request.num_conn or len(named_ports)),
            rate=_rate(request, context),
            owner=caller.owner,
            host=self._told_host(context.peer()),
            lease=_lease(context),
            named_ports=named_ports,
            encryption=self._encryption(uid, context),
            transport=_transport(context),
            sources=_sources(context),
            half_close=metadata_text(context, HALF_CLOSE_METADATA) == "1",
            peer=metadata_text(context, PEER_ENGINE_METADATA) or "",
        )

    def _encryption(self, uid: Uid, context: Context) -> Encryption:
        text = metadata_text(context, ENCRYPTION_METADATA)
        if text is not None:
            return parse_encryption(text)
        given = Encryption.NONE if self._old_clients is OldClients.PLAIN else Encryption.LEGACY_PSK
        engine = self._registry.engine
        if self._old_clients is OldClients.REFUSE or given not in engine.encryptions:
            setting = self._old_clients.value
            if self._old_clients is not OldClients.REFUSE:
                setting += f", which {engine.title} does not do"
            raise SciStreamError(Code.OLD_CLIENT_REFUSED, uid=uid, setting=setting)
        return given

    async def hello(self, request: wire.Hello, context: Context, name: str = "hello") -> wire.AppResponse:
        """Register the application's end of a session."""
        async with self._calls.answering(context, name, request) as call:
            session = await self._registry.hello(
                Hello(
                    uid=parse_uid(request.uid),
                    role=parse_direction(request.role),
                    targets=lambda: parse_endpoints(request.prod_listeners),
                    only=_direction(context),
                ),
                call.caller,
            )
            return wire.AppResponse(message="session registered", listeners=_entry_points(call.about(session)))

    async def update(self, request: wire.UpdateTargets, context: Context, name: str = "update") -> wire.Response:
        """Name the targets; answered when the entry points accept."""
        async with self._calls.answering(context, name, request) as call:
            uid = parse_uid(request.uid)
            change = Update(
                uid=uid,
                direction=parse_direction(request.role),
                targets=parse_endpoints(request.remote_listeners),
                key=self._key(uid, context),
            )
            return _response(call.about(await self._registry.update(change, call.caller)))

    async def release(self, request: wire.Release, context: Context, name: str = "release") -> wire.Response:
        """End the sessions of a uid."""
        async with self._calls.answering(context, name, request) as call:
            released = await self._registry.release(parse_uid(request.uid), _direction(context), call.caller)
            call.session_owner = released[0].asked.owner
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


def _rate(request: wire.Request, context: Context) -> int:
    """The rate that was asked for, 0 for none: what deployed clients send with every request is no wish."""
    text = metadata_text(context, RATE_METADATA)
    if text is not None:
        return parse_rate(_number(text, Code.BAD_RATE, "rate"))
    return 0 if request.rate in {0, DEFAULT_RATE} else parse_rate(request.rate)


def _number(text: str, code: Code, fact: str) -> int:
    # Python reads more as a number, as 1_0 for 10.
    if not _DIGITS.fullmatch(text):
        raise SciStreamError(code, **{fact: text}, limit=MAX_RATE)
    return int(text)


def _lease(context: Context) -> float | None:
    text = metadata_text(context, LEASE_METADATA)
    return parse_lease(text) if text is not None else None


def _transport(context: Context) -> Transport:
    text = metadata_text(context, TRANSPORT_METADATA)
    return Transport.TCP if text is None else parse_transport(text)


def _sources(context: Context) -> tuple[Network, ...]:
    text = metadata_text(context, SOURCES_METADATA)
    return parse_networks(text) if text else ()


def _named_ports(context: Context) -> tuple[int, ...]:
    text = metadata_text(context, PORTS_METADATA)
    return parse_ports(text) if text else ()


def _entry_points(*sessions: Session) -> list[str]:
    return [str(endpoint) for session in sessions for endpoint in session.entry_points]


def _response(*sessions: Session) -> wire.Response:
    targets = [str(target) for session in sessions for target in session.targets]
    return wire.Response(listeners=_entry_points(*sessions), prod_listeners=targets)
