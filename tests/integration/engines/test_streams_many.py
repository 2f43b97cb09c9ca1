"""Many connections in one session, and readers that stop reading, on all engines."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from places import both, exactly, until
from scistream.engines import counting
from scistream.terms import Encryption
from streams import Carrier, carriers, every, stream

MANY = 1000
SLOW = 16
TOKEN = 32
# Bytes that a connection with a reader that has stopped may cost a data server: two buffers of 512 kB, and its TLS.
MOST = 5 << 18


@every()
def test_1000_connections_at_once_each_with_its_own_bytes(
    carrier: Carrier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_FRESH", 0)
    tokens = [os.urandom(TOKEN) for _ in range(MANY)]
    with contextlib.ExitStack() as stack, stream(carrier, tmp_path) as made:

        def ask() -> list[socket.socket]:
            applications = [stack.enter_context(made.connect()) for _ in tokens]
            for application, token in zip(applications, tokens, strict=True):
                application.sendall(token)
            return applications

        def hear() -> list[tuple[socket.socket, bytes]]:
            targets = [stack.enter_context(made.accept()) for _ in tokens]
            return [(target, exactly(target, TOKEN)) for target in targets]

        applications, heard = both(ask, hear)
        assert sorted(token for _, token in heard) == sorted(tokens)
        # All of them are open, and none has had its answer.
        for gateway in made.gateways:
            until(lambda: gateway.traffic().connections_open == MANY)  # noqa: B023
        for target, token in heard:
            target.sendall(token[::-1])
        assert [exactly(application, TOKEN)[::-1] for application in applications] == tokens


def fill(applications: list[socket.socket], noise: bytes) -> dict[socket.socket, Any]:
    """Send on all of them until nothing on the way takes any more; gives what each has sent, as a digest."""
    digests = {application: hashlib.sha256() for application in applications}
    for application in applications:
        application.setblocking(False)
    while ready := select.select([], applications, [], 0.3)[1]:
        for application in ready:
            with contextlib.suppress(BlockingIOError):
                digests[application].update(noise[: application.send(noise)])
    return digests


def digest_of(target: socket.socket) -> str:
    digest = hashlib.sha256()
    while piece := target.recv(1 << 18):
        digest.update(piece)
    return digest.hexdigest()


@every()
def test_slow_readers_cost_bounded_memory_and_lose_nothing(carrier: Carrier, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, stream(carrier, tmp_path) as made:
        pairs = [stack.enter_context(made.connected()) for _ in range(SLOW)]
        before = [gateway.memory() for gateway in made.gateways]
        # Every other one the other way.
        ways = [pair[:: 1 if number % 2 else -1] for number, pair in enumerate(pairs)]
        digests = fill([sender for sender, _ in ways], os.urandom(1 << 20))
        grown = [gateway.memory() - least for gateway, least in zip(made.gateways, before, strict=True)]
        for sender, reader in ways:
            sender.close()
            assert digest_of(reader) == digests[sender].hexdigest()
    assert max(grown) <= SLOW * MOST


def test_a_gateway_that_takes_its_time_for_a_handshake_turns_nobody_away(tmp_path: Path) -> None:
    """As one does that gets a thousand connections while its processors are busy; all engines at once."""
    with contextlib.ExitStack() as stack:
        slow = []
        for carrier in (each for each in carriers() if each.is_proxy and each.encryption is not Encryption.NONE):
            home = tmp_path / str(carrier)
            home.mkdir()
            slow.append(stack.enter_context(stream(carrier, home)))
        for made in slow:
            for process in made.inbound.processes():
                process.suspend()
                stack.callback(process.resume)
        applications = [stack.enter_context(made.connect()) for made in slow]
        # Longer than a connection to a target may take.
        time.sleep(6)
        for made in slow:
            for process in made.inbound.processes():
                process.resume()
        for made, application in zip(slow, applications, strict=True):
            target = stack.enter_context(made.accept())
            application.sendall(b"here")
            assert exactly(target, 4) == b"here"
