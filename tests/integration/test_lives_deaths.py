"""Data servers that die, each kind by itself and all at once: their sessions are back, and say what was."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3

import psutil
import pytest

from lives import Calls, kill, wait_until

ENGINES = ("haproxy", "nginx", "stunnel")
KEY = bytes(range(32))


def leaders(server) -> list[psutil.Process]:
    """The processes that the journal knows: nginx has others below them."""
    found = server.data_servers()
    pids = {process.pid for process in found}
    return [process for process in found if process.ppid() not in pids]


def is_gone(process: psutil.Process) -> bool:
    """Also as a zombie: who reaps what lost its parent is not our business."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def open_pair(calls: Calls, target: str) -> str:
    """A stream of which both ends are here, so that Stunnel's two sides meet; returns where it begins."""
    (inbound,) = calls.open("one", target, key=KEY)
    (outbound,) = calls.open("one", inbound, role="CONS", key=KEY)
    return outbound


@pytest.mark.parametrize("engine", ENGINES)
def test_u40_a_killed_data_server_is_back_on_its_port_with_its_target_and_key(
    control_server_factory, echo_target, round_trip, engine
):
    server = control_server_factory(engine=engine)
    calls = Calls(server)
    entry_point = open_pair(calls, echo_target.endpoint)
    before = [(session.direction, session.entry_points, session.targets) for session in calls.sessions()]
    for process in leaders(server):
        kill(process)
    wait_until(lambda: [session.restarts for session in calls.sessions()] == [1, 1])
    assert round_trip(entry_point, b"as before") == b"as before"
    after = calls.sessions()
    assert [(session.direction, session.entry_points, session.targets) for session in after] == before
    assert {(session.state, session.failure) for session in after} == {("active", "")}
    words = server.words()
    assert words.count("session lost") == words.count("session restarted") == 2
    assert "ended while it served the stream (signal SIGKILL)" in words
    assert KEY.hex() not in words
    calls.release("one")
    assert server.data_servers() == []
    assert server.files("one") == []


@pytest.mark.parametrize("engine", ENGINES)
def test_u40_one_that_died_while_no_control_server_ran_is_back_with_its_key(
    control_server_factory, echo_target, round_trip, engine
):
    server = control_server_factory(engine=engine)
    calls = Calls(server)
    entry_point = open_pair(calls, echo_target.endpoint)
    server.end(signal.SIGKILL)
    for process in server.data_servers():
        kill(process)
    server.start()
    wait_until(lambda: [session.restarts for session in calls.sessions()] == [1, 1])
    assert round_trip(entry_point, b"as before") == b"as before"
    # Adopted ones come back as well: their key is known from their own file.
    server.restart()
    for process in leaders(server):
        kill(process)
    wait_until(lambda: [session.restarts for session in calls.sessions()] == [2, 2])
    assert round_trip(entry_point, b"as before") == b"as before"
    calls.release("one")
    assert server.files("one") == []
    assert KEY.hex() not in server.words()


def test_all_of_them_killed_at_once_are_back(control_server_factory, echo_target, round_trip):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    entry_points = [calls.open(f"s{number}", echo_target.endpoint)[0] for number in range(12)]
    for process in server.data_servers():
        kill(process)
    wait_until(lambda: all(session.restarts == 1 for session in calls.sessions()))
    for entry_point in entry_points:
        assert round_trip(entry_point, b"back") == b"back"


def test_an_nginx_whose_master_is_killed_is_started_anew_and_its_workers_are_ended(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", echo_target.endpoint)
    (master,) = leaders(server)
    workers = master.children()
    assert workers
    kill(master)
    wait_until(lambda: calls.session("one").restarts == 1)
    assert all(is_gone(worker) for worker in workers)
    assert round_trip(entry_point, b"anew") == b"anew"


def test_an_nginx_whose_worker_is_killed_has_another_one_and_its_session_goes_on(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", echo_target.endpoint)
    (master,) = leaders(server)
    before = {worker.pid for worker in master.children()}
    for worker in master.children():
        kill(worker)
    wait_until(lambda: bool(master.children()) and not before & {worker.pid for worker in master.children()})
    assert round_trip(entry_point, b"another") == b"another"
    session = calls.session("one")
    assert (session.state, session.restarts) == ("active", 0)


def test_a_session_whose_port_somebody_took_says_who_and_when_it_tries_again(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", echo_target.endpoint)
    server.end(signal.SIGKILL)
    for process in server.data_servers():
        kill(process)
    psutil.wait_procs(server.data_servers())
    port = int(entry_point.rpartition(":")[2])
    with socket.create_server(("127.0.20.1", port)):
        server.start()
        wait_until(lambda: "it is started again at" in calls.session("one").failure)
        session = calls.session("one")
        assert session.state == "failed"
        assert re.search(rf"{entry_point} is in use by \w+ \(pid {os.getpid()}\)", session.failure)
    wait_until(lambda: calls.session("one").state == "active")
    assert round_trip(entry_point, b"free again") == b"free again"
    assert calls.session("one").failure == ""


def test_u42_a_frozen_data_server_is_released(control_server_factory, echo_target, is_free):
    server = control_server_factory(engine="stunnel")
    calls = Calls(server)
    (entry_point,) = calls.open("one", echo_target.endpoint, key=KEY)
    for process in server.data_servers():
        process.suspend()
    calls.release("one")
    assert server.data_servers() == []
    assert server.files("one") == []
    assert is_free(entry_point)


def test_after_a_reboot_the_sessions_are_back_on_their_ports(control_server_factory, echo_target, round_trip):
    server = control_server_factory(engine="haproxy")
    calls = Calls(server)
    (entry_point,) = calls.open("one", echo_target.endpoint)
    server.end(signal.SIGKILL)
    for process in server.data_servers():
        kill(process)
    # After another boot the numbers of the processes are others': here, this test's own.
    with contextlib.closing(sqlite3.connect(server.state_directory / "journal.sqlite3")) as database:
        database.execute("UPDATE sessions SET boot = 'another', pid = ?", (os.getpid(),))
        database.commit()
    server.start()
    wait_until(lambda: calls.session("one").state == "active")
    assert round_trip(entry_point, b"a new day") == b"a new day"
    assert calls.session("one").restarts == 1
