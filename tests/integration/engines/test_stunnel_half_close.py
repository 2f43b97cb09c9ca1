"""What Stunnel says that it does not carry, it loses: a session that needs it is refused for a reason (U72)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES
from scistream.engines.abilities import Wishes, require
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption

STUNNEL: Any = ENGINES["stunnel"]
NOISE = bytes(1 << 20)
RUNS = 8


def fill(connection: socket.socket) -> int:
    """Send until nothing on the way takes any more; says how many bytes it took."""
    sent = 0
    connection.setblocking(False)
    while select.select([], [connection], [], 0.3)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += connection.send(NOISE)
    return sent


def is_under_way(connection: socket.socket) -> bool:
    """Whether some of what was sent has not reached the next gateway's kernel."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))) != (0,)


def read_all(connection: socket.socket) -> int:
    got = 0
    while piece := connection.recv(1 << 18):
        got += len(piece)
    return got


def lost(first: socket.socket, second: socket.socket) -> int:
    """How many bytes less than were sent arrive, where one end half-closes and the other sends, closes, and is gone."""
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    sent, got = fill(second), 0
    # Until the next gateway's kernel has it all, and Stunnel cannot go on because nobody reads.
    while is_under_way(second):
        got += len(first.recv(1 << 16))
        select.select([], [], [], 0.01)
    second.close()
    select.select([first], [], [], 0.2)
    return sent - got - read_all(first)


@pytest.mark.parametrize("encryption", [Encryption.TLS_PSK, Encryption.TLS])
@pytest.mark.parametrize("is_application_first", [True, False])
def test_u72_the_direction_that_ends_second_loses_its_last_bytes(
    bench: Any, encryption: Encryption, *, is_application_first: bool
) -> None:
    """Once a Stunnel carries this whole every time, the sentence about it can go: nine in ten runs are not."""
    bench.encryption = encryption

    def run(entry_point: Endpoint, listener: socket.socket) -> int:
        with socket.create_connection((entry_point.host, entry_point.port)) as application, listener.accept()[0] as end:
            for connection in (application, end):
                connection.settimeout(10)
            return lost(*((application, end) if is_application_first else (end, application)))

    async def main() -> bool:
        target = bench.address()
        with socket.create_server((target.host, target.port)) as listener:
            async with bench.stream(STUNNEL, target) as entry_point:
                for _ in range(RUNS):
                    if await asyncio.to_thread(run, entry_point, listener):
                        return True
                return False

    assert asyncio.run(main())


@pytest.mark.parametrize("encryption", STUNNEL.encryptions)
def test_u72_a_session_that_needs_half_close_is_refused_by_name(encryption: Encryption) -> None:
    with pytest.raises(SciStreamError) as caught:
        require(STUNNEL, Wishes(encryption=encryption, half_close=True))
    assert caught.value.code is Code.ENGINE_CANNOT
    words = "half-closed connections may lose their last bytes: those of the direction that ends second"
    assert f"Stunnel cannot do what was asked: {words}" in str(caught.value)
