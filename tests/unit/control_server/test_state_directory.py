from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from scistream.control_server import daemon
from scistream.control_server.journal import Journal
from scistream.control_server.logs import open_log
from scistream.control_server.state_directory import Announcement, StateDirectory, Traces, read_announcement
from scistream.errors import Code, SciStreamError


def test_it_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "some" / "state"
    with StateDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((path / "s2cs.lock").stat().st_mode) == 0o600


def test_u38_a_second_holder_is_told_who_the_first_is(tmp_path):
    pauses = []
    with (
        StateDirectory(tmp_path),
        pytest.raises(SciStreamError, match=f"held by the control server with pid {os.getpid()}") as raised,
    ):
        StateDirectory(tmp_path, sleep=pauses.append)
    assert raised.value.code is Code.STATE_DIRECTORY_TAKEN
    # A reader of the announcement holds the lock for a moment, so it is tried for half a second.
    assert sum(pauses) == pytest.approx(0.5)


def test_the_holder_says_who_it_is_until_it_lets_go(tmp_path):
    assert read_announcement(tmp_path) is None
    said = Announcement(os.getpid(), "127.0.20.1:5000", "haproxy", "NO_AUTH", "-----BEGIN", "127.0.20.1")
    with StateDirectory(tmp_path) as directory:
        assert read_announcement(tmp_path) == Announcement(os.getpid())
        directory.announce(said)
        assert read_announcement(tmp_path) == said
        assert (tmp_path / "s2cs.lock").read_text().splitlines()[0] == str(os.getpid())
        directory.announce(Announcement(os.getpid()))
        assert read_announcement(tmp_path) == Announcement(os.getpid())
    assert read_announcement(tmp_path) is None
    with StateDirectory(tmp_path):
        pass


def test_a_directory_that_is_not_there_is_held_by_nobody(tmp_path):
    assert read_announcement(tmp_path / "none") is None


def test_a_directory_that_others_may_write_into_is_refused_and_left_as_it_is(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(SciStreamError, match=r"others may write into it \(mode 0777\)") as raised:
        StateDirectory(tmp_path)
    assert raised.value.code is Code.BAD_CONFIGURATION
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777


def test_a_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(SciStreamError, match="File exists") as raised:
        StateDirectory(path)
    assert raised.value.code is Code.FILE_UNWRITABLE


@pytest.mark.parametrize(
    ("use", "code"), [(StateDirectory, Code.FILE_UNWRITABLE), (read_announcement, Code.FILE_UNREADABLE)]
)
def test_a_lock_that_is_a_link_is_not_followed(tmp_path, use, code):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "s2cs.lock").symlink_to(victim)
    with pytest.raises(SciStreamError, match="it is a symbolic link") as raised:
        use(state)
    assert raised.value.code is code
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("use", [lambda path: open_log(path, verbose=False), lambda path: Journal(path, "boot-1")])
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("victim"), os.mkfifo], ids=["link", "pipe"])
def test_a_log_or_journal_that_is_no_plain_file_is_refused(tmp_path, use, make):
    path = tmp_path / "file"
    make(path)
    with pytest.raises(
        SciStreamError, match=r"it is a symbolic link|it is not a regular file|No such device"
    ) as raised:
        use(path)
    assert raised.value.code in {Code.FILE_UNWRITABLE, Code.JOURNAL_UNREADABLE}
    assert not (tmp_path / "victim").exists()


def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(SciStreamError, match="it belongs to the user with id") as raised:
        StateDirectory(tmp_path)
    assert raised.value.code is Code.BAD_CONFIGURATION
    assert list(tmp_path.iterdir()) == []


def test_what_a_failed_start_made_is_removed_and_nothing_else(tmp_path):
    state = tmp_path / "some" / "state"
    traces = Traces(state)
    with StateDirectory(state):
        traces.remove()
        assert (state / "s2cs.lock").exists()
    (state / "s2cs.log").touch()
    (state / "journal.sqlite3").touch()
    traces.remove()
    assert len(list(state.iterdir())) == 3
    (state / "journal.sqlite3").unlink()
    traces.remove()
    assert list(tmp_path.iterdir()) == []
    state.mkdir(parents=True)
    Traces(state).remove()
    assert state.is_dir()


def test_a_lock_that_was_removed_in_between_is_taken_anew(tmp_path, monkeypatch):
    removed = []

    def flock(descriptor, kind):
        if not removed:
            removed.append((tmp_path / "s2cs.lock").unlink())

    monkeypatch.setattr(fcntl, "flock", flock)
    with StateDirectory(tmp_path, sleep=lambda seconds: None):
        assert (tmp_path / "s2cs.lock").read_text().startswith(str(os.getpid()))


@pytest.fixture
def told(tmp_path):
    """Has the lock of a directory say something, as whoever owns that can."""
    lock = (tmp_path / "s2cs.lock").open("w+")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def say(line):
        lock.seek(0)
        lock.truncate()
        lock.write(f"1\n{line}\n")
        lock.flush()
        return tmp_path

    yield say
    lock.close()


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": "1"},
        {"pid": 0},
        {"pid": -1},
        {"pid": True},
        {"pid": 1 << 40},
        {"pid": 1.5},
        {"pid": 1, "address": 5},
        {"pid": 1, "address": "no address"},
        {"pid": 1, "engine": "\x1b[2J"},
        {"pid": 1, "certificate": ["x"]},
        {"pid": 1, "certificate": "\ud800"},
        {"pid": 1, "host_secret": "ü"},
        {"pid": 1, "host_secret": "a\rb"},
        {"pid": 1, "unknown": ""},
        [],
    ],
)
def test_a_holder_that_says_what_no_control_server_says_is_unknown(told, facts, monkeypatch):
    monkeypatch.setattr("scistream.control_server.state_directory._PAUSE", 0)
    with pytest.raises(SciStreamError, match="held by the control server with pid unknown"):
        daemon.status(told(json.dumps(facts)))


def test_what_is_nested_without_end_is_unknown_too(told, monkeypatch):
    monkeypatch.setattr("scistream.control_server.state_directory._PAUSE", 0)
    with pytest.raises(SciStreamError, match="held by the control server with pid unknown"):
        daemon.stop(told("[" * 100_000), release=False, timeout=1)


def test_a_certificate_that_is_none_is_a_control_server_that_cannot_be_reached(told):
    facts = {"pid": os.getpid(), "address": "127.0.0.1:9", "certificate": "none", "certificate_name": "x"}
    with pytest.raises(SciStreamError) as raised:
        daemon.status(told(json.dumps(facts)))
    assert raised.value.code is Code.CONTROL_SERVER_UNREACHABLE


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a directory away")
def test_what_the_lock_names_is_ended_where_it_is_the_directorys_owners(told, tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        path = told(json.dumps({"pid": process.pid}))
        os.chown(path, 65534, 65534)
        foreign = f"its lock names process {process.pid} of the user with id 0, and it belongs to the one with id 65534"
        with pytest.raises(SciStreamError, match=foreign) as raised:
            daemon.stop(path, release=False, timeout=1)
        assert raised.value.code is Code.BAD_CONFIGURATION
        assert process.poll() is None
        os.chown(path, 0, 0)
        assert daemon.stop(path, release=False, timeout=20)
        assert process.wait() == -signal.SIGTERM
