"""What is told to nft of one session: to put it in, to change it, to take it out. As data, for `nft -j -f`.

Source: libnftables-json(5).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

from scistream.addresses import Network, collapsed
from scistream.engines.nft_names import Making, door_map
from scistream.terms import Transport

__all__ = [
    "CARRIED",
    "Door",
    "Rules",
    "Standing",
    "closed",
    "installed",
    "reclassed",
    "removed",
    "retargeted",
]

Command = dict[str, Any]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOGS_PER_MINUTE: Final = 10
CARRIED: Final = ("carried", "carried_bare")
"""The maps that count packets; `bare` those of TCP whose header has no options."""
_LISTENING: Final = {"concat": [{"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]}


@dataclass(frozen=True)
class Door:
    """An entry point and its target, both by IP address, of one family. An unspecified address stands for all."""

    address: _Address
    port: int
    target: _Address
    target_port: int

    @property
    def family(self) -> str:
        """What nftables calls the family."""
        return _family(self.address)


@dataclass(frozen=True)
class Rules:
    """What a session's rules are made from.

    Attributes:
        making: whose they are.
        transport: of all doors.
        doors: its entry points.
        sources: who may connect; everybody, where there are none.
        classes: the class of the rate's queue (`meta priority`) for packets to the targets and for those back.
    """

    making: Making
    transport: Transport
    doors: tuple[Door, ...]
    sources: tuple[Network, ...] = ()
    classes: tuple[str, str] | None = None

    @property
    def chains(self) -> tuple[str, ...]:
        """The kinds of its chains."""
        return ("admit", "carry", "refuse") if self.sources else ("admit", "carry")


@dataclass(frozen=True)
class Standing:
    """What of a session stands in the table.

    Attributes:
        making: whose it is.
        kinds: its chains.
        doors: the elements that lead to it, each with its map's name.
    """

    making: Making
    kinds: tuple[str, ...]
    doors: tuple[tuple[str, Command], ...]

    @property
    def carried(self) -> tuple[str, ...]:
        """The maps that count its packets."""
        return _carried(any(protocol == Transport.TCP.value for protocol, _ in self.ports))

    @property
    def ports(self) -> list[list[Any]]:
        """Protocol and port of each entry point, once."""
        return [list(port) for port in dict.fromkeys(tuple(key["concat"][-2:]) for _, key in self.doors)]


def installed(table: str, rules: Rules) -> list[Command]:
    """Put a session in: one transaction, for `nft -j -f`."""
    making = rules.making
    return [
        # A chain of that name that is there already is another's.
        *({"create": {"chain": _named(table, name=making.name(kind))}} for kind in rules.chains),
        *_admission(table, rules),
        *(_refusal(table, rules) if rules.sources else ()),
        *_classes(table, making, rules.classes),
        *_elements(table, rules),
    ]


def retargeted(table: str, rules: Rules) -> list[Command]:
    """Have new connections go to the rules' targets; conntrack knows where the running ones go."""
    return [
        _flush(table, rules.making.name("admit")),
        *_admission(table, rules),
        *_targets(table, rules),
        *(reclassed(table, rules.making, rules.classes) if rules.classes else ()),
    ]


def reclassed(table: str, making: Making, classes: tuple[str, str]) -> list[Command]:
    """Have the packets of each way go through these queues."""
    return [_flush(table, making.name("carry")), *_classes(table, making, classes)]


def closed(table: str, making: Making, *, running: bool) -> list[Command]:
    """Refuse new connections; where `running` is false, also whatever the running ones send."""
    rejections = [_reject(transport) for transport in Transport]
    rules = [("admit", [_match(_LISTENING, "@late")]), *(("admit", rule) for rule in rejections)]
    if not running:
        rules += [("carry", rule) for rule in rejections]
    names = dict.fromkeys(making.name(kind) for kind, _ in rules)
    return [*(_flush(table, name) for name in names), *(_rule(table, making.name(kind), rule) for kind, rule in rules)]


def removed(table: str, standing: Standing, *, last: bool) -> list[Command]:
    """Take a session out; the `last` one with the whole table, which nobody needs then.

    Other sessions may have the same targets, so these stay until then: one too many harms nobody.
    """
    if last:
        return [{"delete": {"table": {"family": "inet", "name": table}}}]
    number, chains = standing.making.number, [standing.making.name(kind) for kind in standing.kinds]
    ways = [("marks", number), *((name, way) for name in standing.carried for way in _ways(number))]
    ports = [(name, {"concat": port}) for name in ("ports", "refused", "late") for port in standing.ports]
    return [
        *(_element("delete", table, name, key) for name, key in (*standing.doors, *ways, *ports)),
        *(_flush(table, chain) for chain in chains),
        *({"delete": {"chain": _named(table, name=chain)}} for chain in chains),
    ]


def _admission(table: str, rules: Rules) -> list[Command]:
    """Whose connection it is: turned away, or marked, counted, and sent to its target."""
    making = rules.making
    families = sorted({door.family for door in rules.doors})
    guards = [_guard(family, rules) for family in families if rules.sources]
    idle = "tcp_idle" if rules.transport is Transport.TCP else "udp_idle"
    marking = [
        _match(_meta("l4proto"), rules.transport.value),
        {"ct timeout": idle},
        {"mangle": {"key": _ct("mark"), "value": making.number}},
    ]
    doors = [_translation(door, rules.transport) for door in rules.doors]
    return [_rule(table, making.name("admit"), rule) for rule in (*guards, marking, *doors)]


def _guard(family: str, rules: Rules) -> list[Command]:
    version = 4 if family == "ip" else 6
    allowed = [_prefix(each) for each in collapsed(rules.sources, version)]
    away = {"goto": {"target": rules.making.name("refuse")}}
    if not allowed:
        return [_match(_meta("nfproto"), f"ipv{version}"), away]
    return [_match(_field(family, "saddr"), {"set": allowed}, "!="), away]


def _prefix(network: Network) -> Command:
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def _translation(door: Door, transport: Transport) -> list[Command]:
    if door.address.is_unspecified:
        entry = [_match(_meta("nfproto"), "ipv4" if door.family == "ip" else "ipv6")]
    else:
        entry = [_match(_field(door.family, "daddr"), str(door.address))]
    target = {"family": door.family, "addr": str(door.target), "port": door.target_port}
    return [*entry, _match(_field(transport.value, "dport"), door.port), {"dnat": target}]


def _refusal(table: str, rules: Rules) -> list[Command]:
    name = rules.making.name("refuse")
    log = {"log": {"prefix": f"scistream refused {rules.making.stem} ", "level": "info"}}
    limit = {"limit": {"rate": _LOGS_PER_MINUTE, "per": "minute"}}
    parts: list[list[Command]] = [[_match(_LISTENING, "@refused")], [limit, log], _reject(rules.transport)]
    return [_rule(table, name, part) for part in parts]


def _reject(transport: Transport) -> list[Command]:
    # What answers comes by here as well, and shall pass: resets, and words of ICMP.
    if transport is Transport.TCP:
        return [_match({"&": [_field("tcp", "flags"), "rst"]}, "rst", "!="), {"reject": {"type": "tcp reset"}}]
    return [_match(_meta("l4proto"), "udp"), {"reject": {"type": "icmpx", "expr": "port-unreachable"}}]


def _classes(table: str, making: Making, classes: tuple[str, str] | None) -> list[Command]:
    """Which queue the packets of each way go through, where there is a rate to keep."""
    return [
        _rule(
            table,
            making.name("carry"),
            [_match(_ct("direction"), way), {"mangle": {"key": _meta("priority"), "value": name}}],
        )
        for way, name in zip(("original", "reply"), classes or (), strict=False)
    ]


def _elements(table: str, rules: Rules) -> list[Command]:
    making = rules.making
    admit, carry = ({"goto": {"target": making.name(kind)}} for kind in ("admit", "carry"))
    carried = _carried(rules.transport is Transport.TCP)
    found: list[tuple[str, Any]] = [("marks", making.number)]
    found += [(name, [way, carry]) for name in carried for way in _ways(making.number)]
    for door in rules.doors:
        port = [rules.transport.value, door.port]
        host = [] if door.address.is_unspecified else [str(door.address)]
        found.append((door_map(door.address), [{"concat": [*host, *port]}, admit]))
        found += [(name, {"concat": port}) for name in ("ports", "refused", "late")]
    return [*(_element("add", table, name, element) for name, element in found), *_targets(table, rules)]


def _carried(is_tcp: bool) -> tuple[str, ...]:
    return CARRIED if is_tcp else CARRIED[:1]


def _ways(number: int) -> list[Command]:
    return [{"concat": [number, way]} for way in ("original", "reply")]


def _targets(table: str, rules: Rules) -> list[Command]:
    return [_element("add", table, f"targets_{door.family}", _target(door, rules)) for door in rules.doors]


def _target(door: Door, rules: Rules) -> Command:
    return {"concat": [str(door.target), rules.transport.value, door.target_port]}


def _family(address: _Address) -> str:
    return "ip" if address.version == 4 else "ip6"


def _named(table: str, **fields: Any) -> Command:
    return {"family": "inet", "table": table, **fields}


def _flush(table: str, chain: str) -> Command:
    return {"flush": {"chain": _named(table, name=chain)}}


def _rule(table: str, chain: str, expressions: list[Command]) -> Command:
    return {"add": {"rule": _named(table, chain=chain, expr=expressions)}}


def _element(verb: str, table: str, name: str, element: Any) -> Command:
    return {verb: {"element": _named(table, name=name, elem=[element])}}


def _match(left: Command, right: Any, how: str = "==") -> Command:
    return {"match": {"op": how, "left": left, "right": right}}


def _meta(key: str) -> Command:
    return {"meta": {"key": key}}


def _ct(key: str) -> Command:
    return {"ct": {"key": key}}


def _field(protocol: str, field: str) -> Command:
    return {"payload": {"protocol": protocol, "field": field}}
