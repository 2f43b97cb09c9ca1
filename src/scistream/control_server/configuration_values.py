"""Values of a configuration, as people write them; what is wrong with one is a ValueError with the reason."""

from __future__ import annotations

import ipaddress
from typing import Final

from scistream.addresses import PortRange
from scistream.auth.providers import parse_url
from scistream.control_server.allowed_targets import AllowedTargets
from scistream.durations import parse_duration
from scistream.engines import find_engine
from scistream.errors import SciStreamError
from scistream.terms import OldClients

__all__ = [
    "read_address",
    "read_address_or_none",
    "read_duration",
    "read_engine",
    "read_old_clients",
    "read_port_range",
    "read_targets",
    "read_url",
    "read_wait",
    "read_words",
]

_TIME: Final = "it has to be a number of seconds, or a time such as 90s, 30m, 8h or 1h30m"


def read_address(text: object) -> str:
    """An IP address, IPv6 also in brackets."""
    bare = str(text).strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise ValueError("it is not an IP address of this host, nor 0.0.0.0 or [::]") from None


def read_address_or_none(text: object) -> str:
    """An IP address; nothing, where another one stands in for it."""
    return read_address(text) if str(text).strip() else ""


def read_port_range(value: object) -> PortRange:
    """Ports, `first-last`.

    Raises:
        SciStreamError: BAD_PORT_RANGE.
    """
    return value if isinstance(value, PortRange) else PortRange.parse(str(value))


def read_engine(word: object) -> str:
    """The name of an engine.

    Raises:
        SciStreamError: ENGINE_UNKNOWN.
    """
    return find_engine(str(word)).name


def read_targets(value: object) -> tuple[str, ...]:
    """Targets that may be asked for, as `AllowedTargets` reads them."""
    return AllowedTargets(read_words(value)).words


def read_old_clients(word: object) -> OldClients | None:
    """What sessions of deployed clients get."""
    if word is None or isinstance(word, OldClients):
        return word
    try:
        return OldClients(str(word).strip().lower())
    except ValueError:
        raise ValueError(f"it is one of {', '.join(each.value for each in OldClients)}") from None


def read_words(value: object) -> tuple[str, ...]:
    """Texts: a list, or one text with commas between."""
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ValueError("it is a list of texts, or one text with commas between")
    return tuple(word.strip() for word in words if word.strip())


def read_url(value: object) -> object:
    """A web address that tokens may travel to."""
    return parse_url(value) if value and isinstance(value, str) else value


def read_duration(value: object) -> object:
    """How long something lasts, in seconds: `8h`, `1h30m`; `unlimited` is 0. Numbers are the validator's to judge."""
    return _seconds(value, f"{_TIME}; without an end: unlimited")


def read_wait(value: object) -> object:
    """How long something is waited for: as `read_duration`, and it has an end."""
    seconds = _seconds(value, _TIME)
    if isinstance(value, str) and seconds == 0.0:
        raise ValueError(_TIME)
    return seconds


def _seconds(value: object, reason: str) -> object:
    if not isinstance(value, str) or _is_number(value):
        return value
    try:
        return parse_duration(value)
    except SciStreamError:
        raise ValueError(reason) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
