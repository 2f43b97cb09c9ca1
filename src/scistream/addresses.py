"""Addresses: `host:port`, `192.0.2.1:port` and `[2001:db8::1]:port`, parsed once and never pasted (U07, U58)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from scistream.errors import Code, SciStreamError, one_line
from scistream.terms import MAX_CONNECTIONS

__all__ = [
    "Endpoint",
    "Network",
    "PortRange",
    "collapsed",
    "parse_endpoints",
    "parse_host",
    "parse_networks",
    "parse_ports",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 1123, section 2.1: labels of letters, digits and inner hyphens; underscores occur in real inventories.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)
# The resolver reads 0x7f.1 and 0x7f000001 as 127.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_MAX_HOST = 253
# Each is a rule that every new connection is held against.
_MAX_NETWORKS = 256


def parse_host(text: str) -> str:
    """Check a host name, an IPv4 or an IPv6 address (without brackets) and return it in its canonical form.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    _refuse_scheme(text)
    try:
        return str(_ip(text))
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    # A name whose last label is a number is a mistyped IPv4 address (RFC 3696, section 2).
    if len(text) > _MAX_HOST or _NUMBER.fullmatch(labels[-1]) or not all(_LABEL.fullmatch(label) for label in labels):
        raise SciStreamError(Code.BAD_ADDRESS, address=text, reason="the host is neither a name nor an IP address")
    return text.lower()


def _refuse_scheme(text: str) -> None:
    """Name how UDP is asked for (U63), and what is no address but a link."""
    scheme, found, _ = text.partition("://")
    if not found:
        return
    if scheme.lower() == "udp":
        reason = "a target is HOST:PORT; for a session over UDP say --transport udp"
        raise SciStreamError(Code.BAD_ADDRESS, address=text, reason=reason)
    raise SciStreamError(Code.BAD_ADDRESS, address=text, reason=f"it begins with {scheme}://, and is to be HOST:PORT")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in text:
        # A zone is meaningful on one host only, and an address travels between hosts.
        raise ValueError(text)
    return ipaddress.ip_address(text)


def _parse_port(text: str, whole: str) -> int:
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise SciStreamError(Code.BAD_ADDRESS, address=whole, reason=f"{text!r} is not a port from 1 to 65535")
    return int(text)


def parse_ports(text: str) -> tuple[int, ...]:
    """Read ports with commas between, as in `5074,5075`; each at most once, MAX_CONNECTIONS at most.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    ports = tuple(_parse_port(word.strip(), text) for word in text.split(","))
    if len(set(ports)) != len(ports):
        raise SciStreamError(Code.BAD_ADDRESS, address=text, reason="a port is named twice")
    if len(ports) > MAX_CONNECTIONS:
        raise SciStreamError(Code.BAD_ADDRESS, address=text, reason=f"it names more than {MAX_CONNECTIONS} ports")
    return ports


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read addresses and networks with commas between, as in `192.0.2.7,2001:db8::/32`; sorted, each once.

    Raises:
        SciStreamError: BAD_SOURCES.
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) > _MAX_NETWORKS:
        raise SciStreamError(Code.BAD_SOURCES, sources=one_line(text, 64), reason=f"it has more than {_MAX_NETWORKS}")
    networks = {_parse_network(word) for word in words}
    return tuple(sorted(networks, key=lambda network: (network.version, network)))


def collapsed(networks: Iterable[Network], version: int) -> list[Network]:
    """Those of one IP version, none of which overlaps another: packet filters take no others."""
    own = [each for each in networks if each.version == version]
    return list(ipaddress.collapse_addresses(own))  # type: ignore[type-var]


def _parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text if "%" not in text else "")
    except ValueError as error:
        # Its own words are good where host bits are set: "192.0.2.7/24 has host bits set".
        raise SciStreamError(Code.BAD_SOURCES, sources=one_line(text, 64), reason=one_line(str(error), 200)) from None


@dataclass(frozen=True, order=True)
class Endpoint:
    """A host and a port: an entry point, a target or a control server."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Self:
        """Read `host:port` or `[IPv6]:port`; without a port, `default_port` where one is given.

        Raises:
            SciStreamError: BAD_ADDRESS.
        """
        _refuse_scheme(text)
        host, bracket, rest = text.partition("]")
        if bracket and host.startswith("["):
            return cls(_parse_ipv6(host[1:], text), _port_after(rest, text, default_port))
        if text.count(":") > 1:
            raise SciStreamError(Code.BAD_ADDRESS, address=text, reason="an IPv6 address needs brackets")
        host, colon, port = text.partition(":")
        return cls(parse_host(host) if host else _no_host(text), _port_after(colon + port, text, default_port))

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address, or None where it is a name."""
        try:
            return _ip(self.host)
        except ValueError:
            return None

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        # No name and no IPv4 address has a colon; this is asked for each address of each list.
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


def _no_host(whole: str) -> str:
    raise SciStreamError(Code.BAD_ADDRESS, address=whole, reason="the host is missing")


def _parse_ipv6(text: str, whole: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text if "%" not in text else ""))
    except ValueError:
        raise SciStreamError(
            Code.BAD_ADDRESS, address=whole, reason=f"{text!r} in brackets is not an IPv6 address"
        ) from None


def _port_after(rest: str, whole: str, default: int | None) -> int:
    if not rest and default is not None:
        return default
    if not rest.startswith(":"):
        raise SciStreamError(Code.BAD_ADDRESS, address=whole, reason="the port is missing")
    return _parse_port(rest[1:], whole)


def parse_endpoints(texts: Iterable[str]) -> tuple[Endpoint, ...]:
    """Read addresses, each one or several with commas between; no more than a session can have entry points.

    Raises:
        SciStreamError: BAD_ADDRESS; TOO_MANY_TARGETS, and then none was read.
    """
    given = list(texts)
    # A message may hold a hundred thousand, and everybody else waits while they are read.
    if (count := sum(text.count(",") + 1 for text in given)) > MAX_CONNECTIONS:
        raise SciStreamError(Code.TOO_MANY_TARGETS, targets=count, entry_points=MAX_CONNECTIONS)
    return tuple(Endpoint.parse(part.strip()) for text in given for part in text.split(","))


@dataclass(frozen=True)
class PortRange:
    """The ports that a control server may hand out, both ends included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `first-last`, or one port.

        Raises:
            SciStreamError: BAD_PORT_RANGE.
        """
        first, dash, last = (part.strip() for part in text.partition("-"))
        if not _DIGITS.fullmatch(first) or (dash and not _DIGITS.fullmatch(last)):
            raise SciStreamError(Code.BAD_PORT_RANGE, range=text, reason="it is not of the form FIRST-LAST")
        low, high = int(first), int(last if dash else first)
        if low > high:
            raise SciStreamError(Code.BAD_PORT_RANGE, range=text, reason="it runs backwards")
        if low < 1 or high > 65535:
            raise SciStreamError(Code.BAD_PORT_RANGE, range=text, reason="ports go from 1 to 65535")
        return cls(low, high)

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"
