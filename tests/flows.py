"""Connections that carry numbered blocks both ways, for as long as something is done to their data servers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from places import WAIT, exactly, until

__all__ = ["Flow", "datagram"]

_BLOCK = 1 << 16
_NOISE = os.urandom(2 * _BLOCK)
_END = bytes(_BLOCK)


def _block(number: int) -> bytes:
    begin = number * 509 % _BLOCK
    return (number + 1).to_bytes(8) + _NOISE[begin : begin + _BLOCK - 8]


class Flow:
    """Bytes both ways over one connection, each block compared where it arrives, until the context ends.

    Then both ends say that they are done, and only then the connection is closed: nobody half-closes here.
    """

    def __init__(self, application: socket.socket, target: socket.socket) -> None:
        self._ends = (application, target)
        self._stopped = threading.Event()
        self._arrived = [0, 0]
        self._threads = ThreadPoolExecutor(4)
        self._sent: list[Future[int]] = []
        self._checked: list[Future[int]] = []

    def __enter__(self) -> Self:
        application, target = self._ends
        self._sent = [self._threads.submit(self._send, each) for each in (application, target)]
        self._checked = [self._threads.submit(self._check, way, each) for way, each in enumerate((target, application))]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every byte that was sent has arrived, and in order."""
        self._stopped.set()
        try:
            sent = [each.result(WAIT) for each in self._sent]
            assert [each.result(WAIT) for each in self._checked] == sent
        finally:
            for each in self._ends:
                each.close()
            self._threads.shutdown()

    def goes_on(self) -> None:
        """Returns when more has arrived at both ends."""
        wanted = [arrived + 5 for arrived in self._arrived]
        until(lambda: self._has_failed() or all(map(int.__ge__, self._arrived, wanted)))
        assert not self._has_failed(), "the stream was cut"

    def _has_failed(self) -> bool:
        return any(each.done() for each in (*self._sent, *self._checked))

    def _send(self, connection: socket.socket) -> int:
        number = 0
        # The pause leaves the processors to those who are tested.
        while not self._stopped.wait(0.002):
            connection.sendall(_block(number))
            number += 1
        connection.sendall(_END)
        return number

    def _check(self, way: int, connection: socket.socket) -> int:
        number = 0
        while (got := exactly(connection, _BLOCK)) != _END:
            assert got == _block(number), "the stream was cut, or its bytes were changed"
            number += 1
            self._arrived[way] = number
        return number


def datagram(application: socket.socket, target: socket.socket, data: bytes) -> tuple[str, int]:
    """A datagram to the target, and its answer, until both have come: UDP may lose some. Gives whence it came."""
    for patience in (1, 2, 4, 8, 16):
        application.settimeout(patience)
        target.settimeout(patience)
        with contextlib.suppress(TimeoutError):
            application.send(data)
            got, sender = target.recvfrom(1 << 16)
            while got != data:  # an earlier one
                got, sender = target.recvfrom(1 << 16)
            target.sendto(got[::-1], sender)
            while application.recv(1 << 16) != data[::-1]:
                pass
            return sender[:2]
    raise AssertionError("no datagram comes through")
