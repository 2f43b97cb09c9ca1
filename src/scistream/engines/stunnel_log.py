"""What a Stunnel data server says in its log: who came, how much went through, what was agreed on, who was refused.

The number in a line, `LOG5[16]`, stands for one connection in all of its lines. With `debug = info` there are some 15
lines a connection, and none for the bytes that it carries.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scistream.engines.base import Handshake
from scistream.engines.traffic import Count, Peer, Traffic

__all__ = ["count", "handshake", "refusal_of_configuration", "takes_configuration", "unresolved"]

# `2026.11.23 02:26:25 LOG5[16]: Service [route-1] accepted connection from ::1:5400`.
_LINE: Final = re.compile(r"LOG\d\[(\d+)\]: (.*)")
_ACCEPTED: Final = re.compile(r"Service \[.*\] accepted connection from (.+):(\d+)$")
_CONNECTED: Final = re.compile(r"Service \[.*\] connected remote server from (.+):(\d+)$")
_ENDED: Final = re.compile(
    r"Connection (?:closed|reset|reset/closed|closed/reset): (\d+) byte\(s\) sent to TLS, (\d+) byte"
)
# It does not prove itself, or says nothing at all.
_REFUSED: Final = re.compile(r"SSL_(?:accept|connect): |ssl_start: s_poll_wait: TIMEOUTbusy exceeded")
# It says which cipher suite once both sides have proved themselves.
_AGREED: Final = re.compile(r"\S+ ciphersuite: (\S+) ")
_KEY: Final = re.compile(r'(?:Key configured for PSK|PSK client configured for) identity "(.*)"$')
_CERTIFICATE: Final = re.compile(r"Certificate accepted at depth=0: (.*)$")
# [ui] is the main thread.
_TAKEN: Final = "LOG5[ui]: Configuration successful"
_NOT_TAKEN: Final = re.compile(r"LOG3\[ui\]: (Failed to reload .*|Binding service .* failed)")
# What stunnel says while it reads its configuration, and then goes on.
_UNRESOLVED: Final = re.compile(r"LOG[0-3]\[ui\]: (Error resolving .*)")
# Bytes at the end of a log in which a handshake is looked for: more than 150 connections' lines.
_END: Final = 256 << 10


def takes_configuration(words: str) -> bool:
    """Whether it says that it took its configuration."""
    return _TAKEN in words


def refusal_of_configuration(words: str) -> str | None:
    """That it did not take its configuration, in its own words."""
    found = _NOT_TAKEN.search(words)
    return found.group(1) if found else None


def unresolved(words: str) -> str | None:
    """A target's name that does not resolve, in its own words: it leaves that for later, connection by connection."""
    found = _UNRESOLVED.search(words)
    return found.group(1) if found else None


def count(line: str, accepted: dict[str, list[Peer]], *, client: bool) -> Count:
    """What a line adds; see `Proxy.count`. `client` is whether this is the TLS client, in front of the application."""
    found = _LINE.search(line)
    if found is None:
        return Count(Traffic())
    connection, words = found.groups()
    if begun := _ACCEPTED.match(words):
        accepted[connection] = [_peer(begun)]
    elif connected := _CONNECTED.match(words):
        accepted.setdefault(connection, []).append(_peer(connected))
    elif ended := _ENDED.match(words):
        to_tls, to_socket = map(int, ended.groups())
        there, back = (to_tls, to_socket) if client else (to_socket, to_tls)
        return Count(Traffic(0, 1, there, back), accepted.pop(connection, ()))
    return Count(Traffic(refused_peers=int(_REFUSED.match(words) is not None)))


def _peer(found: re.Match[str]) -> Peer:
    return ipaddress.ip_address(found.group(1)), int(found.group(2))


def handshake(logs: Iterable[Path]) -> Handshake | None:
    """What the last connection in the logs agreed on; the newest log comes first."""
    found = (_last_handshake(_end(log)) for log in logs)
    return next(filter(None, found), None)


def _end(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _last_handshake(words: str) -> Handshake | None:
    connection = cipher = ""
    for line in reversed(words.splitlines()):
        found = _LINE.search(line)
        if found is None or (connection and found.group(1) != connection):
            continue
        said = found.group(2)
        if not connection and (agreed := _AGREED.match(said)):
            connection, cipher = found.group(1), agreed.group(1)
        elif connection and (peer := _proof(said)):
            return Handshake(cipher, peer)
        elif connection and _ACCEPTED.match(said):
            break
    return Handshake(cipher) if cipher else None


def _proof(said: str) -> str:
    if key := _KEY.match(said):
        return f"whoever has the key of {key.group(1)}"
    certificate = _CERTIFICATE.match(said)
    return certificate.group(1) if certificate else ""
