"""The benchmarks still run, with tiny numbers: what is measured is no test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "control.py"
_FIELDS = {"name", "value", "unit", "baseline", "baseline_source", "min", "max", "runs", "goal", "holds"}


def _start(tmp_path: Path) -> subprocess.Popen[str]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return subprocess.Popen(
        [sys.executable, str(_SCRIPT), "--quick", "--output", str(tmp_path / "control.json")],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )


def _left_over(place: Path) -> list[str]:
    commands = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [command for command in commands if str(place) in command]


def test_the_benchmark_measures_every_figure_and_leaves_nothing(tmp_path):
    with _start(tmp_path) as bench:
        words = bench.communicate()[1]
    assert bench.returncode == 0, words
    rows = {row["name"]: row for row in json.loads((tmp_path / "control.json").read_text())}
    assert all(row.keys() == _FIELDS for row in rows.values())
    assert {name for name, row in rows.items() if row["goal"] is not None} >= {
        "setup_haproxy_p50",
        "setup_haproxy_p99",
        "inbound_request_wall",
        "at_once_right",
        "at_once_rate",
        "live_memory",
        "live_recovery",
    }
    # Of what was measured, these are no matter of speed.
    assert (rows["at_once_right"]["value"], rows["live_right"]["value"]) == (1.0, 1.0)
    assert rows["deployed_design_alone_right"]["value"] == 1.0
    assert rows["deployed_design_at_once_right"]["value"] == 0.0
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _left_over(tmp_path / "temporary") == []


def test_the_benchmark_cleans_up_when_it_is_interrupted(tmp_path):
    with _start(tmp_path) as bench:
        place = tmp_path / "temporary"
        while not any(place.glob("scistream-bench-*/*/state/journal.sqlite3")) and bench.poll() is None:
            time.sleep(0.02)
        bench.send_signal(signal.SIGINT)
        words = bench.communicate()[1]
    assert bench.returncode == 130, words
    assert "stopped" in words
    assert not (tmp_path / "control.json").exists()
    assert list(place.iterdir()) == []
    assert _left_over(place) == []
