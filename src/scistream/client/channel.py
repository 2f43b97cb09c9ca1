"""One control server, called over gRPC: plain values in, plain values out, every failure an error of the catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

# What gRPC's core thinks of a connection is no message to a user; ours is. It reads this when it is loaded.
os.environ["GRPC_VERBOSITY"] = os.environ.get("GRPC_VERBOSITY", "NONE")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scistream import certificates
from scistream.addresses import Endpoint
from scistream.client.control_servers import ControlServer
from scistream.client.failures import Attempt, failure_of
from scistream.client.sessions import ServerFacts, Session, reachable, read_facts, read_session
from scistream.errors import Code, SciStreamError, one_line
from scistream.protocol import (
    AUTHORIZATION,
    DIRECTION_METADATA,
    SESSION_KEY_METADATA,
    control_pb2,
    control_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
)
from scistream.terms import OLD_NO_AUTH, Direction, Uid

__all__ = ["Answer", "Connection", "ControlServer", "Pending", "connect"]

_Value = TypeVar("_Value")
_Metadata = tuple[tuple[str, str | bytes], ...]

_CHANNEL_OPTIONS: Final = (
    # Every connection stands for itself: the failures of one are not remembered by the next.
    ("grpc.use_local_subchannel_pool", 1),
    # A gateway's control port is not behind a web proxy, whatever the environment says.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True)
class Answer:
    """What a control server answers on the old calls: addresses as text."""

    entry_points: tuple[str, ...]
    targets: tuple[str, ...]


class Pending(Generic[_Value]):
    """A call that is under way."""

    def __init__(
        self, future: grpc.Future[Any], read: Callable[[Any], _Value], fail: Callable[[grpc.Call], SciStreamError]
    ) -> None:
        self._future = future
        self._read = read
        self._fail = fail
        self._failed: SciStreamError | None = None

    def done(self) -> bool:
        """Whether the answer is there, or the failure."""
        return self._future.done()

    def cancel(self) -> None:
        """Give up waiting; nothing happens where the call is done."""
        self._future.cancel()

    def notify(self, callback: Callable[[], None]) -> None:
        """Call `callback` as soon as the call is done, from another thread."""
        self._future.add_done_callback(lambda _: callback())

    def result(self) -> _Value:
        """Wait for the answer.

        Raises:
            SciStreamError: what the control server says, or why it cannot be talked to.
        """
        try:
            return self._read(self._future.result())
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def failure(self, seconds: float) -> SciStreamError | None:
        """Wait that long at most: the call's failure, or None where it went well, was cancelled or goes on."""
        try:
            self._future.result(seconds)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            return None
        except grpc.RpcError as error:
            return self._translated(error)
        return None

    def _translated(self, error: grpc.RpcError) -> SciStreamError:
        # Once only: it may have to look at the port.
        self._failed = self._failed or self._fail(cast("grpc.Call", error))
        return self._failed


class Connection:
    """A channel to one control server. It is closed by `close`, or at the end of a `with`."""

    def __init__(self, control_server: ControlServer, channel: grpc.Channel) -> None:
        self.control_server = control_server
        self._channel = channel
        self._control = control_pb2_grpc.ControlStub(channel)
        self._operations = operations_pb2_grpc.OperationsStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def request(
        self, uid: Uid, direction: Direction, connections: int, rate: int, *, timeout: float | None = None
    ) -> Pending[Answer]:
        """Ask for a session. The answer comes when its end was registered by a `hello`, or `timeout` seconds later."""
        message = control_pb2.Request(uid=uid, role=direction.role, num_conn=connections, rate=rate)
        attempt = Attempt("open a session", timeout or self._timeout, uid)
        return self._start(self._control.req, message, attempt, self._read_answer)

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
        message = operations_pb2.DescribeSessionRequest(uid=uid, direction=direction.value if direction else "")
        attempt = Attempt("describe a session", self._timeout, uid)
        sessions = self._finish(self._operations.DescribeSession, message, attempt, self._read_sessions)
        if not sessions:
            raise SciStreamError(Code.UID_UNKNOWN, uid=uid)
        return sessions

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
        message, attempt = health_pb2.HealthCheckRequest(), Attempt("tell how it is", self._timeout)
        status = self._finish(self._health.Check, message, attempt, lambda answer: int(answer.status))
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
        metadata = ((AUTHORIZATION, self.control_server.token or OLD_NO_AUTH), *extra)
        future = method.future(message, timeout=attempt.seconds, metadata=metadata)
        return Pending(future, self._guarded(read), lambda call: failure_of(call, self.control_server, attempt))

    def _finish(
        self, method: Any, message: Any, attempt: Attempt, read: Callable[[Any], _Value], extra: _Metadata = ()
    ) -> _Value:
        call = self._start(method, message, attempt, read, extra)
        try:
            return call.result()
        finally:
            call.cancel()

    def _guarded(self, read: Callable[[Any], _Value]) -> Callable[[Any], _Value]:
        def guarded(message: Any) -> _Value:
            try:
                return read(message)
            except SciStreamError as error:
                words = f"its answer makes no sense: {error.seen}"
                raise SciStreamError(Code.CONTROL_SERVER_BROKEN, server=self._name, words=words) from None

        return guarded

    def _read_entry_points(self, message: Any) -> tuple[str, ...]:
        return reachable(message.listeners, self.control_server.address)

    def _read_answer(self, message: Any) -> Answer:
        targets = tuple(str(Endpoint.parse(target)) for target in message.prod_listeners)
        return Answer(self._read_entry_points(message), targets)

    def _read_sessions(self, message: Any) -> tuple[Session, ...]:
        return tuple(read_session(session, self.control_server.address) for session in message.sessions)


def connect(control_server: ControlServer) -> Connection:
    """Open a channel. Nothing is sent before the first call.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE, AUTHENTICATION_REFUSED.
    """
    _check_token(control_server)
    target = _target(control_server.address)
    if control_server.plain_text:
        return Connection(control_server, grpc.insecure_channel(target, _CHANNEL_OPTIONS))
    credentials = grpc.ssl_channel_credentials(_roots(control_server))
    return Connection(control_server, grpc.secure_channel(target, credentials, _CHANNEL_OPTIONS))


def _target(address: Endpoint) -> str:
    # Without the scheme, gRPC would take a host called "unix" for one.
    scheme = "ipv6" if address.is_ipv6 else "ipv4" if address.ip else "dns"
    return f"{scheme}:{address}"


def _roots(control_server: ControlServer) -> bytes | None:
    path = control_server.server_certificate
    if path is None:
        return None
    certificates.read(path, option="--server-cert (module: server_certificate)")
    return path.read_bytes()


def _check_token(control_server: ControlServer) -> None:
    # gRPC refuses it as well, and quotes it.
    token = control_server.token
    if token is not None and not (token.isascii() and token.isprintable() and token):
        words = "what is in SCISTREAM_TOKEN has characters that no token has"
        raise SciStreamError(Code.AUTHENTICATION_REFUSED, server=one_line(str(control_server.address)), words=words)
