"""The journal: what a control server has to know after a restart, in an SQLite file of its state directory.

A session stands in it before its data server starts, so that no process can be there that the journal does not know.
No secret is ever written to it: the session's key lies in the data server's own file only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scistream.addresses import Endpoint, parse_host
from scistream.control_server.private_files import open_private
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState, Uid, parse_connections, parse_rate, parse_uid

__all__ = ["Journal", "Record"]

# Raised with every change of the table; a file of another version is refused, never guessed at.
_VERSION: Final = 1

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
    PRIMARY KEY (uid, direction)
) STRICT
"""

_PUT: Final = """
INSERT OR REPLACE INTO sessions VALUES (
    :uid, :direction, :state, :engine, :stem, :bound_host, :told_host, :ports, :targets, :connections, :rate, :owner,
    :opened, :failure, :pid, :started, :boot
)
"""


@dataclass(frozen=True)
class Record:
    """One session as the journal knows it.

    `pid` and `started` are the data server's (`engines.lifecycle.ProcessMark`), None where it does not run. `opened`
    is in seconds since the epoch, `rate` in kb/s.
    """

    uid: Uid
    direction: Direction
    state: SessionState
    engine: str
    stem: str
    bound_host: str
    told_host: str
    ports: tuple[int, ...]
    targets: tuple[str, ...]
    connections: int
    rate: int
    owner: str
    opened: float
    failure: str
    pid: int | None
    started: int | None


class Journal:
    """The journal of one state directory. Every method raises JOURNAL_UNREADABLE where the file does not serve.

    Args:
        path: the file; it is made with mode 0600 where it is not there.
        boot: the kernel's boot id. Start times count from the boot, so a process that was recorded before another
            boot is not there any more, whatever its numbers say.
    """

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._boot = boot
        with self._told():
            # SQLite gives its -wal and -shm files the mode of the file itself.
            os.close(open_private(path, os.O_CREAT | os.O_RDWR))
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.row_factory = sqlite3.Row
            self._prepare()

    def _prepare(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in {0, _VERSION}:
            reason = f"it is of version {version}, known is {_VERSION}"
            raise SciStreamError(Code.JOURNAL_UNREADABLE, path=str(self._path), reason=reason)
        # What a kill -9 leaves is whole either way; a power cut ends the data servers along with the last records.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(_TABLE)
        self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def put(self, record: Record) -> None:
        """Write a session, in place of what stood there for it."""
        with self._told():
            self._database.execute(_PUT, {**_to_row(record), "boot": self._boot})

    def remove(self, uid: Uid, direction: Direction) -> None:
        """Forget a session; one that is not there is no error."""
        with self._told():
            self._database.execute("DELETE FROM sessions WHERE uid = ? AND direction = ?", (uid, direction.value))

    def records(self) -> Sequence[Record]:
        """All sessions, in the order of their opening."""
        with self._told():
            rows = self._database.execute("SELECT * FROM sessions ORDER BY opened, uid").fetchall()
            return [_checked(row, self._boot) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise SciStreamError(Code.JOURNAL_UNREADABLE, path=str(self._path), reason=str(error)) from None


def _to_row(record: Record) -> dict[str, Any]:
    row = dict(vars(record))
    row.update(direction=record.direction.value, state=record.state.value)
    row.update(ports=json.dumps(record.ports), targets=json.dumps(record.targets))
    return row


def _checked(row: sqlite3.Row, boot: str) -> Record:
    """Raises ValueError where a row is none that `put` wrote: names of files and ports to end are taken from it."""
    try:
        record = _from_row(row, boot)
        _check(record)
    except (ValueError, TypeError, SciStreamError) as error:
        why = error.seen if isinstance(error, SciStreamError) else str(error)
        raise ValueError(f"its row of session {row['uid']!r} is damaged: {why}") from None
    return record


def _check(record: Record) -> None:
    parse_uid(record.uid)
    parse_connections(record.connections)
    parse_rate(record.rate)
    ipaddress.ip_address(record.bound_host)
    parse_host(record.told_host)
    if record.stem not in (record.uid, f"{record.uid}.{record.direction.value}"):
        raise ValueError(f"{record.stem!r} begins no file names of it")
    if len(set(record.ports)) != record.connections or not all(map(_is_port, record.ports)):
        raise ValueError(f"its ports are {record.ports}")
    for target in record.targets:
        Endpoint.parse(_text(target))
    if not record.targets and (record.pid is not None or record.state is SessionState.ACTIVE):
        raise ValueError("it runs and has no targets")
    if record.pid is not None and record.pid <= 1:
        raise ValueError(f"its process is {record.pid}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _is_port(value: object) -> bool:
    return type(value) is int and 1 <= value <= 65535


def _list(text: str) -> tuple[Any, ...]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise TypeError(f"{text!r} is no list")
    return tuple(found)


def _from_row(row: sqlite3.Row, boot: str) -> Record:
    fields: dict[str, Any] = dict(row)
    if fields.pop("boot") != boot:
        fields.update(pid=None, started=None)
    fields.update(direction=Direction(row["direction"]), state=SessionState(row["state"]))
    fields.update(ports=_list(row["ports"]), targets=_list(row["targets"]))
    return Record(**fields)
