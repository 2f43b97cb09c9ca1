"""What goes through the path under test: a process on the target's host answers, one on the application's host asks.

    python dataplane_load.py echo ADDRESS PORT          answers every byte with itself, until it is ended
    python dataplane_load.py ask ADDRESS PORT SECONDS   round trips on one connection, then one connection after another
    python dataplane_load.py crowd ADDRESS PORT NUMBER  that many connections at once; each shall get a byte back

Each says what it found in a line of JSON. Nothing here is of the library: a process starts in 30 ms.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["ask", "crowd", "echo", "main"]

# Connections that `ask` opens at once.
_IN_FLIGHT: Final = 32
_PATIENCE: Final = 20.0
_BYTE: Final = b"."


def echo(address: str, port: int) -> None:
    """Answer."""
    selector = selectors.DefaultSelector()
    with socket.create_server((address, port), backlog=4096) as server:
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        _say(ready=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is server:
                    _accept(server, selector)
                else:
                    _answer(key.fileobj, selector)  # type: ignore[arg-type]


def _accept(server: socket.socket, selector: selectors.BaseSelector) -> None:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while True:
            connection, _ = server.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ)


def _answer(connection: socket.socket, selector: selectors.BaseSelector) -> None:
    with contextlib.suppress(OSError):
        data = connection.recv(4096)
        if data:
            connection.send(data)
            return
    selector.unregister(connection)
    connection.close()


def ask(address: str, port: int, seconds: float) -> dict[str, float]:
    """The median round trip of a byte in microseconds, and the new connections per second that are answered."""
    return {
        "rtt_us": statistics.median(_round_trips(address, port, seconds)),
        "connections_per_s": _rate(lambda: _dial(address, port), seconds),
    }


def _round_trips(address: str, port: int, seconds: float) -> list[float]:
    found = []
    with socket.create_connection((address, port), timeout=_PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _byte_and_back(connection)
        ending = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < ending:
            _byte_and_back(connection)
            found.append((time.perf_counter() - begun) * 1e6)
    return found


def _byte_and_back(connection: socket.socket) -> None:
    connection.sendall(_BYTE)
    if connection.recv(1) != _BYTE:
        raise ConnectionError("the path answered with something else, or not at all")


def _dial(address: str, port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex((address, port))
    return connection


def _rate(dial: Callable[[], socket.socket], seconds: float) -> float:
    """Always as many in flight; one that has its answer makes room for the next."""
    answered, begun = 0, time.perf_counter()
    with _Flight(dial) as flight:
        for _ in range(_IN_FLIGHT):
            flight.add()
        while time.perf_counter() - begun < seconds or not answered:
            if time.perf_counter() - begun > _PATIENCE:
                break
            for _ in flight.answers(1.0):
                answered += 1
                flight.add()
        return answered / (time.perf_counter() - begun)


class _Flight:
    """Connections that were opened, send a byte as soon as they stand, and end with the answer."""

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        self._selector = selectors.DefaultSelector()

    def add(self) -> None:
        self._selector.register(self._dial(), selectors.EVENT_WRITE)

    def answers(self, seconds: float, *, keep: bool = False) -> Iterator[socket.socket]:
        """Those that are answered within `seconds`, closed or kept open; one that fails is no answer."""
        for key, events in self._selector.select(seconds):
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            if events & selectors.EVENT_WRITE:
                if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    connection.send(_BYTE)
                self._selector.modify(connection, selectors.EVENT_READ)
                continue
            self._selector.unregister(connection)
            is_right = _hears(connection)
            if not (keep and is_right):
                connection.close()
            if is_right:
                yield connection
            else:
                self.add()

    def __enter__(self) -> _Flight:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def _hears(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == _BYTE
    except OSError:
        return False


def crowd(address: str, port: int, number: int) -> dict[str, float]:
    """How many connections had their byte back while all of them stood; they stand until standard input ends."""
    begun = time.perf_counter()
    connections = [_dial(address, port) for _ in range(number)]
    deadline = begun + _PATIENCE
    waiting = {connection for connection in connections if _waits(connection, deadline)}
    for connection in waiting:
        connection.settimeout(max(0.001, deadline - time.perf_counter()))
    right = sum(map(_hears, waiting))
    # Once more, in both directions: nobody was thrown out to make room for another.
    still = sum(_asks_again(connection) for connection in waiting) if right == number else right
    _say(right=min(right, still), seconds=time.perf_counter() - begun)
    sys.stdin.read()
    return {}


def _waits(connection: socket.socket, deadline: float) -> bool:
    """Whether it stands; then its byte is on the way."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_WRITE)
        selector.select(max(0.0, deadline - time.perf_counter()))
    with contextlib.suppress(OSError):
        return connection.send(_BYTE) == 1
    return False


def _asks_again(connection: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        _byte_and_back(connection)
        return True
    return False


def _say(**facts: float) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(what: str, address: str, port: str, *rest: str) -> None:
    """As this file's own words say."""
    if what == "echo":
        echo(address, int(port))
    elif what == "ask":
        _say(**ask(address, int(port), float(rest[0])))
    else:
        crowd(address, int(port), int(rest[0]))


if __name__ == "__main__":
    # The end of the network ends it; an interrupt is the benchmark's to tell of.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(*sys.argv[1:])
