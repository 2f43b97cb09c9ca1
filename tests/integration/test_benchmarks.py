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

from scistream.terms import Encryption

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "control.py"
_DATAPLANE = _SCRIPT.with_name("dataplane.py")
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


def test_the_rates_of_one_engine_leave_the_rows_of_the_others(tmp_path):
    there = {"rates": [{"engine": "haproxy"}, {"engine": "stunnel"}], "costs": [{"name": "set up"}]}
    (tmp_path / "rates.json").write_text(json.dumps(there))
    code = "import json, pathlib, sys, rates; print(json.dumps(rates.earlier(pathlib.Path(sys.argv[1]), sys.argv[2])))"

    def kept(only: str) -> dict:
        command = [sys.executable, "-c", code, str(tmp_path / "rates.json"), only]
        return json.loads(subprocess.run(command, cwd=_SCRIPT.parent, check=True, capture_output=True).stdout)

    assert kept("stunnel") == {"rates": [{"engine": "haproxy"}], "costs": [{"name": "set up"}]}
    assert kept("") == {"rates": [], "costs": []}


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


@pytest.fixture
def rows(monkeypatch, figures) -> ModuleType:
    monkeypatch.syspath_prepend(str(_SCRIPT.parent))
    return importlib.import_module("dataplane_rows")


def _measured(rows: ModuleType, ours: list[float], deployed: list[float], cpu: float = 0.3) -> list[dict[str, object]]:
    """HAProxy's rows, where the direct path carries 20 Gb/s and the deployed HAProxy takes a second a GB."""
    measuring, contenders = (importlib.import_module(f"dataplane_{name}") for name in ("measuring", "contenders"))
    measured = rows.Measured()
    haproxy = contenders.Contender("haproxy", Encryption.NONE, "ours")
    for number, (mine, its) in enumerate(zip(ours, deployed, strict=True)):
        measured.carried[contenders.DIRECT, 8][number] = measuring.Carried(20.0, 0.0, 0.0)
        measured.carried[haproxy.rival, 8][number] = measuring.Carried(its, 1.0, 11.0)
        measured.carried[haproxy, 8][number] = measuring.Carried(mine, cpu, 9.0)
    return rows.rows(measured)


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_figures(rows):
    # The second round met a machine that was busy with something else.
    _, deployed, ours = _measured(rows, ours=[18.0, 4.0, 16.0], deployed=[9.0, 2.0, 10.0])
    assert (ours["engine"], ours["settings"], ours["encryption"], ours["connections"]) == ("haproxy", "ours", "none", 8)
    assert (ours["gbps"], ours["min"], ours["max"], ours["runs"]) == (16.0, 4.0, 18.0, 3)
    assert (ours["ratio_to_deployed"], ours["ratio_to_direct"]) == (2.0, 0.8)
    assert (ours["ratio_to_direct_min"], ours["ratio_to_direct_max"]) == (0.2, 0.9)
    assert (deployed["ratio_to_deployed"], deployed["settings"], deployed["goals"]) == (1.0, "deployed", [])


def test_every_goal_of_a_data_server_has_its_verdict(rows):
    lines = list(map(str, rows.verdicts(_measured(rows, ours=[15.0], deployed=[10.0]))))
    assert lines == [
        "MISSED haproxy (none), 8 connections: ratio_to_deployed = 1.5, the goal is >= 1.6",
        "holds  haproxy (none), 8 connections: cpu_ratio_to_deployed = 0.3, the goal is <= 0.45",
    ]
    assert not rows.verdicts(_measured(rows, ours=[16.1], deployed=[10.0], cpu=0.46))[1].holds


def test_a_crowd_counts_those_that_have_their_byte_back_while_all_stand():
    command = [sys.executable, str(_DATAPLANE.with_name("dataplane_load.py"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "echo", "127.0.60.101", "26002"], **pipes) as echo:
        try:
            assert json.loads(echo.stdout.readline()) == {"ready": True}
            with subprocess.Popen([*command, "crowd", "127.0.60.101", "26002", "40"], **pipes) as crowd:
                assert json.loads(crowd.stdout.readline())["right"] == 40
                assert len(psutil.Process(echo.pid).net_connections()) == 41
        finally:
            echo.kill()


_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's")


def _bench(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "temporary").mkdir()
    options = ["--engine=nftables", "--connections=2", "--runs=1", "--seconds=0.3", f"--output={tmp_path / 'r.json'}"]
    return subprocess.Popen(
        [sys.executable, str(_DATAPLANE), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
    )


@_ROOT
def test_a_quick_look_at_the_data_servers_measures_and_draws(tmp_path):
    with _bench(tmp_path) as bench:
        words = bench.communicate()[0]
    assert bench.returncode == 0, words
    found = {(row["engine"], row["settings"]): row for row in json.loads((tmp_path / "r.json").read_text())}
    assert set(found) == {("direct", "direct"), ("nftables", "ours"), ("haproxy", "deployed")}
    row = found["nftables", "ours"]
    assert (row["encryption"], row["connections"], row["runs"], row["proxy_cpu_s_per_gb"]) == ("none", 2, 1, 0.0)
    assert row["gbps"] == row["min"] == row["max"] > 0
    assert row["ratio_to_direct"] > 0
    assert row["ratio_to_deployed"] > 0
    assert found["haproxy", "deployed"]["memory_mib"] > 1
    assert found["haproxy", "deployed"]["new_connections_per_s"] > 0
    picture = (tmp_path / "r.svg").read_text()
    assert all(name in picture for name in ("<svg", "nftables", "HAProxy as deployed", "direct path"))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _left_over(tmp_path / "temporary") == []


@_ROOT
def test_the_data_servers_benchmark_cleans_up_when_it_is_interrupted(tmp_path):
    with _bench(tmp_path) as bench:
        while "direct" not in (line := bench.stdout.readline()):
            assert line
        bench.send_signal(signal.SIGINT)
        words = bench.communicate()[0]
    assert bench.returncode == 130, words
    assert "all that was started has been ended" in words
    assert not (tmp_path / "r.json").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def _sessions(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, str(_SCRIPT.with_name("sessions.py")), "--quick", f"--output={tmp_path / 's.json'}"]
    return subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
    )


def test_a_quick_look_at_many_sessions_compares_both_arrangements(tmp_path):
    with _sessions(tmp_path, "--engine=stunnel") as bench:
        words = bench.communicate()[0]
    assert bench.returncode == 0, words
    found = {row["arrangement"]: row for row in json.loads((tmp_path / "s.json").read_text())}
    apart = "process per session"
    assert set(found) == {apart, "one process, reloaded"}
    for how, row in found.items():
        assert [each["session"] for each in row["add_ms"]] == [1, 10, 20]
        assert row["streams_whole"] == 1
        # One session's own crash is its own; a shared process is everybody's.
        assert row["crash_cuts_sessions"] == row["crash_leaves_refusing"] == (1 if how == apart else 20)
        assert row["memory_mib"] > 1
    assert [row["processes"] for row in found.values()] == [20, 1]
    assert "| stunnel tls-psk | process per session |" in words
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _left_over(tmp_path / "temporary") == []


@_ROOT
def test_a_quick_look_at_the_one_table(tmp_path):
    with _sessions(tmp_path, "--engine=nftables") as bench:
        words = bench.communicate()[0]
    assert bench.returncode == 0, words
    (row,) = json.loads((tmp_path / "s.json").read_text())
    assert (row["engine"], row["arrangement"], row["processes"]) == ("nftables", "one table", 0)
    assert row["free_run_gbps"]["median"] > 0


def test_the_benchmark_of_many_sessions_cleans_up_when_it_is_interrupted(tmp_path):
    with _sessions(tmp_path, "--engine=haproxy") as bench:
        while "up to 20 sessions" not in (line := bench.stdout.readline()):
            assert line
        bench.send_signal(signal.SIGINT)
        words = bench.communicate()[0]
    assert bench.returncode == 130, words
    assert "all that was started has been ended" in words
    assert not (tmp_path / "s.json").exists()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _left_over(tmp_path / "temporary") == []
