"""Whole bytes, on all engines: when one side ends its half first, and when it closes at once (U72)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from places import both
from scistream.engines.abilities import Wishes, require
from scistream.errors import Code, SciStreamError
from streams import Carrier, carriers, mixed, stream

# Runs of one case. An engine that loses bytes does so in a good part of them.
RUNS = 24
MOST = 6 << 20
NOISE = os.urandom(2 * MOST)

Case = Callable[[socket.socket, socket.socket], list[tuple[Any, Any]]]


def some() -> memoryview:
    """Random bytes, so many that they fill the buffers on the way, or so few that they do not."""
    size = random.choice([random.randint(1, 4096), random.randint(MOST // 2, MOST)])  # noqa: S311
    begin = random.randint(0, MOST)  # noqa: S311
    return memoryview(NOISE)[begin : begin + size]


def read_all(connection: socket.socket, after: threading.Event | None = None) -> bytearray:
    if after is not None and random.random() < 0.5:  # noqa: S311
        # More than the buffers hold is never all sent before somebody reads.
        after.wait(0.03)
    got = bytearray()
    while piece := connection.recv(1 << 18):
        got += piece
    return got


def half_closes_and_reads(first: socket.socket, second: socket.socket) -> list[tuple[Any, Any]]:
    """One side ends its half, and only then the other begins to answer."""
    request, answer, closed = some(), some(), threading.Event()

    def ask() -> bytearray:
        first.sendall(request)
        first.shutdown(socket.SHUT_WR)
        return read_all(first, after=closed)

    def reply() -> bytearray:
        got = read_all(second)
        second.sendall(answer)
        second.close()
        closed.set()
        return got

    back, there = both(ask, reply)
    return [(request, there), (answer, back)]


def ends_while_the_other_sends(first: socket.socket, second: socket.socket) -> list[tuple[Any, Any]]:
    """Both send at once, and one of them is long done before the other."""
    little, much, closed = NOISE[: random.randint(0, 4096)], NOISE[:MOST], threading.Event()  # noqa: S311

    def send_little() -> bytearray:
        first.sendall(little)
        first.shutdown(socket.SHUT_WR)
        return read_all(first, after=closed)

    def send_much() -> bytearray:
        second.sendall(much)
        second.shutdown(socket.SHUT_WR)
        closed.set()
        return read_all(second)

    back, there = both(send_little, send_much)
    return [(little, there), (much, back)]


def closes_at_once(first: socket.socket, second: socket.socket) -> list[tuple[Any, Any]]:
    """One side sends and closes at once, perhaps before the other reads at all."""
    data, closed = some(), threading.Event()

    def send() -> None:
        first.sendall(data)
        first.close()
        closed.set()

    return [(data, both(send, lambda: read_all(second, after=closed))[1])]


def stops_reading(first: socket.socket, second: socket.socket) -> list[tuple[Any, Any]]:
    """One side has enough and closes, in the middle of what the other sends without an end."""
    wanted = random.randint(1, MOST)  # noqa: S311

    def send() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                first.sendall(NOISE)

    def read() -> bytearray:
        got = bytearray()
        while len(got) < wanted:
            got += second.recv(wanted - len(got))
        second.close()
        return got

    return [(NOISE[:wanted], both(send, read)[1])]


def lost(carrier: Carrier, directory: Path, case: Case, *, target_first: bool) -> list[tuple[int, int]]:
    """Of the runs that were not whole, the bytes that were sent and those that arrived."""
    with stream(carrier, directory) as made:
        found = []
        for _ in range(RUNS):
            with made.connected() as (application, target):
                ends = (target, application) if target_first else (application, target)
                found += [(len(sent), len(got)) for sent, got in case(*ends) if bytes(sent) != got]
    return found


first = pytest.mark.parametrize("target_first", [False, True], ids=["application", "target"])


@first
@pytest.mark.parametrize("case", [closes_at_once, stops_reading], ids=lambda case: case.__name__)
@pytest.mark.parametrize("carrier", carriers() + mixed(), ids=str)
def test_u72_whole_bytes_when_a_side_closes_early(
    carrier: Carrier, case: Case, target_first: bool, tmp_path: Path
) -> None:
    assert lost(carrier, tmp_path, case, target_first=target_first) == []


@first
@pytest.mark.parametrize("case", [half_closes_and_reads, ends_while_the_other_sends], ids=lambda case: case.__name__)
@pytest.mark.parametrize("carrier", [each for each in carriers() + mixed() if each.half_closes], ids=str)
def test_u72_whole_bytes_when_a_side_ends_its_half_first(
    carrier: Carrier, case: Case, target_first: bool, tmp_path: Path
) -> None:
    assert lost(carrier, tmp_path, case, target_first=target_first) == []


@pytest.mark.parametrize("carrier", [each for each in carriers() if not each.half_closes], ids=str)
def test_u72_what_would_lose_bytes_is_refused_by_name(carrier: Carrier) -> None:
    with pytest.raises(SciStreamError) as caught:
        require(carrier.engine, Wishes(encryption=carrier.encryption, half_close=True))
    assert caught.value.code is Code.ENGINE_CANNOT
    words = f"{carrier.engine.title} cannot do what was asked: half-closed connections may lose their last bytes"
    assert words in str(caught.value)
