"""What was measured: samples by name, the rows that are made of them, and the goals that they shall reach."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ENGINES", "Figures", "Goal", "Known", "missed", "percentile", "rows"]

ENGINES: Final = ("haproxy", "nginx", "stunnel")
REFERENCE: Final = "reference document"
REENACTED: Final = "re-enactment of the deployed design"


@dataclass(frozen=True)
class Goal:
    """What a figure shall be: at most `value`, or at least, where `least`."""

    value: float
    least: bool = False

    def holds(self, value: float) -> bool:
        """Whether it is."""
        return value >= self.value if self.least else value <= self.value


@dataclass(frozen=True)
class Known:
    """What is compared with, and where that comes from."""

    value: float | None
    source: str


def percentile(share: float) -> Callable[[Sequence[float]], float]:
    """What the given share of the samples is not above (nearest rank): one of them, never a value between two."""
    return lambda samples: sorted(samples)[math.ceil(share * len(samples)) - 1]


class Figures:
    """What was measured, by name."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def add(self, name: str, value: float) -> None:
        """One run's value."""
        self._samples[name].append(value)

    def value(self, name: str, take: Callable[[Sequence[float]], float] = statistics.median) -> float | None:
        """What `take` makes of the samples; None where every run failed."""
        samples = self._samples[name]
        return round(take(samples), 3) if samples else None

    def row(  # noqa: PLR0913 - a row's parts, most of them by default
        self,
        name: str,
        unit: str,
        goal: Goal | None = None,
        baseline: Known | None = None,
        *,
        of: str = "",
        take: Callable[[Sequence[float]], float] = statistics.median,
    ) -> dict[str, Any]:
        """A figure as it is written; `of` says whose samples it is made of, where not its own."""
        samples = [round(sample, 3) for sample in self._samples[of or name]]
        value = self.value(of or name, take)
        return {
            "name": name,
            "value": value,
            "unit": unit,
            "baseline": baseline.value if baseline else None,
            "baseline_source": baseline.source if baseline else None,
            "min": min(samples, default=None),
            "max": max(samples, default=None),
            "runs": len(samples),
            "goal": goal.value if goal else None,
            "holds": value is not None and goal.holds(value) if goal else None,
        }


def rows(figures: Figures) -> list[dict[str, Any]]:
    """All figures, in the order of the document."""
    return [*_set_ups(figures), *_others(figures), *_restarts(figures), *_deployed(figures)]


def _set_ups(figures: Figures) -> list[dict[str, Any]]:
    goals = {("haproxy", 50): Goal(100), ("haproxy", 99): Goal(300)}
    return [
        figures.row(
            f"setup_{engine}_p{p}", "ms", goals.get((engine, p)), of=f"setup_{engine}", take=percentile(p / 100)
        )
        for engine in ENGINES
        for p in (50, 99)
    ]


def _others(figures: Figures) -> list[dict[str, Any]]:
    none: Goal | None = None
    alone = Known(figures.value("req_alone"), "the same, with no other req waiting")
    nobody = Known(figures.value("deployed_design_at_once_right"), f"{REFERENCE} (0 of 20), {REENACTED}")
    plan = [
        ("inbound_request_wall", "s", Goal(0.35), Known(1.0, REFERENCE)),
        ("at_once_right", "share", Goal(1, least=True), nobody),
        ("at_once_rate", "sessions/s", Goal(20, least=True), Known(0.0, REFERENCE)),
        ("waiting_accepted", "s", none, None),
        ("req_alone", "ms", none, None),
        ("req_among_waiting", "ms", none, alone),
        ("waiting_memory", "MiB", none, None),
        ("waiting_gone", "s", none, Known(180.0, REFERENCE)),
        ("live_rate", "sessions/s", none, None),
        ("live_memory", "MiB", Goal(250), None),
        ("live_recovery", "s", Goal(2), None),
        ("live_right", "share", Goal(1, least=True), None),
        ("live_recovered_memory", "MiB", Goal(250), None),
        ("live_release", "s", none, None),
    ]
    return [figures.row(*each) for each in plan]


def _restarts(figures: Figures) -> list[dict[str, Any]]:
    takes: dict[str, Callable[[Sequence[float]], float]] = {"p50": percentile(0.5), "max": max}
    return [
        figures.row(f"data_server_restart_{engine}_{name}", "s", Goal(1), of=f"restart_{engine}", take=take)
        for engine in ENGINES
        for name, take in takes.items()
    ]


def _deployed(figures: Figures) -> list[dict[str, Any]]:
    return [
        figures.row("deployed_design_alone_right", "share"),
        figures.row("deployed_design_at_once_right", "share", baseline=Known(0.0, REFERENCE)),
    ]


def missed(found: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each goal that was not reached."""
    return [
        f"MISSED {row['name']}: {row['value']} {row['unit']}, the goal is {row['goal']:g}"
        for row in found
        if row["holds"] is False
    ]
