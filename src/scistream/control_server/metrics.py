"""The metrics: what Prometheus is told. Made of a snapshot that the event loop takes, so that nothing in it is torn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scistream import __version__
from scistream.control_server.answering import Call
from scistream.control_server.events import Event, EventKind
from scistream.control_server.sessions import SessionView
from scistream.terms import SessionState

__all__ = ["Metrics", "Snapshot"]

# A `req` waits for its hello, an `update` for its data server.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)
_DAY: Final = 86400.0
_LABELS: Final = ("uid", "direction")


@dataclass(frozen=True)
class Snapshot:
    """What the metrics are made of, as it was at one moment.

    `certificate_expires` is in seconds since the epoch, None on a plain-text channel; `started` likewise.
    """

    now: float
    started: float
    engine: str
    sessions: Sequence[SessionView]
    ports: int
    ports_free: int
    watchers: int
    refused_peers: int
    audit_lines_lost: int
    certificate_expires: float | None = None


_PerSession = tuple[type[GaugeMetricFamily | CounterMetricFamily], str, str, Callable[[SessionView], float | None]]

# Of each session that is there, and gone with it: what is kept stays as small as the pool of ports. None: not known.
_OF_SESSIONS: Final[Sequence[_PerSession]] = (
    (
        GaugeMetricFamily,
        "session_connections_open",
        "Connections that are open now",
        lambda session: session.traffic.connections_open,
    ),
    (
        CounterMetricFamily,
        "session_connections",
        "Connections that were accepted",
        lambda session: session.traffic.connections_total,
    ),
    (
        CounterMetricFamily,
        "session_to_targets_bytes",
        "Application bytes that went to the targets",
        lambda session: session.traffic.bytes_to_targets,
    ),
    (
        CounterMetricFamily,
        "session_from_targets_bytes",
        "Application bytes that came from the targets",
        lambda session: session.traffic.bytes_from_targets,
    ),
    (
        GaugeMetricFamily,
        "session_idle_since_timestamp_seconds",
        "Since when no byte moved and no connection came, where that is known",
        lambda session: session.idle_since,
    ),
    (
        GaugeMetricFamily,
        "session_lease_expires_timestamp_seconds",
        "When the lease ends, where it has an end",
        lambda session: session.lease_expires,
    ),
)


class Metrics:
    """All metrics of a control server: what is counted here, and what a snapshot tells."""

    def __init__(self) -> None:
        self._restarts = 0
        self._calls = Histogram(
            "scistream_call_seconds",
            "How long calls took, by name and by outcome: OK, CANCELLED or the error's code",
            ("call", "code"),
            buckets=_BUCKETS,
            registry=None,
        )
        # They would be a gauge for each of its rows; when the control server started is a gauge of its own.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._process = ProcessCollector(namespace="scistream", registry=None)

    def note_call(self, call: Call) -> None:
        """Count a call."""
        self._calls.labels(call.name, call.outcome).observe(call.seconds)

    def note_event(self, event: Event) -> None:
        """Count what happens to sessions."""
        if event.kind is EventKind.RESTARTED:
            self._restarts += 1

    def taken(self, seen: Snapshot) -> CollectorRegistry:
        """The metrics as they are now, to be written out by whatever thread. Called on the event loop."""
        registry = CollectorRegistry(auto_describe=False)
        for collector in (_Fixed(_families(seen, self._restarts)), self._calls, self._process):
            registry.register(collector)
        return registry


class _Fixed(Collector):
    """Families that do not change any more."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return ()


def _families(seen: Snapshot, restarts: int) -> Iterator[Metric]:
    build = GaugeMetricFamily("scistream_build_info", "Always 1", labels=("version", "engine"))
    build.add_metric((__version__, seen.engine), 1)
    yield build
    yield _gauge("start_time_seconds", "When the control server started, since the epoch", seen.started)
    yield _by_state(seen.sessions)
    yield _gauge("ports", "Ports that entry points may have", seen.ports)
    yield _gauge("ports_free", "Ports that the next session could have", seen.ports_free)
    yield _gauge("watchers", "Clients that watch sessions", seen.watchers)
    yield _counter("data_server_restarts", "Data servers that were started again", restarts)
    words = "Peers without key or certificate, or not among the sources, turned away"
    yield _counter("refused_peers", words, seen.refused_peers)
    yield _counter("audit_lines_lost", "Lines of the audit file that could not be written", seen.audit_lines_lost)
    if seen.certificate_expires is not None:
        left = (seen.certificate_expires - seen.now) / _DAY
        words = "When the control channel's certificate ends, since the epoch"
        yield _gauge("certificate_expiry_timestamp_seconds", words, seen.certificate_expires)
        yield _gauge("certificate_left_days", "Days until then, negative afterwards", left)
    yield from _of_sessions(seen.sessions)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"scistream_{name}", words, value)


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(f"scistream_{name}", words, value)


def _by_state(sessions: Sequence[SessionView]) -> Metric:
    family = GaugeMetricFamily("scistream_sessions", "Sessions, by state", labels=("state",))
    for state in SessionState:
        if state is not SessionState.RELEASED:
            family.add_metric((state.value,), sum(session.state is state for session in sessions))
    return family


def _of_sessions(sessions: Sequence[SessionView]) -> Iterator[Metric]:
    labels = [(session.uid, session.direction.value) for session in sessions]
    for kind, name, words, read in _OF_SESSIONS:
        family = kind(f"scistream_{name}", words, labels=_LABELS)
        for label, value in zip(labels, map(read, sessions), strict=True):
            if value is not None:
                family.add_metric(label, value)
        yield family
