"""Network devices, and the HTB classes on them that hold a session to its rate: commands and answers as text.

The root qdisc counts a packet without its headers (`stab overhead`), so a class's rate is one of application bytes,
whatever the MTU and however the kernel cuts segments.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scistream.engines.base import Plan
from scistream.engines.shaping_marks import Priorities
from scistream.terms import Direction, Encryption, Transport

__all__ = [
    "Device",
    "Root",
    "bits",
    "free_priorities",
    "held",
    "read_classes",
    "read_devices",
    "read_roots",
    "read_routes",
    "release",
    "towards_clients",
]

_MAJOR: Final = "5c1e"
# Two classes a session: 2n to the targets, 2n + 1 to the clients. ffff is the root's own.
_PAIRS: Final = range(1, 0x7FFF)
_CLASS: Final = re.compile(rf"^class htb {_MAJOR}:([0-9a-f]+) ", re.ASCII | re.MULTILINE)
# The smallest headers there are, IPv4's and UDP's: a packet is never counted for less than its application bytes.
_HEADERS: Final = 20 + 8
_LINK_HEADERS: Final = {"ether": 14, "loopback": 14, "infiniband": 24}
# What TCP's headers and time stamps are longer; of the one to forty-five segments that a packet of the kernel's is.
_TCP: Final = 1.003
# A record of TLS: 16 KiB and 22 bytes around them.
_TLS: Final = 1.0013
# Seconds at the rate that may go at once: a timer of a busy machine comes late, and what it missed is caught up.
_BURST: Final = 0.02
# tc reads no more into its 32 bits.
_MOST_BYTES: Final = (1 << 32) - 1
_LEAST_BURST: Final = 4096
# A proxy's sockets wait for the queue themselves (TCP small queues), so it never fills.
_QUEUE: Final = "pfifo limit 10000"
# Packets on their way through wait here, at most this many seconds, and those that come on top are dropped.
_WAIT: Final = 0.1
_LEAST_WAITING: Final = 262144


@dataclass(frozen=True)
class Device:
    """A network device that is up, with the kernel's word for its kind of link, and its addresses."""

    name: str
    link: str
    addresses: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        """Whether it is the host's way to itself."""
        return self.link == "loopback"

    @property
    def serves(self) -> bool:
        """Whether clients can come by it: it has an address beyond its own link."""
        return any(not ipaddress.ip_address(each).is_link_local for each in self.addresses)


@dataclass(frozen=True)
class Root:
    """A device's root qdisc."""

    kind: str
    handle: str

    @property
    def is_ours(self) -> bool:
        """Whether it is the one with our classes."""
        return self.kind == "htb" and self.handle == f"{_MAJOR}:"

    @property
    def is_default(self) -> bool:
        """Whether the kernel chose it; it has no number then, and is there again when another one is removed."""
        return self.handle == "0:"


def read_devices(answer: str) -> list[Device]:
    """The devices, from `ip -j address show up`."""
    return [
        Device(
            each["ifname"],
            each.get("link_type", ""),
            tuple(address["local"] for address in each.get("addr_info", ()) if "local" in address),
        )
        for each in json.loads(answer)
        if each
    ]


def read_roots(answer: str) -> dict[str, Root]:
    """Each device's root qdisc, from `tc -j qdisc show`."""
    return {each["dev"]: Root(each["kind"], each["handle"]) for each in json.loads(answer) if each.get("root")}


def read_classes(answer: str) -> set[int]:
    """The numbers of our classes, from `tc class show`, which knows no JSON for them."""
    return {int(number, 16) for number in _CLASS.findall(answer)}


def read_routes(answer: str) -> set[str]:
    """The devices of all answers of a batch of `ip -j route get`."""
    decoder, found, rest = json.JSONDecoder(), set(), answer.lstrip()
    while rest:
        routes, end = decoder.raw_decode(rest)
        found |= {route["dev"] for route in routes if "dev" in route}
        rest = rest[end:].lstrip()
    return found


def towards_clients(devices: Collection[Device], bound: Iterable[str]) -> set[str]:
    """The devices that packets may leave by to those who connected to these addresses."""
    found = {device.name for device in devices if device.is_loopback}
    for address in bound:
        carriers = {device for device in devices if address in device.addresses}
        if ipaddress.ip_address(address).is_loopback:
            continue
        # One that the loopback device carries is reached through any other; so is one that nobody carries.
        if not carriers or any(device.is_loopback for device in carriers):
            carriers = {device for device in devices if device.serves}
        found |= {device.name for device in carriers}
    return found


def free_priorities(used: Collection[int]) -> Priorities | None:
    """A pair of classes that nobody has; None where there is none left."""
    taken = {number // 2 for number in used}
    pair = next((pair for pair in _PAIRS if pair not in taken), None)
    return Priorities(f"{_MAJOR}:{2 * pair:x}", f"{_MAJOR}:{2 * pair + 1:x}") if pair is not None else None


def bits(plan: Plan) -> tuple[int, int]:
    """The rates of a session's two classes, to the targets and to the clients, in bits of counted bytes a second."""
    rate = plan.rate * 1000 * (_TCP if plan.transport is Transport.TCP else 1)
    encrypted = rate * (1 if plan.encryption is Encryption.NONE else _TLS)
    rates = (rate, encrypted) if plan.direction is Direction.INBOUND else (encrypted, rate)
    return round(rates[0]), round(rates[1])


def held(
    devices: Iterable[Device], ours: Collection[str], plan: Plan, priorities: Priorities, *, forwarded: bool
) -> str:
    """The batch for tc that gives each of the devices both classes, and our root qdisc to those not in `ours`."""
    pairs = tuple(zip((priorities.to_targets, priorities.to_clients), bits(plan), strict=True))
    return "\n".join(
        line
        for device in devices
        for line in (
            *(() if device.name in ours else (_root(device),)),
            *(line for number, rate in pairs for line in _class(device, number, rate, forwarded)),
            "",
        )
    )


def _root(device: Device) -> str:
    overhead = f"stab overhead -{_LINK_HEADERS.get(device.link, 0) + _HEADERS} linklayer ethernet"
    return f"qdisc add dev {device.name} root {overhead} handle {_MAJOR}: htb default 0 r2q 1000"


def _class(device: Device, number: str, rate: int, forwarded: bool) -> Iterator[str]:
    burst = min(max(round(rate / 8 * _BURST), _LEAST_BURST), _MOST_BYTES)
    waiting = min(max(round(rate / 8 * _WAIT), _LEAST_WAITING), _MOST_BYTES)
    bounds = f"rate {rate}bit ceil {rate}bit burst {burst} cburst {burst} quantum 60000"
    yield f"class replace dev {device.name} parent {_MAJOR}: classid {number} htb {bounds}"
    yield f"qdisc replace dev {device.name} parent {number} {f'bfifo limit {waiting}' if forwarded else _QUEUE}"


def release(devices: Iterable[str], numbers: Iterable[str]) -> str:
    """The batch for tc that takes classes off the devices."""
    wanted = tuple(numbers)
    return "\n".join([*(f"class del dev {name} classid {each}" for name in devices for each in wanted), ""])
