"""Stunnel and Nginx lose bytes of each other, and are refused together by name; with slow readers it shows (U72)."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

from places import WAIT, both
from scistream.engines.abilities import Wishes, require
from scistream.engines.base import Feature
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption
from streams import Carrier, Stream, carriers, mixed, refused, stream

# Enough that whoever reads so little at a time is behind to the end.
LEAST, MOST = 3 << 20, 5 << 20
NOISE = os.urandom(MOST)
PIECE = 20_000
# Of a hundred runs 7 to 35 are not whole, the fewer the busier the host is: the first one ends the test.
RUNS = 300
WHOLE_RUNS = 6


def behind(made: Stream) -> tuple[socket.socket, socket.socket]:
    """A new connection, application's end first, on which either end has next to no buffer for what comes."""
    made.target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    application = socket.socket()
    application.settimeout(WAIT)
    application.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    application.connect((made.outbound.entry_point.host, made.outbound.entry_point.port))
    return application, made.accept()


def lost(made: Stream, *, is_target_first: bool) -> int:
    """One end sends and closes at once, the other reads as slowly as it gets: so many bytes less arrive."""
    application, target = behind(made)
    sender, reader = (target, application) if is_target_first else (application, target)
    size = random.randint(LEAST, MOST)  # noqa: S311

    def send() -> None:
        sender.sendall(memoryview(NOISE)[:size])
        sender.close()

    def read() -> bytes:
        got = bytearray()
        while piece := reader.recv(PIECE):
            got += piece
        return bytes(got)

    with sender, reader:
        got = both(send, read)[1]
    assert got == NOISE[: len(got)]
    return size - len(got)


# What Nginx sends to Stunnel: out of the application where Nginx has the outbound end, else out of the target.
@pytest.mark.parametrize("carrier", refused(), ids=str)
def test_u72_stunnel_loses_the_last_bytes_of_what_nginx_sends(carrier: Carrier, tmp_path: Path) -> None:
    """Once this is whole every time, the two can work together, and the sentence about it can go."""
    with stream(carrier, tmp_path) as made:
        assert any(lost(made, is_target_first=carrier.engine.name == "stunnel") for _ in range(RUNS))


@pytest.mark.parametrize("is_target_first", [False, True], ids=["application", "target"])
@pytest.mark.parametrize("carrier", [each for each in carriers() + mixed() if "stunnel" in str(each)], ids=str)
def test_u72_stunnel_and_who_says_that_it_ends_lose_nothing(
    carrier: Carrier, tmp_path: Path, *, is_target_first: bool
) -> None:
    with stream(carrier, tmp_path) as made:
        assert not any(lost(made, is_target_first=is_target_first) for _ in range(WHOLE_RUNS))


@pytest.mark.parametrize("carrier", refused(), ids=str)
def test_u72_two_that_lose_bytes_of_each_other_are_refused_by_name(carrier: Carrier) -> None:
    """By the one of them that cannot; the control servers' own refusal is in test_control_server_encryption."""
    assert carrier.inbound is not None
    ends = (carrier.engine, carrier.inbound)
    (engine,) = (each for each in ends if Feature.TLS_WITH_NGINX in each.cannot)
    (peer,) = (each.name for each in ends if each is not engine)
    with pytest.raises(SciStreamError) as caught:
        require(engine, Wishes(encryption=Encryption.TLS, peer=peer))
    assert caught.value.code is Code.ENGINE_CANNOT
    words = "the last bytes of what Nginx sends may be lost: it ends a direction without TLS's word for it"
    assert f"Stunnel cannot do what was asked: {words} (close_notify)" in str(caught.value)
