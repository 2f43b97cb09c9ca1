"""A journal that is damaged, and a state directory that is full: the server serves, and says what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import grpc
import pytest

from lives import WAIT, Calls, Stream, counting_target, error_of, wait_until
from scistream.errors import Code, SciStreamError

SIZE = 3 << 20


@pytest.fixture
def target():
    with counting_target() as running:
        yield running


def no_database(path: Path) -> None:
    for each in path.parent.glob("journal.sqlite3*"):
        each.write_bytes(b"this is no database" * 1000)


def truncated(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[:5000])


def nonsense(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE sessions SET ports = '[-1]' WHERE uid = 'one'")
        database.commit()


@pytest.mark.parametrize(("damage", "salvaged"), [(no_database, False), (truncated, False), (nonsense, True)])
def test_a_damaged_journal_is_set_aside_and_what_it_knew_is_named(
    control_server_factory, target, is_free, damage, salvaged
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", target.endpoint)
    (other,) = calls.open("two", target.endpoint)
    stream = Stream(entry_point)
    stream.goes_on()
    server.end(signal.SIGKILL)
    damage(server.state_directory / "journal.sqlite3")
    server.start()

    (aside,) = [path for path in server.state_directory.glob("journal.sqlite3.damaged-*") if path.name.endswith("Z")]
    words = [warning for warning in calls.facts().warnings if "journal" in warning]
    assert "is damaged: " in words[0]
    assert f"it was kept as {aside}, and {'1' if salvaged else 'none'} of its sessions could be read" in words[0]
    port = entry_point.rpartition(":")[2]
    (master,) = [each for each in server.data_servers() if "one.conf" in " ".join(each.cmdline())]
    assert words[1].startswith(f"the data server of session one (pid {master.pid}, on port {port}) is in no journal")
    assert len(words) == (2 if salvaged else 3)
    assert all(warning in server.words() for warning in words)
    status = subprocess.run(
        [*server.command[:3], "status", "--json", f"--state-directory={server.state_directory}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(words) <= set(json.loads(status.stdout)["warnings"])

    # The stream goes on; neither its port nor its uid are anybody else's.
    stream.goes_on()
    assert calls.states() == ({"two": "active"} if salvaged else {})
    assert not {entry_point, other} & set(calls.register("new", target.endpoint, number=20))
    refused = calls.request("one").exception(WAIT)
    assert error_of(refused).code is Code.UID_EXISTS
    assert "left without a journal" in refused.details()
    sent = stream.end()
    wait_until(lambda: sent in target.received)

    assert server.end(signal.SIGINT) == 0
    assert server.data_servers() == []
    assert is_free(entry_point)
    assert is_free(other)
    left = {path.name for path in server.state_directory.iterdir() if not path.name.startswith(aside.name)}
    assert left == {"journal.sqlite3", "s2cs.lock"}


def test_stop_release_ends_also_what_no_journal_knows_and_no_server_looks_after(
    control_server_factory, target, is_free
):
    server = control_server_factory(engine="haproxy")
    (entry_point,) = Calls(server).open("one", target.endpoint)
    server.end(signal.SIGKILL)
    for path in server.state_directory.glob("journal.*"):
        path.unlink()
    command = [*server.command[:3], "stop", "--release", f"--state-directory={server.state_directory}"]
    stopped = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stdout) == (0, "not running, 1 left sessions released\n"), stopped.stderr
    assert server.data_servers() == []
    assert server.files("one") == []
    assert is_free(entry_point)


def test_one_that_ends_by_itself_gives_its_port_and_its_name_back(control_server_factory, target):
    server = control_server_factory(engine="haproxy")
    calls = Calls(server)
    calls.open("one", target.endpoint)
    server.end(signal.SIGKILL)
    for path in server.state_directory.glob("journal.*"):
        path.unlink()
    server.start()
    assert any("session one" in warning for warning in calls.facts().warnings)
    for process in server.data_servers():
        process.kill()
    wait_until(lambda: not any("session one" in warning for warning in calls.facts().warnings))
    assert server.files("one") == []
    assert calls.open("one", target.endpoint)


@pytest.fixture
def small_disk(control_server_factory):
    """A control server, yet to be started, whose state directory is a file system with little room."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    server = control_server_factory(engine="nginx", start=False)
    place = server.state_directory
    place.mkdir(mode=0o700)
    command = [mount, "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        # Continuous integration has a machine where it can be done: nothing is left out there unnoticed.
        (pytest.fail if os.environ.get("SCISTREAM_TEST_PACKAGES") else pytest.skip)("mounting needs root")
    try:
        yield server
        server.clear()
    finally:
        subprocess.run([unmount, "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    return filler


def refusal(calls: Calls, uid: str, target: str) -> SciStreamError | None:
    """Why a session cannot be opened, wherever it is said."""
    request = calls.request(uid)
    wait_until(lambda: request.done() or uid in calls.states())
    try:
        if not request.done():
            calls.hello(uid, target)
            calls.update(uid, target)
        request.result()
    except grpc.RpcError as error:
        return error_of(error)
    return None


def test_on_a_full_disk_streams_go_on_new_ones_are_refused_and_a_release_is_for_good(small_disk, target, is_free):
    server, place = small_disk.start(), small_disk.state_directory
    calls = Calls(server)
    (entry_point,) = calls.open("one", target.endpoint)
    (other,) = calls.open("two", target.endpoint)
    stream = Stream(entry_point)
    stream.goes_on()
    filler = fill(place)

    refused = next(filter(None, (refusal(calls, f"new-{number}", target.endpoint) for number in range(50))))
    assert refused.code is Code.STATE_DIRECTORY_FULL
    assert f"the state directory {place} has no room" in str(refused)
    fill(place)
    assert server.serves()
    stream.goes_on()

    # One that is killed there starts there, and goes on with what runs.
    server.end(signal.SIGKILL)
    fill(place)
    server.start()
    stream.goes_on()
    assert {uid: state for uid, state in calls.states().items() if not uid.startswith("new")} == {
        "one": "active",
        "two": "active",
    }
    for session in calls.sessions():
        if session.uid != "one":
            calls.release(session.uid)
            fill(place)
    server.end(signal.SIGKILL)
    fill(place)
    server.start()
    assert calls.states() == {"one": "active"}
    assert is_free(other)
    sent = stream.end()
    wait_until(lambda: sent in target.received)

    filler.unlink()
    assert refusal(calls, "new", target.endpoint) is None
    assert calls.states() == {"one": "active", "new": "active"}


def test_a_start_that_has_no_room_at_all_says_so(small_disk):
    place = small_disk.state_directory
    fill(place)
    ended = subprocess.run(small_disk.command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert ended.returncode == 5
    assert f"the state directory {place} has no room: No space left on device" in ended.stderr
    assert "[STATE_DIRECTORY_FULL]" in ended.stderr
    assert "Traceback" not in ended.stderr
