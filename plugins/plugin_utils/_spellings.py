# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses, ports, targets and times as an inventory spells them: read without the library, as the library reads them.

The twins are scistream.addresses, scistream.durations and scistream.control_server.allowed_targets; a unit test holds
one against the other. Each reader raises ValueError with what is wrong, in words that end a sentence.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
import urllib.parse

__all__ = [
    "read_allowed_target",
    "read_duration",
    "read_endpoint",
    "read_host",
    "read_ip",
    "read_network",
    "read_port_range",
    "read_via",
    "read_web_address",
    "words_of",
]

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,5}", re.ASCII)
_TIME = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?", re.ASCII)
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]*", re.ASCII)
_SIZES = (86400, 3600, 60, 1)
_MAX_HOST = 253
_MAX_PORT = 65535

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def words_of(value: t.Any) -> list[str]:
    """A list of texts, or one text with commas between; empty for nothing."""
    if value is None:
        return []
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [word.strip() for part in parts for word in str(part).split(",") if word.strip()]


def read_ip(text: str) -> _Address:
    """An IP address; IPv6 also in brackets.

    Raises:
        ValueError: It is none.
    """
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address("" if "%" in bare else bare)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def read_host(text: str) -> str:
    """A name or an IP address.

    Raises:
        ValueError: It is neither.
    """
    try:
        return str(read_ip(text))
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    # A name whose last label is a number is a mistyped IPv4 address.
    if len(text) > _MAX_HOST or _NUMBER.fullmatch(labels[-1]) or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{text!r} is neither a name nor an IP address")
    return text.lower()


def _read_port(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= _MAX_PORT:
        raise ValueError(f"{text!r} is not a port from 1 to {_MAX_PORT}")
    return int(text)


def read_endpoint(text: str, default_port: int | None = None) -> tuple[str, int]:
    """HOST:PORT, or [IPv6]:PORT; without a port, the default where there is one.

    Raises:
        ValueError: It is none.
    """
    if "://" in text:
        raise ValueError(f"it begins with {text.partition('://')[0]}://")
    if text.startswith("["):
        host, _bracket, rest = text[1:].partition("]")
        read_ip(host)
    elif text.count(":") > 1:
        raise ValueError("an IPv6 address needs brackets")
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if not rest and default_port is not None:
        return read_host(host), default_port
    if not rest.startswith(":"):
        raise ValueError("the port is missing")
    return read_host(host), _read_port(rest[1:])


def read_port_range(text: str) -> tuple[int, int]:
    """FIRST-LAST, or one port.

    Raises:
        ValueError: It is none.
    """
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not _DIGITS.fullmatch(first) or (dash and not _DIGITS.fullmatch(last)):
        raise ValueError("it is not of the form FIRST-LAST")
    low, high = int(first), int(last if dash else first)
    if low > high:
        raise ValueError("it runs backwards")
    if low < 1 or high > _MAX_PORT:
        raise ValueError(f"ports go from 1 to {_MAX_PORT}")
    return low, high


def read_network(text: str, *, strict: bool = True) -> None:
    """An address or a network; `strict`, without host bits.

    Raises:
        ValueError: It is none.
    """
    ipaddress.ip_network("" if "%" in text else text.strip(), strict=strict)


def read_allowed_target(text: str) -> None:
    """[SUBJECT=]NETWORK[:PORTS] or [SUBJECT=]NAME[:PORTS].

    Raises:
        ValueError: It is neither.
    """
    subject, found, rest = text.rpartition("=")
    if found and not subject.strip():
        raise ValueError(f"{text!r} has no subject before the =")
    place, ports = _split(rest.strip())
    if ports:
        read_port_range(ports)
    if "/" in place:
        read_network(place)
    else:
        read_host(place)


def _split(text: str) -> tuple[str, str]:
    """The place and the ports: IPv6 stands in brackets where ports follow."""
    if text.startswith("["):
        place, _bracket, rest = text[1:].partition("]")
        slash, _colon, ports = rest.partition(":")
        return place + slash, ports
    if text.count(":") > 1:
        return text, ""
    place, _colon, ports = text.partition(":")
    return place, ports


def read_duration(text: str) -> float:
    """Seconds, or a time such as 90s, 8h or 1h30m; 0 for `unlimited`.

    Raises:
        ValueError: It is none.
    """
    word = text.strip().lower()
    if word == "unlimited":
        return 0.0
    parts = _TIME.fullmatch(word)
    if word and parts:
        return float(sum(int(number or 0) * size for number, size in zip(parts.groups(), _SIZES, strict=True)))
    if _SECONDS.fullmatch(word):
        return float(word)
    raise ValueError(f"{text!r} is no time")


def read_via(text: str) -> tuple[str, str, int]:
    """ssh://user@host[:port]: user, host and port; 22 without one, and no user without one.

    Raises:
        ValueError: It is none, or holds a password.
    """
    scheme, found, rest = text.strip().partition("://")
    if not found or scheme.lower() != "ssh":
        raise ValueError("it does not begin with ssh://")
    user, has_user, place = rest.rstrip("/").rpartition("@")
    if ":" in user:
        # The password is not shown.
        raise ValueError("it holds a password; keys and the agent are what counts")
    if has_user and not _USER.fullmatch(user):
        raise ValueError(f"{user!r} is no user's name")
    return (user, *read_endpoint(place, 22))


def read_web_address(text: str) -> None:
    """An address that tokens may travel to: https, or http on the machine itself.

    Raises:
        ValueError: It is none.
    """
    parts = urllib.parse.urlsplit(text.strip())
    if not parts.hostname:
        raise ValueError("it has no host")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("it does not begin with https://")


def _is_loopback(host: str) -> bool:
    try:
        return read_ip(host).is_loopback
    except ValueError:
        return host == "localhost"
