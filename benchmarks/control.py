"""Measures the control server and the client, and writes `control.json`: `python benchmarks/control.py [--quick]`.

Everything runs on loopback addresses of its own (127.0.60.x). Runs are interleaved: each round measures everything
once, and a figure is the median of its rounds, with the smallest and the largest beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from gateways import Crowd, Gateway, Targets
from reenactment import share_at_once
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scistream.addresses import Endpoint
from scistream.client import Connection, SessionRequest, open_session, release_session
from scistream.errors import SciStreamError
from scistream.terms import Direction, Uid

ENGINES: Final = ("haproxy", "nginx", "stunnel")
# What carries the thousand: 1.6 MiB a session (reference/dataplane.md), so that they fit into any machine's memory.
LIGHT: Final = "nginx"
REFERENCE: Final = "reference document"
REENACTED: Final = "re-enactment of the deployed design"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    set_ups: int
    walls: int
    burst: int
    thousand: int
    seconds: float


FULL: Final = Size(rounds=3, set_ups=40, walls=5, burst=200, thousand=1000, seconds=540)
QUICK: Final = Size(rounds=1, set_ups=2, walls=1, burst=5, thousand=8, seconds=100)


@dataclass(frozen=True)
class Goal:
    """What a figure shall be: at most `value`, or at least, where `least`."""

    value: float
    least: bool = False

    def holds(self, value: float) -> bool:
        """Whether it is."""
        return value >= self.value if self.least else value <= self.value


@dataclass(frozen=True)
class Known:
    """What is compared with, and where that comes from."""

    value: float | None
    source: str


class Figures:
    """What was measured, by name."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def add(self, name: str, value: float) -> None:
        """One run's value."""
        self._samples[name].append(value)

    def row(self, name: str, unit: str, goal: Goal | None, baseline: Known | None) -> dict[str, Any]:
        """A figure as it is written."""
        samples = [round(sample, 3) for sample in self._samples[name]]
        value = self.median(name)
        return {
            "name": name,
            "value": value,
            "unit": unit,
            "baseline": baseline.value if baseline else None,
            "baseline_source": baseline.source if baseline else None,
            "min": min(samples, default=None),
            "max": max(samples, default=None),
            "runs": len(samples),
            "goal": goal.value if goal else None,
            "holds": value is not None and goal.holds(value) if goal else None,
        }

    def median(self, name: str) -> float | None:
        """The median of what there is; None where every run failed."""
        samples = self._samples[name]
        return round(statistics.median(samples), 3) if samples else None


class Bench:
    """The measurements, one method each."""

    def __init__(self, size: Size, directory: Path, figures: Figures) -> None:
        self._size = size
        self._directory = directory
        self._figures = figures
        self._count = 0
        self.steps: dict[str, Callable[[], None]] = {
            **{f"set-up, {engine}": functools.partial(self._set_ups, engine) for engine in ENGINES},
            "s2uc inbound-request": self._walls,
            f"{size.burst} at once": lambda: asyncio.run(self._burst()),
            f"{size.thousand} waiting": lambda: asyncio.run(self._waiting()),
            f"{size.thousand} live": lambda: asyncio.run(self._live()),
            "the deployed design": self._reenact,
        }

    @contextlib.contextmanager
    def _gateways(self, *engines: str, ports: int = 100) -> Iterator[list[Gateway]]:
        with contextlib.ExitStack() as stack:
            gateways = []
            for index, engine in enumerate(engines):
                self._count += 1
                place = self._directory / str(self._count)
                gateway = Gateway(place, f"127.0.60.{index + 1}", engine, f"26100-{26099 + ports}")
                stack.callback(gateway.clear)
                gateways.append(gateway.served())
            yield gateways

    def _set_ups(self, engine: str) -> None:
        with self._gateways(engine, engine) as (a, b), a.connect() as inbound, b.connect() as outbound:
            # The first one warms both connections.
            times = [_set_up(inbound, outbound) for _ in range(self._size.set_ups + 1)][1:]
        ordered = sorted(seconds * 1000 for seconds in times)
        self._figures.add(f"setup_{engine}_p50", statistics.median(ordered))
        self._figures.add(f"setup_{engine}_p99", ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))])

    def _walls(self) -> None:
        with self._gateways("haproxy") as (gateway,):
            for index in range(self._size.walls):
                self._figures.add("inbound_request_wall", self._wall(gateway, f"wall-{index}"))

    def _wall(self, gateway: Gateway, name: str) -> float:
        command = [str(Path(sys.executable).with_name("s2uc")), "inbound-request", f"--s2cs={gateway.address}"]
        command += [f"--server-cert={gateway.certificate}", "--remote-ip=127.0.60.100", "--receiver-ports=26001"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SCISTREAM_")}
        begun = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment | {"HOME": str(self._directory)},
            timeout=60,
        )
        return time.perf_counter() - begun

    async def _burst(self) -> None:
        number = self._size.burst
        with self._gateways("haproxy", ports=number + 20) as (gateway,):
            async with Crowd.at(gateway) as crowd, Targets("127.0.60.100").serving(number) as targets:
                begun = time.perf_counter()
                entry_points = await _opened(crowd, targets)
                seconds = time.perf_counter() - begun
                right = await asyncio.gather(*map(crowd.leads_to, entry_points, targets))
                distinct = len({entry_point for entry_point in entry_points if entry_point})
                self._figures.add("at_once_right", min(sum(right), distinct) / number)
                self._figures.add("at_once_rate", sum(right) / seconds)
                await _released(crowd, number)

    async def _waiting(self) -> None:
        number = self._size.thousand
        with self._gateways(LIGHT, ports=number + 20) as (gateway,):
            async with Crowd.at(gateway) as crowd:
                await self._register("req_alone", crowd)
                waiting = [crowd.request(f"waiting-{index}") for index in range(number)]
                begun = time.perf_counter()
                await _until_there_are(crowd, number)
                self._figures.add("waiting_accepted", time.perf_counter() - begun)
                await self._register("req_among_waiting", crowd)
                self._figures.add("waiting_memory", gateway.memory())
                begun = time.perf_counter()
                for call in waiting:
                    call.cancel()
                await _until_there_are(crowd, 0)
                self._figures.add("waiting_gone", time.perf_counter() - begun)

    async def _register(self, name: str, crowd: Crowd) -> None:
        for index in range(10):
            begun = time.perf_counter()
            await crowd.register(f"{name}-{index}".replace("_", "-"), Endpoint("127.0.60.100", 26001))
            self._figures.add(name, (time.perf_counter() - begun) * 1000)
            await crowd.release(f"{name}-{index}".replace("_", "-"))

    async def _live(self) -> None:
        number = self._size.thousand
        with self._gateways(LIGHT, ports=number + 20) as (gateway,):
            async with Targets("127.0.60.100").serving(number) as targets:
                async with Crowd.at(gateway) as crowd:
                    begun = time.perf_counter()
                    entry_points = await _opened(crowd, targets)
                    self._figures.add("live_rate", number / (time.perf_counter() - begun))
                    self._figures.add("live_memory", gateway.memory())
                begun = time.perf_counter()
                gateway.kill_and_restart()
                gateway.served()
                async with Crowd.at(gateway) as crowd:
                    await _until_active(crowd, number)
                    self._figures.add("live_recovery", time.perf_counter() - begun)
                    right = await asyncio.gather(*map(crowd.leads_to, entry_points, targets))
                    self._figures.add("live_right", sum(right) / number)
                    self._figures.add("live_recovered_memory", gateway.memory())
                    begun = time.perf_counter()
                    await _released(crowd, number)
                    await _until_there_are(crowd, 0)
                    self._figures.add("live_release", time.perf_counter() - begun)

    def _reenact(self) -> None:
        self._figures.add("deployed_design_alone_right", share_at_once(1))
        self._figures.add("deployed_design_at_once_right", share_at_once(20))


def _set_up(inbound: Connection, outbound: Connection) -> float:
    """Open both ends of a stream with a key, as a user does; seconds. It is released after the clock has stopped."""
    uid, key = Uid(f"set-up-{secrets.token_hex(4)}"), secrets.token_bytes(32)
    begun = time.perf_counter()
    target = Endpoint("127.0.60.100", 26001)
    near = open_session(inbound, SessionRequest(uid, Direction.INBOUND, (target,), connections=1, key=key))
    towards = tuple(map(Endpoint.parse, near.entry_points))
    open_session(outbound, SessionRequest(uid, Direction.OUTBOUND, towards, connections=1, key=key))
    seconds = time.perf_counter() - begun
    release_session(outbound, uid)
    release_session(inbound, uid)
    return seconds


async def _opened(crowd: Crowd, targets: Sequence[Endpoint]) -> list[Endpoint | None]:
    return await asyncio.gather(*(crowd.open(f"session-{index}", target) for index, target in enumerate(targets)))


async def _released(crowd: Crowd, number: int) -> None:
    await asyncio.gather(*(crowd.release(f"session-{index}") for index in range(number)))


async def _until_there_are(crowd: Crowd, number: int) -> None:
    async with asyncio.timeout(60):
        while await crowd.number() != number:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.02)


async def _until_active(crowd: Crowd, number: int) -> None:
    async with asyncio.timeout(60):
        while (await crowd.states()).count("active") != number:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)


def rows(figures: Figures) -> list[dict[str, Any]]:
    """All figures, in the order of the document."""
    none: Goal | None = None
    set_up = {"haproxy": (Goal(100), Goal(300))}
    written = []
    for engine in ENGINES:
        goals = set_up.get(engine, (none, none))
        written += [figures.row(f"setup_{engine}_p{p}", "ms", goals[p == 99], None) for p in (50, 99)]
    alone = Known(figures.median("req_alone"), "the same, with no other req waiting")
    nobody = Known(figures.median("deployed_design_at_once_right"), f"{REFERENCE} (0 of 20), {REENACTED}")
    plan = [
        ("inbound_request_wall", "s", Goal(0.35), Known(1.0, REFERENCE)),
        ("at_once_right", "share", Goal(1, least=True), nobody),
        ("at_once_rate", "sessions/s", Goal(20, least=True), Known(0.0, REFERENCE)),
        ("waiting_accepted", "s", none, None),
        ("req_alone", "ms", none, None),
        ("req_among_waiting", "ms", none, alone),
        ("waiting_memory", "MiB", none, None),
        ("waiting_gone", "s", none, Known(180.0, REFERENCE)),
        ("live_rate", "sessions/s", none, None),
        ("live_memory", "MiB", Goal(250), None),
        ("live_recovery", "s", Goal(2), None),
        ("live_right", "share", Goal(1, least=True), None),
        ("live_recovered_memory", "MiB", Goal(250), None),
        ("live_release", "s", none, None),
        ("deployed_design_alone_right", "share", none, None),
        ("deployed_design_at_once_right", "share", none, Known(0.0, REFERENCE)),
    ]
    return written + [figures.row(*each) for each in plan]


def measure(size: Size, console: Console) -> list[dict[str, Any]]:
    """Round after round, as many as there is time for."""
    figures, deadline, longest = Figures(), time.monotonic() + size.seconds, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scistream-bench-")))
        bench = Bench(size, directory, figures)
        progress = stack.enter_context(Progress(*columns, console=console))
        task = progress.add_task("", total=size.rounds * len(bench.steps))
        for number in range(size.rounds):
            begun = time.monotonic()
            if begun + longest > deadline:
                progress.console.print(f"no time for round {number + 1}")
                break
            for name, step in bench.steps.items():
                words = f"round {number + 1}: {name}"
                progress.update(task, description=words)
                if not console.is_terminal:  # where no bar moves
                    console.print(words, highlight=False)
                figures.failures += _failures(step, name)
                progress.advance(task)
            longest = max(longest, time.monotonic() - begun)
    for failure in figures.failures:
        console.print(f"FAILED {failure}", highlight=False, markup=False)
    return rows(figures)


def _failures(step: Callable[[], None], name: str) -> list[str]:
    """A measurement that fails must not cost the others."""
    try:
        step()
    except (RuntimeError, OSError, subprocess.SubprocessError, grpc.RpcError, SciStreamError) as error:
        return [f"{name}: {error or type(error).__name__}"]
    return []


def main() -> int:
    """Measure, write, say which goals hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny numbers: proves that this still works")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("control.json"))
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    console = Console(stderr=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(round(size.seconds) + 50)
    try:
        found = measure(size, console)
    except KeyboardInterrupt:
        console.print("stopped; all that was started has been ended")
        return 130
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    for row in found:
        verdict = {True: "holds", False: "MISSED", None: ""}[row["holds"]]
        console.print(f"{row['name']:32} {row['value']!s:>10} {row['unit']:12} {verdict}", highlight=False)
    return int(any(row["value"] is None for row in found))


def _stop(*_: object) -> None:
    # A second one must not cut the cleaning up short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _too_long(*_: object) -> None:
    raise SystemExit("the benchmark takes longer than it may; all that was started has been ended")


if __name__ == "__main__":
    sys.exit(main())
