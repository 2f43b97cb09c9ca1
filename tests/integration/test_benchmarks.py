"""The benchmarks still run, with tiny numbers: what is measured is no test. What is made of it is."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "control.py"
ENGINES = ("haproxy", "nginx", "stunnel")
_FIELDS = {"name", "value", "unit", "baseline", "baseline_source", "min", "max", "runs", "goal", "holds"}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", _SCRIPT.with_name("figures.py"))
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


def test_a_goal_that_is_not_reached_has_a_line_of_its_own(figures):
    measured = figures.Figures()
    for seconds in (0.2, 0.3, 1.5):
        measured.add("restart_nginx", seconds)
    measured.add("at_once_right", 1.0)
    found = figures.rows(measured)
    row = next(row for row in found if row["name"] == "data_server_restart_nginx_max")
    assert (row["value"], row["min"], row["max"], row["runs"], row["holds"]) == (1.5, 0.2, 1.5, 3, False)
    lines = figures.missed(found)
    assert "MISSED data_server_restart_nginx_max: 1.5 s, the goal is 1" in lines
    # What was not measured at all holds no more than what was too slow.
    assert "MISSED inbound_request_wall: None s, the goal is 0.35" in lines
    assert not any("restart_nginx_p50" in line or "at_once_right" in line for line in lines)


@pytest.mark.parametrize(("share", "rank"), [(0.5, 150), (0.99, 297), (1.0, 300)])
def test_a_percentile_of_three_hundred_is_the_one_of_its_rank(figures, share, rank):
    assert figures.percentile(share)(range(300, 0, -1)) == rank


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
        *(f"data_server_restart_{engine}_{what}" for engine in ENGINES for what in ("p50", "max")),
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
