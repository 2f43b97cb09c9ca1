"""Named sessions: the same name at the same site gives the same uid, on every run and for every control server.

The uid is a keyed hash of the name, so that nobody outside the site can tell or guess it from the name alone. It is a
name all the same, never a key (U05).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import shlex
import stat
import unicodedata
import uuid
from pathlib import Path
from typing import Final

from scistream import atomic_files
from scistream.errors import Code, SciStreamError
from scistream.places import configuration_directory
from scistream.terms import Uid

__all__ = ["default_site_secret", "parse_name", "site_secret", "uid_of"]

_SECRET_SIZE: Final = 32
_SECRET = re.compile(rb"[0-9a-f]{64}\n?")
_MAX_NAME: Final = 128
_UUID_SIZE: Final = 16
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def default_site_secret() -> Path:
    """Where a user's site secret lies."""
    return configuration_directory() / "site.secret"


def parse_name(text: str) -> str:
    """Check a session's name, and bring it into Unicode's form C: what looks the same is the same.

    Raises:
        SciStreamError: BAD_NAME.
    """
    name = unicodedata.normalize("NFC", text)
    if not name.isprintable() or not 1 <= len(name) <= _MAX_NAME or name != name.strip():
        raise SciStreamError(Code.BAD_NAME, name=text)
    return name


def uid_of(name: str, secret: bytes) -> Uid:
    """The uid of a named session: HMAC-SHA256, written as a UUID of version 8 (RFC 9562, section 5.8).

    Raises:
        SciStreamError: BAD_NAME.
    """
    digest = bytearray(hmac.new(secret, parse_name(name).encode(), hashlib.sha256).digest()[:_UUID_SIZE])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return Uid(str(uuid.UUID(bytes=bytes(digest))))


def site_secret(path: Path, *, create: bool = True) -> bytes:
    """Read the site's secret, 32 bytes; with `create`, make it where there is none.

    Two processes that make it at once end up with one and the same.

    Raises:
        SciStreamError: SITE_SECRET_UNREADABLE, FILE_UNWRITABLE.
    """
    if create and not path.exists():
        _make(path)
    try:
        others, content = path.stat().st_mode & _OTHERS, path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    if others:
        raise _unreadable(
            path, f"other users of this host can read or change it; say: chmod 600 {shlex.quote(str(path))}"
        )
    if not _SECRET.fullmatch(content):
        raise _unreadable(path, "it does not hold 64 hexadecimal digits")
    return bytes.fromhex(content.decode())


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
    with atomic_files.prepare(path, f"{secrets.token_hex(_SECRET_SIZE)}\n".encode()) as temporary:
        atomic_files.publish(temporary, path)


def _unreadable(path: Path, reason: str) -> SciStreamError:
    return SciStreamError(Code.SITE_SECRET_UNREADABLE, path=str(path), reason=reason)
