"""A great many bytes through one connection, hashed at both ends, each end in a process of its own.

As a program: `pouring.py send FD BYTES` or `pouring.py receive FD BYTES`, with a connected socket; it prints a digest.
The connection stays open until both have said what they saw: nobody half-closes here.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys

__all__ = ["pour"]

_BLOCK = 1 << 20
# Blocks differ by where in the random bytes they begin, so that lost, doubled and swapped ones change the digest.
_STEP = 4093


def pour(sender: socket.socket, receiver: socket.socket, size: int) -> tuple[str, str]:
    """Send `size` bytes from one socket to the other; gives what both ends saw, as digests (SHA-256)."""
    ends = [_start("send", sender, size), _start("receive", receiver, size)]
    try:
        sent, received = (end.communicate()[0].strip() for end in ends)
    finally:
        for end in ends:
            end.kill()
            end.wait()
    return sent, received


def _start(what: str, connection: socket.socket, size: int) -> subprocess.Popen[str]:
    number = connection.fileno()
    command = [sys.executable, "-S", __file__, what, str(number), str(size)]
    return subprocess.Popen(command, pass_fds=[number], stdout=subprocess.PIPE, text=True)


def _send(connection: socket.socket, size: int) -> str:
    source = memoryview(os.urandom(_BLOCK) * 2)
    digest = hashlib.sha256()
    for number, left in enumerate(range(size, 0, -_BLOCK)):
        begin = number * _STEP % _BLOCK
        block = source[begin : begin + min(left, _BLOCK)]
        digest.update(block)
        connection.sendall(block)
    return digest.hexdigest()


def _receive(connection: socket.socket, size: int) -> str:
    room = memoryview(bytearray(_BLOCK))
    digest = hashlib.sha256()
    while size and (got := connection.recv_into(room[:size])):
        digest.update(room[:got])
        size -= got
    return digest.hexdigest() if not size else f"{size} bytes are missing"


def _main(what: str, number: int, size: int) -> None:
    connection = socket.socket(fileno=number)
    connection.setblocking(True)
    print({"send": _send, "receive": _receive}[what](connection, size))  # noqa: T201  its answer


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
