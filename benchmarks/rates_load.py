"""Datagrams for `rates.py`: iperf3 wants TCP beside UDP on the same port, and a session carries one of them.

    python rates_load.py receive ADDRESS PORT         the bytes of each half-second, once none comes for a second
    python rates_load.py send ADDRESS PORT MBPS SECONDS   as many, in datagrams of 1400 bytes

What was received is a line of JSON. Nothing here is of the library: a process starts in 30 ms.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Final

__all__ = ["receive", "send"]

_SIZE: Final = 1400
_HALF: Final = 0.5
# Datagrams that are sent between two looks at the clock.
_TRAIN: Final = 8


def receive(address: str, port: int) -> list[int]:
    """The bytes of each half-second since the first datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taking:
        taking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        taking.bind((address, port))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        halves, begun = [len(taking.recv(65536))], time.monotonic()
        taking.settimeout(2 * _HALF)
        while True:
            try:
                size = len(taking.recv(65536))
            except TimeoutError:
                return halves
            half = int((time.monotonic() - begun) / _HALF)
            halves += [0] * (half + 1 - len(halves))
            halves[half] += size


def send(address: str, port: int, mbps: float, seconds: float) -> None:
    """Send at a pace."""
    data, pause = bytes(_SIZE), _TRAIN * _SIZE * 8 / (mbps * 1e6)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as giving:
        giving.connect((address, port))
        due = time.monotonic()
        ending = due + seconds
        while due < ending:
            for _ in range(_TRAIN):
                giving.send(data)
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    what, where, number, *rest = sys.argv[1:]
    if what == "receive":
        sys.stdout.write(json.dumps(receive(where, int(number))) + "\n")
    else:
        send(where, int(number), *map(float, rest))
