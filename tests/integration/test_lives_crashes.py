"""Control servers that are killed, ended and started again while streams run: no byte is lost, nothing is left."""

from __future__ import annotations

import signal
import subprocess

import grpc
import psutil
import pytest

from lives import Calls, Stream, counting_target, error_of, kill, wait_until
from scistream.errors import Code

KEY = bytes(range(32))


@pytest.fixture
def target():
    with counting_target() as running:
        yield running


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "stunnel"])
def test_u34_a_stream_loses_no_byte_when_its_control_server_is_killed_and_started_again(
    control_server_factory, target, engine
):
    server = control_server_factory(engine=engine)
    calls = Calls(server)
    (inbound,) = calls.open("one", target.endpoint, key=KEY)
    (outbound,) = calls.open("one", inbound, role="CONS", key=KEY)
    stream = Stream(outbound)
    stream.goes_on()
    before = calls.sessions()
    running = {process.pid for process in server.data_servers()}
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        # Under load: sessions are being opened and waited for when it ends.
        busy = [calls.request(f"busy-{number}-{each}") for each in range(20)]
        server.end(number)
        stream.goes_on()
        server.start()
        stream.goes_on()
        # A request may find the new server: it then waits there for its hello.
        for each in busy:
            each.cancel()
    assert [session for session in calls.sessions() if session.uid == "one"] == before
    assert {process.pid for process in server.data_servers()} >= running
    sent = stream.end()
    wait_until(lambda: sent in target.received)
    calls.release("one")
    assert server.data_servers() == []


def test_kill_in_the_midst_of_many_openings_leaves_no_process_that_nobody_knows(
    control_server_factory, target, is_free
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    for turn in range(3):
        uids = [f"t{turn}-{number}" for number in range(10)]
        for uid in uids:
            calls.register(uid, target.endpoint)
        updates = [calls._threads.submit(calls.update, uid, target.endpoint) for uid in uids]
        # In the middle of it: some run, some start, some have not begun.
        wait_until(lambda: len(server.data_servers()) > 3)
        server.end(signal.SIGKILL)
        server.start()
        for update in updates:
            update.exception()
    assert "active" in calls.states().values()
    entry_points = [each for session in calls.sessions() for each in session.entry_points]
    for session in calls.sessions():
        calls.release(session.uid)
    assert server.data_servers() == []
    assert sorted(path.name for path in server.state_directory.glob("t*")) == []
    assert all(map(is_free, entry_points))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_leave_the_streams_and_stop_release_ends_them(
    control_server_factory, target, is_free, number
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", target.endpoint)
    stream = Stream(entry_point)
    stream.goes_on()
    assert server.end(number) == 0
    stream.goes_on()
    server.start()
    stream.goes_on()
    sent = stream.end()
    wait_until(lambda: sent in target.received)
    program, place = server.command[:3], f"--state-directory={server.state_directory}"
    stopped = subprocess.run([*program, "stop", "--release", place], capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n"), stopped.stderr
    server.process.wait()
    assert server.data_servers() == []
    assert is_free(entry_point)
    assert sorted(path.name for path in server.state_directory.iterdir()) == ["journal.sqlite3", "s2cs.lock"]


def test_u27_u38_a_second_server_on_a_port_or_a_state_directory_refuses_and_names_the_first(control_server_factory):
    first = control_server_factory()
    beside = control_server_factory(start=False)
    ended = subprocess.run(beside.command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert f"127.0.20.1:22000 is in use by scistream.cli.s2cs (pid {first.pid})" in ended.stderr
    assert "[CONTROL_PORT_IN_USE]" in ended.stderr
    words = [word.replace("--port=22000", "--port=22001") for word in first.command]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert f"is held by the control server with pid {first.pid}" in ended.stderr
    assert "[STATE_DIRECTORY_TAKEN]" in ended.stderr
    assert first.serves()


def test_a_session_that_drains_when_its_server_is_killed_goes_on_draining(control_server_factory, target):
    server = control_server_factory(engine="haproxy")
    calls = Calls(server)
    (entry_point,) = calls.open("one", target.endpoint)
    stream = Stream(entry_point)
    stream.goes_on()
    calls.drain("one")
    server.end(signal.SIGKILL)
    stream.goes_on()
    server.start()
    assert calls.states() == {"one": "draining"}
    stream.goes_on()
    sent = stream.end()
    wait_until(lambda: sent in target.received)
    wait_until(lambda: calls.states() == {})
    assert server.data_servers() == []
    assert server.files("one") == []


def test_a_session_that_drained_to_its_end_while_nobody_looked_is_released_at_the_next_start(
    control_server_factory, target, is_free
):
    server = control_server_factory(engine="haproxy")
    calls = Calls(server)
    (entry_point,) = calls.open("one", target.endpoint)
    stream = Stream(entry_point)
    stream.goes_on()
    calls.drain("one")
    server.end(signal.SIGKILL)
    stream.end()
    for process in server.data_servers():
        kill(process)
    psutil.wait_procs(server.data_servers())
    server.start()
    assert calls.states() == {}
    assert server.files("one") == []
    assert is_free(entry_point)


def test_a_failed_start_leaves_nothing(control_server_factory, is_free):
    server = control_server_factory(engine="haproxy")
    calls = Calls(server)
    (entry_point,) = calls.register("one", "no-such-host.invalid:1")
    with pytest.raises(grpc.RpcError) as raised:
        calls.update("one", "no-such-host.invalid:1")
    assert error_of(raised.value).code is Code.TARGET_UNRESOLVED
    assert server.data_servers() == []
    assert server.files("one") == []
    server.end(signal.SIGKILL)
    server.start()
    # Who was told that it failed asks again: nobody starts it behind their back.
    assert calls.states() == {"one": "failed"}
    assert server.data_servers() == []
    calls.release("one")
    assert is_free(entry_point)
