"""Role monitoring by real runs of Ansible, and what it writes held against the metrics that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from ansible_runs import ROOT, Run, run_play
from scistream.control_server.answering import Call
from scistream.control_server.metrics import Metrics, Snapshot

_ROLE = {"ansible.builtin.import_role": {"name": "scistream.core.monitoring"}}
_METRIC = re.compile(r"\bscistream_[a-z_]+\b")
# What a session has, and no snapshot without sessions; test_metrics has those of a real control server.
_OF_SESSIONS = {
    "scistream_session_connections_open",
    "scistream_session_connections_total",
    "scistream_session_to_targets_bytes_total",
    "scistream_session_from_targets_bytes_total",
    "scistream_session_idle_since_timestamp_seconds",
    "scistream_session_lease_expires_timestamp_seconds",
}


def run_role(directory: Path, *options: str, **variables: Any) -> Run:
    """Run the role for two gateways of two facilities; the files are written on the controller."""
    hosts = {
        name: {"scistream_address": f"198.18.12.{number}"} for number, name in ((2, "gateway_a"), (3, "gateway_b"))
    }
    inventory = {
        "gateways": {"hosts": hosts},
        "facility_a": {"hosts": {"gateway_a": {}}},
        "facility_b": {"hosts": {"gateway_b": {}}},
    }
    (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
    own = {
        "control_server_metrics_ip": "0.0.0.0",  # noqa: S104 - what a gateway says, and nobody does here
        "control_server_metrics_port": 9464,
        "monitoring_directory": str(directory / "prometheus"),
    }
    words = ["-i", str(directory / "hosts.yml"), "-e", json.dumps(own | variables), *options]
    return run_play([_ROLE], directory=directory, options=words, hosts="gateways")


def changed(run: Run) -> set[str]:
    return {one.task for one in run.results if one.changed}


def test_gateways_are_watched_and_watched_no_more(tmp_path: Path) -> None:
    place = tmp_path / "prometheus"
    predicted = run_role(tmp_path, "--check")
    assert predicted.code == 0, predicted.output
    assert not place.exists()
    done = run_role(tmp_path)
    assert done.code == 0, done.output
    assert changed(predicted) == changed(done)
    assert json.loads((place / "targets/gateway_a.json").read_text()) == [
        {"labels": {"facility": "facility_a", "gateway": "gateway_a"}, "targets": ["198.18.12.2:9464"]}
    ]
    assert sorted(path.name for path in place.iterdir()) == [
        "dashboard.json",
        "monitoring.made",
        "rules.yml",
        "scrape.yml",
        "targets",
    ]
    (job,) = yaml.safe_load((place / "scrape.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [f"{place}/targets/*.json"]}]
    for options in ([], ["--check"]):
        again = run_role(tmp_path, *options)
        assert (again.code, changed(again)) == (0, set()), again.output

    one = run_role(tmp_path, "--limit", "gateway_a", scistream_state="absent")
    assert one.code == 0, one.output
    assert sorted(path.name for path in (place / "targets").iterdir()) == ["gateway_b.json"]
    assert (place / "rules.yml").exists()
    predicted = run_role(tmp_path, "--check", scistream_state="absent")
    last, again = (run_role(tmp_path, scistream_state="absent") for _ in range(2))
    assert last.code == 0, last.output
    assert changed(predicted) == changed(last)
    assert not place.exists()
    assert changed(again) == set()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"control_server_metrics_port": 0},
            "gateway_a: control_server_metrics_port is 0, and the control server serves",
        ),
        (
            {"control_server_metrics_ip": "127.0.0.1"},
            "metrics are served on 127.0.0.1:9464, which localhost cannot reach.",
        ),
        ({"control_server_metrics_ip": "::1"}, "metrics are served on [::1]:9464, which localhost cannot reach."),
    ],
)
def test_metrics_that_nobody_could_read_are_told(tmp_path: Path, variables: dict[str, Any], words: str) -> None:
    run = run_role(tmp_path, **variables)
    assert run.code == 2
    assert words in " ".join(run.output.split())
    assert not (tmp_path / "prometheus").exists()


def test_an_address_of_ipv6_and_labels_of_the_sites_own(tmp_path: Path) -> None:
    run = run_role(
        tmp_path, "--limit", "gateway_a", scistream_address="2001:db8::2", monitoring_labels={"site": "7-BM"}
    )
    assert run.code == 0, run.output
    (target,) = json.loads((tmp_path / "prometheus/targets/gateway_a.json").read_text())
    assert (target["targets"], target["labels"]["site"]) == (["[2001:db8::2]:9464"], "7-BM")


def metrics() -> set[str]:
    """The names of all rows that a control server serves."""
    own = Metrics()
    own.note_call(Call("req", "ipv4:192.0.2.7:41000"))
    seen = Snapshot(1.0, 1.0, "haproxy", (), 1, 1, 0, 0, 0, certificate_expires=2.0)
    registry: CollectorRegistry = own.taken(seen)
    return _OF_SESSIONS | {sample.name for family in registry.collect() for sample in family.samples}


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    rules = (ROOT / "roles/monitoring/templates/rules.yml.j2").read_text()
    board = json.loads((ROOT / "roles/monitoring/files/dashboard.json").read_text())
    asked = set(_METRIC.findall("\n".join(line for line in rules.splitlines() if "scistream_port_range" not in line)))
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    expressions += [each["query"]["query"] for each in board["templating"]["list"] if isinstance(each["query"], dict)]
    asked |= {name for expression in expressions for name in _METRIC.findall(expression)}
    assert len(asked) > 15
    assert asked - metrics() == set()
    # And none is left without a look at it.
    told = (ROOT / "docs/observing.md").read_text()
    assert {name for name in asked if "process" not in name and name.rsplit("_bucket")[0] not in told} <= {
        "scistream_call_seconds_count"
    }


def test_the_dashboard_is_whole() -> None:
    board = json.loads((ROOT / "roles/monitoring/files/dashboard.json").read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_is_documented() -> None:
    rules = (ROOT / "roles/monitoring/templates/rules.yml.j2").read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    documented = re.findall(r"^\| `(Scistream\w+)` \|", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE)
    assert alerts == documented


_CASES = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="scistream", gateway="gateway_a"}', values: "1 0 0 0 0 0"}
      - {series: 'scistream_ports_free{gateway="gateway_a"}', values: "5x20"}
      - {series: 'scistream_ports{gateway="gateway_a"}', values: "100x20"}
      - {series: 'scistream_sessions{gateway="gateway_a", state="failed"}', values: "0 1x10"}
      - {series: 'scistream_certificate_expiry_timestamp_seconds{gateway="gateway_a"}', values: "864000x20"}
    alert_rule_test:
      - {eval_time: 1m, alertname: ScistreamGatewayDown}
      - eval_time: 4m
        alertname: ScistreamGatewayDown
        exp_alerts:
          - exp_labels: {severity: critical, job: scistream, gateway: gateway_a}
            exp_annotations:
              summary: gateway_a serves no metrics
              description: >-
                Its control server does not run, or the way to  is closed. Streams go on by themselves. On the gateway:
                systemctl status scistream-control-server
      - eval_time: 8m
        alertname: ScistreamPortsNearlyExhausted
        exp_alerts:
          - exp_labels: {severity: warning, gateway: gateway_a}
            exp_annotations:
              summary: gateway_a has 5 % of its ports left
              description: >-
                Release sessions that nobody uses (s2uc list), or widen scistream_port_range and provision the gateway
      - eval_time: 15m
        alertname: ScistreamCertificateEnds
        exp_alerts:
          - exp_labels: {severity: warning, gateway: gateway_a}
            exp_annotations:
              summary: The certificate of gateway_a ends in 10.0 days
              description: "Issue it anew: ansible-playbook scistream.core.rotate_certificates --limit gateway_a"
"""


def test_prometheus_takes_the_rules_and_alerts_by_them(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert "CI" not in os.environ, "tests/packages.yml brings promtool"
        pytest.skip("promtool is not there: apt-get install prometheus brings it")
    assert run_role(tmp_path).code == 0
    place = tmp_path / "prometheus"
    (place / "cases.yml").write_text(_CASES)
    config = {
        "rule_files": [str(place / "rules.yml")],
        "scrape_configs": yaml.safe_load((place / "scrape.yml").read_text())["scrape_configs"],
    }
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "cases.yml"]):
        told = subprocess.run([promtool, *words], cwd=place, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
    # Every expression of the dashboard is one.
    board = json.loads((place / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    plain = {"$gateway": ".*", "$job": "scistream", "$__rate_interval": "1m"}
    for word, value in plain.items():
        expressions = [expression.replace(word, value) for expression in expressions]
    rules = {"groups": [{"name": "board", "rules": [{"record": "a", "expr": text} for text in expressions]}]}
    (place / "board.yml").write_text(yaml.safe_dump(rules))
    told = subprocess.run(
        [promtool, "check", "rules", "--lint=none", "board.yml"], cwd=place, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
