# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a flow of bytes, and somebody who listens on its way. It runs on hosts that have Python and no more.

    flow.py receive ADDRESS PORT READY     one connection to its end; READY is made when it can come
    flow.py send ADDRESS PORT SECONDS UNTIL     so long at least, and until the file UNTIL is there
    flow.py watch INTERFACE READY UNTIL     count the frames in which the flow can be read, until UNTIL is there

Each says what it saw as one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# In each KiB of the flow. No frame is so small that it would not have one.
_MARK = b"scistream: a flow in the clear"
# At the head of the last block. The flow's end is no half-closed connection: not every engine has those.
_LAST = b"scistream: the last block"
_KIB = 1 << 10
_BLOCK = 256 * _KIB
# Blocks a second: enough to be under way at any moment, and little enough for seven of these at once.
_PACE = 32
_PATIENCE = 300.0
# linux/if_ether.h, asm-generic/socket.h. A busy machine reads late, and every frame counts.
_EVERY_PROTOCOL = 3
_ANY_BUFFER = 33
_MOST_UNREAD = 64 * _KIB * _KIB


def receive(address: str, port: str, ready: str) -> Mapping[str, object]:
    """Take one connection to its end, and answer with the digest of what came."""
    with socket.create_server((address, int(port))) as server:
        server.settimeout(_PATIENCE)
        Path(ready).touch()
        connection, (peer, *_dummy) = server.accept()
    connection.settimeout(_PATIENCE)
    digest, size, block = hashlib.sha256(), 0, b""
    with connection, connection.makefile("rb") as blocks:
        while not block.startswith(_LAST) and (block := blocks.read(_BLOCK)):
            digest.update(block)
            size += len(block)
        connection.sendall(digest.digest())
    return {"sha256": digest.hexdigest(), "bytes": size, "from": peer}


def send(address: str, port: str, seconds: str, until: str) -> Mapping[str, object]:
    """Send in one connection, and hear what came out."""
    digest, size = hashlib.sha256(), 0
    started = time.monotonic()
    with socket.create_connection((address, int(port)), timeout=_PATIENCE) as connection:
        is_last = False
        while not is_last:
            is_last = time.monotonic() > started + float(seconds) and Path(until).exists()
            block = _block(_LAST if is_last else _MARK)
            connection.sendall(block)
            digest.update(block)
            size += len(block)
            time.sleep(1 / _PACE)
        answer = connection.makefile("rb").read(digest.digest_size)
    return {
        "sha256": digest.hexdigest(),
        "answer": answer.hex(),
        "bytes": size,
        "seconds": round(time.monotonic() - started, 1),
    }


def _block(head: bytes) -> bytes:
    return b"".join([head, *(_MARK + os.urandom(_KIB - len(_MARK)) for dummy in range(_BLOCK // _KIB))])[:_BLOCK]


def watch(interface: str, ready: str, until: str) -> Mapping[str, object]:
    """Count the frames that go by, and those that somebody in between can read."""
    seen = readable = size = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, _ANY_BUFFER, _MOST_UNREAD)
        wire.bind((interface, 0))
        wire.settimeout(0.2)
        Path(ready).touch()
        while not Path(until).exists():
            try:
                frame = wire.recv(_BLOCK)
            except TimeoutError:
                continue
            seen += 1
            size += len(frame)
            readable += _MARK in frame
    return {"frames": seen, "bytes": size, "readable": readable}


_VERBS: Mapping[str, Callable[..., Mapping[str, object]]] = {"receive": receive, "send": send, "watch": watch}

if __name__ == "__main__":
    json.dump(_VERBS[sys.argv[1]](*sys.argv[2:]), sys.stdout)
