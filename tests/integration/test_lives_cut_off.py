"""Control servers that are killed in the midst of something: the next one finishes it."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3

import pytest

from lives import Calls, wait_until


def rewrite(server, **columns: object) -> None:
    """The journal as a control server leaves it that is killed before its next word."""
    names = ", ".join(f"{name} = ?" for name in columns)
    with contextlib.closing(sqlite3.connect(server.state_directory / "journal.sqlite3")) as database, database:
        database.execute(f"UPDATE sessions SET {names}", list(columns.values()))  # noqa: S608 - our own names


@contextlib.contextmanager
def listening():
    with socket.create_server(("127.0.20.101", 0)) as listener:
        listener.settimeout(10)
        yield listener, f"127.0.20.101:{listener.getsockname()[1]}"


def arrives(entry_point: str, listener: socket.socket) -> None:
    """A new connection to the entry point comes to the listener."""
    host, port = entry_point.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10):
        accepted, _ = listener.accept()
        accepted.close()


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_u29_a_retarget_that_was_cut_off_is_finished_at_the_next_start(control_server_factory, engine):
    server = control_server_factory(engine=engine)
    with listening() as (old, before), listening() as (new, after):
        calls = Calls(server)
        (entry_point,) = calls.open("one", before)
        arrives(entry_point, old)
        (running, *_) = server.data_servers()
        server.end(signal.SIGKILL)
        rewrite(server, targets=f'["{after}"]', in_step=0)
        server.start()
        conf = server.state_directory / "one.conf"
        wait_until(lambda: after.rpartition(":")[2] in conf.read_text())
        # Told again, it is in step for certain.
        calls.update("one", after)
        arrives(entry_point, new)
        assert list(calls.session("one").targets) == [after]
        assert running.is_running()
        calls.release("one")
    assert server.data_servers() == []


def test_a_start_that_was_cut_off_is_cleared_away_while_the_control_server_serves(control_server_factory):
    server = control_server_factory(engine="nginx")
    with listening() as (target, address):
        calls = Calls(server)
        (entry_point,) = calls.open("one", address)
        server.end(signal.SIGKILL)
        for process in server.data_servers():
            process.suspend()
        rewrite(server, state="registered", pid=None, started=None, wanted=0)
        server.start()
        assert calls.states() == {"one": "registered"}
        # Its ports are nobody else's, and the update waits for what is left of the first start.
        (other,) = calls.open("two", address)
        assert other != entry_point
        calls.update("one", address)
        arrives(entry_point, target)
        calls.release("one")
        calls.release("two")
    assert server.data_servers() == []
    assert server.files("one") == []


def test_a_release_that_was_cut_off_is_finished_while_the_control_server_serves(control_server_factory, is_free):
    server = control_server_factory(engine="haproxy")
    with listening() as (_, address):
        calls = Calls(server)
        (entry_point,) = calls.open("one", address)
        server.end(signal.SIGKILL)
        for process in server.data_servers():
            process.suspend()
        rewrite(server, state="released", wanted=0)
        server.start()
        wait_until(lambda: calls.states() == {})
    assert server.data_servers() == []
    assert server.files("one") == []
    assert is_free(entry_point)
