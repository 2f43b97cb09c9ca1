"""What a start finds and cannot account for, where it works in the kernel: rules with marks, and no process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from scistream.addresses import Endpoint
from scistream.control_server import leftovers as module
from scistream.control_server.data_servers import Engines, merged
from scistream.control_server.leftovers import Leftovers, find_in_kernel
from scistream.control_server.ports import Reservation
from scistream.engines import Plan, Route
from scistream.engines.marks import ProcessMark
from scistream.engines.nftables import NFTables
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, parse_uid

MARK = ProcessMark(0x5C000001, 500)
OTHER = ProcessMark(0x5C000002, 501)
GOES_ON = "is in no journal and goes on: its ports are kept free of others, s2cs stop --release ends it"


class MemoryKernel(NFTables):
    """Rules in memory. `stuck`: what is left of one that somebody wants to end."""

    def __init__(self) -> None:
        super().__init__()
        self.standing = {MARK: (22101, 22100), OTHER: (22105,)}
        self.stuck = ""
        self.swept: list[Path] = []

    async def sweep(self, directory: Path, stems: object) -> None:
        self.swept.append(directory)

    def survey(self, directory: Path) -> dict[str, list[ProcessMark]]:
        return {"one": [MARK], "two.outbound": [OTHER], "no uid at all": [OTHER]}

    def ports(self, mark: ProcessMark) -> tuple[int, ...]:
        return self.standing.get(mark, ())

    def alive(self, mark: ProcessMark) -> bool:
        return mark in self.standing

    async def take_out(self, mark: ProcessMark) -> str:
        if not self.stuck:
            self.standing.pop(mark, None)
        return self.stuck


class MemoryPool:
    host = "127.0.20.1"

    def __init__(self) -> None:
        self.taken: set[int] = set()

    def claim(self, host: str, ports: tuple[int, ...], *, in_use: bool) -> Reservation:
        assert in_use
        self.taken.update(ports)
        reservation = Reservation(dict.fromkeys(ports), self.taken.difference_update)
        reservation.retake = lambda host: None
        return reservation


@pytest.fixture
def kernel(monkeypatch):
    """And nothing is ever signalled: a mark is no process."""
    for name in ("killpg", "kill", "pidfd_open"):
        monkeypatch.setattr(os, name, _never)
    monkeypatch.setattr(signal, "pidfd_send_signal", _never)
    monkeypatch.setattr(module, "send", _never)
    monkeypatch.setattr(module, "group_of", _never)
    memory = MemoryKernel()
    for bounds in (module.shaping, module.guarding):
        monkeypatch.setattr(bounds, "sweep", memory.sweep)
    return memory


def _never(*arguments: object) -> None:
    raise AssertionError(f"a mark was taken for a process: {arguments}")


def test_rules_that_no_journal_knows_are_told_keep_their_ports_and_their_uid_and_go_when_asked(kernel, tmp_path):
    pool = MemoryPool()
    found = Leftovers(tmp_path, find_in_kernel(kernel, kernel.survey(tmp_path), pool))
    (tmp_path / "one.key").touch()
    assert found.warnings() == (
        f"the data server of session one (rules of nftables, on port 22100, 22101) {GOES_ON}",
        f"the data server of session two (rules of nftables, on port 22105) {GOES_ON}",
    )
    assert found.stems == ["one", "two.outbound"]
    assert pool.taken == {22100, 22101, 22105}
    with pytest.raises(SciStreamError) as caught:
        found.refuse(parse_uid("two"))
    assert caught.value.code is Code.UID_EXISTS
    assert "left without a journal, as two.outbound" in str(caught.value)
    assert asyncio.run(found.end()) == 2
    assert (kernel.standing, pool.taken, found.warnings(), list(tmp_path.iterdir())) == ({}, set(), (), [])
    found.refuse(parse_uid("two"))
    # Their rates and source lists go with them.
    assert kernel.swept == [tmp_path, tmp_path]


def test_rules_that_are_gone_give_their_port_back_and_those_that_stay_are_named(kernel, tmp_path):
    pool = MemoryPool()
    found = Leftovers(tmp_path, find_in_kernel(kernel, kernel.survey(tmp_path), pool))
    del kernel.standing[OTHER]
    assert len(found.warnings()) == 1
    assert pool.taken == {22100, 22101}
    kernel.stuck = "3 connections"
    with pytest.raises(SciStreamError) as caught:
        asyncio.run(found.end())
    assert caught.value.code is Code.LEFT_BEHIND
    assert "the data server of session one (rules of nftables, on port 22100, 22101)" in str(caught.value)
    assert pool.taken == {22100, 22101}


def test_a_survey_has_what_every_kind_of_data_server_found():
    one, two = {"a": [ProcessMark(1, 1)]}, {"a": [MARK], "b": [OTHER]}
    assert merged(one, {}, two) == {"a": [ProcessMark(1, 1), MARK], "b": [OTHER]}


def test_a_process_is_no_session_of_the_kernel(monkeypatch, tmp_path):
    # Its pid may well be somebody's conntrack mark.
    engine = NFTables()
    monkeypatch.setattr(engine, "_sessions", None)
    assert asyncio.run(engine.take_out(ProcessMark(4711, 3))) == ""


def test_strays_of_a_session_are_ended_by_its_engine(kernel, monkeypatch, tmp_path):
    monkeypatch.setattr("scistream.control_server.data_servers.ENGINES", {"nftables": kernel})
    monkeypatch.setattr("psutil.pids", list)
    route = Route(Endpoint("127.0.20.1", 22100), Endpoint("127.0.20.9", 5000))
    plan = Plan(parse_uid("one"), Direction.INBOUND, (route,), tmp_path, "one", encryption=Encryption.NONE)
    asyncio.run(Engines().stop(kernel, plan, None))
    assert list(kernel.standing) == [OTHER]
