"""What nft is told to keep entry points to their sources, and what it answers.

One table a control server. Only what begins a connection is looked at, so that connections that run cost nothing and
no connection tracking is switched on: `doors` looks a SYN's destination up in a map, which leads to the session's
chain, and that accepts the sources, counts the others, notes who they are, logs some, and resets all of them. (Of IPv6
fragments, Linux drops from 5.10 on those whose first one hides the TCP header.)

Of a session there are a chain and elements. A counter and a set for each was measured too, and with 1,000 sessions took
nft four tenths of a second to look at.

Source: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from scistream.addresses import Network, collapsed
from scistream.engines.nft_names import DOORS, door_map
from scistream.engines.shaping_cgroups import Slot

__all__ = [
    "PROBE",
    "REFUSED",
    "STRANGERS",
    "Door",
    "door_at",
    "put_in",
    "read_doors",
    "read_refused",
    "read_strangers",
    "table_of",
    "take_out",
]

REFUSED: Final = "refused"
"""The set that counts, by port, the connections that were refused."""
STRANGERS: Final = {"ip": "strangers_ip", "ip6": "strangers_ip6"}
"""The sets of the last who were refused, by port, for each IP version as nftables calls it."""

# The types of the keys of `DOORS`.
_KEYS: Final = ("ipv4_addr . inet_service", "ipv6_addr . inet_service", "inet_service", "inet_service")
_VERSIONS: Final = {"ip": 4, "ip6": 6}
_BASE: Final = (
    "input tcp flags & (fin | syn | rst | ack) == syn jump doors",
    "doors ip daddr . tcp dport vmap @at_ip",
    "doors ip6 daddr . tcp dport vmap @at_ip6",
    "doors meta nfproto ipv4 tcp dport vmap @any_ip",
    "doors meta nfproto ipv6 tcp dport vmap @any_ip6",
)
_LOGS_PER_MINUTE: Final = 10
# Those that a set has no room for are refused all the same.
_NOTING: Final = "size 1024; flags dynamic,timeout; timeout 10m;"
_CHAIN: Final = re.compile(r"s-([A-Za-z0-9.-]+)", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Door(NamedTuple):
    """An element of one of the maps: where somebody may come in."""

    map: str
    key: str

    @property
    def port(self) -> str:
        """Its port."""
        return self.key.rpartition(" ")[2]


def table_of(instance: str) -> str:
    """The table of a control server (`Slot.instance`)."""
    return f"inet scistream_sources_{instance}"


def door_at(address: _Address, port: int) -> Door:
    """The way in to a port on an address; where it is unspecified, on all of its IP version."""
    return Door(door_map(address), str(port) if address.is_unspecified else f"{address} . {port}")


def put_in(slot: Slot, doors: Collection[Door], sources: Sequence[Network], stale: Collection[Door] = ()) -> str:
    """One transaction that guards a session's doors, and makes what is missing; again, it changes nothing.

    `stale` are those of its doors that lead to another session, which is over.
    """
    table, chain = table_of(slot.instance), f"s-{slot.stem}"
    rules = (f"add rule {table} {chain} {rule}" for rule in _rules(slot.stem, sources))
    ports = (f"add element {table} {REFUSED} {{ {port} }}" for port in sorted({door.port for door in doors}))
    elements = (f"add element {table} {door.map} {{ {door.key} : goto {chain} }}" for door in sorted(doors))
    lines = (*_base(table), *_chain(table, chain), *rules, *ports, *_delete(table, stale), *elements)
    return "\n".join([*lines, ""])


def _base(table: str) -> Iterator[str]:
    yield f"add table {table}"
    yield from (f"add map {table} {name} {{ type {keys} : verdict; }}" for name, keys in zip(DOORS, _KEYS, strict=True))
    yield f"add set {table} {REFUSED} {{ type inet_service; counter; }}"
    for family, name in STRANGERS.items():
        yield f"add set {table} {name} {{ type inet_service . ipv{_VERSIONS[family]}_addr; {_NOTING} }}"
    yield from _chain(table, "doors")
    yield from _chain(table, "input", " { type filter hook input priority 0; policy accept; }")
    yield from (f"add rule {table} {rule}" for rule in _BASE)


def _chain(table: str, chain: str, hook: str = "") -> Iterable[str]:
    return f"add chain {table} {chain}{hook}", f"flush chain {table} {chain}"


def _rules(stem: str, sources: Sequence[Network]) -> Iterator[str]:
    for family, version in _VERSIONS.items():
        if allowed := ", ".join(map(str, collapsed(sources, version))):
            yield f"{family} saddr {{ {allowed} }} accept"
    yield f"tcp dport @{REFUSED}"
    yield from (f"add @{name} {{ tcp dport . {family} saddr }}" for family, name in STRANGERS.items())
    yield f'limit rate {_LOGS_PER_MINUTE}/minute log prefix "scistream refused {stem} " level info'
    yield "reject with tcp reset"


def take_out(instance: str, there: Mapping[Door, str], stems: Container[str]) -> str:
    """One transaction that takes sessions out, given what stands there; with the last one the table."""
    table = table_of(instance)
    gone = {door: stem for door, stem in there.items() if stem in stems}
    if len(gone) == len(there):
        return f"delete table {table}\n"
    chains = [f"{table} s-{stem}" for stem in sorted(set(gone.values()))]
    ports = {door.port for door in gone} - {door.port for door in there if door not in gone}
    lines = [
        *_delete(table, gone),
        *(f"delete element {table} {REFUSED} {{ {port} }}" for port in sorted(ports)),
        # The next who has one of the ports shall not be told of these.
        *(f"flush set {table} {name}" for name in STRANGERS.values()),
        *(f"{verb} chain {chain}" for chain in chains for verb in ("flush", "delete")),
    ]
    return "\n".join([*lines, ""])


def _delete(table: str, doors: Iterable[Door]) -> Iterator[str]:
    return (f"delete element {table} {door.map} {{ {door.key} }}" for door in sorted(doors))


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


def read_refused(answer: str) -> dict[int, int]:
    """How many connections were refused, by port: `list set`."""
    return {each["val"]: each["counter"]["packets"] for each in _noted(answer)}


def read_strangers(answer: str) -> set[tuple[int, str]]:
    """The port and the address of each: `list set`."""
    return {(port, address) for port, address in (each["val"]["concat"] for each in _noted(answer))}


def _noted(answer: str) -> Iterator[dict[str, Any]]:
    return (element["elem"] for each in _objects(answer, "set") for element in each.get("elem", ()))


def _objects(answer: str, kind: str) -> Iterator[dict[str, Any]]:
    return (each[kind] for each in json.loads(answer)["nftables"] if kind in each)


PROBE: Final = put_in(Slot("probe", "probe"), (), ())
"""What nft takes where this kernel can keep a source list."""
