from __future__ import annotations

import dataclasses
import sqlite3
import stat

import pytest

from scistream.control_server.journal import Journal, Record
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, SessionState, Uid

RECORD = Record(
    uid=Uid("one"),
    direction=Direction.INBOUND,
    state=SessionState.ACTIVE,
    engine="haproxy",
    stem="one",
    bound_host="127.0.20.2",
    told_host="127.0.20.1",
    ports=(22100, 22101),
    targets=("t.example:5074",),
    connections=2,
    rate=10000,
    owner=NO_AUTH,
    opened=1000.5,
    failure="",
    pid=123,
    started=456,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite3"


def test_what_was_put_is_there_for_the_next_one(path):
    other = dataclasses.replace(RECORD, direction=Direction.OUTBOUND, opened=999.0, pid=None, started=None)
    first = Journal(path, "boot-1")
    first.put(RECORD)
    first.put(other)
    # Not closed: a kill -9 closes nothing.
    assert Journal(path, "boot-1").records() == [other, RECORD]


def test_a_session_is_written_over_and_removed(path):
    journal = Journal(path, "boot-1")
    journal.put(RECORD)
    failed = dataclasses.replace(RECORD, state=SessionState.FAILED, failure="it died")
    journal.put(failed)
    assert journal.records() == [failed]
    journal.remove(RECORD.uid, Direction.OUTBOUND)
    assert journal.records() == [failed]
    journal.remove(RECORD.uid, RECORD.direction)
    journal.remove(RECORD.uid, RECORD.direction)
    assert journal.records() == []


def test_a_mark_means_nothing_after_another_boot(path):
    Journal(path, "boot-1").put(RECORD)
    assert Journal(path, "boot-2").records() == [dataclasses.replace(RECORD, pid=None, started=None)]


def test_nobody_else_can_read_it(path):
    Journal(path, "boot-1").put(RECORD)
    files = sorted(path.parent.iterdir())
    names = ["journal.ballast", "journal.sqlite3", "journal.sqlite3-shm", "journal.sqlite3-wal"]
    assert [file.name for file in files] == names
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_damaged_file_is_named(path):
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(SciStreamError, match="file is not a database") as raised:
        Journal(path, "boot-1")
    assert raised.value.code is Code.JOURNAL_DAMAGED
    assert str(path) in str(raised.value)


def test_a_file_of_another_version_is_refused(path):
    Journal(path, "boot-1").close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(SciStreamError, match="it is of version 99") as raised:
        Journal(path, "boot-1")
    assert raised.value.code is Code.JOURNAL_UNREADABLE


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SciStreamError, match="No such file") as raised:
        Journal(tmp_path / "none" / "journal.sqlite3", "boot-1")
    assert raised.value.code is Code.JOURNAL_UNREADABLE


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("ports", "[-1, 22101]", "its ports are"),
        ("ports", '["22100", "22101"]', "its ports are"),
        ("ports", "7", "is no list"),
        ("ports", "{", "Expecting"),
        ("targets", "[]", "it runs and has no targets"),
        ("targets", "[7]", "is damaged"),
        ("targets", '["x"]', "not an address"),
        ("stem", "../../etc/passwd", "begins no file names"),
        ("uid", "../x", "not a uid"),
        ("bound_host", "gateway", "does not appear to be"),
        ("state", "odd", "odd"),
        ("connections", 0, "connections"),
        ("pid", -1, "its process is -1"),
    ],
)
def test_a_row_that_nobody_wrote_is_damage(path, column, value, words):
    journal = Journal(path, "boot-1")
    journal.put(RECORD)
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE sessions SET {column} = ?", (value,))  # noqa: S608 - the names above
    with pytest.raises(SciStreamError, match="its row of session") as raised:
        journal.records()
    assert raised.value.code is Code.JOURNAL_DAMAGED
    assert words in str(raised.value)
