"""What nft answers in JSON: which sessions stand in the tables of the host, and what their elements counted.

Source: libnftables-json(5).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scistream.engines.marks import ProcessMark
from scistream.engines.nft_names import Making, is_table
from scistream.engines.nft_table import Standing
from scistream.engines.traffic import Traffic
from scistream.terms import Transport

__all__ = ["TURNED_AWAY", "Element", "Look", "Standings", "Tally", "droppers", "elements", "sessions", "standing"]

TURNED_AWAY: Final = ("refused", "late")
"""The sets that count, by port, peers that are in no source list and those that came after the end."""
# Bytes of headers by IP version, and by map: without options, or with the time stamps' one.
_IP: Final = {"ip": 20, "ip6": 40}
_TCP: Final = {"carried_bare": 20, "carried": 32}
_UDP: Final = 8


Standings = dict[str, dict[Making, tuple[str, ...]]]
"""By table, the sessions that stand in it, each with the kinds of its chains."""


@dataclass
class Look:
    """What stood in the tables at a time of the monotonic clock."""

    time: float = float("-inf")
    tables: Standings = field(default_factory=dict)

    @functools.cached_property
    def by_mark(self) -> dict[ProcessMark, tuple[str, Making, tuple[str, ...]]]:
        """Where each session stands: its table, itself, and the kinds of its chains."""
        found = ((table, *each) for table, standing in self.tables.items() for each in standing.items())
        return {making.mark: (table, making, kinds) for table, making, kinds in found}


@dataclass(frozen=True)
class Element:
    """One element of a map or set.

    Attributes:
        table: the table.
        name: the map's or set's name.
        key: its key, as nft wants it back.
        chain: where it leads to; empty in a set.
        packets: how often it was met.
        size: the bytes of the packets that met it, with all of their IP headers.
    """

    table: str
    name: str
    key: Any
    chain: str = ""
    packets: int = 0
    size: int = 0

    @property
    def port(self) -> tuple[str, int]:
        """Protocol and port, where the key ends with these."""
        protocol, port = self.key["concat"][-2:]
        return protocol, port


def sessions(answer: Mapping[str, Any]) -> Standings:
    """`list chains`: by table, the sessions that stand in it, each with the kinds of its chains."""
    found: Standings = {}
    for each in answer["nftables"]:
        chain = each.get("chain", {})
        if not is_table(chain.get("table", "")):
            continue
        table = found.setdefault(chain["table"], {})
        if read := Making.parse(chain["name"]):
            kind, making = read
            table[making] = (*table.get(making, ()), kind)
    return found


def droppers(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """`list chains`: others' chains that drop whatever is forwarded, unless one of their rules lets it pass."""
    chains = (each.get("chain", {}) for each in answer["nftables"])
    return tuple(
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if (chain.get("hook"), chain.get("policy")) == ("forward", "drop") and chain["family"] in ("inet", "ip", "ip6")
    )


def elements(answer: Mapping[str, Any]) -> Iterator[Element]:
    """`list maps` or `list sets`: the elements of the tables of control servers."""
    for each in answer["nftables"]:
        where = each.get("map") or each.get("set") or {}
        if is_table(where.get("table", "")):
            for element in where.get("elem", ()):
                yield _element(where, element)


def _element(where: Mapping[str, Any], element: Any) -> Element:
    key, verdict = element if isinstance(element, list) else (element, {})
    counter: Mapping[str, int] = {}
    if isinstance(key, dict) and "elem" in key:
        counter, key = key["elem"].get("counter", {}), key["elem"]["val"]
    chain = verdict.get("goto", {}).get("target", "")
    return Element(where["table"], where["name"], key, chain, counter.get("packets", 0), counter.get("bytes", 0))


def standing(making: Making, kinds: tuple[str, ...], found: Iterable[Element]) -> Standing:
    """What of a session stands in its table, from that table's `DOORS`."""
    admit = making.name("admit")
    return Standing(making, kinds, tuple((each.name, each.key) for each in found if each.chain == admit))


class Tally:
    """What the elements of a table counted, by who it belongs to: a thousand sessions are asked for in one go."""

    def __init__(self, found: Iterable[Element] = ()) -> None:
        self._by_chain: dict[str, list[Element]] = {}
        self._by_port: dict[tuple[str, tuple[str, int]], int] = {}
        for each in found:
            if each.chain:
                self._by_chain.setdefault(each.chain, []).append(each)
            elif each.name in TURNED_AWAY:
                self._by_port[each.name, each.port] = each.packets

    def figures(self, making: Making) -> Traffic:
        """What a session carried, without the open connections.

        A packet's bytes are without its headers: exactly so for UDP, and for TCP with or without time stamps. What a
        receiver says of lost segments is 12 to 24 bytes longer, and then counted with the bytes of its way; so are
        segments that are sent twice.
        """
        doors = self._by_chain.get(making.name("admit"), [])
        ports = {each.port for each in doors}
        refused, late = (sum(self._by_port.get((name, port), 0) for port in ports) for name in TURNED_AWAY)
        ways = {"original": 0, "reply": 0}
        for each in self._by_chain.get(making.name("carry"), []):
            ways[each.key["concat"][1]] += max(0, each.size - _header(doors, each) * each.packets)
        return Traffic(
            connections_total=max(0, sum(each.packets for each in doors) - refused - late),
            bytes_to_targets=ways["original"],
            bytes_from_targets=ways["reply"],
            refused_peers=refused,
        )


def _header(doors: Iterable[Element], carried: Element) -> int:
    is_ipv6 = any(each.name.endswith("_ip6") for each in doors)
    is_udp = any(each.port[0] == Transport.UDP.value for each in doors)
    return _IP["ip6" if is_ipv6 else "ip"] + (_UDP if is_udp else _TCP[carried.name])
