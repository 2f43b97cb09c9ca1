"""Which targets may be asked for: a gateway is no open relay into its facility (U09)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from scistream.addresses import Endpoint, Network, PortRange, parse_host
from scistream.engines.processes import plain_ip
from scistream.errors import SciStreamError

__all__ = ["AllowedTargets"]

_FORM: Final = "it is [SUBJECT=]NETWORK[:PORTS] or [SUBJECT=]NAME[:PORTS], such as 198.51.100.0/24:5000-5999"
_ALL_PORTS: Final = PortRange(1, 65535)


@dataclass(frozen=True)
class _Rule:
    """What may be asked for: a network or a name, with its ports; by everybody, or by one subject."""

    subject: str
    place: Network | str
    ports: PortRange

    @classmethod
    def parse(cls, text: str) -> Self:
        subject, found, rest = text.rpartition("=")
        if found and not subject:
            raise ValueError(_FORM)
        place, ports = _split(rest.strip())
        try:
            return cls(subject.strip(), _place(place), PortRange.parse(ports) if ports else _ALL_PORTS)
        except SciStreamError as error:
            raise ValueError(f"{error.seen}; {_FORM}") from None

    def covers(self, target: Endpoint, subject: str) -> bool:
        if self.subject not in {"", subject} or target.port not in self.ports:
            return False
        if isinstance(self.place, str):
            return target.host.removesuffix(".") == self.place
        return target.ip is not None and plain_ip(target.host) in self.place


def _split(text: str) -> tuple[str, str]:
    """The place and the ports: IPv6 stands in brackets where ports follow."""
    if text.startswith("["):
        place, _, rest = text[1:].partition("]")
        slash, _, ports = rest.partition(":")
        return place + slash, ports
    if text.count(":") > 1:
        return text, ""
    place, _, ports = text.partition(":")
    return place, ports


def _place(text: str) -> Network | str:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text:
            raise ValueError(f"{text!r} is no network; {_FORM}") from None
    return parse_host(text).removesuffix(".")


@dataclass(frozen=True)
class AllowedTargets:
    """The rules of one control server; without any, every target may be asked for.

    A name is allowed by its own rule alone: what it resolves to now says nothing of what it will.

    Args:
        words: `[SUBJECT=]NETWORK[:PORTS]`, `[SUBJECT=]NAME[:PORTS]`; IPv6 with ports as `[2001:db8::/32]:5000-5999`.

    Raises:
        ValueError: A word is none of these.
    """

    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rules", tuple(map(_Rule.parse, self.words)))

    def allow(self, target: Endpoint, subject: str) -> bool:
        """Whether this subject may have a session with this target."""
        rules: Iterable[_Rule] = vars(self)["_rules"]
        return not self.words or any(rule.covers(target, subject) for rule in rules)
