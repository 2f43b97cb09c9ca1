"""Streams of datagrams, on the engines that carry UDP: each whole, to whom it belongs, as long as nobody is silent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from flows import datagram
from places import listener, until
from scistream.addresses import Endpoint
from scistream.terms import Transport
from streams import Carrier, carriers, every, stream

CLIENTS = 64
ROUNDS = 10
# From one byte to more than a packet of Ethernet takes.
SIZES = (1, 100, 1400, 1472, 1473, 8000)


@every(Transport.UDP)
def test_u63_every_datagram_is_whole_and_every_client_gets_its_own(carrier: Carrier, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, stream(carrier, tmp_path) as made:
        clients = [stack.enter_context(made.connect()) for _ in range(CLIENTS)]
        seen = [
            {datagram(client, made.target, os.urandom(SIZES[number % len(SIZES)])) for client in clients}
            for number in range(ROUNDS)
        ]
    # Each client is another one for the target, and stays the same.
    assert len(seen[0]) == CLIENTS
    assert all(peers == seen[0] for peers in seen)


@every(Transport.UDP)
def test_u63_targets_change_under_running_datagrams(carrier: Carrier, tmp_path: Path) -> None:
    with (
        stream(carrier, tmp_path) as made,
        listener(made.places.target, made.places.addresses[2], Transport.UDP) as other,
        made.connect() as running,
    ):
        peer = datagram(running, made.target, b"before")
        made.inbound.retarget(Endpoint(*other.getsockname()[:2]))
        with made.connect() as new:
            datagram(new, other, b"new")
        if carrier.is_proxy:
            # Nginx's new workers know nothing of what its old ones had: exchanges are not connections.
            datagram(running, other, b"moved")
        else:
            assert datagram(running, made.target, b"still") == peer


@pytest.mark.parametrize("carrier", [each for each in carriers(Transport.UDP) if each.is_proxy], ids=str)
def test_u63_a_silent_client_stays_the_same_as_long_as_the_timers_say(carrier: Carrier, tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    with (
        stream(carrier, tmp_path) as made,
        made.connect() as ours,
        stream(carrier.altered("10m", "1s"), tmp_path / "short") as other,
        other.connect() as forgotten,
    ):
        peer, once = datagram(ours, made.target, b"once"), datagram(forgotten, other.target, b"once")
        # What has ended is counted.
        until(lambda: other.inbound.traffic().bytes_to_targets == 4)
        assert datagram(ours, made.target, b"again") == peer
        assert datagram(forgotten, other.target, b"again") != once
