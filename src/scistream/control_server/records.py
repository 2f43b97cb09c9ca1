"""One session as the journal keeps it: a record, a row of the table, and whether a row can be one of ours."""

from __future__ import annotations

import ipaddress
import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from scistream.addresses import Endpoint, parse_host
from scistream.errors import SciStreamError
from scistream.terms import (
    Direction,
    Encryption,
    SessionState,
    Transport,
    Uid,
    parse_connections,
    parse_rate,
    parse_uid,
)

__all__ = ["Record", "read_row", "to_row"]

_LISTS: Final = ("ports", "targets", "sources")
_WORDS: Final[Mapping[str, Callable[[str], Any]]] = {
    "direction": Direction,
    "state": SessionState,
    "encryption": Encryption,
    "transport": Transport,
}


@dataclass(frozen=True)
class Record:
    """One session as the journal knows it.

    `pid` and `started` are the data server's (`engines.lifecycle.ProcessMark`), None where it does not run. `opened`
    and `lease_expires` are in seconds since the epoch, `lease_boottime` is the same end on this boot's clock, None
    after another boot; `rate` is in kb/s. `wanted`: its data server is to run, and is started again where it does not.
    `in_step`: that one has the targets; not while it is told of others.
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
    lease_expires: float | None = None
    lease_boottime: float | None = None
    restarts: int = 0
    wanted: bool = False
    in_step: bool = True
    encryption: Encryption = field(kw_only=True)
    transport: Transport = Transport.TCP
    sources: tuple[str, ...] = ()
    half_close: bool = False


def to_row(record: Record) -> dict[str, Any]:
    """A record as SQLite takes it."""
    row = dict(vars(record))
    row.update({name: getattr(record, name).value for name in _WORDS})
    row.update({name: json.dumps(getattr(record, name)) for name in _LISTS})
    return row


def read_row(row: sqlite3.Row, boot: str) -> Record:
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
    if record.rate:
        parse_rate(record.rate)
    ipaddress.ip_address(record.bound_host)
    parse_host(record.told_host)
    if record.stem not in (record.uid, f"{record.uid}.{record.direction.value}"):
        raise ValueError(f"{record.stem!r} begins no file names of it")
    if len(set(record.ports)) != record.connections or not all(map(_is_port, record.ports)):
        raise ValueError(f"its ports are {record.ports}")
    for target in record.targets:
        Endpoint.parse(_text(target))
    for source in record.sources:
        ipaddress.ip_network(_text(source))
    _check_life(record)


def _check_life(record: Record) -> None:
    if record.restarts < 0:
        raise ValueError(f"it counts {record.restarts} restarts")
    if not all(map(_is_moment, (record.opened, record.lease_expires, record.lease_boottime))):
        raise ValueError("its times are none")
    if not record.targets and (record.pid is not None or record.wanted or record.state is SessionState.ACTIVE):
        raise ValueError("it runs and has no targets")
    if record.pid is not None and record.pid <= 1:
        raise ValueError(f"its process is {record.pid}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _is_port(value: object) -> bool:
    return type(value) is int and 1 <= value <= 65535


def _is_moment(value: object) -> bool:
    return value is None or (type(value) in {int, float} and math.isfinite(cast("float", value)))


def _list(text: str) -> tuple[Any, ...]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise TypeError(f"{text!r} is no list")
    return tuple(found)


def _from_row(row: sqlite3.Row, boot: str) -> Record:
    fields: dict[str, Any] = dict(row)
    if fields.pop("boot") != boot:
        fields.update(pid=None, started=None, lease_boottime=None)
    fields.update({name: kind(row[name]) for name, kind in _WORDS.items()})
    fields.update({name: _list(row[name]) for name in _LISTS})
    return Record(**fields | {name: bool(row[name]) for name in ("wanted", "in_step", "half_close")})
