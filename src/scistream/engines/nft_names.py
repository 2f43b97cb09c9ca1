"""What the rules of the sessions are called: a table for each control server, and in it names that tell all.

`carry-5c00a1b2-1f4-UID.inbound`: what it does, the session's number, when it was made, and the session. So one list of
chains tells which sessions stand, whatever a journal says of them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from scistream.engines.marks import ProcessMark

__all__ = [
    "DOORS",
    "FIRST_NUMBER",
    "LAST_NUMBER",
    "NUMBER_MASK",
    "PROBE_NUMBER",
    "Making",
    "door_map",
    "free_number",
    "is_number",
    "is_table",
    "table_of",
]

NUMBER_MASK: Final = 0xFF000000
"""The bits of a conntrack mark that say that it is a session's of ours; the others are its number's."""
PROBE_NUMBER: Final = 0x5C000000
"""The packet mark of what conntrack shall not see (`nft_farewell`); no session has it."""
FIRST_NUMBER: Final = 0x5C000001
LAST_NUMBER: Final = 0x5CFFFFFF
# Far more than any process id: the kernel's highest is 2^22.

DOORS: Final = ("at_ip", "at_ip6", "any_ip", "any_ip6")
"""The maps from an entry point to its session's chain, of this engine's tables and of `guarding`'s."""

_PREFIX: Final = "scistream_"
_DIGITS: Final = 12
_TABLE: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{{_DIGITS}}}")
_NAME: Final = re.compile(r"(?P<kind>[a-z]+)-(?P<number>5c[0-9a-f]{6})-(?P<made>[0-9a-f]+)-(?P<stem>[A-Za-z0-9.-]+)")


def table_of(directory: Path) -> str:
    """The table of the control server that has this state directory."""
    place = os.fsencode(os.path.realpath(directory))
    return _PREFIX + hashlib.sha256(place).hexdigest()[:_DIGITS]


def is_table(name: str) -> bool:
    """Whether a table is a control server's."""
    return _TABLE.fullmatch(name) is not None


def door_map(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The map in which an entry point on this address stands; an unspecified one is on all of its IP version."""
    family = "ip" if address.version == 4 else "ip6"
    return f"any_{family}" if address.is_unspecified else f"at_{family}"


def is_number(number: int) -> bool:
    """Whether a session can have it: no process id is one."""
    return FIRST_NUMBER <= number <= LAST_NUMBER


def free_number(taken: Collection[int], wanted: int) -> int:
    """The wanted number, or the next that no session of this host has."""
    number = wanted
    while number in taken:
        number = number + 1 if number < LAST_NUMBER else FIRST_NUMBER
    return number


@dataclass(frozen=True)
class Making:
    """One making of a session's rules.

    Attributes:
        number: the conntrack mark of the session's connections; no other session of the host has it at the time.
        made: seconds between the host's start and the rules' making.
        stem: what begins the names of the session's files.
    """

    number: int
    made: int
    stem: str

    @property
    def mark(self) -> ProcessMark:
        """What the journal keeps of it."""
        return ProcessMark(self.number, self.made)

    def name(self, kind: str) -> str:
        """The name of one of its chains or counters."""
        return f"{kind}-{self.number:08x}-{self.made:x}-{self.stem}"

    @classmethod
    def parse(cls, name: str) -> tuple[str, Self] | None:
        """Read a name: the kind, and whose it is. None where it is not a session's."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return found["kind"], cls(int(found["number"], 16), int(found["made"], 16), found["stem"])
