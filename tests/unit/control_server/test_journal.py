from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import stat

import pytest

from scistream.control_server.journal import Journal, Record
from scistream.control_server.salvage import open_journal
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, Encryption, SessionState, Uid

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
    encryption=Encryption.NONE,
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


VERSION_1 = """
CREATE TABLE sessions (
    uid TEXT NOT NULL, direction TEXT NOT NULL, state TEXT NOT NULL, engine TEXT NOT NULL, stem TEXT NOT NULL,
    bound_host TEXT NOT NULL, told_host TEXT NOT NULL, ports TEXT NOT NULL, targets TEXT NOT NULL,
    connections INTEGER NOT NULL, rate INTEGER NOT NULL, owner TEXT NOT NULL, opened REAL NOT NULL,
    failure TEXT NOT NULL, pid INTEGER, started INTEGER, boot TEXT NOT NULL, PRIMARY KEY (uid, direction)
) STRICT;
INSERT INTO sessions VALUES (
    'one', 'inbound', 'active', 'haproxy', 'one', '127.0.20.2', '127.0.20.1', '[22100, 22101]', '["t.example:5074"]',
    2, 10000, 'NO_AUTH', 1000.5, '', 123, 456, 'boot-1'
);
PRAGMA user_version = 1;
"""


def test_a_journal_of_the_first_version_is_brought_up_to_date(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1)
    wanted = dataclasses.replace(RECORD, wanted=True)
    for _ in range(2):
        journal = Journal(path, "boot-1")
        assert journal.records() == [wanted]
        journal.close()
    changed = dataclasses.replace(wanted, lease_expires=2000.5, lease_boottime=77.25, restarts=3)
    journal = Journal(path, "boot-1")
    journal.put(changed)
    assert Journal(path, "boot-1").records() == [changed]


def test_a_time_of_the_boot_means_nothing_after_another_one(path):
    leased = dataclasses.replace(RECORD, lease_expires=2000.5, lease_boottime=77.25)
    Journal(path, "boot-1").put(leased)
    (found,) = Journal(path, "boot-2").records()
    assert (found.lease_expires, found.lease_boottime) == (2000.5, None)


def test_many_are_written_together_or_not_at_all(path):
    journal = Journal(path, "boot-1")
    with pytest.raises(SciStreamError):
        journal.put(RECORD, dataclasses.replace(RECORD, uid=Uid("two"), connections="many"))
    assert journal.records() == []
    journal.put(RECORD, dataclasses.replace(RECORD, uid=Uid("two"), stem="two"))
    assert [record.uid for record in journal.records()] == ["one", "two"]


def full(journal: Journal) -> None:
    """From now on the file has no room for a page more, as on a full disk; the ballast's room is not the file's."""
    pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
    journal._database.execute(f"PRAGMA max_page_count = {pages}")


def big(number: int) -> Record:
    uid = Uid(f"s{number}")
    return dataclasses.replace(RECORD, uid=uid, stem=uid, failure="x" * 3000)


def test_a_full_disk_is_told_as_that_and_leaves_what_there_was(path):
    journal = Journal(path, "boot-1")
    journal.put(RECORD)
    full(journal)
    with pytest.raises(SciStreamError, match="has no room: database or disk is full") as raised:
        journal.put(*map(big, range(100)))
    assert raised.value.code is Code.STATE_DIRECTORY_FULL
    assert raised.value.facts["directory"] == str(path.parent)
    assert RECORD in journal.records()
    journal.remove(RECORD.uid, RECORD.direction)
    assert RECORD not in journal.records()


def test_what_must_be_written_frees_the_ballast_and_takes_it_again(path):
    journal = Journal(path, "boot-1")
    ballast = path.with_suffix(".ballast")
    size = ballast.stat().st_size
    assert size >= 1 << 18
    put, tries = journal.put, []

    def no_room_at_first(record):
        tries.append(ballast.exists())
        if len(tries) == 1:
            raise SciStreamError(Code.STATE_DIRECTORY_FULL, directory="d", reason="r")
        put(record)

    journal.put = no_room_at_first
    journal.put_certainly(RECORD)
    assert tries == [True, False]
    assert journal.records() == [RECORD]
    assert ballast.stat().st_size == size


def test_without_a_ballast_a_full_disk_is_told(path):
    journal = Journal(path, "boot-1")
    path.with_suffix(".ballast").unlink()
    error = SciStreamError(Code.STATE_DIRECTORY_FULL, directory="d", reason="r")

    def no_room(record):
        raise error

    journal.put = no_room
    with pytest.raises(SciStreamError) as raised:
        journal.put_certainly(RECORD)
    assert raised.value is error


def test_the_ballast_stays_as_long_as_there_are_sessions(path):
    journal = Journal(path, "boot-1")
    journal.put(RECORD)
    journal.close()
    assert path.with_suffix(".ballast").exists()
    journal = Journal(path, "boot-1")
    journal.remove(RECORD.uid, RECORD.direction)
    journal.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_can_be_read_of_a_damaged_journal_goes_on_in_a_new_one(path):
    journal = Journal(path, "boot-1")
    journal.put(RECORD, dataclasses.replace(RECORD, uid=Uid("two"), stem="two"))
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE sessions SET ports = '[]' WHERE uid = 'two'")
        database.commit()
    before = path.read_bytes()
    journal, warnings = open_journal(path, "boot-1")
    assert journal.records() == [RECORD]
    (aside,) = path.parent.glob("journal.sqlite3.damaged-*Z")
    assert aside.read_bytes() == before
    (warning,) = warnings
    assert f"{path} is damaged: its row of session 'two' is damaged: its ports are ()" in warning
    assert warning.endswith(f"it was kept as {aside}, and 1 of its sessions could be read")
    journal.close()
    journal, warnings = open_journal(path, "boot-1")
    assert (journal.records(), warnings) == ([RECORD], ())


@pytest.mark.parametrize("text", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_journal_of_which_nothing_can_be_read_is_kept_too(path, text):
    path.write_bytes(text)
    journal, warnings = open_journal(path, "boot-1")
    assert journal.records() == []
    assert "none of its sessions could be read" in warnings[0]
    (aside,) = path.parent.glob("journal.sqlite3.damaged-*Z")
    assert aside.read_bytes() == text


def test_a_table_of_another_kind_is_damage(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE sessions (uid TEXT); PRAGMA user_version = 2")
    journal, warnings = open_journal(path, "boot-1")
    assert "no such column" in warnings[0]
    journal.put(RECORD)
    assert journal.records() == [RECORD]


def test_a_later_version_is_not_damage_and_stays_where_it_is(path):
    Journal(path, "boot-1").close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(SciStreamError) as raised:
        open_journal(path, "boot-1")
    assert raised.value.code is Code.JOURNAL_UNREADABLE
    assert [each.name for each in path.parent.iterdir()] == [path.name]
