"""Measures many sessions of one gateway, and writes `sessions.json`: `python benchmarks/sessions.py [--quick]`.

Each engine's sessions are measured as the library has them, and as they could be: proxies with a process for each
session against one for all that reads its configuration anew, nftables with its one table. Needs root for nftables.

Example: a look at Nginx alone, with 20 sessions, that writes nothing of interest:

    sudo .venv/bin/python benchmarks/sessions.py --quick --engine nginx --output /tmp/sessions.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nftables_sessions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sessions_apart import Kind
from sessions_trials import Size, target, trials

from scistream.engines.children import raise_descriptor_limit
from scistream.errors import SciStreamError
from scistream.terms import Encryption

FULL: Final = Size(points=(1, 100, 1000), around=10, streams=3, mbps=1000, seconds=1.5)
QUICK: Final = Size(points=(1, 10, 20), around=2, streams=1, mbps=100, seconds=0.6)
KINDS: Final = (
    Kind("haproxy", Encryption.NONE),
    Kind("haproxy", Encryption.TLS),
    Kind("nginx", Encryption.NONE),
    Kind("nginx", Encryption.TLS),
    Kind("stunnel", Encryption.TLS_PSK),
)
# Of each kind, as `trials` tells them.
_STEPS: Final = 7


class Bar:
    """Where the benchmark is."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self._task = self.progress.add_task("", total=total)
        self._console = console

    def tell(self, words: str) -> None:
        """A step begins."""
        self.progress.update(self._task, description=words)
        self.progress.advance(self._task)
        if not self._console.is_terminal:  # where no bar moves
            self._console.print(words, highlight=False)


async def proxies(kinds: list[Kind], size: Size, directory: Path, bar: Bar) -> list[dict[str, Any]]:
    """A row for each arrangement of each kind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - for mypy
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _once(loop, task.cancel))
    rows = []
    with target() as taking:
        for kind in kinds:
            found = await trials(kind, size, directory, taking, bar.tell)
            rows += [each.row() for each in found]
    return rows


def _once(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> Callable[[], None]:
    """A second Ctrl-C must not cut the cleaning up short."""

    def act() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        stop()

    return act


def table(size: Size, *, quick: bool) -> dict[str, Any]:
    """The row of nftables, from its own benchmark."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = nftables_sessions.measure(1 if quick else size.streams, size.sessions, 1 if quick else 2)
    figures = {row["figure"]: {name: row[name] for name in ("median", "min", "max", "runs")} for row in found}
    added = {number: figures.get(f"add the {number:,}. session, ms") for number in size.points}
    many = f"{size.sessions:,} sessions"
    return {
        "engine": "nftables",
        "encryption": "none",
        "arrangement": "one table",
        "sessions": size.sessions,
        "add_ms": [{"session": number} | runs for number, runs in added.items() if runs],
        "memory_mib": 0.0,
        "memory_mib_per_session": 0.0,
        "processes": 0,
        "free_run_gbps": figures[f"one stream with {many}, Gb/s"],
        "free_run_against_one_session": figures[f"one stream with {many} against one with 1"],
        "remove_ms": figures["take the last session out, ms"],
    }


def document(row: dict[str, Any]) -> str:
    """A row of the table in docs/decisions/0012."""
    added = " / ".join(f"{each['median']:g}" for each in row["add_ms"])
    words = [f"{row['engine']} {row['encryption']}", row["arrangement"], added, f"{row['memory_mib_per_session']:.2f}"]
    if "lowest_tenth_percent" in row:
        stream, alone = row["lowest_tenth_percent"], row["lowest_tenth_percent_alone"]
        words.append(f"{row['streams_whole']} of {stream['runs']}")
        words.append(f"{stream['median']:.0f} ({alone['median']:.0f})")
        words.append(f"{row['connections_refused_while_adding']} of {row['connections_tried_while_adding']}")
        words.append(f"{row['crash_cuts_sessions']} / {row['crash_leaves_refusing']}")
    else:
        words += ["-"] * 4
    return f"| {' | '.join(words)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 sessions: a look, and proof that this still works")
    parser.add_argument("--engine", choices=["haproxy", "nginx", "stunnel", "nftables"], help="this one alone")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def _measured(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    size = QUICK if options.quick else FULL
    kinds = [kind for kind in KINDS if options.engine in (None, kind.engine)]
    with_table = options.engine in (None, "nftables") and os.geteuid() == 0
    bar = Bar(console, len(kinds) * _STEPS + with_table)
    with bar.progress, tempfile.TemporaryDirectory(prefix="scistream-bench-") as place:
        rows = asyncio.run(proxies(kinds, size, Path(place), bar)) if kinds else []
        if with_table:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _stop)
            bar.tell("nftables: one table")
            rows.append(table(size, quick=options.quick))
    return rows


def _stop(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Measure, write, print what the decision's table has."""
    options, console = _options(), Console(stderr=True)
    raise_descriptor_limit()
    try:
        rows = _measured(options, console)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; all that was started has been ended")
        return 130
    except (RuntimeError, OSError, subprocess.SubprocessError, SciStreamError, ExceptionGroup) as error:
        console.print(f"FAILED {error}", highlight=False, markup=False)
        return 1
    options.output.write_text(json.dumps(rows, indent=2) + "\n")
    sys.stdout.write("\n".join(map(document, rows)) + "\n")
    return int(any(row["streams_whole"] < row["stream_gbps"]["runs"] for row in rows if "streams_whole" in row))


if __name__ == "__main__":
    sys.exit(main())
