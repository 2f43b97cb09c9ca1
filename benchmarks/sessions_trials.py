"""What is measured of sessions of one kind, apart and in one process: in turns, on the same machine, side by side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sessions_apart import Apart, Arrangement, Kind, accepts
from sessions_shared import Shared

from scistream.addresses import Endpoint

__all__ = ["Figures", "Size", "spread", "target", "trials"]

_LOAD: Final = Path(__file__).with_name("sessions_load.py")
_HOSTS: Final = ("127.0.61.1", "127.0.61.2")
_TARGET: Final = Endpoint("127.0.61.3", 26000)
_OUTER: Final = "127.0.61.4"
# Seconds between two sessions that are added under a stream; between two connections that are tried meanwhile.
_PAUSE: Final = 0.2
_KNOCK: Final = 0.01
_ADDED: Final = 5


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        points: the sessions whose addition is timed.
        around: as many are timed for each of them.
        streams: how many, one after the other, each at `mbps`.
        seconds: how long one runs before sessions are added, and until a crash shows.
    """

    points: tuple[int, ...]
    around: int
    streams: int
    mbps: float
    seconds: float

    @property
    def sessions(self) -> int:
        """How many there are at most, but for those that are added under a stream."""
        return self.points[-1]

    @property
    def room(self) -> int:
        """How many there are at most."""
        return self.sessions + self.streams * _ADDED + 1


@dataclass
class Figures:
    """What was measured of one arrangement."""

    kind: Kind
    arrangement: str
    sessions: int
    add_ms: dict[int, list[float]] = field(default_factory=dict)
    memory_mib: float = 0
    processes: int = 0
    streams: list[dict[str, Any]] = field(default_factory=list)
    lost_reloads: int = 0
    cut: int = 0
    refusing: int = 0

    def row(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "engine": self.kind.engine,
            "encryption": self.kind.encryption.value,
            "arrangement": self.arrangement,
            "sessions": self.sessions,
            "add_ms": [{"session": number} | spread(runs) for number, runs in self.add_ms.items()],
            "memory_mib": round(self.memory_mib, 1),
            "memory_mib_per_session": round(self.memory_mib / self.sessions, 3),
            "processes": self.processes,
            "streams_whole": sum(each["whole"] for each in self.streams),
            "stream_gbps": spread([each["gbps"] for each in self.streams]),
            "lowest_tenth_percent": spread([each["lowest"] for each in self.streams]),
            "lowest_tenth_percent_alone": spread([each["lowest_alone"] for each in self.streams]),
            "processes_while_streaming": max(each["processes"] for each in self.streams),
            "connections_refused_while_adding": sum(each["refused"] for each in self.streams),
            "connections_tried_while_adding": sum(each["tried"] for each in self.streams),
            "lost_reloads": self.lost_reloads,
            "crash_cuts_sessions": self.cut,
            "crash_leaves_refusing": self.refusing,
        }


def spread(runs: Sequence[float]) -> dict[str, float]:
    """Median, least, most, and of how many."""
    return {
        "median": _round(statistics.median(runs)),
        "min": _round(min(runs)),
        "max": _round(max(runs)),
        "runs": len(runs),
    }


def _round(value: float) -> float:
    return float(f"{value:.3g}")


@contextlib.contextmanager
def target() -> Iterator[subprocess.Popen[str]]:
    """What all sessions lead to."""
    with _load("take", _TARGET) as taking:
        _line(taking)
        yield taking


@contextlib.contextmanager
def _load(what: str, to: Endpoint, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(_LOAD), what, to.host, str(to.port), *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as made:
        try:
            yield made
        finally:
            made.kill()


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - for mypy
    found: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
    return found


async def trials(
    kind: Kind, size: Size, directory: Path, taking: subprocess.Popen[str], told: Callable[[str], None]
) -> list[Figures]:
    """Everything about one kind; `told` hears of each step that begins."""
    async with _both(kind, size, directory) as both:
        figures = [Figures(kind, each.name, size.sessions) for each in both]
        told(f"{kind}: the first session")
        for _ in range(size.around):
            for made, found in zip(both, figures, strict=True):
                await _timed(made, found, 1)
                await made.end()
        for point in size.points[1:]:
            told(f"{kind}: up to {point:,} sessions")
            await _add_around(both, figures, point, size)
        told(f"{kind}: memory of {size.sessions:,} sessions")
        for made, found in zip(both, figures, strict=True):
            pids = made.pids()
            found.processes, found.memory_mib = len(pids), sum(map(_proportional, pids)) / 1024
        told(f"{kind}: streams while {_ADDED} sessions are added")
        for number in range(size.streams):
            for made, found in list(zip(both, figures, strict=True))[:: -1 if number % 2 else 1]:
                found.streams.append(await _stream(made, taking, size))
        told(f"{kind}: a crash")
        for made, found in zip(both, figures, strict=True):
            await _crash(made, found, size.seconds)
            found.lost_reloads = made.lost_reloads
        told(f"{kind}: the end of all")
        return figures


@contextlib.asynccontextmanager
async def _both(kind: Kind, size: Size, directory: Path) -> AsyncIterator[tuple[Arrangement, Arrangement]]:
    apart = Apart(kind, directory / f"{kind.engine}-{kind.encryption.value}-apart", _HOSTS[0], _TARGET)
    home = directory / f"{kind.engine}-{kind.encryption.value}-shared"
    shared = Shared(kind, home, _HOSTS[1], _TARGET, size.room)
    try:
        yield apart, shared
    finally:
        await shared.end()
        await apart.end()


async def _timed(made: Arrangement, found: Figures, point: int) -> None:
    begun = time.perf_counter()
    await made.add()
    found.add_ms.setdefault(point, []).append((time.perf_counter() - begun) * 1e3)


async def _add_around(both: Sequence[Arrangement], figures: Sequence[Figures], point: int, size: Size) -> None:
    """The last point is reached, the others are passed through the middle."""
    before = point - (size.around if point == size.sessions else size.around // 2)
    for made in both:
        await made.fill(before)
        await made.settle()
    for _ in range(size.around):
        for made, found in zip(both, figures, strict=True):
            await _timed(made, found, point)
            await made.settle()


def _proportional(pid: int) -> int:
    """KiB that a process has, of what it shares its share; nothing of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


async def _stream(made: Arrangement, taking: subprocess.Popen[str], size: Size) -> dict[str, Any]:
    """A stream through the first session and both gateways, while others are added."""
    outer = made.outer(_OUTER)
    mark = await made.kind.proxy.start(outer)
    try:
        with _load("give", outer.routes[0].entry_point, f"{size.mbps:g}") as giving:
            await asyncio.sleep(size.seconds)
            begun = time.monotonic()
            async with _knocking(made.plans[0].routes[0].entry_point) as knocks:
                for _ in range(_ADDED):
                    await made.add()
                    await made.settle()
                    await asyncio.sleep(_PAUSE)
            processes = len(made.pids())
            assert giving.stdin is not None  # noqa: S101 - for mypy
            giving.stdin.close()
            sent, came = [await asyncio.to_thread(_line, each) for each in (giving, taking)]
    finally:
        await made.kind.proxy.stop(outer, mark)
    return _judged(sent, came, begun) | {
        "processes": processes,
        "tried": len(knocks),
        "refused": knocks.count(False),
    }


def _judged(sent: dict[str, Any], came: dict[str, Any], begun: float) -> dict[str, Any]:
    """The tenths of a second before and after the first addition, each against the median of all; none at the ends."""
    tenths = came["bins"][2:-1]
    usual = statistics.median(tenths)
    alone = max(1, int((begun - came["first"]) * 10) - 2)
    return {
        "whole": (sent["size"], sent["sum"]) == (came["size"], came["sum"]),
        "gbps": usual * 80 / 1e9,
        "lowest_alone": 100 * min(tenths[:alone]) / usual,
        "lowest": 100 * min(tenths[alone:]) / usual,
    }


@contextlib.asynccontextmanager
async def _knocking(entry_point: Endpoint) -> AsyncIterator[list[bool]]:
    """Connections to a session that nobody changes, one after the other: whether each was taken."""
    taken: list[bool] = []

    async def knock() -> None:
        while True:
            taken.append(accepts(entry_point))
            await asyncio.sleep(_KNOCK)

    task = asyncio.create_task(knock())
    try:
        yield taken
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _crash(made: Arrangement, found: Figures, seconds: float) -> None:
    """Kill the process that carries most for the first session, and see who else it was that lost something."""
    ends = [plan.routes[0].entry_point for plan in made.plans[: found.sessions]]
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((end.host, end.port), 10)) for end in ends]
        await asyncio.sleep(seconds)
        leader = made.leaders()[0]
        os.kill(max(_processes(made, leader), key=_descriptors), signal.SIGKILL)
        await asyncio.sleep(seconds)
        found.cut = sum(map(_is_cut, held))
        found.refusing = sum(not accepts(end) for end in ends)


def _processes(made: Arrangement, leader: int) -> list[int]:
    return [pid for pid in made.pids() if os.getsid(pid) == leader]


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _is_cut(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
