"""The nftables table that gives each packet of a session the class that it is held to its rate by.

One table for all control servers of a host. A session has a chain there, named after it, which tells the direction and
sets the packet's priority, that is, its HTB class. For a data server that is a process, the map `cgroups` leads from
its cgroup to the chain; rules in the kernel set the priority themselves, and have the chain for its record alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scistream.engines.base import Plan
from scistream.engines.shaping_cgroups import Cgroup, Slot

__all__ = [
    "PROBE",
    "TABLE",
    "Priorities",
    "chain_of",
    "mark",
    "read_cgroups",
    "read_priorities",
    "read_slots",
    "rebuild",
    "unmark",
]

TABLE: Final = "inet scistream_rates"
# Behind the rules of others: what sets a priority last, sets it.
_HOOK: Final = "type filter hook output priority 200; policy accept;"
_MAP: Final = f"add map {TABLE} cgroups {{ typeof socket cgroupv2 level 1 : verdict; }}"
_CHAIN: Final = re.compile(r"s-([0-9a-f]{8})-([A-Za-z0-9.-]+)", re.ASCII)

PROBE: Final = "\n".join(
    (
        f"add table {TABLE}_probe",
        f"add chain {TABLE}_probe out {{ {_HOOK} }}",
        f"add map {TABLE}_probe cgroups {{ typeof socket cgroupv2 level 1 : verdict; }}",
        f"add rule {TABLE}_probe out socket cgroupv2 level 1 vmap @cgroups",
        "",
    )
)
"""What nft takes where the kernel can tell packets by cgroup."""


@dataclass(frozen=True)
class Priorities:
    """What `meta priority set` takes, for each direction of a session's packets."""

    to_targets: str
    to_clients: str


def chain_of(slot: Slot) -> str:
    """The name of a session's chain."""
    return f"s-{slot.name}"


def mark(plan: Plan, priorities: Priorities, cgroup: Cgroup | None) -> str:
    """One transaction that gives a session its chain, and its cgroup the way there; again, it changes nothing."""
    chain = f"{TABLE} {chain_of(Slot.of(plan))}"
    ports = ", ".join(str(port) for port in sorted({route.entry_point.port for route in plan.routes}))
    answers = f"meta l4proto {plan.transport.value} th sport {{ {ports} }}"
    lines = [
        f"add table {TABLE}",
        f"add chain {chain}",
        f"flush chain {chain}",
        f"add rule {chain} {answers} meta priority set {priorities.to_clients} return",
        f"add rule {chain} meta priority set {priorities.to_targets}",
    ]
    if cgroup is not None:
        lines += [
            *_level(cgroup.level),
            f'add element {TABLE} cgroups {{ "{cgroup.name}" : goto {chain_of(Slot.of(plan))} }}',
        ]
    return "\n".join([*lines, ""])


def _level(level: int) -> Iterator[str]:
    """The base chain for cgroups of this depth: the kernel looks up the ancestor of one depth at a time."""
    yield _MAP
    yield f"add chain {TABLE} level-{level} {{ {_HOOK} }}"
    yield f"flush chain {TABLE} level-{level}"
    yield f"add rule {TABLE} level-{level} socket cgroupv2 level {level} vmap @cgroups"


def unmark(slot: Slot, cgroup: Cgroup | None) -> str:
    """One transaction that takes a session out; for as long as its cgroup is there."""
    gone = [f'delete element {TABLE} cgroups {{ "{cgroup.name}" }}'] if cgroup is not None else []
    return "\n".join([*gone, *_delete(slot), ""])


def rebuild(slot: Slot, cgroups: Mapping[str, str]) -> str:
    """The same for one whose cgroup has gone: nft names an element by its path alone, so the others are put in anew.

    `cgroups` are the paths that are there, each with its chain.
    """
    others = [f'"{path}" : goto {chain}' for path, chain in cgroups.items() if chain != chain_of(slot)]
    kept = [f"add element {TABLE} cgroups {{ {', '.join(others)} }}"] if others else []
    return "\n".join([_MAP, f"flush map {TABLE} cgroups", *kept, *_delete(slot), ""])


def _delete(slot: Slot) -> Iterable[str]:
    return (f"flush chain {TABLE} {chain_of(slot)}", f"delete chain {TABLE} {chain_of(slot)}")


def read_priorities(answer: str) -> Priorities | None:
    """The priorities that a session's chain sets, from `nft -j list chain`; None where it is not whole."""
    found = [str(each["value"]) for rule in _objects(answer, "rule") for each in _mangles(rule)]
    return Priorities(found[1], found[0]) if len(found) == 2 else None


def read_slots(answer: str) -> dict[Slot, Priorities | None]:
    """All sessions with their priorities, from `nft -j list table`."""
    rules: dict[str, list[str]] = {}
    for chain in _objects(answer, "chain"):
        rules.setdefault(chain["name"], [])
    for rule in _objects(answer, "rule"):
        rules[rule["chain"]] += [str(each["value"]) for each in _mangles(rule)]
    slots = {name: _CHAIN.fullmatch(name) for name in rules}
    return {
        Slot(*match.groups()): Priorities(*reversed(rules[name])) if len(rules[name]) == 2 else None
        for name, match in slots.items()
        if match is not None
    }


def read_cgroups(answer: str) -> dict[str, str]:
    """The map's paths, each with its chain, from `nft -j list map`; a number is a cgroup that has gone."""
    elements = [element for each in _objects(answer, "map") for element in each.get("elem", ())]
    return {str(key): verdict["goto"]["target"] for key, verdict in elements}


def _objects(answer: str, kind: str) -> Iterator[dict[str, Any]]:
    return (each[kind] for each in json.loads(answer)["nftables"] if kind in each)


def _mangles(rule: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (part["mangle"] for part in rule.get("expr", ()) if "mangle" in part)
