"""Measures nftables with 1,000 sessions, and writes `nftables_sessions.json`: `python benchmarks/nftables_sessions.py`.

As root, in networks of its own. One gateway has one session, another one 1,000; one stream goes through each in turn,
and past both. Before that, the sessions are put in as many times, and timed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from scistream.addresses import Endpoint
from scistream.demo.network import Network
from scistream.engines import Plan, Route
from scistream.engines.marks import ProcessMark
from scistream.engines.nftables import NFTables
from scistream.errors import SciStreamError
from scistream.terms import Direction, Encryption, Uid

_PORT: Final = 5201
_FIRST: Final = 20000
_OUTPUT: Final = Path(__file__).with_suffix(".json")
_Figures = dict[str, list[float]]


def _plan(network: Network, directory: Path, number: int) -> Plan:
    route = Route(
        Endpoint(network.outbound_gateway.addresses[0], _FIRST + number), Endpoint(network.target.addresses[0], _PORT)
    )
    return Plan(Uid(f"s{number}"), Direction.OUTBOUND, (route,), directory, f"s{number}", encryption=Encryption.NONE)


class Gateway:
    """A network whose outbound gateway has sessions."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        self._directory = directory
        self._engine = NFTables()
        self._sessions: list[tuple[Plan, ProcessMark]] = []
        self._server = network.target.popen(["iperf3", "--server"], stdout=subprocess.DEVNULL)

    async def _add(self) -> float:
        plan = _plan(self.network, self._directory, len(self._sessions))
        begun = time.perf_counter()
        mark = await self._engine.start(plan)
        took = time.perf_counter() - begun
        self._sessions.append((plan, mark))
        return took

    async def _fill(self, count: int, told: Sequence[int], figures: _Figures) -> None:
        for number in range(1, count + 1):
            took = await self._add()
            if number in told:
                figures.setdefault(f"add the {number:,}. session, ms", []).append(took * 1e3)

    def fill(self, count: int, told: Sequence[int], figures: _Figures) -> None:
        """Put sessions in; the time of some of them is told."""
        with self.network.outbound_gateway.entered():
            asyncio.run(self._fill(count, told, figures))

    async def _change(self, figures: _Figures) -> None:
        plan, mark = self._sessions.pop()
        figures.setdefault("traffic of all sessions, ms", []).append(await _timed(self._engine.traffic(plan, mark)))
        figures.setdefault("retarget the last session, ms", []).append(await _timed(self._engine.retarget(plan, mark)))
        figures.setdefault("take the last session out, ms", []).append(await _timed(self._engine.stop(plan, mark)))
        await self._add()

    def change(self, figures: _Figures) -> None:
        """What is done to one session beside all the others."""
        with self.network.outbound_gateway.entered():
            asyncio.run(self._change(figures))

    def clear(self) -> None:
        """Take all sessions out at once, as an operator would."""
        self.network.outbound_gateway.run(["nft", "flush", "ruleset"])
        self._sessions.clear()

    def stream(self, seconds: float, *, through: bool) -> float:
        """Gb/s of one stream, through the last session that was put in, or directly."""
        to = self._sessions[-1][0].routes[0]
        end = to.entry_point if through else to.target
        command = ["iperf3", "--client", end.host, "--port", str(end.port), "--time", str(seconds), "--json"]
        done = self.network.application.run(command, timeout=seconds + 30)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


async def _timed(work: Any) -> float:
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1e3


def measure(rounds: int, count: int, seconds: float) -> list[dict[str, Any]]:
    """Round after round, each figure once in each."""
    figures: _Figures = {}
    with _gateways() as (few, many):
        few.fill(1, (), figures)
        for _ in range(rounds):
            many.clear()
            many.fill(count, (1, 100, 1000), figures)
            many.change(figures)
        streams = [("direct", many, False), ("with 1 session", few, True), (f"with {count:,} sessions", many, True)]
        for number in range(rounds):
            # In turns, since the machine is not the same from one minute to the next.
            for name, gateway, through in streams if number % 2 else reversed(streams):
                rate = gateway.stream(seconds, through=through)
                figures.setdefault(f"one stream {name}, Gb/s", []).append(rate)
            one, all_of_them = (figures[f"one stream {name}, Gb/s"][-1] for name, *_ in streams[1:])
            figures.setdefault(f"one stream with {count:,} sessions against one with 1", []).append(all_of_them / one)
            sys.stdout.write(f"round {number + 1} of {rounds}\n")
    return [
        {"figure": name, "median": _round(statistics.median(runs)), "min": _round(min(runs)), "max": _round(max(runs))}
        | {"runs": len(runs)}
        for name, runs in figures.items()
    ]


def _round(value: float) -> float:
    return float(f"{value:.3g}")


@contextlib.contextmanager
def _gateways() -> Iterator[tuple[Gateway, Gateway]]:
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("one", "many"):
            network = stack.enter_context(Network(f"nft-{name}"))
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scistream-nft-")))
            made.append(Gateway(network, directory))
        time.sleep(0.5)
        yield made[0], made[1]


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3, help="of each stream")
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    options = parser.parse_args()
    try:
        rows = measure(options.rounds, options.sessions, options.seconds)
    except SciStreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    options.output.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        sys.stdout.write(f"{row['figure']:60} {row['median']:8} ({row['min']} to {row['max']})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
