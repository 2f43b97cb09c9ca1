"""Measures the data servers, and writes `results.json` and `results.svg`. It needs root.

Application, gateway, gateway and target are network namespaces of this machine. Each round measures everybody once, in
turn; a figure is the median of the rounds. The full measurement takes about 10 minutes.

    sudo .venv/bin/python benchmarks/dataplane.py
    sudo .venv/bin/python benchmarks/dataplane.py --engine haproxy --connections 1 --runs 2 --seconds 1
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dataplane_contenders import CONTENDERS, OWN, Contender, standing
from dataplane_measuring import answers, carried, gathered
from dataplane_picture import draw
from dataplane_rows import ENOUGH, Measured, rows, verdicts
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from scistream.demo.network import Network
from scistream.engines.children import raise_descriptor_limit
from scistream.errors import ExitCode, SciStreamError
from scistream.terms import Encryption

CONNECTIONS: Final = (1, 8, 64)
AT_ONCE: Final = 1000
RESULTS: Final = Path(__file__).with_name("results.json")
# What a step takes beyond its seconds, for the estimate: networks, data servers, iperf3's own second.
_AROUND: Final = 0.7


@dataclass(frozen=True)
class Step:
    """One measurement: what is told of it, about how long it takes, and what does it."""

    words: str
    seconds: float
    do: Callable[[], None]


def _plan(chosen: Sequence[Contender], options: argparse.Namespace, into: Measured) -> Iterator[Step]:
    """All steps in their order: contender after contender, so that those who are compared are seconds apart."""
    for number in range(options.runs):
        # Who comes first differs, so that what a round begins with meets nobody always.
        turn = [*chosen[number % len(chosen) :], *chosen[: number % len(chosen)]]
        name = f"run {number + 1}"
        for connections in options.connections:
            for contender in turn:
                if contender in OWN and connections != 1:
                    continue
                words = f"{name}: {contender.title}, {connections} connections"
                yield Step(
                    words, options.seconds + _AROUND, _carry(into, contender, connections, number, options.seconds)
                )
        brief = min(1.0, options.seconds)
        for contender in (each for each in turn if each not in OWN):
            words = f"{name}: {contender.title}, round trips and new connections"
            yield Step(words, 2 * brief + _AROUND, _ask(into, contender, number, brief))
    for contender in chosen:
        if contender.settings == "ours" and contender.encryption is not Encryption.NONE:
            yield Step(f"{contender.title}, {AT_ONCE} connections at once", 4.0, _gather(into, contender))


def _carry(into: Measured, contender: Contender, connections: int, number: int, seconds: float) -> Callable[[], None]:
    def step() -> None:
        with standing(contender, connections) as course:
            into.carried[contender, connections][number] = carried(course, connections, seconds)

    return step


def _ask(into: Measured, contender: Contender, number: int, seconds: float) -> Callable[[], None]:
    def step() -> None:
        with standing(contender) as course:
            into.answers[contender][number] = answers(course, seconds)

    return step


def _gather(into: Measured, contender: Contender) -> Callable[[], None]:
    def step() -> None:
        with standing(contender) as course:
            into.gathered[contender] = gathered(course, AT_ONCE)

    return step


def _measure(steps: Sequence[Step], console: Console) -> list[str]:
    """Take the steps; a line for each that failed, which must not cost the others."""
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("about"), TimeRemainingColumn(), TextColumn("left"))
    failures = []
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        task = progress.add_task("", total=sum(step.seconds for step in steps))
        for step in steps:
            _announce(progress, task, step)
            try:
                step.do()
            except (RuntimeError, OSError, subprocess.SubprocessError, SciStreamError) as error:
                failures.append(f"{step.words}: {error or type(error).__name__}")
            progress.advance(task, step.seconds)
    return failures


def _announce(progress: Progress, task: TaskID, step: Step) -> None:
    progress.update(task, description=step.words)
    if not progress.console.is_terminal:  # where no bar moves
        progress.console.print(step.words, highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines = sorted({contender.engine for contender in CONTENDERS})
    parser.add_argument(
        "--engine",
        action="append",
        choices=engines,
        help="measure this one alone, and whom it is compared with; repeat it",
    )
    parser.add_argument("--connections", type=int, action="append", help="1, 8 and 64 if it is not said; repeat it")
    parser.add_argument("--runs", type=int, default=5, help=f"rounds, 5 if it is not said; goals want {ENOUGH}")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each throughput run, 2 if it is not said")
    parser.add_argument(
        "--output", type=Path, help=f"where to; {RESULTS.name} if everything is measured, else nothing is written"
    )
    options = parser.parse_args()
    if options.runs < 1 or options.seconds <= 0 or any(number < 1 for number in options.connections or ()):
        parser.error("runs, seconds and connections are more than nothing")
    is_whole = not (options.engine or options.connections) and options.runs >= ENOUGH
    options.output = options.output or (RESULTS if is_whole else None)
    options.connections = tuple(options.connections or CONNECTIONS)
    return options


def _chosen(engines: Sequence[str] | None) -> list[Contender]:
    """Those that were asked for, each with whom it is compared."""
    if not engines:
        return list(CONTENDERS)
    own = {contender for contender in CONTENDERS if contender.engine in engines}
    wanted = own | {contender.rival for contender in own} | {contender.direct for contender in own}
    return [contender for contender in CONTENDERS if contender in wanted]


def main() -> int:
    """Measure, write, say which goals hold.

    Returns:
        0; 1 where a measurement failed or a goal was missed; 130 after an interrupt.
    """
    options, console = _options(), Console(stderr=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        _require()
        measured = Measured()
        failures = _measure(list(_plan(_chosen(options.engine), options, measured)), console)
    except KeyboardInterrupt:
        console.print("stopped; all that was started has been ended")
        return ExitCode.INTERRUPTED
    except SciStreamError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return error.entry.exit_code
    found = rows(measured)
    if options.output and found:
        options.output.write_text(json.dumps(found, indent=2) + "\n")
        draw(found, options.output.with_suffix(".svg"))
    return _tell(found, failures, options.runs)


def _require() -> None:
    """What is missing is told before anything is measured."""
    if shutil.which("iperf3") is None:
        raise SystemExit("iperf3 is missing: make packages installs it")
    with Network("bench"):
        raise_descriptor_limit()


def _tell(found: Sequence[dict[str, Any]], failures: Sequence[str], runs: int) -> int:
    # A narrow terminal, or none at all, breaks lines; figures that are cut short are none.
    console = Console(width=max(Console().width, 110))
    console.print(_table(found))
    for failure in failures:
        console.print(f"FAILED {failure}", highlight=False, markup=False, soft_wrap=True)
    judged = verdicts(found)
    for verdict in judged:
        console.print(str(verdict), highlight=False, markup=False, soft_wrap=True)
    if runs < ENOUGH:
        console.print(f"(fewer than {ENOUGH} runs: nothing to judge by)", highlight=False)
    missed = runs >= ENOUGH and not all(verdict.holds for verdict in judged)
    return int(bool(failures) or missed)


_COLUMNS: Final = {
    "engine": "engine",
    "encryption": "between",
    "settings": "settings",
    "congestion": "by",
    "connections": "conn.",
    "gbps": "Gb/s",
    "ratio_to_direct": "of direct",
    "ratio_to_deployed": "of deployed",
    "proxy_cpu_s_per_gb": "CPU s/GB",
    "added_rtt_us": "added us",
    "new_connections_per_s": "new/s",
    "memory_mib": "MiB",
}


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in _COLUMNS.values():
        table.add_column(title, no_wrap=True)
    for row in found:
        table.add_row(*(_cell(row[name]) for name in _COLUMNS))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.2f}"
    return "-" if value is None else str(value)


def _stop(*_: object) -> None:
    # A second one must not cut the cleaning up short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
