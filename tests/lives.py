"""What the tests of lives and deaths share: the calls of one session, and streams whose bytes are counted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import psutil

from scistream.errors import SciStreamError
from scistream.protocol import (
    DIRECTION_METADATA,
    ENCRYPTION_METADATA,
    ERROR_METADATA,
    SESSION_KEY_METADATA,
    control_pb2_grpc,
    operations_pb2_grpc,
)
from scistream.protocol import control_pb2 as wire
from scistream.protocol import operations_pb2 as more

__all__ = ["WAIT", "Calls", "Stream", "counting_target", "error_of", "kill", "wait_until"]

WAIT = 60
_BLOCK = 1 << 16


class Calls:
    """The calls to one control server, over one channel, which finds a server that was started again.

    `wishes` are the metadata of its requests: where they are not named, none, as deployed clients have none; but for
    Stunnel, which carries nothing unencrypted, those of a client that asks for encryption.
    """

    def __init__(self, server: Any, wishes: tuple | None = None) -> None:
        self.channel = server.channel()
        self.stub = control_pb2_grpc.ControlStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)
        self._threads = ThreadPoolExecutor(64)
        encrypted = ((ENCRYPTION_METADATA, "tls-psk"),) if server.engine == "stunnel" else ()
        self._wishes = encrypted if wishes is None else wishes

    def request(self, uid: str, role: str = "PROD", number: int = 1, metadata: tuple | None = None) -> Future:
        message = wire.Request(uid=uid, role=role, num_conn=number)
        metadata = self._wishes if metadata is None else metadata
        return self._threads.submit(self.stub.req, message, metadata=metadata, timeout=WAIT, wait_for_ready=True)

    def hello(self, uid: str, *targets: str, role: str = "PROD", only: str = "") -> wire.AppResponse:
        metadata = ((DIRECTION_METADATA, only),) if only else ()
        return self.stub.hello(
            wire.Hello(uid=uid, role=role, prod_listeners=targets), metadata=metadata, timeout=WAIT, wait_for_ready=True
        )

    def register(
        self, uid: str, *targets: str, role: str = "PROD", number: int = 1, metadata: tuple | None = None
    ) -> list[str]:
        reply = self.request(uid, role, number, metadata)
        self.hello(uid, *targets, role=role)
        return list(reply.result(WAIT).listeners)

    def update(self, uid: str, *targets: str, role: str = "PROD", key: bytes | None = None) -> None:
        metadata = ((SESSION_KEY_METADATA, key),) if key else ()
        change = wire.UpdateTargets(uid=uid, role=role, remote_listeners=targets)
        self.stub.update(change, metadata=metadata, timeout=WAIT, wait_for_ready=True)

    def open(self, uid: str, *targets: str, role: str = "PROD", number: int = 1, key: bytes | None = None) -> list[str]:
        entry_points = self.register(uid, *targets, role=role, number=number)
        self.update(uid, *targets, role=role, key=key)
        return entry_points

    def release(self, uid: str) -> None:
        self.stub.release(wire.Release(uid=uid), timeout=WAIT, wait_for_ready=True)

    def drain(self, uid: str) -> None:
        self.operations.DrainSession(more.DrainSessionRequest(uid=uid), timeout=WAIT, wait_for_ready=True)

    def sessions(self) -> list[more.Session]:
        reply = self.operations.ListSessions(more.ListSessionsRequest(), timeout=WAIT, wait_for_ready=True)
        return list(reply.sessions)

    def session(self, uid: str) -> more.Session:
        (found,) = [session for session in self.sessions() if session.uid == uid]
        return found

    def states(self) -> dict[str, str]:
        return {session.uid: session.state for session in self.sessions()}

    def facts(self) -> more.ServerFacts:
        return self.operations.GetServerFacts(more.GetServerFactsRequest(), timeout=WAIT, wait_for_ready=True)


def error_of(error: BaseException) -> SciStreamError:
    """What a call failed with, of the catalogue."""
    assert isinstance(error, grpc.Call), error
    found = SciStreamError.from_wire(dict(error.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own time limit ends it otherwise."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.02)


def kill(process: psutil.Process) -> None:
    """SIGKILL for one process, and no other that has got its pid."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


class Stream:
    """Bytes that are sent without an end, until `end` says how many there were and their digest."""

    def __init__(self, entry_point: str) -> None:
        host, _, port = entry_point.rpartition(":")
        self._connection = socket.create_connection((host.strip("[]"), int(port)), timeout=WAIT)
        self._digest = hashlib.sha256()
        self._ended = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        block = os.urandom(_BLOCK)
        # Where it is cut, the thread ends, and `goes_on` tells.
        with contextlib.suppress(OSError):
            # The pause leaves the processors to those who are tested.
            while not self._ended.wait(0.002):
                self._connection.sendall(block)
                self._digest.update(block)
                self.sent += len(block)

    def goes_on(self) -> None:
        """Returns when some more bytes have gone out."""
        more_than = self.sent + 10 * _BLOCK
        wait_until(lambda: self.sent >= more_than or not self._thread.is_alive())
        assert self._thread.is_alive(), "the stream was cut"

    def end(self) -> tuple[int, str]:
        self._ended.set()
        self._thread.join()
        self._connection.close()
        return self.sent, self._digest.hexdigest()


class _Counting(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        digest, received = hashlib.sha256(), 0
        with contextlib.suppress(OSError):
            while data := self.request.recv(_BLOCK):
                digest.update(data)
                received += len(data)
        self.server.received.append((received, digest.hexdigest()))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


@contextlib.contextmanager
def counting_target() -> Iterator[_Server]:
    """A target that keeps what each of its connections brought, as bytes and digest, in `received`."""
    with _Server(("127.0.20.101", 0), _Counting) as server:
        server.received = []
        server.endpoint = "{}:{}".format(*server.server_address)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
