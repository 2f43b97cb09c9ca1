"""The journal: what a control server has to know after a restart, in an SQLite file of its state directory.

A session stands in it before its data server starts, so that no process can be there that the journal does not know;
its release stands there before the data server ends, so that no crash brings it back. No secret is ever written to it:
the session's key lies in a file of its own (`session_keys`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from scistream.control_server.ballast import Ballast
from scistream.control_server.private_files import open_private
from scistream.control_server.records import Record, read_row, to_row
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid

__all__ = ["Journal", "Record", "readable_records"]

# Raised with every change of the table; a file of another version is refused, never guessed at.
_VERSION: Final = 4
# What brings a file of the version before up to the next one.
_MIGRATIONS: Final = {
    1: """
    ALTER TABLE sessions ADD COLUMN lease_expires REAL;
    ALTER TABLE sessions ADD COLUMN lease_boottime REAL;
    ALTER TABLE sessions ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE sessions ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
    UPDATE sessions SET wanted = 1 WHERE state = 'active';
    """,
    2: "ALTER TABLE sessions ADD COLUMN in_step INTEGER NOT NULL DEFAULT 1;",
    # Until then, what protected the bytes was a matter of the engine alone. What does not run yet is to be asked for
    # anew: nobody asked for it to be unencrypted.
    3: """
    ALTER TABLE sessions ADD COLUMN encryption TEXT NOT NULL DEFAULT 'none';
    ALTER TABLE sessions ADD COLUMN transport TEXT NOT NULL DEFAULT 'tcp';
    ALTER TABLE sessions ADD COLUMN sources TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE sessions ADD COLUMN half_close INTEGER NOT NULL DEFAULT 0;
    UPDATE sessions SET encryption = 'tls-psk' WHERE engine = 'stunnel';
    DELETE FROM sessions WHERE state IN ('requested', 'registered') AND pid IS NULL;
    """,
}
# SQLite's result codes of a file that is none of ours any more: SQLITE_ERROR (a table that lacks something), CORRUPT,
# MISMATCH, FORMAT and NOTADB, and the end of the file where there should be more (IOERR_SHORT_READ).
_DAMAGE: Final = frozenset({1, 11, 20, 24, 26, 522})
# SQLITE_FULL, and what comes of a full disk in the files beside the journal: IOERR_WRITE, _FSYNC, _TRUNCATE, _SHMSIZE.
_FULL: Final = frozenset({13, 778, 1034, 1546, 4874})

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS sessions (
    uid TEXT NOT NULL,
    direction TEXT NOT NULL,
    state TEXT NOT NULL,
    engine TEXT NOT NULL,
    stem TEXT NOT NULL,
    bound_host TEXT NOT NULL,
    told_host TEXT NOT NULL,
    ports TEXT NOT NULL,
    targets TEXT NOT NULL,
    connections INTEGER NOT NULL,
    rate INTEGER NOT NULL,
    owner TEXT NOT NULL,
    opened REAL NOT NULL,
    failure TEXT NOT NULL,
    pid INTEGER,
    started INTEGER,
    boot TEXT NOT NULL,
    lease_expires REAL,
    lease_boottime REAL,
    restarts INTEGER NOT NULL DEFAULT 0,
    wanted INTEGER NOT NULL DEFAULT 0,
    in_step INTEGER NOT NULL DEFAULT 1,
    encryption TEXT NOT NULL DEFAULT 'none',
    transport TEXT NOT NULL DEFAULT 'tcp',
    sources TEXT NOT NULL DEFAULT '[]',
    half_close INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (uid, direction)
) STRICT
"""

_REMOVE: Final = "DELETE FROM sessions WHERE uid = ? AND direction = ?"


_COLUMNS: Final = (*(field.name for field in dataclasses.fields(Record)), "boot")
# Only names of this file are in it.
_PUT: Final = f"INSERT OR REPLACE INTO sessions ({', '.join(_COLUMNS)}) VALUES (:{', :'.join(_COLUMNS)})"  # noqa: S608
_UNORDERED: Final = f"SELECT {', '.join(_COLUMNS)} FROM sessions"  # noqa: S608
_ALL: Final = f"{_UNORDERED} ORDER BY opened, uid"


class Journal:
    """The journal of one state directory.

    Every method raises JOURNAL_DAMAGED where the file is none that this program wrote, STATE_DIRECTORY_FULL where there
    is no room, and JOURNAL_UNREADABLE where the file does not serve for another reason.

    Args:
        path: the file; it is made with mode 0600 where it is not there.
        boot: the kernel's boot id. Start times count from the boot, so a process that was recorded before another
            boot is not there any more, whatever its numbers say.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        self._ballast = Ballast(path.with_suffix(".ballast"))
        # Opening takes room as well, and a control server has to start on a full disk.
        self._ballast.free()
        with self._told():
            # SQLite gives its -wal and -shm files the mode of the file itself.
            os.close(open_private(path, os.O_CREAT | os.O_RDWR))
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.row_factory = sqlite3.Row
            with self._closed_on_failure():
                self._prepare()
        self._ballast.fill()

    def _prepare(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if not 0 <= version <= _VERSION:
            reason = f"it is of version {version}, known is {_VERSION}"
            raise SciStreamError(Code.JOURNAL_UNREADABLE, path=str(self._path), reason=reason)
        # What a kill -9 leaves is whole either way; a power cut ends the data servers along with the last records.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        if (found := self._database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise ValueError(found)
        # Only where there is something to write: a control server has to start on a full disk.
        if version != _VERSION:
            changes = [_MIGRATIONS[each] for each in range(version, _VERSION)] if version else [_TABLE + ";"]
            self._database.executescript(f"BEGIN; {''.join(changes)} PRAGMA user_version = {_VERSION}; COMMIT")

    @contextlib.contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._database.close()
            raise

    def put(self, *records: Record) -> None:
        """Write sessions, in place of what stood there for them; all of them or none."""
        with self._told():
            self._write(_PUT, [{**to_row(record), "boot": self._boot} for record in records])

    def _write(self, statement: str, rows: Sequence[Any]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")
        except BaseException:
            # SQLite itself rolls back where the disk is full.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def put_certainly(self, record: Record) -> None:
        """Write a session, on a full disk with the room that is kept for it: what ends or goes on is never refused."""
        self._certainly(lambda: self.put(record))

    def remove(self, uid: Uid, direction: Direction) -> None:
        """Forget a session, also on a full disk; one that is not there is no error."""
        self._certainly(lambda: self._remove(uid, direction))

    def _remove(self, uid: Uid, direction: Direction) -> None:
        with self._told():
            self._write(_REMOVE, [(uid, direction.value)])

    def _certainly(self, write: Callable[[], None]) -> None:
        try:
            write()
        except SciStreamError as error:
            if error.code is not Code.STATE_DIRECTORY_FULL or not self._ballast.free():
                raise
            write()
            with self._told():
                # What the write-ahead log took goes into the file, whose size stays, and the room is there again.
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._ballast.fill()

    def records(self) -> Sequence[Record]:
        """All sessions, in the order of their opening."""
        with self._told():
            rows = self._database.execute(_ALL).fetchall()
            return [read_row(row, self._boot) for row in rows]

    def close(self) -> None:
        """Close the file. As long as sessions go on, the room stays taken: the next start has to find some."""
        with contextlib.suppress(sqlite3.Error):
            if self._database.execute("SELECT count(*) FROM sessions").fetchone()[0] == 0:
                self._ballast.free()
        self._database.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise self._error(error) from None

    def _error(self, error: Exception) -> SciStreamError:
        if _is_full(error):
            return SciStreamError(Code.STATE_DIRECTORY_FULL, directory=str(self._path.parent), reason=str(error))
        code = Code.JOURNAL_DAMAGED if _is_damage(error) else Code.JOURNAL_UNREADABLE
        return SciStreamError(code, path=str(self._path), reason=str(error))


def readable_records(path: Path, boot: str) -> list[Record]:
    """What can be read of a damaged journal: the rows that are whole, up to the first that cannot be reached."""
    records: list[Record] = []
    # Where the message of an error is damaged itself, the module cannot decode it.
    with contextlib.suppress(sqlite3.Error, ValueError), contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        for row in database.execute(_UNORDERED):
            with contextlib.suppress(ValueError):
                records.append(read_row(row, boot))
    return records


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _FULL


def _is_damage(error: Exception) -> bool:
    # The module itself raises errors without a code where a text is none.
    code = getattr(error, "sqlite_errorcode", 1) if isinstance(error, sqlite3.Error) else None
    return isinstance(error, ValueError) or (code is not None and (code in _DAMAGE or code & 0xFF == 11))
