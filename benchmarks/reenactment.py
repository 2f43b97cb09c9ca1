"""The design of the deployed control server, re-enacted from its description.

It is not that server's code, which is not on the package index, but what is said of it (faults table, U21): ten
threads, and every `req` keeps one of them until its `hello` comes. The deployed one waits 180 s for the hello; here
that is a parameter, so that a benchmark ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import grpc

from scistream.protocol import control_pb2 as wire
from scistream.protocol import control_pb2_grpc

__all__ = ["share_at_once"]

_THREADS: Final = 10
# What the deployed client sleeps between its `req` and its `hello` (U30).
_SLEEP: Final = 0.5


class _Blocking(control_pb2_grpc.ControlServicer):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[str, threading.Event] = {}

    def req(self, request: wire.Request, context: Any) -> wire.Response:
        said = self._waiting.setdefault(request.uid, threading.Event())
        came = said.wait(self._seconds)
        del self._waiting[request.uid]
        if not came:
            context.abort(grpc.StatusCode.UNKNOWN, "Hello not received within the timeout period")
        return wire.Response(listeners=["127.0.60.9:26100"])

    def hello(self, request: wire.Hello, context: Any) -> wire.AppResponse:
        if request.uid not in self._waiting:
            context.abort(grpc.StatusCode.UNKNOWN, f"entry not found for uid {request.uid!r}")
        self._waiting[request.uid].set()
        return wire.AppResponse(message="Sending parameters...")


@contextlib.contextmanager
def _serving(address: str, seconds: float) -> Iterator[grpc.Channel]:
    with ThreadPoolExecutor(_THREADS) as threads:
        server = grpc.server(threads)
        control_pb2_grpc.add_ControlServicer_to_server(_Blocking(seconds), server)
        server.add_insecure_port(address)
        server.start()
        try:
            with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
                yield channel
        finally:
            server.stop(None).wait()


def share_at_once(number: int, *, address: str = "127.0.60.9:26000", seconds: float = 2.0) -> float:
    """Request `number` sessions at once; the share that has an answer half as long again as a `req` waits."""
    with _serving(address, seconds) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        names = [f"session-{index}" for index in range(number)]
        messages = [wire.Request(uid=name, role="PROD", num_conn=1) for name in names]
        requests = [stub.req.future(message, timeout=1.5 * seconds) for message in messages]
        time.sleep(_SLEEP)
        hellos = [stub.hello.future(wire.Hello(uid=name, role="PROD")) for name in names]
        answered = sum(map(_went_well, requests))
        for hello in hellos:
            hello.cancel()
    return answered / number


def _went_well(call: Future[Any]) -> bool:
    try:
        call.result()
    except grpc.RpcError:
        return False
    return True
