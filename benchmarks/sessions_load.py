"""A paced stream, in processes of its own: `take HOST PORT` counts what comes, `give HOST PORT MBPS` sends.

`give` ends when its standard input does. Each says in a line of JSON what went through; `take`, for each connection
that brought anything, also when its first byte came (time.monotonic) and how many came in each tenth of a second.
"""

from __future__ import annotations

import json
import select
import selectors
import socket
import sys
import time
import zlib
from typing import Final

_TICK: Final = 0.001
_BIN: Final = 0.1
_BLOCK: Final = bytes(range(256)) * 4096


class _Taken:
    """What one connection brought."""

    def __init__(self) -> None:
        self._first = 0.0
        self._bins: list[int] = []
        self._size = 0
        self._sum = 0

    def add(self, data: memoryview) -> None:
        now = time.monotonic()
        self._first = self._first or now
        number = int((now - self._first) / _BIN)
        self._bins += [0] * (number + 1 - len(self._bins))
        self._bins[number] += len(data)
        self._size += len(data)
        self._sum = zlib.crc32(data, self._sum)

    def say(self) -> None:
        if self._size:
            _say({"size": self._size, "sum": self._sum, "first": self._first, "bins": self._bins})


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def take(host: str, port: int) -> None:
    """Accept, and read, until this process is ended."""
    buffer = memoryview(bytearray(1 << 20))
    with socket.create_server((host, port), backlog=4096) as listener, selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        _say({"ready": True})
        while True:
            for key, _ in waiting.select():
                if key.data is None:
                    waiting.register(listener.accept()[0], selectors.EVENT_READ, _Taken())
                else:
                    _read(key, waiting, buffer)


def _read(key: selectors.SelectorKey, waiting: selectors.BaseSelector, buffer: memoryview) -> None:
    connection = key.fileobj
    assert isinstance(connection, socket.socket)  # noqa: S101 - for mypy
    try:
        size = connection.recv_into(buffer)
    except ConnectionError:
        size = 0
    if size:
        key.data.add(buffer[:size])
        return
    waiting.unregister(connection)
    connection.close()
    key.data.say()


def give(host: str, port: int, mbps: float) -> None:
    """Send at a pace; what a pause of the machine held up is sent after it."""
    share = int(mbps * 1e6 / 8 * _TICK)
    size, total = 0, 0
    with socket.create_connection((host, port)) as giving:
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            piece = memoryview(_BLOCK)[:share]
            giving.sendall(piece)
            size, total, due = size + share, zlib.crc32(piece, total), due + _TICK
    _say({"size": size, "sum": total})


if __name__ == "__main__":
    what, to, number, *rest = sys.argv[1:]
    if what == "take":
        take(to, int(number))
    else:
        give(to, int(number), float(rest[0]))
