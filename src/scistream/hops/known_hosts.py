"""Which keys an SSH host may show: the files of known hosts, as sshd(8) has their format.

Paramiko's own reader takes no patterns and skips what is revoked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["KnownKey", "known_keys", "name_of"]

_REVOKED: Final = "@revoked"
_HASHED: Final = "|1|"
_PORT: Final = 22


@dataclass(frozen=True)
class KnownKey:
    """A key that a host may show, or with `is_revoked` one that nobody takes; `place` is its file and line."""

    kind: str
    content: bytes
    place: str
    is_revoked: bool = False


def name_of(host: str, port: int, alias: str = "") -> str:
    """What a file of known hosts calls a host; an alias stands for host and port."""
    return alias or (host if port == _PORT else f"[{host}]:{port}")


def known_keys(files: Sequence[Path], host: str, port: int, alias: str = "") -> list[KnownKey]:
    """The keys of a host, those of all files."""
    name = name_of(host, port, alias)
    lines = list(_lines(files))
    found = [key for names, key in lines if _is_among(name, names)]
    if alias or port == _PORT or any(not key.is_revoked for key in found):
        return found
    # As ssh has it: a host that is known is known at each of its ports.
    return found + [key for names, key in lines if _is_among(host, names)]


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, KnownKey]]:
    for path in files:
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            # Most people have one of the four at most.
            continue
        for number, line in enumerate(content.splitlines(), 1):
            yield from _entry(line, f"{path} line {number}")


def _entry(line: str, place: str) -> Iterator[tuple[str, KnownKey]]:
    words = line.split()
    if not words or words[0].startswith("#"):
        return
    marker = words.pop(0) if words[0].startswith("@") else ""
    # Certificates of hosts are not known to paramiko: a host that has one shows its plain key here.
    if marker not in {"", _REVOKED} or len(words) < 3:
        return
    try:
        content = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return
    yield words[0], KnownKey(words[1], content, place, bool(marker))


def _is_among(name: str, names: str) -> bool:
    if names.startswith(_HASHED):
        return _is_hash_of(names, name)
    found = False
    for pattern in names.lower().split(","):
        if _fits(pattern.removeprefix("!"), name.lower()):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _fits(pattern: str, name: str) -> bool:
    # Of the brackets around a host with a port, fnmatch would make a set of letters.
    translated = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(translated, name) is not None


def _is_hash_of(text: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in text.removeprefix(_HASHED).split("|"))
    except (binascii.Error, ValueError):
        return False
    # The format's own choice (HashKnownHosts); it hides names, and proves nothing.
    return hmac.compare_digest(hmac.new(salt, name.lower().encode(), hashlib.sha1).digest(), digest)
