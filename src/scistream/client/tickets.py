"""Tickets: what the facility with the inbound end hands to the one with the outbound end.

A ticket is a JSON file. It may hold the key that the two gateways share, so it is nobody else's to read: it is written
with mode 0600, and refused where others can read it. It comes from another facility: every field is checked.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scistream import atomic_files
from scistream.addresses import Endpoint, parse_endpoints
from scistream.client.names import parse_name
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.places import state_directory
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Encryption, Transport, Uid, parse_connections, parse_uid

__all__ = ["Ticket", "new_key", "of_session", "place_of", "read", "write"]

_VERSION: Final = 1
_MAX_SIZE: Final = 64 * 1024
_LONGEST_WORD: Final = 64
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_ENCRYPTIONS: Final = frozenset(each.value for each in Encryption)
_TRANSPORTS: Final = frozenset(each.value for each in Transport)


@dataclass(frozen=True)
class Ticket:
    """What the outbound end needs to know of an inbound session.

    `entry_points` are the inbound gateway's, `control_server` and `targets` are there for people and for control
    servers that cannot be asked. `key` is None where the data servers do not encrypt. `encryption` is what the inbound
    end has, None where an earlier version did not write it. `deployed` says that its control server speaks the old
    protocol only; there, `encryption` is what was asked for. `half_close` says that the application half-closes: the
    outbound end has to keep every byte as well. `engine` carries the inbound end, empty where that was not told.
    """

    uid: Uid
    name: str
    entry_points: tuple[Endpoint, ...]
    connections: int
    control_server: Endpoint
    targets: tuple[Endpoint, ...]
    key: bytes | None = field(default=None, repr=False)
    encryption: Encryption | None = None
    transport: Transport = Transport.TCP
    deployed: bool = False
    half_close: bool = False
    engine: str = ""


def new_key() -> bytes:
    """A session's key: 256 random bits (U05)."""
    return secrets.token_bytes(SESSION_KEY_SIZE)


def of_session(
    session: Session,
    *,
    control_server: Endpoint,
    name: str = "",
    key: bytes | None = None,
    asked: Encryption = Encryption.TLS,
) -> Ticket:
    """The ticket of an inbound session; the key goes in only where the data servers encrypt with it.

    `asked` is the encryption that was asked for: what a deployed control server has, which tells nothing.
    """
    return Ticket(
        uid=session.uid,
        name=name,
        entry_points=parse_endpoints(session.entry_points),
        connections=session.connections,
        control_server=control_server,
        targets=parse_endpoints(session.targets),
        key=key if session.is_keyed else None,
        encryption=Encryption(session.encryption) if session.encryption in _ENCRYPTIONS else asked,
        transport=Transport.UDP if session.transport == Transport.UDP.value else Transport.TCP,
        deployed=session.is_untold,
        half_close=session.half_close,
        engine=session.engine if _is_word(session.engine) else "",
    )


def read(path: Path) -> Ticket:
    """Read and check a ticket.

    Raises:
        SciStreamError: BAD_TICKET.
    """
    try:
        return _parse(json.loads(_content(path)))
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from None
    except RecursionError:
        raise _bad(path, "it is nested too deeply") from None
    except SciStreamError as error:
        raise _bad(path, error.facts["reason"] if error.code is Code.BAD_TICKET else error.seen) from None
    except ValueError:
        # The decoder's own words quote the file, and that may hold a key.
        raise _bad(path, "it is not JSON") from None


def write(path: Path, ticket: Ticket) -> None:
    """Write a ticket, whole or not at all, readable by this user only from the first byte on.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    if path.parent == _kept():
        _make_room(path)
    atomic_files.write(path, f"{json.dumps(_plain(ticket), indent=2)}\n".encode())


def place_of(uid: Uid) -> Path:
    """Where the ticket of an inbound session is kept for this user, who named no place for it."""
    return _kept() / uid


def _kept() -> Path:
    return state_directory() / "tickets"


def _make_room(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None


def _plain(ticket: Ticket) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "uid": ticket.uid,
        "name": ticket.name,
        "entry_points": [str(entry_point) for entry_point in ticket.entry_points],
        "connections": ticket.connections,
        "control_server": str(ticket.control_server),
        "targets": [str(target) for target in ticket.targets],
        "key": ticket.key.hex() if ticket.key else None,
        "encryption": ticket.encryption.value if ticket.encryption else "",
        "transport": ticket.transport.value,
        "deployed": ticket.deployed,
        "half_close": ticket.half_close,
        "engine": ticket.engine,
    }


def _content(path: Path) -> bytes:
    # Not blocking: a pipe in the ticket's place is refused, not waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _bad(path, "it is not a file")
        if status.st_mode & _OTHERS:
            raise _bad(path, f"other users of this host can read or change it; say: chmod 600 {path}")
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise _bad(path, f"it is larger than {_MAX_SIZE} bytes")
    return content


def _parse(body: Any) -> Ticket:
    if not isinstance(body, dict) or _number(body, "version") != _VERSION:
        raise _wrong("version")
    name = _text(body, "name")
    return Ticket(
        uid=parse_uid(_text(body, "uid")),
        name=parse_name(name) if name else "",
        entry_points=_endpoints(body, "entry_points"),
        connections=parse_connections(_number(body, "connections")),
        control_server=Endpoint.parse(_text(body, "control_server")),
        targets=_endpoints(body, "targets"),
        key=_key(body),
        encryption=_encryption(body),
        transport=Transport(_word(body, "transport", _TRANSPORTS, Transport.TCP.value)),
        deployed=_flag(body, "deployed"),
        half_close=_flag(body, "half_close"),
        engine=_engine(body),
    )


def _flag(body: Mapping[str, Any], key: str) -> bool:
    """Tickets of earlier versions have none."""
    return bool(_field({key: False} | dict(body), key, lambda value: isinstance(value, bool)))


def _engine(body: Mapping[str, Any]) -> str:
    """It goes on to a control server, in metadata: a plain word, of an engine that may be newer than this."""
    return str(_field({"engine": ""} | dict(body), "engine", lambda value: isinstance(value, str) and _is_word(value)))


def _is_word(text: str) -> bool:
    return not text or (text.isascii() and text.isalnum() and len(text) <= _LONGEST_WORD)


def _field(body: Mapping[str, Any], key: str, fits: Callable[[Any], bool]) -> Any:
    value = body.get(key)
    if not fits(value):
        raise _wrong(key)
    return value


def _text(body: Mapping[str, Any], key: str) -> str:
    return str(_field(body, key, lambda value: isinstance(value, str)))


def _number(body: Mapping[str, Any], key: str) -> int:
    return int(_field(body, key, lambda value: isinstance(value, int) and not isinstance(value, bool)))


def _endpoints(body: Mapping[str, Any], key: str) -> tuple[Endpoint, ...]:
    texts = _field(body, key, lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value))
    if not texts:
        raise _wrong(key)
    return tuple(Endpoint.parse(text) for text in texts)


def _key(body: Mapping[str, Any]) -> bytes | None:
    text = body.get("key")
    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except (TypeError, ValueError):
        raise _wrong("key") from None
    if len(key) != SESSION_KEY_SIZE:
        raise _wrong("key")
    return key


def _encryption(body: Mapping[str, Any]) -> Encryption | None:
    """Earlier tickets do not have the field: there, the key alone tells."""
    if "encryption" not in body:
        return Encryption.TLS_PSK if body.get("key") else None
    word = _word(body, "encryption", _ENCRYPTIONS | {""}, "")
    return Encryption(word) if word else None


def _word(body: Mapping[str, Any], key: str, words: Collection[str], default: str) -> str:
    """One of some words; where the field is missing, the default."""
    return str(_field({key: default} | dict(body), key, lambda value: isinstance(value, str) and value in words))


def _wrong(key: str) -> SciStreamError:
    # Never the value: one of them is the key.
    return SciStreamError(Code.BAD_TICKET, path="", reason=f"its field {key!r} is missing or wrong")


def _bad(path: Path, reason: str) -> SciStreamError:
    return SciStreamError(Code.BAD_TICKET, path=str(path), reason=reason)
