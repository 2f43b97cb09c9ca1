"""What running data servers carried, read a little further each time, and their logs kept small.

An engine tells of a connection when it ends, by a line of its ledger; of those that run, the kernel tells. Where an
engine counts itself and is asked (`traffic_command`), only the last answer is kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scistream.engines.base import Plan
from scistream.engines.children import ProcessMark
from scistream.engines.connections import Socket, connections
from scistream.engines.traffic import Peer, Traffic

if TYPE_CHECKING:
    from scistream.engines.proxy import Proxy

__all__ = ["forget", "known", "measure", "remember", "rotate"]

# Seconds for which one look at all of the host's connections serves every session.
_FRESH: Final = 1.0
# Bytes of a log above which it is put aside; bytes that are read at once.
_LARGE: Final = 10 << 20
_PIECE: Final = 1 << 20


@dataclass
class _Meter:
    """What is known of one data server."""

    mark: ProcessMark
    engine: Proxy
    told: Traffic = field(default_factory=Traffic)
    counted: Traffic = field(default_factory=Traffic)
    offset: int = 0
    accepted: dict[str, list[Peer]] = field(default_factory=dict)
    ended: dict[Peer, float] = field(default_factory=dict)


@dataclass
class _Look:
    """The host's connections at a time."""

    time: float = float("-inf")
    by_port: dict[int, list[Socket]] = field(default_factory=dict)


_meters: Final[dict[Path, _Meter]] = {}
_look = _Look()


def known(plan: Plan, mark: ProcessMark) -> Traffic:
    """What was told of it last."""
    meter = _meters.get(plan.path("log"))
    return meter.told if meter and meter.mark == mark else Traffic()


def remember(engine: Proxy, plan: Plan, mark: ProcessMark, told: Traffic) -> Traffic:
    """Keep what it says of itself; gives it back, never less than before."""
    meter = _meter(engine, plan, mark)
    meter.told = told.since(meter.told)
    return meter.told


def measure(engine: Proxy, plan: Plan, mark: ProcessMark) -> Traffic:
    """What the ledger and the kernel tell, never less than before.

    Where an engine has no ledger, the open connections only, and the rest as it was told last.
    """
    meter = _meter(engine, plan, mark)
    # First the ledger: what ends in between is then known to have ended, and not counted twice.
    _read_on(meter, plan)
    live = _live(meter, plan)
    if not engine.ledger:
        return remember(engine, plan, mark, replace(meter.told, connections_open=live.connections_open))
    return remember(engine, plan, mark, meter.counted + live)


def forget(plan: Plan) -> None:
    """Keep nothing of a data server that has ended."""
    _meters.pop(plan.path("log"), None)


def _meter(engine: Proxy, plan: Plan, mark: ProcessMark) -> _Meter:
    path = plan.path("log")
    meter = _meters.get(path)
    if meter is None or meter.mark != mark:
        meter = _meters[path] = _Meter(mark, engine)
    return meter


def _read_on(meter: _Meter, plan: Plan) -> None:
    """Count the lines that the ledger got since; one that is not whole yet is left for the next time."""
    if not meter.engine.ledger:
        return
    with contextlib.suppress(FileNotFoundError), plan.path(meter.engine.ledger).open("rb") as ledger:
        if ledger.seek(0, os.SEEK_END) < meter.offset:
            meter.offset = 0  # somebody emptied it
        ledger.seek(meter.offset)
        while lines := ledger.readlines(_PIECE):
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                meter.offset += len(line)
                _count(meter, plan, line.decode(errors="replace"))


def _count(meter: _Meter, plan: Plan, line: str) -> None:
    try:
        count = meter.engine.count(plan, line, meter.accepted)
    except ValueError:
        return  # not of its making: a disk that was full cuts lines
    meter.counted += count.traffic
    meter.ended.update(dict.fromkeys(count.ended, time.monotonic()))


def _live(meter: _Meter, plan: Plan) -> Traffic:
    look = _now()
    meter.ended = {peer: at for peer, at in meter.ended.items() if at >= look.time}
    clients = [
        each
        for route in plan.routes
        for each in look.by_port.get(route.entry_point.port, ())
        if each.is_at(route.entry_point) and each.peer not in meter.ended
    ]
    to_targets, from_targets = _carried(meter, plan, clients, look)
    return Traffic(len(clients), len(clients), to_targets, from_targets)


def _carried(meter: _Meter, plan: Plan, clients: Sequence[Socket], look: _Look) -> tuple[int, int]:
    if not meter.engine.is_plain_at_target(plan):
        return sum(each.received for each in clients), sum(each.sent for each in clients)
    own = {addresses[1] for addresses in meter.accepted.values() if len(addresses) > 1}
    targets = [each for address in own for each in look.by_port.get(address[1], ()) if each.local == address]
    # Who begins a connection has that counted as a byte.
    return sum(max(0, each.sent - 1) for each in targets), sum(each.received for each in targets)


def _now() -> _Look:
    """The connections of the host, looked at anew where the last look is old."""
    global _look  # noqa: PLW0603  one look serves all sessions
    now = time.monotonic()
    if now - _look.time > _FRESH:
        _look = _Look(now)
        with contextlib.suppress(OSError):
            for each in connections():
                _look.by_port.setdefault(each.local[1], []).append(each)
    return _look


def rotate(plan: Plan) -> None:
    """Put a large log aside, as `<stem>.log.1`, and begin it anew; empty a ledger that was read.

    The file stays the same, since its data server holds it open for appending. Its lines are counted before. What is
    written between the last look and the emptying, some microseconds, is lost.

    Raises:
        OSError: there is no room for the copy, and the log stays as it is.
    """
    meter = _meters.get(plan.path("log"))
    for kind, keep in (("log", True), ("traffic", False)):
        path = plan.path(kind)
        if _size(path) <= _LARGE:
            continue
        if keep:
            _copy(path, plan.path(f"{kind}.1"))
        if meter is not None and meter.engine.ledger == kind:
            _read_on(meter, plan)
            meter.offset = 0
        os.truncate(path, 0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _copy(path: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    try:
        with path.open("rb") as source, os.fdopen(_make(to), "wb") as copy:
            while piece := source.read(_PIECE):
                copy.write(piece)
    except OSError:
        to.unlink(missing_ok=True)
        raise


def _make(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
