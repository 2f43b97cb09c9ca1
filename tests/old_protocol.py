"""A control server with the old protocol only, after protocol.md: for tests of what our client does against it.

It is real: gRPC over TLS, a thread that waits for each pending `hello`, and forwarders that carry bytes. It has the
deployed one's manners, too: every error is an exception whose words go out as UNKNOWN, an early `hello` is refused, and
a second `update` keeps the targets of the first. There is no `scistream.v1`, no health service and no reflection.

    with OldControlServer("127.0.0.1", 5000, range(5100, 5200), certificate, key) as server: ...
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from scistream.addresses import Endpoint
from scistream.protocol import control_pb2 as wire
from scistream.protocol.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

__all__ = ["Forwarder", "OldControlServer"]


class Forwarder:
    """A real TCP forwarder: one listener, one target, threads that copy."""

    def __init__(self, entry_point: Endpoint) -> None:
        self._listener = socket.create_server((entry_point.host, entry_point.port), backlog=16)
        self._open: list[socket.socket] = []

    def start(self, target: Endpoint) -> None:
        threading.Thread(target=self._accept, args=(target,), daemon=True).start()

    def close(self) -> None:
        # Without the shutdown, the listener would live on in the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for connection in (self._listener, *self._open):
            connection.close()

    def _accept(self, target: Endpoint) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((target.host, target.port))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)


class _DeployedError(Exception):
    """The deployed server raises bare exceptions; on the wire, their words are all that is left."""


@dataclass
class _Entry:
    role: str
    listeners: list[str]
    targets: list[str] = field(default_factory=list)
    greeted: threading.Event = field(default_factory=threading.Event)
    forwarders: list[Forwarder] = field(default_factory=list)
    runs: bool = False


class OldControlServer(ControlServicer):
    """The server; a context manager.

    Args:
        host: where it listens, control port and entry points.
        port: the control port.
        pool: the ports that it hands out.
        certificate: PEM; without it, the channel is plain text.
        key: PEM.
        hello_timeout: seconds that a `req` waits.
        late_req: a `req` is looked at only after a `hello` has come too early for it.
        broken_update: the words with which each `update` fails, as "[Errno 2] No such file or directory: 'haproxy'".
    """

    def __init__(
        self,
        host: str,
        port: int,
        pool: Sequence[int],
        certificate: Path | None = None,
        key: Path | None = None,
        *,
        hello_timeout: float = 20.0,
        broken_update: str = "",
        late_req: bool = False,
    ) -> None:
        self.address = Endpoint(host, port)
        self.calls: list[str] = []
        self.broken_update = broken_update
        self._pool = pool
        self._may_request = threading.Event()
        if not late_req:
            self._may_request.set()
        self._hello_timeout = hello_timeout
        self._entries: dict[str, _Entry] = {}
        self._server = grpc.server(ThreadPoolExecutor(max_workers=10), options=(("grpc.so_reuseport", 0),))
        add_ControlServicer_to_server(self, self._server)
        if certificate and key:
            pair = (key.read_bytes(), certificate.read_bytes())
            self._server.add_secure_port(str(self.address), grpc.ssl_server_credentials([pair]))
        else:
            self._server.add_insecure_port(str(self.address))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()
        for uid in list(self._entries):
            self._drop(uid)

    @property
    def uids(self) -> set[str]:
        """What is there, half-made entries included."""
        return set(self._entries)

    def req(self, request: Any, context: Any) -> Any:
        self._may_request.wait(self._hello_timeout)
        self.calls.append("req")
        if request.uid in self._entries:
            raise _DeployedError("Entry already found for uid")
        entry = self._entries[request.uid] = _Entry(request.role, self._reserve(request.num_conn))
        if not entry.greeted.wait(self._hello_timeout):
            # The deployed server forgets to take the entry away here, and so does this one.
            raise _DeployedError("Hello not received within the timeout period")
        targets = entry.targets if entry.role == "PROD" else []
        return wire.Response(listeners=entry.listeners, prod_listeners=targets)

    def hello(self, request: Any, context: Any) -> Any:
        self.calls.append("hello")
        if request.uid not in self._entries:
            self._may_request.set()
        entry = self._entry(request.uid)
        listeners: list[str] = []
        if request.role == "PROD":
            entry.targets = list(request.prod_listeners)
        else:
            listeners = entry.listeners
        entry.greeted.set()
        return wire.AppResponse(message="Sending listeners...", listeners=listeners)

    def update(self, request: Any, context: Any) -> Any:
        self.calls.append("update")
        entry = self._entry(request.uid)
        if self.broken_update:
            raise _DeployedError(f"Error during update: {self.broken_update}")
        if not entry.runs:
            self._run(entry, request.remote_listeners)
        return wire.Response(listeners=entry.listeners, prod_listeners=request.remote_listeners)

    def release(self, request: Any, context: Any) -> Any:
        self.calls.append("release")
        self._entry(request.uid)
        self._drop(request.uid)
        return wire.Response()

    def _entry(self, uid: str) -> _Entry:
        if uid not in self._entries:
            raise _DeployedError(f"entry not found for uid '{uid}'")
        return self._entries[uid]

    def _reserve(self, number: int) -> list[str]:
        taken = {listener for entry in self._entries.values() for listener in entry.listeners}
        names = (f"{self.address.host}:{port}" for port in self._pool)
        return list(itertools.islice((name for name in names if name not in taken), number))

    def _run(self, entry: _Entry, targets: Iterable[str]) -> None:
        ends = [Endpoint.parse(target) for target in targets]
        for listener, target in zip(entry.listeners, itertools.cycle(ends), strict=False):
            forwarder = Forwarder(Endpoint.parse(listener))
            entry.forwarders.append(forwarder)
            forwarder.start(target)
        entry.runs = True

    def _drop(self, uid: str) -> None:
        for forwarder in self._entries.pop(uid).forwarders:
            forwarder.close()
