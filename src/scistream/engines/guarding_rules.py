"""What nft is told to keep a session's entry points to its sources, and what it answers.

One table a control server. Only what begins a connection is looked at, so that connections that run cost nothing and
no connection tracking is switched on: `doors` looks a SYN's destination up in a map, which leads to the session's
chain, and that accepts the sources, counts the others, notes who they are, logs some, and resets all of them. (Of IPv6
fragments, Linux drops from 5.10 on those whose first one hides the TCP header.)

Source: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from scistream.addresses import Network
from scistream.engines.shaping_cgroups import Slot

__all__ = [
    "DOORS",
    "FAMILIES",
    "PROBE",
    "Door",
    "counter_of",
    "door_at",
    "put_in",
    "read_counters",
    "read_doors",
    "read_strangers",
    "strangers_of",
    "table_of",
    "take_out",
]

DOORS: Final = {
    "at_ip": "ipv4_addr . inet_service",
    "at_ip6": "ipv6_addr . inet_service",
    "any_ip": "inet_service",
    "any_ip6": "inet_service",
}
"""The maps of the entry points, each with the type of its keys."""
FAMILIES: Final = {"ip": 4, "ip6": 6}
"""What nftables calls the IP versions."""

_BASE: Final = (
    "input tcp flags & (fin | syn | rst | ack) == syn jump doors",
    "doors ip daddr . tcp dport vmap @at_ip",
    "doors ip6 daddr . tcp dport vmap @at_ip6",
    "doors meta nfproto ipv4 tcp dport vmap @any_ip",
    "doors meta nfproto ipv6 tcp dport vmap @any_ip6",
)
_LOGS_PER_MINUTE: Final = 10
# Those that a set has no room for are refused all the same.
_STRANGERS: Final = "size 64; flags dynamic,timeout; timeout 10m;"
_CHAIN: Final = re.compile(r"s-([A-Za-z0-9.-]+)", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Door(NamedTuple):
    """An element of one of the maps: where somebody may come in."""

    map: str
    key: str


def table_of(instance: str) -> str:
    """The table of a control server (`Slot.instance`)."""
    return f"inet scistream_sources_{instance}"


def counter_of(stem: str) -> str:
    """The counter of the connections that were refused."""
    return f"refused-{stem}"


def strangers_of(stem: str, family: str) -> str:
    """The set of the last who were refused."""
    return f"strangers-{family}-{stem}"


def door_at(address: _Address, port: int) -> Door:
    """The way in to a port on an address; where it is unspecified, on all of its IP version."""
    family = "ip" if address.version == FAMILIES["ip"] else "ip6"
    if address.is_unspecified:
        return Door(f"any_{family}", str(port))
    return Door(f"at_{family}", f"{address} . {port}")


def put_in(slot: Slot, doors: Collection[Door], sources: Sequence[Network], stale: Collection[Door] = ()) -> str:
    """One transaction that guards a session's doors, and makes what is missing; again, it changes nothing.

    `stale` are those of its doors that lead to another session, which is over.
    """
    table, chain = table_of(slot.instance), f"s-{slot.stem}"
    counter = f"add counter {table} {counter_of(slot.stem)}"
    strangers = [
        f"add set {table} {strangers_of(slot.stem, family)} {{ type ipv{version}_addr; {_STRANGERS} }}"
        for family, version in FAMILIES.items()
    ]
    rules = (f"add rule {table} {chain} {rule}" for rule in _rules(slot.stem, sources))
    lines = (*_base(table), *_chain(table, chain), counter, *strangers, *rules)
    elements = (f"add element {table} {door.map} {{ {door.key} : goto {chain} }}" for door in doors)
    return "\n".join([*lines, *_delete(table, stale), *elements, ""])


def _base(table: str) -> Iterator[str]:
    yield f"add table {table}"
    yield from (f"add map {table} {name} {{ type {keys} : verdict; }}" for name, keys in DOORS.items())
    yield from _chain(table, "doors")
    yield from _chain(table, "input", " { type filter hook input priority 0; policy accept; }")
    yield from (f"add rule {table} {rule}" for rule in _BASE)


def _chain(table: str, chain: str, hook: str = "") -> Iterable[str]:
    return f"add chain {table} {chain}{hook}", f"flush chain {table} {chain}"


def _rules(stem: str, sources: Sequence[Network]) -> Iterator[str]:
    for family, version in FAMILIES.items():
        # nft takes no two ranges of a set that overlap.
        own = [each for each in sources if each.version == version]
        if allowed := ", ".join(map(str, ipaddress.collapse_addresses(own))):  # type: ignore[type-var]
            yield f"{family} saddr {{ {allowed} }} accept"
    yield f'counter name "{counter_of(stem)}"'
    yield from (f"add @{strangers_of(stem, family)} {{ {family} saddr }}" for family in FAMILIES)
    yield f'limit rate {_LOGS_PER_MINUTE}/minute log prefix "scistream refused {stem} " level info'
    yield "reject with tcp reset"


def take_out(instance: str, stem: str, doors: Collection[Door], *, last: bool) -> str:
    """One transaction that takes a session out; `doors` are those that lead to it. The `last` one with the table."""
    table, chain = table_of(instance), f"s-{stem}"
    if last:
        return f"delete table {table}\n"
    gone = [f"set {table} {strangers_of(stem, family)}" for family in FAMILIES]
    gone += [f"counter {table} {counter_of(stem)}", f"chain {table} {chain}"]
    lines = (*_delete(table, doors), f"flush chain {table} {chain}", *(f"delete {each}" for each in reversed(gone)))
    return "\n".join([*lines, ""])


def _delete(table: str, doors: Iterable[Door]) -> Iterator[str]:
    return (f"delete element {table} {door.map} {{ {door.key} }}" for door in doors)


def read_doors(answer: str) -> dict[Door, str]:
    """The doors of a map, each with the session that it leads to by what begins its files' names: `list map`."""
    found: dict[Door, str] = {}
    for each in _objects(answer, "map"):
        for key, verdict in each.get("elem", ()):
            chain = _CHAIN.fullmatch(verdict.get("goto", {}).get("target", ""))
            if chain is not None:
                parts = key["concat"] if isinstance(key, dict) else [key]
                found[Door(each["name"], " . ".join(map(str, parts)))] = chain.group(1)
    return found


def read_counters(answer: str) -> dict[str, int]:
    """How many connections each counter has met: `list counters`."""
    return {each["name"]: each["packets"] for each in _objects(answer, "counter")}


def read_strangers(answer: str) -> set[str]:
    """The addresses in a set of strangers: `list set`."""
    return {str(element["elem"]["val"]) for each in _objects(answer, "set") for element in each.get("elem", ())}


def _objects(answer: str, kind: str) -> Iterator[dict[str, Any]]:
    return (each[kind] for each in json.loads(answer)["nftables"] if kind in each)


PROBE: Final = put_in(Slot("probe", "probe"), (), ())
"""What nft takes where this kernel can keep a source list."""
