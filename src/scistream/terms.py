"""The project's words: one word for one thing, and the old words as aliases at the edges.

Source of the aliases: protocol reference (Service, Commands and options) and guide 7.1.1.
"""

from __future__ import annotations

import enum
import math
import re
from typing import Final, NewType

from scistream.errors import Code, SciStreamError

__all__ = [
    "DEFAULT_CONTROL_PORT",
    "DEFAULT_PORT_RANGE",
    "DEFAULT_RATE",
    "HELLO_TIMEOUT",
    "HOST_OPERATOR",
    "MAX_CONNECTIONS",
    "MAX_LEASE",
    "MAX_RATE",
    "MOCK_UID",
    "NO_AUTH",
    "OLD_NO_AUTH",
    "RESERVED_SUBJECTS",
    "TOKEN_SERVERS_VARIABLE",
    "TOKEN_VARIABLE",
    "Direction",
    "Encryption",
    "OldClients",
    "SessionState",
    "Transport",
    "Uid",
    "parse_connections",
    "parse_direction",
    "parse_encryption",
    "parse_lease",
    "parse_rate",
    "parse_transport",
    "parse_uid",
]

DEFAULT_CONTROL_PORT: Final = 5000
DEFAULT_PORT_RANGE: Final = "5100-5200"
# kb/s of application bytes, the deployed client's default.
DEFAULT_RATE: Final = 10000
# Entry points that one session may ask for; a pool is the tighter bound in practice.
MAX_CONNECTIONS: Final = 1024
# Wire: int32.
MAX_RATE: Final = 2**31 - 1
# Seconds: ten years, after which it might as well have no end.
MAX_LEASE: Final = 315_360_000.0
# Seconds that a `req` waits for its `hello` (protocol, Order of calls, 1).
HELLO_TIMEOUT: Final = 180.0
# The fixed uid of `--mock True`. It is published, so nothing secret may ever be derived from it (U06).
MOCK_UID: Final = "4f8583bc-a4d3-11ee-9fd6-034d1fcbd7c3"

# What stands where a token would, when authentication is off: our word, and the deployed tools' word on the wire.
NO_AUTH: Final = "NO_AUTH"
OLD_NO_AUTH: Final = "INVALID_TOKEN"
# A token that goes before every stored one; an argument is everybody's to read.
TOKEN_VARIABLE: Final = "SCISTREAM_TOKEN"  # noqa: S105 - its name
# The control servers that it goes to: HOST:PORT with commas between.
TOKEN_SERVERS_VARIABLE: Final = "SCISTREAM_TOKEN_FOR"  # noqa: S105 - its name
# Who calls with the secret that lies in the control server's state directory: `s2cs status` on its own host.
HOST_OPERATOR: Final = "HOST_OPERATOR"
# No identity provider may call anybody so.
RESERVED_SUBJECTS: Final = frozenset({NO_AUTH, OLD_NO_AUTH, HOST_OPERATOR})

Uid = NewType("Uid", str)

_SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", re.ASCII)
_UID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class Direction(enum.Enum):
    """Which end of a stream a session is: inbound in front of the target, outbound in front of the application."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"

    @property
    def role(self) -> str:
        """The old protocol's word for the direction, as it stands on the wire."""
        return "PROD" if self is Direction.INBOUND else "CONS"


class Encryption(enum.Enum):
    """What protects the bytes between the two gateways.

    TLS: TLS 1.3, a certificate each way. TLS_PSK: TLS 1.3 with the session's key. LEGACY_PSK: as the deployed Stunnel
    does it, authenticated by a key that is no secret, and not encrypted.
    """

    NONE = "none"
    TLS = "tls"
    TLS_PSK = "tls-psk"
    LEGACY_PSK = "legacy-psk"

    @property
    def needs_key(self) -> bool:
        """Whether the two gateways need the session's key for it."""
        return self in {Encryption.TLS, Encryption.TLS_PSK}


class Transport(enum.Enum):
    """What carries a session's bytes."""

    TCP = "tcp"
    UDP = "udp"


class OldClients(enum.Enum):
    """What a session of a deployed client gets, which cannot say what it wants between the gateways."""

    REFUSE = "refuse"
    PLAIN = "plain"
    LEGACY_PSK = "legacy-psk"


class SessionState(enum.Enum):
    """Where a session stands in its life."""

    REQUESTED = "requested"
    REGISTERED = "registered"
    ACTIVE = "active"
    DRAINING = "draining"
    RELEASED = "released"
    FAILED = "failed"


_DIRECTIONS: Final = {
    "inbound": Direction.INBOUND,
    "prod": Direction.INBOUND,
    "outbound": Direction.OUTBOUND,
    "cons": Direction.OUTBOUND,
}


def parse_direction(text: str) -> Direction:
    """Read a direction, or the role that the old protocol calls it; case does not matter.

    Raises:
        SciStreamError: BAD_ROLE.
    """
    try:
        return _DIRECTIONS[text.strip().lower()]
    except KeyError:
        raise SciStreamError(Code.BAD_ROLE, role=repr(text)) from None


def parse_encryption(text: str) -> Encryption:
    """Read what shall protect the bytes between the gateways; case does not matter.

    Raises:
        SciStreamError: BAD_ENCRYPTION.
    """
    try:
        return Encryption(text.strip().lower())
    except ValueError:
        raise SciStreamError(Code.BAD_ENCRYPTION, encryption=repr(text)) from None


def parse_transport(text: str) -> Transport:
    """Read what shall carry the bytes; case does not matter.

    Raises:
        SciStreamError: BAD_TRANSPORT.
    """
    try:
        return Transport(text.strip().lower())
    except ValueError:
        raise SciStreamError(Code.BAD_TRANSPORT, transport=repr(text)) from None


def parse_uid(text: str) -> Uid:
    """Check a uid: letters, digits and `-`, 1 to 64 of them. It becomes part of file names (U08).

    Raises:
        SciStreamError: BAD_UID.
    """
    if not _UID.fullmatch(text):
        raise SciStreamError(Code.BAD_UID, uid=text)
    return Uid(text)


def parse_connections(number: int) -> int:
    """Check the number of entry points that a session asks for, `num_conn` on the wire: 1 to MAX_CONNECTIONS.

    Raises:
        SciStreamError: BAD_CONNECTIONS.
    """
    if not 1 <= number <= MAX_CONNECTIONS:
        raise SciStreamError(Code.BAD_CONNECTIONS, number=number, limit=MAX_CONNECTIONS)
    return number


def parse_rate(rate: int) -> int:
    """Check a rate in kb/s of application bytes: 1 to 2^31 - 1.

    Raises:
        SciStreamError: BAD_RATE.
    """
    if not 1 <= rate <= MAX_RATE:
        raise SciStreamError(Code.BAD_RATE, rate=rate, limit=MAX_RATE)
    return rate


def parse_lease(text: str) -> float:
    """Read how long a session shall last, in seconds: 0 for no end, else 1 to MAX_LEASE.

    Raises:
        SciStreamError: BAD_LEASE.
    """
    # Python reads more as a number, as 1_0 for 10.
    seconds = float(text) if _SECONDS.fullmatch(text) else math.nan
    if seconds == 0 or 1 <= seconds <= MAX_LEASE:
        return seconds
    raise SciStreamError(
        Code.BAD_LEASE, lease=repr(text), reason=f"it is 0 for no end, or 1 to {MAX_LEASE:.0f} seconds"
    )
