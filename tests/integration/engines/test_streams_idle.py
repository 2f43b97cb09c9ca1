"""Streams that are silent for long, on all engines: no time-out of ours ends one, and keep-alive watches both legs."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from places import exactly, until
from scistream.engines.nft_base import Patience
from scistream.engines.nftables import NFTables
from scistream.terms import Encryption
from streams import Carrier, Gateway, carriers, stream

# What the engines render for how long a connection may be idle, and what makes that short.
IDLE = {"haproxy": ("24d", "3s"), "nginx": ("24d", "3s"), "stunnel": ("2073600", "3")}
# All their other timers, and what makes those shorter still.
OTHERS = {
    "haproxy": (r"(timeout \w+) \d+s\b", r"\1 2s"),
    "nginx": (r"(_timeout) \d+s;", r"\1 2s;"),
    "stunnel": (r"(TIMEOUT(?:connect|busy)) = \d+", r"\1 = 2"),
}
PROXIES = [each for each in carriers() if each.is_proxy]


def exchange(application: socket.socket, target: socket.socket) -> None:
    """Some bytes each way."""
    for one, other in ((application, target), (target, application)):
        one.sendall(b"here")
        assert exactly(other, 4) == b"here"


def has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("carrier", PROXIES, ids=str)
def test_u44_an_idle_stream_is_cut_by_the_timers_alone(carrier: Carrier, tmp_path: Path) -> None:
    """Two streams are silent side by side: one whose timers for that are short, and one whose others are."""
    (tmp_path / "short").mkdir()
    name = carrier.engine.name
    with (
        stream(carrier.altered(*OTHERS[name]), tmp_path) as made,
        made.connected() as ours,
        made.connected() as half,
        stream(carrier.altered(*IDLE[name]), tmp_path / "short") as other,
        other.connected() as (application, target),
    ):
        exchange(*ours)
        exchange(*half)
        half[0].shutdown(socket.SHUT_WR)
        assert half[1].recv(1) == b""
        exchange(application, target)
        # From here on nobody says anything, until the timers have ended the other one.
        assert has_ended(application)
        assert has_ended(target)
        exchange(*ours)
        half[1].sendall(b"here")
        assert exactly(half[0], 4) == b"here"


def watched(gateway: Gateway) -> dict[tuple[str, str], bool]:
    """The connections of its place, each by its own end and the other, and whether keep-alive watches it."""
    told = gateway.place.do(subprocess.check_output, ["ss", "-tnoH", "state", "established"]).decode()
    # Both queues, both ends, and the timer that runs.
    rows = ((line.split(), line) for line in told.splitlines())
    return {(row[2], row[3]): "timer:(keepalive," in line for row, line in rows}


def legs(gateway: Gateway) -> list[bool]:
    """Whether keep-alive watches what it accepted and what it connected to."""
    route = gateway.plan.routes[0]
    return [
        kept for (own, to), kept in watched(gateway).items() if str(route.entry_point) == own or str(route.target) == to
    ]


@pytest.mark.parametrize("carrier", PROXIES, ids=str)
def test_u44_keep_alive_watches_both_legs_of_both_data_servers(carrier: Carrier, tmp_path: Path) -> None:
    with stream(carrier, tmp_path) as made, made.connected() as (application, target):
        exchange(application, target)
        for gateway in made.gateways:
            # The timer of what was just sent comes first.
            until(lambda: legs(gateway) == [True, True])  # noqa: B023
        # The application's own end is not ours to watch, and shows that there are others.
        assert [kept for (_, to), kept in watched(made.outbound).items() if to == str(made.outbound.entry_point)] == [
            False
        ]


def test_u44_in_the_kernel_the_timers_alone_end_an_idle_stream(tmp_path: Path) -> None:
    """Two streams are silent side by side, and differ in how long the kernel remembers silent connections."""
    ours, forgetful = (
        Carrier(NFTables(), Encryption.NONE),
        Carrier(NFTables(), Encryption.NONE, patience=Patience(tcp=1)),
    )
    (tmp_path / "short").mkdir()
    with (
        stream(ours, tmp_path) as made,
        made.connected() as kept,
        stream(forgetful, tmp_path / "short") as other,
        other.connected() as (application, target),
    ):
        exchange(*kept)
        exchange(application, target)
        until(lambda: [gateway.traffic().connections_open for gateway in other.gateways] == [0, 0])
        # From the target's end: a segment from the other is let in anew, and so brings all back to life.
        exchange(*reversed(kept))
        # The way back is forgotten.
        target.sendall(b"here")
        application.settimeout(1)
        with pytest.raises(TimeoutError):
            application.recv(4)
