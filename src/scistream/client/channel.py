"""One control server, called over gRPC: plain values in, plain values out, every failure an error of the catalogue."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from scistream.addresses import Endpoint
from scistream.client.control_servers import ControlServer
from scistream.client.dialing import Dialed, dial
from scistream.client.facts import AuthenticationFacts, ServerFacts, read_authentication, read_facts
from scistream.client.failures import Attempt, failure_of
from scistream.client.pending import Pending, Watch
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session, SessionEvent, reachable, read_event, read_session
from scistream.errors import Code, SciStreamError
from scistream.protocol import (
    AUTHORIZATION,
    DIRECTION_METADATA,
    ENCRYPTION_METADATA,
    HALF_CLOSE_METADATA,
    LEASE_METADATA,
    PEER_ENGINE_METADATA,
    PORTS_METADATA,
    RATE_METADATA,
    SESSION_KEY_METADATA,
    SOURCES_METADATA,
    TRANSPORT_METADATA,
    control_pb2,
    control_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
)
from scistream.terms import OLD_NO_AUTH, Direction, Uid

if TYPE_CHECKING:
    import grpc

__all__ = ["Answer", "Connection", "ControlServer", "Pending", "Watch", "connect"]

_Value = TypeVar("_Value")
_Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Answer:
    """What a control server answers on the old calls: addresses as text."""

    entry_points: tuple[str, ...]
    targets: tuple[str, ...]


class Connection:
    """A channel to one control server. It is closed by `close`, or at the end of a `with`."""

    def __init__(self, control_server: ControlServer, dialed: Dialed) -> None:
        self.control_server = control_server
        self._dialed = dialed
        known_as, reached_by = control_server.known_as, control_server.reached_by
        self._reached = Endpoint(reached_by or known_as.host, known_as.port)
        # Its host's loopback is nobody else's.
        self._is_hidden = known_as != control_server.address
        self._called = control_server.hosts if reached_by else frozenset()
        self._control = control_pb2_grpc.ControlStub(dialed.channel)
        self._operations = operations_pb2_grpc.OperationsStub(dialed.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._dialed.close()

    def request(self, asked: SessionRequest, *, timeout: float | None = None) -> Pending[Answer]:
        """Ask for a session. The answer comes when its end was registered by a `hello`, or `timeout` seconds later.

        A control server with the old protocol only heeds nothing but uid, direction and number of entry points.
        """
        message = control_pb2.Request(
            uid=asked.uid, role=asked.direction.role, num_conn=asked.connections, rate=asked.rate
        )
        attempt = Attempt("open a session", timeout or self._timeout, asked.uid)
        return self._start(self._control.req, message, attempt, self._read_answer, _wishes(asked))

    def hello(
        self, uid: Uid, direction: Direction, targets: Iterable[Endpoint], *, timeout: float | None = None
    ) -> Pending[tuple[str, ...]]:
        """Register the application's end of a session; the answer is the entry points, where the server tells them."""
        message = control_pb2.Hello(uid=uid, role=direction.role, prod_listeners=map(str, targets))
        attempt = Attempt("register a session's end", timeout or self._timeout, uid)
        extra = ((DIRECTION_METADATA, direction.value),)
        return self._start(self._control.hello, message, attempt, self._read_entry_points, extra)

    def update(
        self, uid: Uid, direction: Direction, targets: Iterable[Endpoint], *, key: bytes | None = None
    ) -> Answer:
        """Name a session's targets and start its data server. The key travels over TLS or not at all.

        Raises:
            SciStreamError: what the control server says, or why it cannot be talked to.
        """
        message = control_pb2.UpdateTargets(uid=uid, role=direction.role, remote_listeners=map(str, targets))
        attempt = Attempt("start a session's data server", self._timeout, uid)
        secret = ((SESSION_KEY_METADATA, key),) if key and not self.control_server.plain_text else ()
        return self._finish(self._control.update, message, attempt, self._read_answer, secret)

    def release(self, uid: Uid, direction: Direction | None = None, *, timeout: float | None = None) -> None:
        """Release a session; without a direction, both ends that have the uid.

        Raises:
            SciStreamError: UID_UNKNOWN, what else the control server says, or why it cannot be talked to.
        """
        attempt = Attempt("release a session", timeout or self._timeout, uid)
        extra = ((DIRECTION_METADATA, direction.value),) if direction else ()
        self._finish(self._control.release, control_pb2.Release(uid=uid), attempt, lambda _: None, extra)

    def list_sessions(self) -> tuple[Session, ...]:
        """The caller's sessions, in the order of their opening.

        Raises:
            SciStreamError: OLD_CONTROL_SERVER, or why it cannot be talked to.
        """
        message, attempt = operations_pb2.ListSessionsRequest(), Attempt("list sessions", self._timeout)
        return self._finish(self._operations.ListSessions, message, attempt, self._read_sessions)

    def describe(self, uid: Uid, direction: Direction | None = None) -> tuple[Session, ...]:
        """The sessions with a uid: one, or both directions.

        Raises:
            SciStreamError: UID_UNKNOWN, OLD_CONTROL_SERVER, or why it cannot be talked to.
        """
        message = operations_pb2.DescribeSessionRequest(uid=uid, direction=_spell(direction))
        attempt = Attempt("describe a session", self._timeout, uid)
        sessions = self._finish(self._operations.DescribeSession, message, attempt, self._read_sessions)
        if not sessions:
            raise SciStreamError(Code.UID_UNKNOWN, uid=uid)
        return sessions

    def renew(self, uid: Uid, direction: Direction | None = None, lease: float | None = None) -> tuple[Session, ...]:
        """Let a session last `lease` seconds from now, 0 for no end, None for the control server's default.

        Raises:
            SciStreamError: UID_UNKNOWN, BAD_LEASE, OLD_CONTROL_SERVER and others.
        """
        # On the wire, 0 is the default, and what has no end is infinite.
        seconds = 0.0 if lease is None else lease or math.inf
        message = operations_pb2.RenewSessionRequest(uid=uid, direction=_spell(direction), lease=seconds)
        attempt = Attempt("renew a session's lease", self._timeout, uid)
        return self._finish(self._operations.RenewSession, message, attempt, self._read_sessions)

    def drain(self, uid: Uid, direction: Direction | None = None) -> tuple[Session, ...]:
        """Let no new connections in; the session is released when the running ones have ended.

        Raises:
            SciStreamError: UID_UNKNOWN, SESSION_NOT_ACTIVE, OLD_CONTROL_SERVER and others.
        """
        message = operations_pb2.DrainSessionRequest(uid=uid, direction=_spell(direction))
        attempt = Attempt("drain a session", self._timeout, uid)
        return self._finish(self._operations.DrainSession, message, attempt, self._read_sessions)

    def renew_certificates(self, uid: Uid, direction: Direction | None = None) -> tuple[Session, ...]:
        """Have new connections prove the gateway with a new certificate; running ones go on.

        Raises:
            SciStreamError: UID_UNKNOWN, SESSION_NOT_ACTIVE, ENGINE_CANNOT, OLD_CONTROL_SERVER and others.
        """
        message = operations_pb2.RenewCertificatesRequest(uid=uid, direction=_spell(direction))
        attempt = Attempt("renew the certificates of a session", self._timeout, uid)
        return self._finish(self._operations.RenewCertificates, message, attempt, self._read_sessions)

    def watch(
        self, uid: Uid | None = None, direction: Direction | None = None, *, timeout: float | None = None
    ) -> Watch[SessionEvent]:
        """Hear of the caller's sessions, or of one: first how they are, then whatever happens.

        Without a `timeout`, for as long as both sides are there. What goes wrong is raised by the iteration.
        """
        message = operations_pb2.WatchSessionsRequest(uid=uid or "", direction=_spell(direction))
        attempt = Attempt("watch sessions", timeout or math.inf, uid or "")
        stream = self._operations.WatchSessions(message, timeout=timeout, metadata=self._metadata())
        told = functools.partial(read_event, server=self._reached, is_hidden=self._is_hidden, called=self._called)
        read = self._guarded(told)
        return Watch(stream, read, functools.partial(self._failure_of, attempt))

    def check_authentication(self) -> AuthenticationFacts:
        """Whom the control server takes this caller for.

        Raises:
            SciStreamError: AUTHENTICATION_REQUIRED, TOKEN_REFUSED, OLD_CONTROL_SERVER and others.
        """
        message, attempt = operations_pb2.CheckAuthenticationRequest(), Attempt("check a token", self._timeout)
        return self._finish(self._operations.CheckAuthentication, message, attempt, read_authentication)

    def server_facts(self) -> ServerFacts:
        """What the control server is.

        Raises:
            SciStreamError: OLD_CONTROL_SERVER, or why it cannot be talked to.
        """
        message, attempt = operations_pb2.GetServerFactsRequest(), Attempt("tell what it is", self._timeout)
        return self._finish(self._operations.GetServerFacts, message, attempt, read_facts)

    def check_health(self) -> None:
        """Return where the control server serves.

        Raises:
            SciStreamError: CONTROL_SERVER_UNREACHABLE, OLD_CONTROL_SERVER and others.
        """
        # Late: who opens a session does not ask.
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

        message, attempt = health_pb2.HealthCheckRequest(), Attempt("tell how it is", self._timeout)
        check = health_pb2_grpc.HealthStub(self._dialed.channel).Check
        status = self._finish(check, message, attempt, lambda answer: int(answer.status))
        if status != health_pb2.HealthCheckResponse.SERVING:
            reason = "it is there, and does not serve: it starts or ends"
            raise SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server=self._name, reason=reason)

    @property
    def _timeout(self) -> float:
        return self.control_server.timeout

    @property
    def _name(self) -> str:
        return str(self.control_server.address)

    def _start(
        self, method: Any, message: Any, attempt: Attempt, read: Callable[[Any], _Value], extra: _Metadata = ()
    ) -> Pending[_Value]:
        future = method.future(message, timeout=attempt.seconds, metadata=self._metadata(extra))
        return Pending(future, self._guarded(read), functools.partial(self._failure_of, attempt))

    def _failure_of(self, attempt: Attempt, call: grpc.Call) -> SciStreamError:
        return failure_of(call, self.control_server, attempt, self._dialed.hop)

    def _finish(
        self, method: Any, message: Any, attempt: Attempt, read: Callable[[Any], _Value], extra: _Metadata = ()
    ) -> _Value:
        call = self._start(method, message, attempt, read, extra)
        try:
            return call.result()
        finally:
            call.cancel()

    def _metadata(self, extra: _Metadata = ()) -> _Metadata:
        return ((AUTHORIZATION, self.control_server.token or OLD_NO_AUTH), *extra)

    def _guarded(self, read: Callable[[Any], _Value]) -> Callable[[Any], _Value]:
        def guarded(message: Any) -> _Value:
            try:
                return read(message)
            except SciStreamError as error:
                words = f"its answer makes no sense: {error.seen}"
                raise SciStreamError(Code.CONTROL_SERVER_BROKEN, server=self._name, words=words) from None

        return guarded

    def _read_entry_points(self, message: Any) -> tuple[str, ...]:
        return reachable(message.listeners, self._reached, is_hidden=self._is_hidden, called=self._called)

    def _read_answer(self, message: Any) -> Answer:
        targets = tuple(str(Endpoint.parse(target)) for target in message.prod_listeners)
        return Answer(self._read_entry_points(message), targets)

    def _read_sessions(self, message: Any) -> tuple[Session, ...]:
        read = functools.partial(read_session, server=self._reached, is_hidden=self._is_hidden, called=self._called)
        return tuple(map(read, message.sessions))


def _wishes(asked: SessionRequest) -> _Metadata:
    """What the deployed messages have no field for. Who does not tell the encryption is taken for a deployed client."""
    told = {
        ENCRYPTION_METADATA: asked.encryption.value,
        HALF_CLOSE_METADATA: "1" if asked.half_close else "",
        LEASE_METADATA: "" if asked.lease is None else str(asked.lease),
        PEER_ENGINE_METADATA: asked.peer,
        PORTS_METADATA: ",".join(map(str, asked.ports)),
        RATE_METADATA: str(asked.rate) if asked.rate else "",
        SOURCES_METADATA: ",".join(map(str, asked.sources)),
        TRANSPORT_METADATA: asked.transport.value,
    }
    return tuple((key, value) for key, value in told.items() if value)


def _spell(direction: Direction | None) -> str:
    return direction.value if direction else ""


def connect(control_server: ControlServer) -> Connection:
    """Open a channel. Nothing is sent before the first call; an SSH host on the way is connected to at once.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE, AUTHENTICATION_REFUSED, TOKEN_IN_PLAIN_TEXT;
            SSH_... and CONTROL_PORT_CLOSED, of a control server behind SSH.
    """
    return Connection(control_server, dial(control_server))
