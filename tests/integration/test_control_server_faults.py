"""The control server's rows of the faults table, against real `s2cs` processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from scistream.errors import Code, SciStreamError
from scistream.protocol import (
    ENCRYPTION_METADATA,
    ERROR_METADATA,
    SESSION_KEY_METADATA,
    control_pb2_grpc,
    operations_pb2_grpc,
)
from scistream.protocol import control_pb2 as wire
from scistream.protocol import operations_pb2 as more

WAIT = 30
NO_TOKEN = (("authorization", "INVALID_TOKEN"),)


class Facility:
    """The calls of one session on one control server; the request waits in a thread of its own."""

    def __init__(self, server) -> None:
        self.server = server
        self.channel = server.channel()
        self.stub = control_pb2_grpc.ControlStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)
        self._threads = ThreadPoolExecutor(64)
        # It carries nothing unencrypted, and who says nothing gets nothing else.
        self._wishes = ((ENCRYPTION_METADATA, "tls-psk"),) if server.engine == "stunnel" else ()

    def request(self, uid: str, role: str = "PROD", number: int = 1):
        message = wire.Request(uid=uid, role=role, num_conn=number, rate=10000)
        return self._threads.submit(self.stub.req, message, metadata=NO_TOKEN + self._wishes, timeout=WAIT)

    def register(self, uid: str, *targets: str, role: str = "PROD", number: int = 1) -> wire.Response:
        reply = self.request(uid, role, number)
        self.stub.hello(wire.Hello(uid=uid, role=role, prod_listeners=targets), timeout=WAIT)
        return reply.result(WAIT)

    def update(self, uid: str, *targets: str, role: str = "PROD", key: bytes | None = None) -> wire.Response:
        metadata = ((SESSION_KEY_METADATA, key),) if key else ()
        change = wire.UpdateTargets(uid=uid, role=role, remote_listeners=targets)
        return self.stub.update(change, metadata=metadata, timeout=WAIT)

    def open(self, uid: str, *targets: str, role: str = "PROD", number: int = 1, key: bytes | None = None):
        reply = self.register(uid, *targets, role=role, number=number)
        self.update(uid, *targets, role=role, key=key)
        return reply

    def release(self, uid: str) -> None:
        self.stub.release(wire.Release(uid=uid), timeout=WAIT)

    def sessions(self) -> list[more.Session]:
        return list(self.operations.ListSessions(more.ListSessionsRequest(), timeout=WAIT).sessions)


def error_of(raised: pytest.ExceptionInfo[grpc.RpcError]) -> SciStreamError:
    found = SciStreamError.from_wire(dict(raised.value.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    return found


def listening_of(pid: int) -> set[tuple[str, int]]:
    found = psutil.Process(pid).net_connections("tcp")
    return {(each.laddr.ip.removeprefix("::ffff:"), each.laddr.port) for each in found if each.status == "LISTEN"}


@pytest.mark.parametrize("address", ["127.0.20.1", "::1"])
def test_u04_the_control_port_and_the_entry_points_are_where_they_were_told_and_nowhere_else(
    control_server_factory, echo_target, address
):
    server = control_server_factory(address=address)
    assert listening_of(server.pid) == {(address, 22000)}
    facility = Facility(server)
    reply = facility.open("one", echo_target.endpoint)
    (data_server,) = server.data_servers()
    assert listening_of(data_server.pid) == {(address, 22100)}
    assert list(reply.listeners) == ["[::1]:22100" if address == "::1" else "127.0.20.1:22100"]
    facility.release("one")


def test_u08_a_uid_with_a_path_is_refused_and_writes_nothing(control_server_factory, tmp_path):
    server = control_server_factory()
    before = sorted(tmp_path.rglob("*"))
    for uid in ("../x", "a/b", "a\nb", ""):
        with pytest.raises(grpc.RpcError) as raised:
            Facility(server).stub.req(wire.Request(uid=uid, role="PROD", num_conn=1, rate=1), timeout=WAIT)
        assert error_of(raised).code is Code.BAD_UID
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(tmp_path.rglob("*")) == before


def test_u21_pending_requests_delay_nobody_and_leave_with_their_clients(control_server_factory, echo_target):
    server = control_server_factory(port_range="22100-22129", options=["--quarantine=0"])
    facility, polite, broken = (Facility(server) for _ in range(3))
    messages = [wire.Request(uid=f"waiting-{number}", role="PROD", num_conn=1) for number in range(20)]
    requests = [(polite, broken)[index % 2].stub.req.future(message) for index, message in enumerate(messages)]
    wait_until(lambda: len(facility.sessions()) == 20)
    facility.open("one", echo_target.endpoint)
    facility.release("one")
    assert not any(request.done() for request in requests)
    # Half of them say that they go, of the others the connection breaks.
    for request in requests[::2]:
        request.cancel()
    broken.channel.close()
    wait_until(lambda: facility.sessions() == [])
    reply = facility.register("all", echo_target.endpoint, number=30)
    assert len(reply.listeners) == 30


def test_u25_more_ports_than_there_are_is_an_error_that_names_who_holds_them(control_server_factory, echo_target):
    server = control_server_factory(port_range="22100-22104")
    facility = Facility(server)
    facility.open("one", echo_target.endpoint, number=2)
    with socket.create_server(("127.0.20.1", 22103)), pytest.raises(grpc.RpcError) as raised:
        facility.request("two", number=3).result(WAIT)
    error = error_of(raised)
    assert (error.code, raised.value.code()) == (Code.PORTS_EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "3 ports were asked for, 2 of 5 in 22100-22104 are free" in str(error)
    assert re.search(rf"127\.0\.20\.1:22103 by (pytest|python[0-9.]*) \(pid {os.getpid()}\)", str(error))
    assert [session.uid for session in facility.sessions()] == ["one"]


@pytest.mark.parametrize("number", [0, -1, 10**6])
def test_u26_a_number_of_connections_that_makes_no_sense(control_server_factory, number):
    with pytest.raises(grpc.RpcError) as raised:
        Facility(control_server_factory()).request("one", number=number).result(WAIT)
    assert error_of(raised).code is Code.BAD_CONNECTIONS


def test_u28_an_update_fails_with_the_name_that_does_not_resolve_and_leaves_no_process(control_server_factory):
    server = control_server_factory()
    facility = Facility(server)
    facility.register("one", "no-such-host.invalid:5074")
    with pytest.raises(grpc.RpcError) as raised:
        facility.update("one", "no-such-host.invalid:5074")
    error = error_of(raised)
    assert error.code is Code.TARGET_UNRESOLVED
    assert "the name of the target no-such-host.invalid:5074 does not resolve on the gateway: " in str(error)
    assert "getent hosts no-such-host.invalid" in str(error)
    (session,) = facility.sessions()
    assert session.state == "failed"
    assert session.failure == str(error)
    assert server.data_servers() == []
    facility.release("one")
    assert facility.sessions() == []
    assert server.files("one") == []


def test_u28_a_data_server_that_dies_later_and_cannot_be_started_again_fails_its_session_until_release(
    control_server_factory, echo_target, is_free
):
    server = control_server_factory()
    facility = Facility(server)
    facility.open("one", echo_target.endpoint)
    obstacle = server.state_directory / "one.psk"
    obstacle.mkdir()
    (data_server,) = server.data_servers()
    data_server.kill()
    wait_until(lambda: str(obstacle) in facility.sessions()[0].failure)
    assert "HAProxy of session one ended while it served the stream (signal SIGKILL)" in server.words()
    assert not is_zombie(data_server)
    assert server.data_servers() == []
    # The port is the session's, until it is released or tried anew.
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.20.1", 22100), reuse_port=False)
    obstacle.rmdir()
    facility.update("one", echo_target.endpoint)
    assert facility.sessions()[0].state == "active"
    facility.release("one")
    assert server.files("one") == []
    assert is_free("127.0.20.1:22100")


def test_u35_a_role_that_is_none_is_refused(control_server_factory):
    with pytest.raises(grpc.RpcError, match="'BOTH' is not a direction") as raised:
        Facility(control_server_factory()).request("one", role="BOTH").result(WAIT)
    assert error_of(raised).code is Code.BAD_ROLE


def test_u36_one_uid_at_both_ends_on_one_gateway(control_server_factory, echo_target, round_trip):
    server = control_server_factory()
    facility = Facility(server)
    inbound = facility.open("one", echo_target.endpoint)
    outbound = facility.open("one", *inbound.listeners, role="CONS")
    assert round_trip(outbound.listeners[0], b"both ways") == b"both ways"
    assert server.files("one")[:2] == ["one.conf", "one.log"]
    assert "one.outbound.conf" in server.files("one")
    facility.release("one")
    assert server.data_servers() == []
    assert server.files("one") == []


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "stunnel"])
def test_u40_sigterm_leaves_the_stream_and_the_next_start_adopts_it(
    control_server_factory, echo_target, round_trip, is_free, engine
):
    server = control_server_factory(engine=engine)
    facility = Facility(server)
    key = os.urandom(32)
    facility.open("one", echo_target.endpoint, key=key)
    before = facility.sessions()
    running = {process.pid for process in server.data_servers()}
    assert server.end(signal.SIGTERM) == 0
    assert {process.pid for process in server.data_servers()} == running
    if engine != "stunnel":  # its entry point speaks TLS
        assert round_trip("127.0.20.1:22100", b"while nobody is there") == b"while nobody is there"

    server.start()
    assert facility.sessions() == before
    assert {process.pid for process in server.data_servers()} == running
    facility.update("one", echo_target.endpoint, key=key)
    facility.release("one")
    assert server.data_servers() == []
    assert server.files("one") == []
    assert is_free("127.0.20.1:22100")


def test_u40_an_adopted_data_server_is_watched(control_server_factory, echo_target):
    server = control_server_factory()
    Facility(server).open("one", echo_target.endpoint)
    server.restart()
    (data_server,) = server.data_servers()
    data_server.kill()
    wait_until(lambda: Facility(server).sessions()[0].restarts == 1)


def test_u40_ctrl_c_releases_everything(control_server_factory, echo_target, is_free):
    server = control_server_factory()
    facility = Facility(server)
    for uid in ("one", "two", "three"):
        facility.open(uid, echo_target.endpoint)
    waiting = facility.request("four")
    wait_until(lambda: len(facility.sessions()) == 4)
    assert server.end(signal.SIGINT) == 0
    with pytest.raises(grpc.RpcError) as raised:
        waiting.result(WAIT)
    assert error_of(raised).code is Code.CONTROL_SERVER_ENDING
    assert server.data_servers() == []
    assert sorted(path.name for path in server.state_directory.iterdir()) == ["journal.sqlite3", "s2cs.lock"]
    assert all(is_free(f"127.0.20.1:{port}") for port in range(22100, 22105))


def test_a_start_that_was_cut_off_leaves_no_process(control_server_factory, echo_target):
    """A crash between the start of a data server and the note of its pid."""
    import sqlite3

    server = control_server_factory()
    Facility(server).open("one", echo_target.endpoint)
    server.end(signal.SIGKILL)
    with sqlite3.connect(server.state_directory / "journal.sqlite3") as database:
        database.execute("UPDATE sessions SET pid = NULL, started = NULL, state = 'registered'")
    assert len(server.data_servers()) == 1
    server.start()
    facility = Facility(server)
    assert [session.state for session in facility.sessions()] == ["registered"]
    # The control server serves before what was left has ended: that may be frozen, and take seconds.
    wait_until(lambda: server.data_servers() == [])
    facility.update("one", echo_target.endpoint)
    assert len(server.data_servers()) == 1


def test_a_release_during_a_starting_update_leaves_nothing(control_server_factory, echo_target):
    server = control_server_factory()
    facility = Facility(server)
    for number in range(5):
        uid = f"one-{number}"
        facility.register(uid, echo_target.endpoint)
        update = facility.stub.update.future(
            wire.UpdateTargets(uid=uid, role="PROD", remote_listeners=[echo_target.endpoint]), timeout=WAIT
        )
        facility.release(uid)
        update.exception(WAIT)
        assert facility.sessions() == []
        assert server.data_servers() == []
        assert server.files(uid) == []


def test_u05_the_key_is_in_no_file_that_stays_and_in_no_word(control_server_factory, echo_target, tmp_path):
    server = control_server_factory(engine="stunnel", options=["--verbose"])
    facility = Facility(server)
    key = os.urandom(32)
    facility.open("one", echo_target.endpoint, key=key)
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and holds(path, key)]
    assert [path.name for path in holders] == ["one.psk"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    described = facility.operations.DescribeSession(more.DescribeSessionRequest(uid="one"), timeout=WAIT)
    assert described.sessions[0].encryption == "tls-psk"
    assert key.hex() not in str(described)
    facility.release("one")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and holds(path, key)]


def test_a_stunnel_session_without_a_key_is_refused(control_server_factory, echo_target):
    facility = Facility(control_server_factory(engine="stunnel"))
    with pytest.raises(grpc.RpcError) as raised:
        facility.open("one", echo_target.endpoint)
    assert error_of(raised).code is Code.SESSION_KEY_MISSING


def test_a_plain_text_server_takes_no_key(control_server_factory, echo_target):
    server = control_server_factory(engine="stunnel", ssl=False)
    with pytest.raises(grpc.RpcError) as raised:
        Facility(server).open("one", echo_target.endpoint, key=os.urandom(32))
    assert error_of(raised).code is Code.SESSION_KEY_MISSING
    assert "session key ignored" in server.words()


def test_u64_health_reflection_and_facts(control_server_factory):
    server = control_server_factory()
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel()))
    service = pool.FindServiceByName("scistream.Control")
    assert [method.name for method in service.methods] == ["req", "hello", "update", "release"]
    facts = server.operations().GetServerFacts(more.GetServerFactsRequest(), timeout=WAIT)
    assert (facts.authentication, facts.tls, facts.engine) == ("NO_AUTH", True, "haproxy")
    assert (facts.port_range, facts.ports_free, facts.sessions) == ("22100-22199", 100, 0)
    assert list(facts.certificate_names) == ["127.0.20.1"]
    assert {engine.name: engine.installed for engine in facts.engines} == dict.fromkeys(
        ("haproxy", "nginx", "stunnel", "nftables"), True
    )


def test_what_is_called_is_logged_with_the_peer_and_the_uid(control_server_factory, echo_target):
    server = control_server_factory()
    facility = Facility(server)
    uid = str(uuid.uuid4())
    facility.open(uid, echo_target.endpoint)
    facility.release(uid)
    lines = [line for line in server.words().splitlines() if uid in line]
    events = ["session requested", "session registered", "session active", "session released"]
    assert [event in line for event, line in zip(events, lines, strict=True)] == [True] * 4
    assert all("peer=ipv4:127.0.0.1:" in line for line in lines)
    assert "INVALID_TOKEN" not in server.words()


def holds(path: Path, key: bytes) -> bool:
    data = path.read_bytes()
    return key in data or key.hex().encode() in data.lower()


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition) -> None:
    """Returns when the condition holds; the test's own time limit ends it otherwise."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.02)


@pytest.mark.parametrize("method", ["scistream.Control/req", "scistream.v1.Operations/DescribeSession"])
def test_bytes_that_are_no_message_are_refused_in_words(control_server_factory, method):
    server = control_server_factory()
    with server.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/" + method)(b"\xff\xff\xff", timeout=WAIT)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(raised).code is Code.BAD_MESSAGE
    assert "is not one" in raised.value.details()
    assert "Traceback" not in server.words()


def test_u28_a_file_that_cannot_be_removed_fails_the_release_and_no_update_claims_success(
    control_server_factory, echo_target
):
    server = control_server_factory()
    facility = Facility(server)
    facility.open("one", echo_target.endpoint)
    obstacle = server.state_directory / "one.psk"
    obstacle.mkdir()
    for call in (lambda: facility.release("one"), lambda: facility.update("one", echo_target.endpoint)):
        with pytest.raises(grpc.RpcError) as raised:
            call()
        assert error_of(raised).code is Code.FILE_UNWRITABLE
        assert str(obstacle) in raised.value.details()
        assert facility.sessions()[0].state == "failed"
    assert server.data_servers() == []
    assert server.files("one") == ["one.psk"]
    obstacle.rmdir()
    facility.release("one")
    assert facility.sessions() == []


def test_a_log_that_nobody_reads_any_more_ends_no_service(control_server_factory, echo_target, is_free):
    server = control_server_factory(start=False)
    reader, writer = os.pipe()
    server.process = subprocess.Popen(
        server.command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, cwd=server.log.parent
    )
    os.close(writer)
    os.close(reader)
    server._wait_serving()
    facility = Facility(server)
    facility.open("one", echo_target.endpoint)
    facility.release("one")
    assert is_free("127.0.20.1:22100")
    assert facility.sessions() == []
    assert server.end() == 0


def test_a_journal_of_a_later_version_is_refused_and_names_what_still_runs(control_server_factory, echo_target):
    server = control_server_factory()
    Facility(server).open("one", echo_target.endpoint)
    (data_server,) = server.data_servers()
    server.end()
    with contextlib.closing(sqlite3.connect(server.state_directory / "journal.sqlite3")) as database:
        database.execute("PRAGMA user_version = 99")
    ended = subprocess.run(server.command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert ended.returncode == 4
    assert "it is of version 99" in ended.stderr
    assert "[JOURNAL_UNREADABLE]" in ended.stderr
    assert f"data servers still run: pid {data_server.pid}" in ended.stderr
