from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from scistream.addresses import Endpoint
from scistream.control_server.answering import Call
from scistream.control_server.events import Event, EventKind
from scistream.control_server.metrics import Metrics, Snapshot
from scistream.control_server.sessions import SessionView
from scistream.engines.base import Traffic
from scistream.terms import Direction, Encryption, SessionState, Uid

NOW = 1_700_000_000.0
DOCUMENT = Path(__file__).parents[3] / "docs" / "observing.md"

VIEW = SessionView(
    uid=Uid("one"),
    direction=Direction.INBOUND,
    state=SessionState.ACTIVE,
    entry_points=(Endpoint("127.0.20.1", 22100),),
    targets=(),
    engine="haproxy",
    encryption=Encryption.NONE,
    owner="somebody@x",
    connections=1,
    rate=0,
    opened=NOW,
    failure="",
    lease_expires=NOW + 60,
    idle_since=NOW - 5,
    restarts=0,
    traffic=Traffic(1, 2, 3, 4, 5),
)
SEEN = Snapshot(
    now=NOW,
    started=NOW - 100,
    engine="haproxy",
    sessions=[VIEW],
    ports=10,
    ports_free=9,
    watchers=2,
    refused_peers=5,
    audit_lines_lost=0,
    certificate_expires=NOW + 86400 * 30,
)


def samples(metrics: Metrics, seen: Snapshot = SEEN) -> dict[tuple[str, ...], float]:
    """By name, then the labels' values in the order of the labels' names."""
    families = text_string_to_metric_families(generate_latest(metrics.taken(seen)).decode())
    return {
        (sample.name.removeprefix("scistream_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_u64_the_figures_of_a_session_and_of_the_whole():
    found = samples(Metrics())
    assert (
        found.items()
        >= {
            ("sessions", "active"): 1,
            ("sessions", "failed"): 0,
            ("ports",): 10,
            ("ports_free",): 9,
            ("watchers",): 2,
            ("refused_peers_total",): 5,
            ("data_server_restarts_total",): 0,
            ("audit_lines_lost_total",): 0,
            ("start_time_seconds",): NOW - 100,
            ("certificate_expiry_timestamp_seconds",): NOW + 86400 * 30,
            ("certificate_left_days",): 30,
            ("session_connections_open", "inbound", "one"): 1,
            ("session_connections_total", "inbound", "one"): 2,
            ("session_to_targets_bytes_total", "inbound", "one"): 3,
            ("session_from_targets_bytes_total", "inbound", "one"): 4,
            ("session_idle_since_timestamp_seconds", "inbound", "one"): NOW - 5,
            ("session_lease_expires_timestamp_seconds", "inbound", "one"): NOW + 60,
        }.items()
    )


def test_what_is_not_known_has_no_row_and_a_session_that_is_gone_has_none_either():
    metrics = Metrics()
    samples(metrics)
    unknown = dataclasses.replace(VIEW, idle_since=None, lease_expires=None)
    found = samples(metrics, dataclasses.replace(SEEN, sessions=[unknown], certificate_expires=None))
    assert not [key for key in found if key[0].startswith(("session_idle", "session_lease", "certificate"))]
    found = samples(metrics, dataclasses.replace(SEEN, sessions=[]))
    assert not [key for key in found if "one" in key]


def test_calls_are_counted_by_name_and_outcome():
    metrics = Metrics()
    for outcome, seconds in (("OK", 0.02), ("OK", 0.2), ("CANCELLED", 200), ("UID_UNKNOWN", 0.001)):
        metrics.note_call(Call("req", "peer", outcome=outcome, seconds=seconds))
    found = samples(metrics)
    assert found["call_seconds_count", "req", "OK"] == 2
    assert found["call_seconds_sum", "req", "OK"] == pytest.approx(0.22)
    assert found["call_seconds_bucket", "req", "OK", "0.025"] == 1
    assert found["call_seconds_bucket", "req", "CANCELLED", "180.0"] == 0
    assert found["call_seconds_bucket", "req", "CANCELLED", "+Inf"] == 1
    assert found["call_seconds_count", "req", "UID_UNKNOWN"] == 1


def test_restarts_stay_counted_when_their_session_is_gone():
    metrics = Metrics()
    for kind in (EventKind.RESTARTED, EventKind.RELEASED, EventKind.RESTARTED):
        metrics.note_event(Event(NOW, kind, VIEW))
    assert samples(metrics, dataclasses.replace(SEEN, sessions=[]))["data_server_restarts_total",] == 2


def test_it_is_what_openmetrics_asks_for_too_and_whose_sessions_they_are_is_not_told():
    metrics = Metrics()
    metrics.note_call(Call("req", "peer", seconds=1))
    text = generate_openmetrics(metrics.taken(SEEN)).decode()
    assert {family.name for family in parse_openmetrics(text)} >= {"scistream_session_to_targets_bytes"}
    assert "somebody" not in text


def test_u64_the_document_names_every_metric_with_its_labels_and_no_other():
    metrics = Metrics()
    metrics.note_call(Call("req", "peer"))
    families = text_string_to_metric_families(generate_latest(metrics.taken(SEEN)).decode())
    exported = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type, *sorted(_labels(family)))
        for family in families
        if not family.name.startswith("scistream_process_")
    }
    rows = re.findall(r"^\| `(scistream_\w+)` \| (\w+) \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {(name, kind, *sorted(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == exported


def _labels(family) -> set[str]:
    return {label for sample in family.samples for label in sample.labels if label != "le"}
