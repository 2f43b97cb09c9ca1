"""What the demo's two ZeroMQ applications agree on: three kinds of message, and the lines that they report with.

A message has a kind and a body. `begin` and `end` carry JSON: what will be sent, and what was sent, with its SHA-256.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from scistream.addresses import Endpoint

__all__ = ["BEGIN", "CHUNK", "DATA", "END", "Tally", "context_for", "report", "url"]

BEGIN: Final = b"begin"
DATA: Final = b"data"
END: Final = b"end"
# Bytes: one detector frame of 2048 x 2048 uint16, and one piece of a file.
CHUNK: Final = 2048 * 2048 * 2
# Messages that ZeroMQ holds in memory on each side: its default of 1000 would be 8 GiB.
_QUEUE: Final = 4
_REPORT_EVERY: Final = 0.25


def report(event: str, **facts: Any) -> None:
    """Say something to whoever runs the application: one line of JSON on standard output."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


class Tally:
    """The bytes and messages that went by, reported a few times a second."""

    def __init__(self, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes = 0
        self.messages = 0
        self._total = total
        self._clock = clock
        self._started = clock()
        self._reported = self._started

    @property
    def seconds(self) -> float:
        """How long it has been counting."""
        return self._clock() - self._started

    def add(self, size: int) -> None:
        """Count one message."""
        self.bytes += size
        self.messages += 1
        now = self._clock()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            report("bytes", bytes=self.bytes, total=self._total, seconds=now - self._started)


def context_for(kind: int) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]:
    """A ZeroMQ context and its one socket (zmq.PUSH or zmq.PULL), bounded in memory, for IPv4 and IPv6."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(kind)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.SNDHWM, _QUEUE)
    socket.setsockopt(zmq.RCVHWM, _QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, 2 * CHUNK)
    return context, socket


def url(endpoint: Endpoint) -> str:
    """An address as ZeroMQ writes it."""
    return f"tcp://{endpoint}"
