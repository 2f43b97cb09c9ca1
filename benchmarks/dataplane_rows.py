"""What was measured, as rows of `results.json`, and the goals that they shall reach.

A ratio is taken between two runs of the same round, which lie seconds apart; the row has the median of the rounds'
ratios. So what slows the machine down for a while changes the figures, and hardly the ratios.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dataplane_contenders import DIRECT, OWN, Contender
from dataplane_measuring import Answers, Carried, Gathered
from figures import Goal

from scistream.terms import Encryption

__all__ = ["ENOUGH", "Measured", "Verdict", "rows", "verdicts"]

ENOUGH: Final = 5
"""Runs below which a median says nothing of a goal."""
_AT_ONCE: Final = 1000

_Rounds = dict[int, Carried]


@dataclass
class Measured:
    """All runs of all contenders, by round."""

    carried: dict[tuple[Contender, int], _Rounds] = field(default_factory=lambda: defaultdict(dict))
    answers: dict[Contender, dict[int, Answers]] = field(default_factory=lambda: defaultdict(dict))
    gathered: dict[Contender, Gathered] = field(default_factory=dict)


def rows(measured: Measured) -> list[dict[str, Any]]:
    """A row for each contender and number of connections that was measured at least once."""
    found = []
    for (contender, connections), rounds in measured.carried.items():
        if rounds:
            row = _carried(measured, contender, connections) | _answers(measured, contender)
            found.append(row | {"goals": _goals(contender, connections, row)})
    return found


def _carried(measured: Measured, contender: Contender, connections: int) -> dict[str, Any]:
    rounds = measured.carried[contender, connections]
    direct = measured.carried.get((contender.direct, connections), {})
    rival = measured.carried.get((contender.rival or contender, connections), {}) if contender.rival else {}
    to_direct = _ratios(rounds, direct, lambda run: run.gbps)
    rates = [run.gbps for run in rounds.values()]
    return {
        "engine": contender.engine,
        "encryption": contender.encryption.value,
        "settings": contender.settings,
        "congestion": contender.congestion,
        "connections": connections,
        "gbps": _median(rates),
        "min": _rounded(min(rates)),
        "max": _rounded(max(rates)),
        "runs": len(rates),
        "ratio_to_direct": _median(to_direct),
        "ratio_to_direct_min": _rounded(min(to_direct, default=None)),
        "ratio_to_direct_max": _rounded(max(to_direct, default=None)),
        "ratio_to_deployed": _median(_ratios(rounds, rival, lambda run: run.gbps)),
        "proxy_cpu_s_per_gb": _median([run.cpu_s_per_gb for run in rounds.values()]),
        "cpu_ratio_to_deployed": _median(_ratios(rounds, rival, lambda run: run.cpu_s_per_gb)),
        "memory_mib": _median([run.memory_mib for run in rounds.values()]),
    }


def _answers(measured: Measured, contender: Contender) -> dict[str, Any]:
    """What does not depend on the number of connections, and stands in all of a contender's rows."""
    rounds, direct = measured.answers[contender], measured.answers[DIRECT]
    added = [found.rtt_us - direct[number].rtt_us for number, found in rounds.items() if number in direct]
    crowd = measured.gathered.get(contender)
    return {
        "added_rtt_us": _median(added, digits=0),
        "new_connections_per_s": _median([found.connections_per_s for found in rounds.values()], digits=1),
        "connections_at_once": crowd.connections if crowd else None,
        "memory_mib_at_once": _rounded(crowd.memory_mib) if crowd else None,
    }


def _ratios(mine: _Rounds, others: _Rounds, take: Callable[[Carried], float]) -> list[float]:
    return [
        take(run) / take(others[number]) for number, run in mine.items() if number in others and take(others[number])
    ]


def _median(values: Sequence[float], digits: int = 3) -> float | None:
    return _rounded(statistics.median(values), digits) if values else None


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


_AT_LEAST: Final = {"ratio_to_direct", "ratio_to_deployed", "connections_at_once"}
# The issue names one connection for the first, and the second does not depend on their number.
_ONE_ROW: Final = {"ratio_to_direct", "connections_at_once"}
# By engine and encryption: what each figure shall reach, at every number of connections; but for what is below.
_GOALS: Final[dict[tuple[str, Encryption], dict[str, float]]] = {
    ("nftables", Encryption.NONE): {"ratio_to_direct": 0.95, "proxy_cpu_s_per_gb": 0},
    ("haproxy", Encryption.NONE): {"ratio_to_deployed": 1.6, "cpu_ratio_to_deployed": 0.45},
    ("nginx", Encryption.NONE): {"ratio_to_deployed": 1.6},
    ("haproxy", Encryption.TLS): {"ratio_to_deployed": 1.8, "connections_at_once": _AT_ONCE},
    ("nginx", Encryption.TLS): {"connections_at_once": _AT_ONCE},
    ("stunnel", Encryption.TLS_PSK): {
        "ratio_to_deployed": 1.2,
        "cpu_ratio_to_deployed": 0.75,
        "connections_at_once": _AT_ONCE,
    },
}


def _goals(contender: Contender, connections: int, row: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = _GOALS.get((contender.engine, contender.encryption), {}) if contender.settings == "ours" else {}
    if OWN and contender.engine == "nftables":
        # The issue wants cubic of the others. What paces leaves a NAT the time it takes, and most machines do.
        wanted = {name: goal for name, goal in wanted.items() if (contender in OWN) == (name == "ratio_to_direct")}
    found = []
    for name, limit in wanted.items():
        if name in _ONE_ROW and connections != 1:
            continue
        goal, value = Goal(limit, least=name in _AT_LEAST), row[name]
        found.append({"figure": name, "goal": limit, "holds": value is not None and goal.holds(value)})
    return found


@dataclass(frozen=True)
class Verdict:
    """Whether one row reaches one goal."""

    engine: str
    encryption: str
    connections: int
    figure: str
    value: float | None
    goal: float
    holds: bool

    def __str__(self) -> str:
        relation = ">=" if self.figure in _AT_LEAST else "<="
        what = f"{self.engine} ({self.encryption}), {self.connections} connections: {self.figure}"
        return f"{'holds ' if self.holds else 'MISSED'} {what} = {self.value}, the goal is {relation} {self.goal:g}"


def verdicts(found: Iterable[dict[str, Any]]) -> list[Verdict]:
    """Every goal of every row."""
    return [
        Verdict(
            row["engine"], row["encryption"], row["connections"], goal["figure"], row[goal["figure"]], **_rest(goal)
        )
        for row in found
        for goal in row["goals"]
    ]


def _rest(goal: dict[str, Any]) -> dict[str, Any]:
    return {name: goal[name] for name in ("goal", "holds")}
