"""Durations as people say them: `90`, `30m`, `8h`, `1h30m`, `unlimited`."""

from __future__ import annotations

import re
from typing import Final

from scistream.errors import Code, SciStreamError
from scistream.terms import parse_lease

__all__ = ["parse_duration", "spell_duration"]

_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PARTS: Final = re.compile("".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in _UNITS), re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_UNLIMITED: Final = "unlimited"


def parse_duration(text: str) -> float:
    """Read how long a session shall last, in seconds; `unlimited` is 0.

    Raises:
        SciStreamError: BAD_LEASE.
    """
    word = text.strip().lower()
    if word == _UNLIMITED:
        return 0.0
    parts = _PARTS.fullmatch(word)
    if parts and word:
        seconds = sum(int(number or 0) * size for number, size in zip(parts.groups(), _UNITS.values(), strict=True))
        return _checked(str(seconds), text)
    return _checked(word if _DECIMAL.fullmatch(word) else "", text)


def _checked(seconds: str, text: str) -> float:
    try:
        lease = parse_lease(seconds)
    except SciStreamError:
        lease = 0.0
    # No end is said in words: a 0 is more likely a slip.
    if lease:
        return lease
    reason = f"it is {_UNLIMITED}, a number of seconds from 1 on, or a time such as 30m, 8h or 1h30m, ten years at most"
    raise SciStreamError(Code.BAD_LEASE, lease=repr(text), reason=reason)


def spell_duration(seconds: float) -> str:
    """A time in its two largest units: `45s`, `2m05s`, `3h20m`, `12d4h`."""
    left = max(round(seconds), 0)
    if left < _UNITS["m"]:
        return f"{left}s"
    for (unit, size), (smaller, part) in zip(_UNITS.items(), list(_UNITS.items())[1:], strict=False):
        if left >= size:
            return f"{left // size}{unit}{left % size // part:02d}{smaller}"
    raise AssertionError(left)
