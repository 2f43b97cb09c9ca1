"""`scistream.v1` and the draft's service over real gRPC: streams of events, bad bytes, and who goes away when."""

from __future__ import annotations

import base64
import json
import queue
import signal
import threading
import time

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from scistream.errors import Code, SciStreamError
from scistream.protocol import (
    ENCRYPTION_METADATA,
    ERROR_METADATA,
    SESSION_KEY_METADATA,
    control_pb2_grpc,
    operations_pb2_grpc,
)
from scistream.protocol import control_pb2 as old
from scistream.protocol import operations_pb2 as wire

WAIT = 30
WATCH = "/scistream.v1.Operations/WatchSessions"


class Watch:
    """A watch whose events are read by a thread of its own."""

    def __init__(self, server, **request: str) -> None:
        self.events: queue.Queue[wire.Event | grpc.RpcError] = queue.Queue()
        self.call = server.operations().WatchSessions(wire.WatchSessionsRequest(**request))
        # From here on everything that happens is told.
        self.call.initial_metadata()
        threading.Thread(target=self._read).start()

    def _read(self) -> None:
        try:
            for event in self.call:
                self.events.put(event)
        except grpc.RpcError as error:
            self.events.put(error)

    def until(self, kind: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while not found or found[-1][1] != kind:
            event = self.events.get(timeout=WAIT)
            assert isinstance(event, wire.Event), (found, event)
            found.append((event.session.uid, event.kind))
        return found

    def ending(self) -> grpc.RpcError:
        while isinstance(event := self.events.get(timeout=WAIT), wire.Event):
            pass
        return event


def code_of(error: grpc.RpcError) -> Code:
    found = SciStreamError.from_wire(dict(error.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    return found.code


def open_session(stub, uid: str, target: str):
    reply = stub.RequestStream.future(old.Request(uid=uid, role="PROD", num_conn=1), timeout=WAIT)
    stub.Hello(old.Hello(uid=uid, role="PROD", prod_listeners=[target]), timeout=WAIT)
    answer = reply.result()
    stub.UpdateTargets(old.UpdateTargets(uid=uid, role="PROD", remote_listeners=[target]), timeout=WAIT)
    return answer


def wait_until(true) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_u34_a_watch_over_the_wire_tells_a_life_from_its_beginning_to_its_end(control_server_factory, echo_target):
    server = control_server_factory()
    stub = control_pb2_grpc.SciStreamControlStub(server.channel())
    watch, other = Watch(server), Watch(server, uid="another")
    open_session(stub, "one", echo_target.endpoint)
    late = Watch(server, uid="one", direction="inbound")
    (data_server,) = server.data_servers()
    data_server.kill()
    stub.ReleaseStream(old.Release(uid="one"), timeout=WAIT)
    told = [kind for uid, kind in watch.until("released") if uid == "one"]
    assert told[:3] == ["requested", "registered", "active"]
    assert told[-1] == "released"
    assert late.until("released")[0] == ("one", "there")
    for each in (watch, other, late):
        each.call.cancel()
    assert other.events.empty() or isinstance(other.ending(), grpc.RpcError)


@pytest.mark.parametrize(("number", "released"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_who_watches_is_told_that_the_server_ends_and_of_all_that_it_releases_before(
    control_server_factory, echo_target, number, released
):
    server = control_server_factory()
    open_session(control_pb2_grpc.SciStreamControlStub(server.channel()), "one", echo_target.endpoint)
    watch = Watch(server)
    assert watch.until("there") == [("one", "there")]
    assert server.end(number) == 0
    if released:
        assert watch.until("released") == [("one", "released")]
    error = watch.ending()
    assert (error.code(), code_of(error)) == (grpc.StatusCode.UNAVAILABLE, Code.CONTROL_SERVER_ENDING)
    assert error.details().startswith("the control server is ending")


def test_bytes_that_are_no_message_get_our_words_on_the_stream_too(control_server_factory):
    server = control_server_factory()
    with pytest.raises(grpc.RpcError) as raised:
        list(server.channel().unary_stream(WATCH)(b"\xff\xff\xff", timeout=WAIT))
    assert (raised.value.code(), code_of(raised.value)) == (grpc.StatusCode.INVALID_ARGUMENT, Code.BAD_MESSAGE)
    assert "WatchSessions" in raised.value.details()
    with pytest.raises(grpc.RpcError) as raised:
        list(server.operations().WatchSessions(wire.WatchSessionsRequest(uid="../x"), timeout=WAIT))
    assert code_of(raised.value) is Code.BAD_UID


def test_u64_the_drafts_service_has_its_health_and_is_reflected(control_server_factory):
    server = control_server_factory()
    name = "scistream.SciStreamControl"
    health = health_pb2_grpc.HealthStub(server.channel())
    for service in ("", name, "scistream.Control", "scistream.v1.Operations"):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    first = next(iter(health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=WAIT)))
    assert first.status == health_pb2.HealthCheckResponse.SERVING
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel()))
    methods = pool.FindServiceByName(name).methods_by_name
    assert set(methods) == {"RequestStream", "Hello", "UpdateTargets", "ReleaseStream"}


def test_a_message_that_is_too_large_is_refused_and_a_thousand_requests_of_one_connection_are_not(
    control_server_factory,
):
    server = control_server_factory(port_range="20000-21023")
    channel = server.channel()
    stub, operations = control_pb2_grpc.ControlStub(channel), server.operations()
    with pytest.raises(grpc.RpcError) as raised:
        stub.hello(old.Hello(uid="one", prod_listeners=["x" * 300_000]), timeout=WAIT)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    waiting = [stub.req.future(old.Request(uid=f"n-{n}", role="PROD", num_conn=1)) for n in range(1000)]
    wait_until(lambda: len(operations.ListSessions(wire.ListSessionsRequest(), timeout=WAIT).sessions) == 1000)
    for call in waiting:
        call.cancel()
    wait_until(lambda: not operations.ListSessions(wire.ListSessionsRequest(), timeout=WAIT).sessions)


def test_who_asks_is_told_who_they_are_and_what_the_server_is(control_server_factory):
    server = control_server_factory(options=["--metrics-port=22001", "--metrics-ip=127.0.20.1", "--lease=60"])
    operations = server.operations()
    found = operations.CheckAuthentication(wire.CheckAuthenticationRequest(), timeout=WAIT)
    assert (found.owner, found.authentication, found.is_operator) == ("NO_AUTH", "NO_AUTH", False)
    facts = operations.GetServerFacts(wire.GetServerFactsRequest(), timeout=WAIT)
    assert (facts.metrics_address, facts.default_lease, list(facts.warnings)) == ("127.0.20.1:22001", 60, [])


_NARROW = """
from scistream.cli import s2cs
from scistream.control_server import events

events._WAITING = 8
s2cs.main()
"""


def test_a_watcher_that_does_not_read_is_told_that_it_fell_behind_and_holds_nobody_up(control_server_factory):
    server = control_server_factory(port_range="20000-20999", start=False)
    assert server.command[1:3] == ["-m", "scistream.cli.s2cs"]
    server.command[1:3] = ["-c", _NARROW]
    server.start()
    # What gRPC takes in for a program that does not read is less than what happens below.
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
    credentials = grpc.ssl_channel_credentials(server.certificate.read_bytes())
    with grpc.secure_channel(server.endpoint, credentials, options=options) as channel:
        slow = operations_pb2_grpc.OperationsStub(channel).WatchSessions(wire.WatchSessionsRequest())
        slow.initial_metadata()
        stub, operations = server.control(), server.operations()
        waiting = [stub.req.future(old.Request(uid=f"n-{n}", role="PROD", num_conn=1)) for n in range(1000)]
        wait_until(lambda: len(operations.ListSessions(wire.ListSessionsRequest(), timeout=WAIT).sessions) == 1000)
        for call in waiting:
            call.cancel()
        wait_until(lambda: not operations.ListSessions(wire.ListSessionsRequest(), timeout=WAIT).sessions)
        events: list[wire.Event] = []
        with pytest.raises(grpc.RpcError) as raised:
            events.extend(slow)
    assert (raised.value.code(), code_of(raised.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, Code.WATCH_TOO_SLOW)


def test_u60_every_refusal_has_its_status_and_the_error_over_the_wire(control_server_factory):
    server = control_server_factory(port_range="22100-22101", options=("--hello-timeout=0.1",))
    stub, operations = server.control(), server.operations()
    refusals = [
        (stub.req, old.Request(uid="a/b", role="PROD", num_conn=1), Code.BAD_UID, "INVALID_ARGUMENT"),
        (stub.req, old.Request(uid="one", role="both", num_conn=1), Code.BAD_ROLE, "INVALID_ARGUMENT"),
        (stub.req, old.Request(uid="one", role="PROD", num_conn=3), Code.PORTS_EXHAUSTED, "RESOURCE_EXHAUSTED"),
        (stub.req, old.Request(uid="one", role="PROD", num_conn=1), Code.HELLO_TIMEOUT, "DEADLINE_EXCEEDED"),
        (stub.update, old.UpdateTargets(uid="one", role="PROD"), Code.UID_UNKNOWN, "NOT_FOUND"),
        (stub.release, old.Release(uid="one"), Code.UID_UNKNOWN, "NOT_FOUND"),
        (operations.DescribeSession, wire.DescribeSessionRequest(uid="one"), Code.UID_UNKNOWN, "NOT_FOUND"),
        (operations.RenewSession, wire.RenewSessionRequest(uid="one", lease=-1), Code.BAD_LEASE, "INVALID_ARGUMENT"),
        (operations.DrainSession, wire.DrainSessionRequest(uid="one"), Code.UID_UNKNOWN, "NOT_FOUND"),
    ]
    for method, message, code, status in refusals:
        with pytest.raises(grpc.RpcError) as raised:
            method(message, timeout=WAIT)
        assert (code_of(raised.value), raised.value.code().name) == (code, status)
        assert "Exception calling application" not in raised.value.details()


def test_u62_the_key_of_a_session_is_in_no_log_and_the_log_is_where_it_was_told(
    control_server_factory, echo_target, tmp_path
):
    log, audit, key = tmp_path / "the.log", tmp_path / "the.audit", bytes(range(32))
    options = (f"--log-file={log}", f"--audit-file={audit}", "--verbose", "--log-format=json")
    server = control_server_factory(options=options, engine="stunnel")
    before = sorted(server.log.parent.iterdir())
    stub = server.control()
    asked = old.Request(uid="one", role="PROD", num_conn=1)
    reply = stub.req.future(asked, metadata=((ENCRYPTION_METADATA, "tls"),), timeout=WAIT)
    stub.hello(old.Hello(uid="one", role="PROD", prod_listeners=[echo_target.endpoint]), timeout=WAIT)
    reply.result()
    change = old.UpdateTargets(uid="one", role="PROD", remote_listeners=[echo_target.endpoint])
    metadata = (("authorization", "Bearer a-token"), (SESSION_KEY_METADATA, key))
    stub.update(change, metadata=metadata, timeout=WAIT)
    (data_server,) = server.data_servers()
    data_server.kill()
    wait_until(lambda: "lost" in log.read_text())
    server.end(signal.SIGINT)
    assert sorted(server.log.parent.iterdir()) == before
    assert server.words() == ""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"debug", "info", "warning"} <= {line["level"] for line in lines}
    told = log.read_text() + audit.read_text()
    for secret in ("a-token", key.hex(), base64.b64encode(key).decode(), repr(key)[2:20]):
        assert secret not in told
