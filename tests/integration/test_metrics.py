"""The metrics port over real HTTP, with real data servers behind the figures."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable

import grpc
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from scistream.protocol import control_pb2 as old
from scistream.protocol import operations_pb2 as wire

WAIT = 30
# Seconds, less than it takes until those who hold a place without use are let go.
OWN_TURN = 2.5
HOST, PORT = "127.0.20.1", 22001
METRICS = (f"--metrics-ip={HOST}", f"--metrics-port={PORT}")
# As `python -m scistream.cli.s2cs`, less the ten seconds between two looks at the data servers.
_QUICK = """
from scistream.cli import s2cs
from scistream.control_server import sampling

sampling.INTERVAL = 0.1
s2cs.main()
"""


@pytest.fixture
def quick_server_factory(control_server_factory):
    """Control servers that ask their data servers all the time."""

    def make(*options: str, **more):
        server = control_server_factory(options=options, start=False, **more)
        assert server.command[1:3] == ["-m", "scistream.cli.s2cs"]
        server.command[1:3] = ["-c", _QUICK]
        return server.start()

    return make


def get(path: str = "/metrics", method: str = "GET", timeout: float = WAIT, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(HOST, PORT, timeout=timeout)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers["content-type"], reply.read()
    finally:
        connection.close()


def figures() -> dict[tuple[str, ...], float]:
    """By name, then the labels' values in the order of the labels' names."""
    status, kind, body = get()
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    return {
        (sample.name.removeprefix("scistream_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def until(true: Callable[[dict[tuple[str, ...], float]], bool]) -> dict[tuple[str, ...], float]:
    end = time.monotonic() + WAIT
    while not true(found := figures()):
        assert time.monotonic() < end, {key: value for key, value in found.items() if "bucket" not in key[0]}
        time.sleep(0.05)
    return found


def of_session(found: dict[tuple[str, ...], float], uid: str = "one") -> dict[str, float]:
    return {key[0].removeprefix("session_"): value for key, value in found.items() if key[1:] == ("inbound", uid)}


def open_session(server, uid: str, target: str) -> str:
    stub = server.control()
    reply = stub.req.future(old.Request(uid=uid, role="PROD", num_conn=1), timeout=WAIT)
    stub.hello(old.Hello(uid=uid, role="PROD", prod_listeners=[target]), timeout=WAIT)
    (entry_point,) = reply.result().listeners
    stub.update(old.UpdateTargets(uid=uid, role="PROD", remote_listeners=[target]), timeout=WAIT)
    return entry_point


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_u64_the_figures_follow_a_stream_through_traffic_a_restart_and_its_release(
    quick_server_factory, echo_target, round_trip, engine
):
    server = quick_server_factory(*METRICS, engine=engine)
    assert figures().items() >= {("ports",): 100, ("ports_free",): 100, ("sessions", "active"): 0}.items()
    entry_point = open_session(server, "one", echo_target.endpoint)
    data = os.urandom(100_000)
    assert round_trip(entry_point, data) == data
    found = until(lambda found: of_session(found).get("from_targets_bytes_total") == 100_000)
    assert of_session(found)["to_targets_bytes_total"] == 100_000
    assert found.items() >= {("ports_free",): 99, ("sessions", "active"): 1}.items()
    assert time.time() - WAIT < of_session(found)["idle_since_timestamp_seconds"] <= time.time()
    before = of_session(until(lambda found: of_session(found)["connections_open"] == 0))

    for process in server.data_servers():
        if process.parent() is None or process.parent().pid == server.pid:
            process.kill()
    found = until(lambda found: found["data_server_restarts_total",] == 1 and found["sessions", "active"] == 1)
    after = of_session(found)
    assert after["connections_total"] >= before["connections_total"]
    assert round_trip(entry_point, data) == data
    found = until(lambda found: of_session(found)["from_targets_bytes_total"] == 200_000)
    assert of_session(found)["to_targets_bytes_total"] == 200_000
    assert of_session(found)["connections_total"] > before["connections_total"]

    server.control().release(old.Release(uid="one"), timeout=WAIT)
    found = until(lambda found: found["ports_free",] == 100)
    assert of_session(found) == {}
    assert (found["data_server_restarts_total",], found["sessions", "active"]) == (1, 0)
    assert found["call_seconds_count", "release", "OK"] == 1


def test_u64_an_open_connection_is_counted_while_it_is_open(quick_server_factory, echo_target):
    server = quick_server_factory(*METRICS)
    host, _, port = open_session(server, "one", echo_target.endpoint).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as connection:
        connection.sendall(b"x")
        until(lambda found: of_session(found).get("connections_open") == 1)
    until(lambda found: of_session(found)["connections_open"] == 0)


def test_the_figures_of_a_data_server_go_on_when_another_control_server_takes_it_over(
    quick_server_factory, echo_target, round_trip
):
    server = quick_server_factory(*METRICS)
    entry_point = open_session(server, "one", echo_target.endpoint)
    assert round_trip(entry_point, b"x" * 1000) == b"x" * 1000
    until(lambda found: of_session(found).get("from_targets_bytes_total") == 1000)
    server.restart()
    until(lambda found: of_session(found).get("from_targets_bytes_total") == 1000)
    assert round_trip(entry_point, b"x" * 500) == b"x" * 500
    found = until(lambda found: of_session(found).get("from_targets_bytes_total") == 1500)
    assert found["data_server_restarts_total",] == 0


def test_a_caller_that_goes_away_and_a_watch_are_counted_and_leave_nothing(control_server_factory):
    server = control_server_factory(options=METRICS)
    waiting = server.control().req.future(old.Request(uid="one", role="PROD", num_conn=1))
    watches = [server.operations().WatchSessions(wire.WatchSessionsRequest()) for _ in range(3)]
    until(lambda found: found["watchers",] == 3 and found["sessions", "requested"] == 1)
    waiting.cancel()
    for watch in watches:
        watch.cancel()
    found = until(lambda found: found["watchers",] == 0 and found["sessions", "requested"] == 0)
    assert found["call_seconds_count", "req", "CANCELLED"] == 1
    with pytest.raises(grpc.RpcError):
        server.control().req(old.Request(uid="two", role="PROD", num_conn=1), timeout=0.1)
    until(lambda found: found.get(("call_seconds_count", "req", "CANCELLED")) == 2)


def test_the_page_is_one_and_nothing_else_is_there(control_server_factory):
    server = control_server_factory(options=METRICS)
    status, kind, body = get(Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert "scistream_certificate_left_days" in {family.name for family in parse_openmetrics(body.decode())}
    assert get("/")[0] == get("/metrics/../etc/passwd")[0] == 404
    assert get("/metrics?name=x")[0] == 200
    assert get(method="POST")[0] == 405
    assert get(method="HEAD")[2] == b""
    for rubbish in (b"\r\n\r\n", b"GET\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n", b"x" * 100_000, b""):
        with socket.create_connection((HOST, PORT), timeout=WAIT) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert get()[0] == 200
    assert "unforeseen" not in server.words()


def test_u04_the_metrics_listen_where_they_were_told_and_nowhere_where_they_were_not(control_server_factory):
    server = control_server_factory(options=(f"--metrics-port={PORT}",))
    assert ("127.0.0.1", PORT) in listening_of(server.pid)
    server.end()
    server.command.append("--metrics-ip=::1")
    server.start()
    assert listening_of(server.pid) == {(HOST, 22000), ("::1", PORT)}
    other = control_server_factory(address="127.0.20.2")
    assert listening_of(other.pid) == {("127.0.20.2", 22000)}


def listening_of(pid: int) -> set[tuple[str, int]]:
    found = psutil.Process(pid).net_connections("tcp")
    return {(each.laddr.ip.removeprefix("::ffff:"), each.laddr.port) for each in found if each.status == "LISTEN"}


@pytest.mark.parametrize(
    ("option", "code"),
    [(f"--metrics-ip={HOST}", "METRICS_PORT_IN_USE"), ("--metrics-ip=192.0.2.200", "LISTEN_ADDRESS_FOREIGN")],
)
def test_a_metrics_port_that_cannot_be_had_is_an_error_and_nothing_was_touched(control_server_factory, option, code):
    with socket.create_server((HOST, PORT)):
        server = control_server_factory(options=(option, f"--metrics-port={PORT}"), start=False)
        found = subprocess.run(server.command, check=False, capture_output=True, text=True, timeout=WAIT)
    assert found.returncode == 4
    assert f"[{code}]" in found.stderr
    assert f":{PORT}" in found.stderr
    if code == "METRICS_PORT_IN_USE":
        assert f"(pid {os.getpid()})" in found.stderr
    assert not (server.state_directory / "journal.sqlite3").exists()


def test_scrapers_that_say_nothing_hold_neither_others_nor_the_end_up(control_server_factory):
    server = control_server_factory(options=METRICS)
    silent = [socket.create_connection((HOST, PORT), timeout=WAIT) for _ in range(4)]
    assert get()[0] == 200
    assert server.end(signal.SIGTERM) == 0
    for connection in silent:
        with connection:
            assert connection.recv(1) == b""


def half_open() -> socket.socket:
    connection = socket.create_connection((HOST, PORT), timeout=WAIT)
    connection.sendall(b"GET /metrics HTTP/1.1\r\n")
    return connection


@pytest.mark.parametrize("count", [24, 300])
def test_requests_that_are_never_finished_keep_no_scrape_out(control_server_factory, count):
    control_server_factory(options=METRICS)
    silent = [half_open() for _ in range(count)]
    try:
        for _ in range(3):
            assert get(timeout=OWN_TURN)[0] == 200
            silent.append(half_open())
    finally:
        for connection in silent:
            connection.close()


def test_those_who_read_nothing_keep_no_scrape_out(control_server_factory):
    control_server_factory(options=METRICS)
    deaf = [half_open() for _ in range(24)]
    try:
        for connection in deaf:
            connection.sendall(b"\r\n")
        assert get(timeout=OWN_TURN)[0] == 200
    finally:
        for connection in deaf:
            connection.close()


def test_u34_the_audit_file_holds_who_did_what_to_which_session_and_the_end_of_each(
    control_server_factory, echo_target, tmp_path
):
    path = tmp_path / "audit"
    server = control_server_factory(options=(f"--audit-file={path}",))
    open_session(server, "one", echo_target.endpoint)
    open_session(server, "two", echo_target.endpoint)
    server.operations().ListSessions(wire.ListSessionsRequest(), timeout=WAIT)
    with pytest.raises(grpc.RpcError):
        server.control().release(old.Release(uid="nobody"), timeout=WAIT)
    server.control().release(old.Release(uid="one"), metadata=(("authorization", "a-secret"),), timeout=WAIT)
    (data_server,) = server.data_servers()
    data_server.kill()
    while '"restarted"' not in path.read_text():
        time.sleep(0.05)
    server.end(signal.SIGINT)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    acts = [(line["action"], line["uid"], line["who"], line["outcome"]) for line in lines]
    assert sorted(acts) == sorted(
        [
            *((action, uid, "NO_AUTH", "OK") for uid in ("one", "two") for action in ("req", "hello", "update")),
            ("release", "nobody", "NO_AUTH", "UID_UNKNOWN"),
            ("release", "one", "NO_AUTH", "OK"),
            *((action, "two", "control server", "OK") for action in ("lost", "restarted", "released")),
            ("released", "one", "control server", "OK"),
        ]
    )
    ends = {line["uid"]: line["why"] for line in lines if line["action"] == "released"}
    assert ends == {"one": "", "two": "the control server released everything at its end"}
    (lost,) = (line for line in lines if line["action"] == "lost")
    assert "SIGKILL" in lost["why"]
    assert {line["peer"].split(":")[1] for line in lines if line["peer"]} == {"127.0.0.1"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "a-secret" not in path.read_text() + server.words()


def test_u34_what_a_stop_releases_of_a_server_that_was_killed_is_in_the_audit_file(
    control_server_factory, echo_target, tmp_path
):
    path = tmp_path / "audit"
    server = control_server_factory(options=(f"--audit-file={path}",))
    open_session(server, "one", echo_target.endpoint)
    server.end(signal.SIGKILL)
    stop = [sys.executable, "-m", "scistream.cli.s2cs", f"--audit-file={path}", "stop", "--release"]
    subprocess.run([*stop, f"--state-directory={server.state_directory}"], check=True, timeout=WAIT)
    last = json.loads(path.read_text().splitlines()[-1])
    assert (last["action"], last["uid"], last["who"]) == ("released", "one", "control server")
