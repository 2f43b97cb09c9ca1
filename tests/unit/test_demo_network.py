"""The network of namespaces, as far as it is arithmetic and words."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from pathlib import Path

import pytest

from scistream.demo import namespaces, network
from scistream.demo.network import Network
from scistream.errors import Code, SciStreamError


class _Keeper:
    """A keeper that could not make a namespace."""

    pid = 1

    def __init__(self, said: bytes, complaint: bytes) -> None:
        self.stdout = io.BytesIO(said)
        self.stderr = io.BytesIO(complaint)
        self.was_ended = False
        self.is_stuck = False
        self.signals: list[str] = []

    def communicate(self, timeout: float) -> None:
        self.was_ended = True
        if self.is_stuck:
            raise subprocess.TimeoutExpired("keeper", timeout)

    def kill(self) -> None:
        self.signals.append("kill")

    def wait(self) -> None:
        self.signals.append("wait")


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [(b"Operation not permitted\n", "Operation not permitted"), (b"", "its keeper ended at once")],
)
def test_who_may_not_make_namespaces_is_told_so(monkeypatch: pytest.MonkeyPatch, complaint: bytes, reason: str) -> None:
    keeper = _Keeper(b"", complaint)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: keeper)
    with (
        pytest.raises(SciStreamError, match=f"cannot be made here: {reason}. It takes root") as caught,
        Network("test"),
    ):
        pass
    assert caught.value.code is Code.NETWORK_UNAVAILABLE
    assert keeper.was_ended


def test_without_iproute2_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "find_program", lambda _: None)
    with pytest.raises(SciStreamError, match="there is no program ip") as caught, Network("test"):
        pass
    assert caught.value.code is Code.NETWORK_UNAVAILABLE


def test_a_kernel_without_a_setting_is_told_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = _Keeper(b"5 6 7 8\n", b"")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: keeper)

    def join(_: Network) -> None:
        raise FileNotFoundError(2, "No such file", "/proc/sys/net/ipv6")

    monkeypatch.setattr(Network, "_join", join)
    with pytest.raises(SciStreamError, match="No such file: '/proc/sys/net/ipv6'") as caught, Network("test"):
        pass
    assert caught.value.code is Code.NETWORK_UNAVAILABLE
    assert keeper.was_ended


def test_hosts_have_their_addresses_from_the_application_to_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = _Keeper(b"5 6 7 8\n", b"")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: keeper)
    monkeypatch.setattr(Network, "_join", lambda _: None)
    with Network("test") as built:
        assert [host.addresses for host in built.hosts] == [
            ("198.18.1.1",),
            ("198.18.1.2", "198.18.2.1"),
            ("198.18.2.2", "198.18.3.1"),
            ("198.18.3.2",),
        ]
        assert built.inbound_gateway.addresses_v6 == ("2001:db8:2::2", "2001:db8:3::1")
        assert built.inbound_gateway.command(["true"]) == ["nsenter", "--net=/proc/1/fd/7", "--", "true"]


def test_what_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = _Keeper(b"5 6 7 8\n", b"")
    keeper.is_stuck = True
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: keeper)
    monkeypatch.setattr(Network, "_join", lambda _: None)
    with pytest.raises(SciStreamError, match="a process of the network test") as caught, Network("test"):
        pass
    assert caught.value.code is Code.LEFT_BEHIND
    assert keeper.signals == ["kill", "wait"]


@pytest.mark.parametrize(
    ("index", "ways"),
    [
        (0, ["dev far", "via 198.18.1.2 dev far", "via 198.18.1.2 dev far"]),
        (1, ["dev near", "dev far", "via 198.18.2.2 dev far"]),
        (2, ["via 198.18.2.1 dev near", "dev near", "dev far"]),
        (3, ["via 198.18.3.1 dev near", "via 198.18.3.1 dev near", "dev near"]),
    ],
)
def test_every_host_knows_a_way_to_every_link(index: int, ways: list[str]) -> None:
    assert [network._way(index, link, 4) for link in (1, 2, 3)] == ways


def test_only_what_is_inside_is_ended_and_the_spared_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.touch()
    outside.touch()
    proc = tmp_path / "proc"
    for pid, place in ((10, inside), (11, outside), (12, inside), (13, inside)):
        (proc / str(pid) / "ns").mkdir(parents=True)
        (proc / str(pid) / "ns/net").symlink_to(place)
    (proc / "meminfo").mkdir()
    (proc / "14").mkdir()
    killed: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))
        (proc / str(pid) / "ns/net").unlink()
        if pid == 13:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(namespaces.time, "sleep", lambda _: None)
    with inside.open() as held:
        namespaces.ends([held.fileno()], spared=(12,), proc=proc)
    assert sorted(killed) == [(10, signal.SIGKILL), (13, signal.SIGKILL)]
