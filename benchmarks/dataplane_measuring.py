"""What is measured on a course: throughput with the gateways' work and memory, round trips, connections."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dataplane_contenders import ECHO_PORT, IPERF_PORT, Course

from scistream.demo.network import Host
from scistream.engines.processes import listeners

__all__ = ["Answers", "Carried", "Gathered", "answers", "carried", "gathered"]

_LOAD: Final = Path(__file__).with_name("dataplane_load.py")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Seconds that a load may take beyond those that it was told.
_PATIENCE: Final = 30.0


@dataclass(frozen=True)
class Carried:
    """One run of iperf3.

    Attributes:
        gbps: 10^9 bits of application bytes a second, as the target received them.
        cpu_s_per_gb: processor seconds of all processes on both gateways, for each 10^9 bytes.
        memory_mib: what those processes took in the middle of the run, shared pages by their share.
    """

    gbps: float
    cpu_s_per_gb: float
    memory_mib: float


@dataclass(frozen=True)
class Answers:
    """A byte and its answer: microseconds on one connection, and new connections a second."""

    rtt_us: float
    connections_per_s: float


@dataclass(frozen=True)
class Gathered:
    """Connections that all stood at once and had their answers, and what the gateways' processes took for them."""

    connections: int
    memory_mib: float


def carried(course: Course, connections: int, seconds: float) -> Carried:
    """Send for some seconds.

    Raises:
        RuntimeError: iperf3 failed.
    """
    server = _run(course.network.target, ["iperf3", "--server", "--port", str(IPERF_PORT)])
    try:
        _wait_listening(course)
        command = ["iperf3", "--client", course.address, "--port", str(IPERF_PORT), "--json"]
        # By sendfile: the less the sender takes of the processors that all share, the more is told of the gateways.
        command += ["--zerocopy", "--time", str(max(1, round(seconds))), "--parallel", str(connections)]
        before = _processor_seconds(course)
        client = _run(course.network.application, command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(seconds / 2)
        memory = _memory(course)
        words, _ = client.communicate(timeout=seconds + _PATIENCE)
        spent = _processor_seconds(course) - before
    finally:
        server.kill()
        server.communicate()
    received = _received(words)
    return Carried(received["bits_per_second"] / 1e9, spent / (received["bytes"] / 1e9), memory)


def _received(words: str) -> dict[str, float]:
    found: dict[str, Any] = json.loads(words or "{}")
    if "error" in found or not found.get("end", {}).get("sum_received", {}).get("bytes"):
        raise RuntimeError(f"iperf3: {found.get('error', 'nothing arrived')}")
    received: dict[str, float] = found["end"]["sum_received"]
    return received


def _wait_listening(course: Course) -> None:
    deadline = time.monotonic() + _PATIENCE
    with course.network.target.entered():
        while all(found.port != IPERF_PORT for found in listeners()):
            if time.monotonic() > deadline:
                raise RuntimeError("iperf3 does not listen")
            time.sleep(0.005)


def _pids(course: Course) -> list[int]:
    return [pid for host in course.gateways for pid in host.pids()]


def _processor_seconds(course: Course) -> float:
    return sum(map(_ticks, _pids(course))) / _TICKS


def _ticks(pid: int) -> int:
    # proc(5): utime and stime are the fields 14 and 15; the name, field 2, may have blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _memory(course: Course) -> float:
    return sum(_proportional_kib(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in _pids(course)) / 1024


def _proportional_kib(text: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def answers(course: Course, seconds: float) -> Answers:
    """Ask for some seconds, and then connect for as many."""
    with _echoing(course):
        told = course.network.application.run(_load("ask", course.address, seconds), timeout=2 * seconds + _PATIENCE)
    found = json.loads(told.stdout)
    return Answers(found["rtt_us"], found["connections_per_s"])


def gathered(course: Course, number: int) -> Gathered:
    """Open that many connections, and have an answer on each while all of them stand."""
    command = _load("crowd", course.address, number)
    with _echoing(course):
        client = _run(course.network.application, command)
        found = _told(client)
        memory = _memory(course)
        client.communicate(timeout=_PATIENCE)
    return Gathered(found.get("right", 0), memory)


@contextlib.contextmanager
def _echoing(course: Course) -> Iterator[None]:
    target = course.network.target
    server = _run(target, _load("echo", target.addresses[0]))
    try:
        _told(server)
        yield
    finally:
        server.kill()
        server.communicate()


def _run(host: Host, command: Sequence[str]) -> subprocess.Popen[str]:
    # Sessions of their own, as data servers are: the kernel shares the processor among sessions (sched(7), autogroups).
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return host.popen(command, start_new_session=True, text=True, **pipes)


def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The line in which a load says what it found, or that it is ready."""
    if process.stdout is None:
        raise AssertionError("the load was started with a pipe")
    found: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
    if not found:
        raise RuntimeError("the load ended without a word")
    return found


def _load(what: str, address: str, *rest: float) -> Sequence[str]:
    return [sys.executable, str(_LOAD), what, address, str(ECHO_PORT), *map(str, rest)]
