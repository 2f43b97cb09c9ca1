"""What callers without a token may hold open, over the wire: much, and not so much that others find no room."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA, operations_pb2
from scistream.protocol import control_pb2 as wire

WAIT = 30
REQUEST = "/scistream.Control/req"
# As `python -m scistream.cli.s2cs`, with less room and less patience for calls without a request.
_NARROW = """
from scistream.cli import s2cs
from scistream.control_server import reading

reading._PATIENCE, reading._WAITING = 2.0, (64, 20)
s2cs.main()
"""


def code_of(error: grpc.RpcError) -> Code:
    if error.code() is grpc.StatusCode.CANCELLED:
        # Seldom, gRPC ends the stream before the status is out: the request has not been read.
        return Code.TOO_MANY_CALLS
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    found = SciStreamError.from_wire(dict(error.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    assert error.details() == str(found)
    return found.code


def outcome(stream: Iterator[object]) -> Code | None:
    """None where a stream has begun."""
    try:
        next(stream)
    except grpc.RpcError as error:
        return code_of(error)
    return None


def listed(server) -> bool:
    """Whether somebody else is served."""
    server.operations().ListSessions(operations_pb2.ListSessionsRequest(), timeout=WAIT)
    return server.serves()


def unfinished(ended: threading.Event) -> Iterator[bytes]:
    """A request that does not come."""
    ended.wait()
    yield from ()


@pytest.fixture
def from_host() -> Iterator[Callable[[str, int, str], int]]:
    """Carries connections from another address of the loopback: `from_host("127.0.20.1", 22000, "127.0.20.77")`."""
    with contextlib.ExitStack() as stack:

        def carry(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)

        def make(host: str, port: int, other: str) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.20.99", 0)))

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        near = stack.enter_context(listener.accept()[0])
                        far = stack.enter_context(socket.create_connection((host, port), source_address=(other, 0)))
                        for pair in ((near, far), (far, near)):
                            threading.Thread(target=carry, args=pair, daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return listener.getsockname()[1]

        yield make


def test_health_streams_that_need_no_token_shut_nobody_out(control_server_factory):
    server = control_server_factory()
    stubs = [health_pb2_grpc.HealthStub(server.channel()) for _ in range(3)]
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for stub in stubs for _ in range(400)]
    with ThreadPoolExecutor(64) as pool:
        outcomes = list(pool.map(outcome, watches))
    assert (outcomes.count(None), outcomes.count(Code.TOO_MANY_CALLS)) == (8, 1192)
    assert listed(server)
    reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel())
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    assert outcome(reflection.ServerReflectionInfo(iter([asked]), timeout=WAIT)) is Code.TOO_MANY_CALLS
    for watch in watches:
        watch.cancel()
    until_begun = itertools.count()
    while outcome(reflection.ServerReflectionInfo(iter([asked]), timeout=WAIT)) is not None:
        assert next(until_begun) < 1000
    assert "RPC limit" not in server.words()


def test_calls_whose_request_never_comes_are_refused_from_one_host_and_others_are_served(
    control_server_factory, from_host
):
    server = control_server_factory(ssl=False, start=False)
    server.command[1:3] = ["-c", _NARROW]
    server.start()
    ended = threading.Event()
    channel = server.channel()
    with contextlib.ExitStack() as stack:
        stack.callback(ended.set)
        # Each takes a thread of this process, which is why the bound is narrow here.
        calls = [channel.stream_unary(REQUEST).future(unfinished(ended)) for _ in range(40)]
        port = from_host(server.address, server.port, "127.0.20.77")
        other = stack.enter_context(grpc.insecure_channel(f"127.0.20.99:{port}"))
        assert health_pb2_grpc.HealthStub(other).Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == 1
        found = [call.exception(WAIT) for call in calls]
    refused = [error for error in found if error.code() is not grpc.StatusCode.INVALID_ARGUMENT]
    assert (len(refused), {code_of(error) for error in refused}) == (20, {Code.TOO_MANY_CALLS})
    assert listed(server)


def test_a_thousand_requests_of_one_client_wait_for_their_hellos(control_server_factory):
    server = control_server_factory(port_range="22100-23199")
    stub = server.control()
    calls = [
        stub.req.future(wire.Request(uid=f"u{number}", role="PROD", num_conn=1), timeout=WAIT) for number in range(1000)
    ]
    count = itertools.count()
    operations = server.operations()
    while len(operations.ListSessions(operations_pb2.ListSessionsRequest(), timeout=WAIT).sessions) < 1000:
        assert next(count) < 1000
    assert not any(call.done() for call in calls)
    for call in calls:
        call.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_under_load_leaves_no_traceback_in_the_log(control_server_factory, number):
    server = control_server_factory()
    stub, operations = server.control(), server.operations()
    calls = [stub.req.future(wire.Request(uid=f"u{each}", role="PROD", num_conn=1)) for each in range(50)]
    watches = [operations.WatchSessions(operations_pb2.WatchSessionsRequest()) for _ in range(10)]
    health = [health_pb2_grpc.HealthStub(server.channel()).Watch(health_pb2.HealthCheckRequest()) for _ in range(8)]
    for stream in (*watches, *health):
        next(stream)
    assert server.end(number) == 0
    assert all(call.exception(WAIT) for call in calls)
    assert "Traceback" not in server.words()
