"""What rates cost besides: other traffic of a device that has our root qdisc, and the time to set one up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from scistream.addresses import Endpoint
from scistream.demo.network import Host, Network
from scistream.engines import shaping
from scistream.engines.base import Plan, Route
from scistream.terms import Direction, Encryption, Uid

__all__ = ["CONNECTIONS", "PORT", "iperf3", "median", "others", "set_up"]

PORT: Final = 5201
CONNECTIONS: Final = (1, 8)


def median(samples: Sequence[float]) -> float | None:
    """Rounded; None of none."""
    return round(statistics.median(samples), 3) if samples else None


def iperf3(network: Network, client: Host, address: str, seconds: float, *options: str) -> dict[str, Any]:
    """What the client of one run says, and the server within it."""
    server = network.target.popen(
        ["iperf3", "--server", "--port", str(PORT), "--one-off", "--json", "--interval", "0.5"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        time.sleep(0.3)
        command = ["iperf3", "--client", address, "--port", str(PORT), "--json", "--get-server-output"]
        command += ["--time", f"{seconds:g}", "--interval", "0.5", *options]
        found: dict[str, Any] = json.loads(client.run(command, timeout=seconds + 30, check=False).stdout or "{}")
    finally:
        server.kill()
        server.wait()
    if "error" in found or "end" not in found:
        raise RuntimeError(f"iperf3: {found.get('error', 'it said nothing')}")
    return found


def others(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """What a device's other traffic gets while a session of the host has a rate, against without."""
    found: dict[tuple[int, bool], list[float]] = defaultdict(list)
    with Network("rates", congestion="cubic") as network, tempfile.TemporaryDirectory() as place:
        gateway, target = network.outbound_gateway, network.target.addresses[0]
        route = Route(Endpoint(gateway.addresses[0], PORT), Endpoint(target, PORT))
        uid = Uid("idle")
        plan = Plan(uid, Direction.OUTBOUND, (route,), Path(place), uid, rate=1000, encryption=Encryption.NONE)
        for number, kept in [(n, kept) for _ in range(rounds) for n in CONNECTIONS for kept in (False, True)]:
            with _held(plan, gateway) if kept else contextlib.nullcontext():
                run = iperf3(network, gateway, target, seconds, "--parallel", str(number))
            found[number, kept].append(run["end"]["sum_received"]["bits_per_second"] / 1e9)
    return [
        {
            "what": f"traffic of no session, on a device {'with' if kept else 'without'} our root qdisc",
            "connections": number,
            "gbps": median(samples),
            "min": round(min(samples), 2),
            "max": round(max(samples), 2),
            "runs": len(samples),
        }
        for (number, kept), samples in found.items()
    ]


@contextlib.contextmanager
def _held(plan: Plan, host: Host) -> Iterator[None]:
    with host.entered():
        asyncio.run(shaping.limit(plan, "rates"))
    try:
        yield
    finally:
        with host.entered():
            asyncio.run(shaping.unlimit(plan, "rates"))


def set_up(sessions: int) -> list[dict[str, Any]]:
    """Milliseconds until one more session has its classes, and until they are gone, among few and many."""
    with Network("rates") as network, tempfile.TemporaryDirectory() as place, network.outbound_gateway.entered():
        route = Route(Endpoint("198.18.1.2", PORT), Endpoint("198.18.2.2", PORT))
        uids = [Uid(f"rates-{number}") for number in range(sessions)]
        plans = [
            Plan(uid, Direction.OUTBOUND, (route,), Path(place), uid, rate=1000, encryption=Encryption.NONE)
            for uid in uids
        ]
        put_in, taken_out = asyncio.run(_set_up(plans))
    few = min(10, sessions)
    last = slice(-few, None)
    return [
        {"what": f"a rate {what}, {among}", "ms": median(samples), "runs": few}
        for what, among, samples in (
            ("set up", "the only ones", put_in[:few]),
            ("set up", f"among {sessions}", put_in[last]),
            ("taken away", f"among {sessions}", taken_out[:few]),
            ("taken away", "the only ones", taken_out[last]),
        )
    ]


async def _set_up(plans: Sequence[Plan]) -> tuple[list[float], list[float]]:
    put_in = [await _timed(shaping.limit, plan) for plan in plans]
    return put_in, [await _timed(shaping.unlimit, plan) for plan in plans]


async def _timed(call: Callable[[Plan, str], Any], plan: Plan) -> float:
    begun = time.perf_counter()
    await call(plan, "rates")
    return (time.perf_counter() - begun) * 1000
