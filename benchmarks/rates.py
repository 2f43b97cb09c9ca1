"""Measures how a session is kept to its rate, and writes `rates.json`: `python benchmarks/rates.py [--quick]`, as root.

A stream over both gateways of a network of namespaces (`scistream.demo.network`), cubic; the outbound gateway's session
has the rate, the inbound one's has none. Rounds are interleaved: each measures everything once. Figures are iperf3's,
as the receiver counted: application bytes over five seconds, as a share of the rate, and those of each half-second but
the first. All figures are medians over the runs, of each run's share, of its least and its greatest half-second, and so
on; `greatest_of_all` is the one half-second of all runs that had most.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rates_costs import CONNECTIONS, PORT, iperf3, median, others, set_up

from scistream.addresses import Endpoint
from scistream.demo.network import Host, Network
from scistream.engines import find_engine
from scistream.engines.base import Engine, Plan, Route
from scistream.errors import SciStreamError
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Transport, Uid

LOAD: Final = Path(__file__).with_name("rates_load.py")
RATES: Final = (100, 1000)
WAYS: Final = ("to targets", "to clients")
# What a share of the rate shall be within, and what no half-second shall be above.
WITHIN: Final = 0.03
PEAK: Final = 1.05
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contender:
    """Who carries the bytes."""

    engine: str
    encryption: Encryption = Encryption.NONE
    transport: Transport = Transport.TCP


CONTENDERS: Final = (
    Contender("haproxy"),
    Contender("haproxy", Encryption.TLS),
    Contender("nginx"),
    Contender("stunnel", Encryption.TLS_PSK),
    Contender("nftables"),
    Contender("nginx", transport=Transport.UDP),
    Contender("nftables", transport=Transport.UDP),
)


@dataclass
class Case:
    """One row: its samples, run by run."""

    contender: Contender
    mbps: int
    connections: int
    way: str
    shares: list[float] = field(default_factory=list)
    halves: list[list[float]] = field(default_factory=list)
    retransmits: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    free_cpu: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As it is written."""
        share = statistics.median(self.shares)
        least, greatest = (statistics.median(take(run) for run in self.halves) for take in (min, max))
        return {
            "engine": self.contender.engine,
            "encryption": self.contender.encryption.value,
            "transport": self.contender.transport.value,
            "rate_mbps": self.mbps,
            "connections": self.connections,
            "way": self.way,
            "share": round(share, 4),
            "min": round(min(self.shares), 4),
            "max": round(max(self.shares), 4),
            "least_half_second": round(least, 3),
            "greatest_half_second": round(greatest, 3),
            "greatest_of_all": round(max(map(max, self.halves)), 3),
            "retransmits": median(self.retransmits),
            "cpu_s_per_gb": median(self.cpu),
            "cpu_s_per_gb_without": median(self.free_cpu),
            "runs": len(self.shares),
            "holds": abs(share - 1) <= WITHIN and greatest <= PEAK,
        }


@dataclass(frozen=True)
class Stream:
    """A stream that stands."""

    network: Network
    plan: Plan

    @property
    def gateway(self) -> Host:
        """The one that keeps the rate."""
        return self.network.outbound_gateway

    def work(self) -> float:
        """Processor seconds of the gateway's processes until now."""
        return sum(_ticks(pid) for pid in self.gateway.pids()) / TICKS


def _ticks(pid: int) -> int:
    # proc(5): utime and stime are the fields 14 and 15; the name, field 2, may have blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def standing(contender: Contender, mbps: int) -> Iterator[Stream]:
    """A stream whose outbound session has the rate; none, where it is 0."""
    with ExitStack() as stack:
        network = stack.enter_context(Network("rates", congestion="cubic"))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scistream-rates-")))
        key, engine = secrets.token_bytes(SESSION_KEY_SIZE), find_engine(contender.engine)
        ends = (network.inbound_gateway, network.target), (network.outbound_gateway, network.inbound_gateway)
        for (host, onward), direction in zip(ends, (Direction.INBOUND, Direction.OUTBOUND), strict=True):
            route = Route(Endpoint(host.addresses[0], PORT), Endpoint(onward.addresses[0], PORT))
            directory = place / direction.value
            directory.mkdir(mode=0o700)
            uid = Uid("rates")
            plan = Plan(
                uid,
                direction,
                (route,),
                directory,
                uid,
                key,
                contender.transport,
                rate=mbps * 1000 if direction is Direction.OUTBOUND else 0,
                encryption=contender.encryption,
            )
            stack.enter_context(_started(engine, plan, host))
        yield Stream(network, plan)


@contextlib.contextmanager
def _started(engine: Engine, plan: Plan, host: Host) -> Iterator[None]:
    with asyncio.Runner() as runner:
        with host.entered():
            mark = runner.run(engine.start(plan))
        try:
            yield
        finally:
            with host.entered():
                runner.run(engine.stop(plan, mark))


def run_tcp(stream: Stream, case: Case, seconds: float) -> None:
    """One run of a session with a rate."""
    back = case.way == WAYS[1]
    options = ["--parallel", str(case.connections), *(["--reverse"] if back else [])]
    before = stream.work()
    address = stream.gateway.addresses[0]
    found = iperf3(stream.network, stream.network.application, address, seconds, *options)
    received = found["end"]["sum_received"]
    case.cpu.append((stream.work() - before) / (received["bytes"] / 1e9))
    case.shares.append(received["bits_per_second"] / (case.mbps * 1e6))
    case.retransmits.append(found["end"]["sum_sent"].get("retransmits", 0))
    intervals = (found if back else found["server_output_json"])["intervals"]
    whole = [each["sum"] for each in intervals if each["sum"]["seconds"] > 0.45]
    case.halves.append([each["bits_per_second"] / (case.mbps * 1e6) for each in whole[1:]])


def run_free(stream: Stream, case: Case, seconds: float) -> None:
    """The same amount of bytes by a session without a rate: iperf3 holds itself back."""
    each = case.mbps * 1_000_000 // case.connections
    options = ["--parallel", str(case.connections), "--bitrate", str(each)]
    options += ["--reverse"] if case.way == WAYS[1] else []
    before = stream.work()
    address = stream.gateway.addresses[0]
    found = iperf3(stream.network, stream.network.application, address, seconds, *options)
    case.free_cpu.append((stream.work() - before) / (found["end"]["sum_received"]["bytes"] / 1e9))


def run_udp(stream: Stream, case: Case, seconds: float) -> None:
    """Half as much again as the rate is sent, and what comes is counted."""
    network, load = stream.network, [sys.executable, str(LOAD)]
    taking = network.target.popen(
        [*load, "receive", network.target.addresses[0], str(PORT)], stdout=subprocess.PIPE, text=True
    )
    assert taking.stdout is not None  # noqa: S101 - for mypy
    taking.stdout.readline()
    address = stream.gateway.addresses[0]
    pace = (f"{case.mbps * 1.5:g}", f"{seconds:g}")
    network.application.run([*load, "send", address, str(PORT), *pace], timeout=seconds + 30)
    halves = json.loads(taking.communicate(timeout=30)[0])[1 : round(2 * seconds)]
    shares = [each * 16 / (case.mbps * 1e6) for each in halves]
    case.shares.append(statistics.mean(shares))
    case.halves.append(shares)


def cases() -> list[Case]:
    """All rows; datagrams go one way, at the lower rate."""
    found = []
    for contender in CONTENDERS:
        if contender.transport is Transport.UDP:
            found.append(Case(contender, RATES[0], 1, WAYS[0]))
            continue
        found += [Case(contender, mbps, number, way) for mbps in RATES for number in CONNECTIONS for way in WAYS]
    return found


def measure(rounds: int, seconds: float, only: str, write: Callable[[list[Case]], None]) -> list[str]:
    """Everything, round after round, each written when it is done; gives what failed."""
    groups: dict[tuple[Contender, int], list[Case]] = defaultdict(list)
    for case in cases():
        if only in case.contender.engine:
            groups[case.contender, case.mbps].append(case)
    failures = []
    for number in range(rounds):
        for (contender, mbps), group in groups.items():
            _say(f"round {number + 1}: {contender.engine} {contender.encryption.value} {mbps} Mb/s")
            try:
                _measure(contender, mbps, group, seconds)
            except (RuntimeError, OSError, subprocess.SubprocessError, SciStreamError) as error:
                failures.append(f"{contender.engine} {contender.encryption.value} {mbps} Mb/s: {error}")
        write([case for group in groups.values() for case in group if case.shares])
    return failures


def _measure(contender: Contender, mbps: int, group: Sequence[Case], seconds: float) -> None:
    is_tcp = contender.transport is Transport.TCP
    with standing(contender, mbps) as stream:
        for case in group:
            (run_tcp if is_tcp else run_udp)(stream, case, seconds)
    # The work of a proxy says something where it has some.
    if is_tcp and contender.engine != "nftables" and mbps == RATES[-1]:
        with standing(contender, 0) as stream:
            for case in group[:: len(WAYS)]:
                run_free(stream, case, seconds)


def earlier(output: Path, only: str) -> dict[str, list[dict[str, Any]]]:
    """What stays of the file where some engines alone are measured: the rows of the others, and the costs."""
    if not only or not output.exists():
        return {"rates": [], "costs": []}
    told = json.loads(output.read_text())
    return {"rates": [row for row in told["rates"] if only not in row["engine"]], "costs": told["costs"]}


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def main() -> int:
    """Measure, write, say what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and once: proves that this still works")
    parser.add_argument("--only", default="", help="the engines with this in their name; the rows of the others stay")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("rates.json"))
    options = parser.parse_args()
    rounds, seconds, sessions = (1, 2, 20) if options.quick else (5, 5, 1000)
    rows: list[dict[str, Any]] = []
    before = earlier(options.output, options.only)

    def write(found: list[Case], costs: Sequence[dict[str, Any]] = ()) -> None:
        rows[:] = [case.row() for case in found] or rows
        told = {"rates": [*before["rates"], *rows], "costs": [*before["costs"], *costs]}
        options.output.write_text(json.dumps(told, indent=1) + "\n")

    failures = measure(rounds, seconds, options.only, write)
    if not options.only:
        write([], [*others(2, rounds), *set_up(sessions)])
    for words in failures:
        _say(f"FAILED {words}")
    for row in rows:
        words = f"{row['engine']} {row['encryption']} {row['rate_mbps']} Mb/s, {row['connections']}, {row['way']}"
        _say(f"{'' if row['holds'] else 'MISSED '}{words}: {row['share']}, up to {row['greatest_half_second']}")
    return int(bool(failures) or not all(row["holds"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
