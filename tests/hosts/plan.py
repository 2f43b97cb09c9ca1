"""Which hosts there are, what they are called and where they are. Nothing here touches the machine.

| host | ssh | instrument | wan | compute |
| --- | --- | --- | --- | --- |
| instrument | 198.18.10.11 | 198.18.11.10 | | |
| gateway_a | 198.18.10.21 | 198.18.11.2 | 198.18.12.2 | |
| gateway_b | 198.18.10.22 | | 198.18.12.3 | 198.18.13.2 |
| compute | 198.18.10.31 | | | 198.18.13.10 |
| fleet_01 and on | 198.18.10.101 and on | | | |

The columns are networks; a host's interface has its network's name. 198.18.10.1 is the outer end, in the network of
whoever made the hosts. A host has no default route.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from .programs import HostsError

__all__ = ["NETWORKS", "OUTER_ADDRESS", "SSH", "HostPlan", "Plan", "plan_of"]

SSH = "ssh"
NETWORKS = (SSH, "instrument", "wan", "compute")
OUTER_ADDRESS = "198.18.10.1"
_ADDRESSES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "instrument": {SSH: "198.18.10.11", "instrument": "198.18.11.10"},
        "gateway_a": {SSH: "198.18.10.21", "instrument": "198.18.11.2", "wan": "198.18.12.2"},
        "gateway_b": {SSH: "198.18.10.22", "compute": "198.18.13.2", "wan": "198.18.12.3"},
        "compute": {SSH: "198.18.10.31", "compute": "198.18.13.10"},
    }
)
_FLEET = re.compile(r"fleet_(\d\d+)")
_MOST = 150
# Options of the overlay file system and of systemd-nspawn are lists, and these part their members.
_UNUSABLE = re.compile(r"[\s:,\\\"']")


@dataclass(frozen=True)
class HostPlan:
    """One host.

    Attributes:
        name: as in an inventory.
        index: its number among all hosts.
        addresses: by network; the first is that for SSH.
    """

    name: str
    index: int
    addresses: Mapping[str, str]

    @property
    def hostname(self) -> str:
        """What it calls itself: a host name has no underscore."""
        return self.name.replace("_", "-")


def plan_of(name: str) -> HostPlan:
    """The host of a name.

    Raises:
        HostsError: there is none.
    """
    if name in _ADDRESSES:
        return HostPlan(name, list(_ADDRESSES).index(name), _ADDRESSES[name])
    light = _FLEET.fullmatch(name)
    if light is None or not 1 <= int(light[1]) <= _MOST:
        raise HostsError(f"There is no host {name}: take one of {', '.join(_ADDRESSES)}, or fleet_01 and on.")
    number = int(light[1])
    return HostPlan(name, len(_ADDRESSES) + number - 1, {SSH: f"198.18.10.{100 + number}"})


@dataclass(frozen=True)
class Plan:
    """All hosts of one place, and the names of what stands for them on the machine.

    Attributes:
        place: the directory of their state, absolute. All names come of it, so that hosts of two places never meet.
        names: of the hosts.
    """

    place: Path
    names: tuple[str, ...]

    @classmethod
    def at(cls, place: Path, more: int = 0) -> Plan:
        """Four hosts, and `more` light ones.

        Raises:
            HostsError: the place has a character that the programs cannot take, or there are too many hosts.
        """
        place = place.absolute()
        if _UNUSABLE.search(str(place)):
            raise HostsError(
                f"Hosts cannot be kept at {place}: name a directory without spaces, quotes, colons and commas."
            )
        if not 0 <= more <= _MOST:
            raise HostsError(f"{more} more hosts are not possible: name a number up to {_MOST}.")
        return cls(place, (*_ADDRESSES, *(f"fleet_{number:02}" for number in range(1, more + 1))))

    @classmethod
    def found(cls, place: Path) -> Plan:
        """Those that were made at a place, whether they run or not; none where nothing was made."""
        place = place.absolute()
        names = [each.name for each in (place / "hosts").glob("*")]
        return cls(place, tuple(sorted(names, key=lambda name: plan_of(name).index)))

    @cached_property
    def tag(self) -> str:
        return hashlib.sha256(str(self.place).encode()).hexdigest()[:8]

    @property
    def hosts(self) -> Iterator[HostPlan]:
        return map(plan_of, self.names)

    @property
    def prefix(self) -> str:
        """Of network namespaces; and the name of the control groups."""
        return f"scistream-{self.tag}"

    @property
    def switches(self) -> str:
        """The network namespace where the bridges stand. The machine's own may filter what they pass on."""
        return f"{self.prefix}-switches"

    @property
    def outer_link(self) -> str:
        """The one interface in the network of whoever made the hosts."""
        return f"ss-{self.tag}"

    def namespace(self, host: HostPlan) -> str:
        return f"{self.prefix}-{host.name}"

    def directory(self, host: HostPlan) -> Path:
        return self.place / "hosts" / host.name

    def console(self, host: HostPlan) -> Path:
        """What the host and its supervisor say."""
        return self.directory(host) / "console.log"

    def power(self, host: HostPlan) -> Path:
        """The file that the supervisor of a host has locked while it lives."""
        return self.directory(host) / "power"

    def bare(self, host: HostPlan) -> Path:
        """The file whose presence says that the host boots without systemd."""
        return self.directory(host) / "bare"

    @property
    def base(self) -> Path:
        return self.place / "base"

    @property
    def packages(self) -> Path:
        return self.place / "packages"

    @property
    def ssh_config(self) -> Path:
        return self.place / "ssh_config"
