"""Measures the control server and the client, and writes `control.json`: `python benchmarks/control.py [--quick]`.

Everything runs on loopback addresses of its own (127.0.60.x). Runs are interleaved: each round measures everything
once; a figure is the median of its runs, or what its name says, with the smallest and the largest beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from figures import Figures, missed, rows
from measurements import Bench, Size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scistream.errors import SciStreamError

FULL: Final = Size(rounds=3, set_ups=105, walls=7, kills=6, burst=200, thousand=1000, seconds=420)
QUICK: Final = Size(rounds=1, set_ups=2, walls=1, kills=1, burst=5, thousand=8, seconds=100)


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
    return _judged(found, console, quick=options.quick)


def _judged(found: Sequence[dict[str, Any]], console: Console, *, quick: bool) -> int:
    """The exit code, and in words what it is for. Tiny numbers say nothing of speed: only that all was measured."""
    lines = missed(found)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return int(any(row["value"] is None for row in found) or bool(lines and not quick))


def _stop(*_: object) -> None:
    # A second one must not cut the cleaning up short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _too_long(*_: object) -> None:
    raise SystemExit("the benchmark takes longer than it may; all that was started has been ended")


if __name__ == "__main__":
    sys.exit(main())
