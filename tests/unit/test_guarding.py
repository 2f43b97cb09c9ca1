"""What nft is told to keep entry points to their sources, what is read from its answers, and when it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import subprocess
from pathlib import Path

import pytest

from scistream.addresses import Endpoint, parse_networks
from scistream.engines import guarding, probing
from scistream.engines.base import Plan, Route
from scistream.engines.guarding_rules import (
    Door,
    door_at,
    put_in,
    read_doors,
    read_refused,
    read_strangers,
    table_of,
    take_out,
)
from scistream.engines.shaping_cgroups import Slot
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

SLOT = Slot("0011aabb", "one.inbound")
TABLE = "inet scistream_sources_0011aabb"
ONE = Door("at_ip", "192.0.2.1 . 5100")
TWO = Door("any_ip6", "5101")


def plan_in(directory: Path, *ports: int) -> Plan:
    routes = tuple(Route(Endpoint("192.0.2.1", port), Endpoint("198.18.1.2", 5074)) for port in ports or (5100,))
    sources = parse_networks("198.18.1.0/24")
    return Plan(
        Uid("one"),
        Direction.INBOUND,
        routes,
        directory,
        "one.inbound",
        bytes(32),
        encryption=Encryption.TLS_PSK,
        sources=sources,
    )


@pytest.mark.parametrize(
    ("address", "door"),
    [
        ("192.0.2.1", ONE),
        ("2001:db8::1", Door("at_ip6", "2001:db8::1 . 5100")),
        ("0.0.0.0", Door("any_ip", "5100")),  # noqa: S104 - nothing is bound
        ("::", Door("any_ip6", "5100")),
    ],
)
def test_a_door_is_in_the_map_of_its_ip_version(address, door):
    found = door_at(ipaddress.ip_address(address), 5100)
    assert (found, found.port) == (door, "5100")


def test_u03_a_session_is_put_in_by_one_transaction_that_accepts_its_sources_alone():
    sources = parse_networks("198.18.1.0/24,198.18.1.7,2001:db8::/32")
    lines = put_in(SLOT, [ONE, TWO], sources).splitlines()
    chain = [line.removeprefix(f"add rule {TABLE} s-one.inbound ") for line in lines if "add rule" in line][-7:]
    assert chain == [
        # 198.18.1.7 is in the network: nft takes no two ranges that overlap.
        "ip saddr { 198.18.1.0/24 } accept",
        "ip6 saddr { 2001:db8::/32 } accept",
        "tcp dport @refused",
        "add @strangers_ip { tcp dport . ip saddr }",
        "add @strangers_ip6 { tcp dport . ip6 saddr }",
        'limit rate 10/minute log prefix "scistream refused one.inbound " level info',
        "reject with tcp reset",
    ]
    assert lines[-4:] == [
        f"add element {TABLE} refused {{ 5100 }}",
        f"add element {TABLE} refused {{ 5101 }}",
        f"add element {TABLE} any_ip6 {{ 5101 : goto s-one.inbound }}",
        f"add element {TABLE} at_ip {{ 192.0.2.1 . 5100 : goto s-one.inbound }}",
    ]
    # Again, it has to leave what is there as it is: rules are the only things that are added twice.
    flushed = {line.split()[4] for line in lines if line.startswith("flush chain")}
    assert {line.split()[4] for line in lines if line.startswith("add rule")} == flushed
    # Running connections are no business of it, and connection tracking stays off.
    assert f"add rule {TABLE} input tcp flags & (fin | syn | rst | ack) == syn jump doors" in lines
    assert not any(" ct " in line for line in lines)


def test_u03_a_list_of_one_ip_version_lets_nobody_of_the_other_in():
    assert "ip saddr" not in put_in(SLOT, [ONE], parse_networks("2001:db8::/32")).replace(". ip saddr", "")


def test_a_door_that_leads_elsewhere_is_taken_before_it_is_given():
    lines = put_in(SLOT, [ONE], parse_networks("198.18.1.7"), stale=[ONE]).splitlines()
    assert lines[-2:] == [
        f"delete element {TABLE} at_ip {{ 192.0.2.1 . 5100 }}",
        f"add element {TABLE} at_ip {{ 192.0.2.1 . 5100 : goto s-one.inbound }}",
    ]


def test_sessions_are_taken_out_by_one_transaction_and_the_others_stay():
    there = {ONE: "one.inbound", TWO: "one.inbound", Door("at_ip", "192.0.2.2 . 5101"): "two"}
    assert take_out("0011aabb", there, ["one.inbound"]).splitlines() == [
        f"delete element {TABLE} any_ip6 {{ 5101 }}",
        f"delete element {TABLE} at_ip {{ 192.0.2.1 . 5100 }}",
        # 5101 is another's too.
        f"delete element {TABLE} refused {{ 5100 }}",
        f"flush set {TABLE} strangers_ip",
        f"flush set {TABLE} strangers_ip6",
        f"flush chain {TABLE} s-one.inbound",
        f"delete chain {TABLE} s-one.inbound",
    ]
    assert take_out("0011aabb", there, ["one.inbound", "two"]) == f"delete table {TABLE}\n"


def answer(kind: str, name: str, elements: list) -> str:
    # As nft 1.0.6 writes it.
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, {kind: {"name": name, "elem": elements}}]})


def test_what_nft_answers_is_read():
    goto = {"goto": {"target": "s-one.inbound"}}
    assert read_doors(answer("map", "at_ip", [[{"concat": ["192.0.2.1", 5100]}, goto]])) == {ONE: "one.inbound"}
    assert read_doors(answer("map", "any_ip6", [[5101, goto], [5102, {"drop": None}]])) == {TWO: "one.inbound"}
    counted = [{"elem": {"val": 5100, "counter": {"packets": 3, "bytes": 180}}}]
    assert read_refused(answer("set", "refused", counted)) == {5100: 3}
    noted = [{"elem": {"val": {"concat": [5100, "198.18.3.2"]}, "expires": 599}}]
    assert read_strangers(answer("set", "strangers_ip", noted)) == {(5100, "198.18.3.2")}
    assert read_refused('{"nftables": []}') == {}


class Nft:
    """Instead of the program: what it was told; it fails as often as `failing` says, and answers with `lists`."""

    def __init__(self, failing: int = 0) -> None:
        self.told: list[str] = []
        self.failing = failing
        self.lists: dict[str, str] = {}
        self.asked: list[str] = []

    def __call__(self, engine: str, failing: str) -> Nft:
        return self

    async def look(self, name: str, *arguments: str, text: str = "") -> str | None:
        if not text:
            self.asked.append(arguments[-1])
            return self.lists.get(arguments[-1])
        self.told.append(text)
        self.failing -= 1
        return None if self.failing >= 0 else ""

    async def run(self, name: str, *arguments: str, text: str) -> str:
        self.told.append(text)
        return ""

    def cannot(self, reason: str) -> SciStreamError:
        return SciStreamError(Code.ENGINE_CANNOT, engine="Stunnel", reason=reason)


@contextlib.asynccontextmanager
async def unlocked(tools):
    yield


@pytest.fixture
def nft(monkeypatch):
    found = Nft()
    monkeypatch.setattr(guarding, "Tools", found)
    monkeypatch.setattr(guarding, "alone", unlocked)
    monkeypatch.setattr(guarding, "missing", lambda: "")
    monkeypatch.setattr(guarding, "_meters", {})
    monkeypatch.setattr(guarding, "_looks", {})
    monkeypatch.setattr(guarding, "_FRESH", -1.0)
    return found


def test_where_the_privilege_is_missing_nothing_is_begun(nft, tmp_path, monkeypatch):
    monkeypatch.setattr(guarding, "missing", lambda: "no nft here")
    with pytest.raises(SciStreamError) as caught:
        asyncio.run(guarding.guard(plan_in(tmp_path), "Stunnel"))
    assert (caught.value.code, caught.value.facts["reason"]) == (Code.ENGINE_CANNOT, "no nft here")
    assert nft.told == []


def test_a_door_of_a_session_that_is_over_is_the_next_ones(nft, tmp_path):
    nft.failing = 1
    nft.lists = {"any_ip": answer("map", "any_ip", []), "any_ip6": answer("map", "any_ip6", [])}
    nft.lists["at_ip"] = answer(
        "map", "at_ip", [[{"concat": ["192.0.2.1", 5100]}, {"goto": {"target": "s-gone.inbound"}}]]
    )
    nft.lists["at_ip6"] = answer("map", "at_ip6", [])
    plan = plan_in(tmp_path)
    asyncio.run(guarding.guard(plan, "Stunnel"))
    assert nft.told[1] == put_in(Slot.of(plan), [ONE], plan.sources, [ONE])


def test_what_fails_inside_leaves_no_guard(nft, tmp_path):
    plan = plan_in(tmp_path)
    goto = {"goto": {"target": "s-one.inbound"}}
    nft.lists = {name: answer("map", name, []) for name in ("at_ip6", "any_ip", "any_ip6")}
    nft.lists["at_ip"] = answer("map", "at_ip", [[{"concat": ["192.0.2.1", 5100]}, goto]])

    async def work():
        async with guarding.guarded(plan, "Stunnel"):
            assert len(nft.told) == 1
            raise SciStreamError(Code.DATA_SERVER_FAILED, engine="Stunnel", uid="one", ending="", output="")

    with pytest.raises(SciStreamError) as caught:
        asyncio.run(work())
    assert caught.value.code is Code.DATA_SERVER_FAILED
    assert nft.told[1:] == [f"delete table {table_of(Slot.of(plan).instance)}\n"]


def test_an_entry_point_whose_name_has_no_address_is_named(nft, tmp_path, monkeypatch):
    async def work():
        async def nowhere(host, port):
            raise OSError(-2, "Name or service not known")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
        await guarding.guard(plan_in(tmp_path), "Stunnel")

    with pytest.raises(SciStreamError, match=r"192\.0\.2\.1: Name or service not known") as caught:
        asyncio.run(work())
    assert caught.value.code is Code.CONFIGURATION_REJECTED


def counted(**packets: int) -> str:
    elements = [
        {"elem": {"val": int(port[1:]), "counter": {"packets": each, "bytes": 0}}} for port, each in packets.items()
    ]
    return answer("set", "refused", elements)


def test_u03_refused_connections_of_all_entry_points_count_and_never_fall(nft, tmp_path):
    plan = plan_in(tmp_path, 5100, 5101)

    def look(*figures: str) -> list[int]:
        found = []
        for each in figures:
            nft.lists["refused"] = each
            found.append(asyncio.run(guarding.refused(plan, "Stunnel")))
        return found

    assert look(counted(p5100=2, p5101=1, p5102=9), counted(p5100=3, p5101=1)) == [3, 4]
    # Somebody flushed the rules, and the next one was refused by new ones.
    assert look('{"nftables": []}', counted(p5100=1, p5101=0)) == [4, 5]


def test_u03_each_stranger_is_in_the_sessions_log_once(nft, tmp_path):
    plan = plan_in(tmp_path)
    noted = [{"elem": {"val": {"concat": [port, address]}}} for port, address in ((5100, "198.18.3.2"), (5199, "x"))]
    nft.lists = {"strangers_ip": answer("set", "strangers_ip", noted)}
    for figure in (1, 1, 2):
        nft.lists["refused"] = counted(p5100=figure)
        asyncio.run(guarding.refused(plan, "Stunnel"))
    (line,) = plan.path("log").read_text().splitlines()
    assert line.startswith("198.18.3.2 [")
    assert line.endswith("] refused: not among the sources; 1 peers refused by now")
    # Who they were is asked for only where the count has grown.
    assert nft.asked.count("strangers_ip") == 2


def test_one_look_at_the_counts_serves_all_sessions(nft, tmp_path, monkeypatch):
    monkeypatch.setattr(guarding, "_FRESH", 3600.0)
    nft.lists["refused"] = counted(p5100=2, p5101=1)
    figures = [asyncio.run(guarding.refused(plan_in(tmp_path, port), "Stunnel")) for port in (5100, 5100)]
    assert figures == [2, 2]
    assert nft.asked.count("refused") == 1


@pytest.fixture
def status(monkeypatch, tmp_path):
    """What this process holds, in proc(5)'s form; nothing is known yet of what the kernel can."""

    def write(held):
        (tmp_path / "status").write_text(f"CapEff:\t{held}\nCapAmb:\t{held}\n")
        monkeypatch.setattr(probing, "STATUS", tmp_path / "status")

    monkeypatch.setattr(probing, "_answers", {})
    return write


def refuses(command, **options):
    return subprocess.CompletedProcess(command, 1)


@pytest.mark.parametrize(
    ("program", "held", "run", "words"),
    [
        (None, "1000", None, "there is no program nft (package nftables)"),
        (
            "nft",
            "0000",
            None,
            "the control server has not the capability CAP_NET_ADMIN (root has it; its unit",
        ),
        ("nft", "1000", refuses, "nft does not take its rules on this kernel"),
    ],
)
def test_u03_what_this_host_lacks_is_named(monkeypatch, status, program, held, run, words):  # noqa: PLR0917
    status(held)
    monkeypatch.setattr(guarding, "find_program", lambda names: program)
    monkeypatch.setattr(probing.subprocess, "run", run)
    begin = "it has no source list of its own, and the kernel cannot keep one here: "
    assert guarding.missing().startswith(begin + words)


def counting(asked, status):
    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, status)

    return run


def test_u03_what_the_kernel_can_is_asked_once(monkeypatch, status):
    status("1000")
    monkeypatch.setattr(guarding, "find_program", lambda names: "nft")
    monkeypatch.setattr(probing, "find_program", lambda names: "nft")
    asked = []
    monkeypatch.setattr(probing.subprocess, "run", counting(asked, 0))
    assert [guarding.missing(), guarding.missing()] == ["", ""]
    assert asked == [["nft", "--check", "--file", "-"]]


def test_what_the_kernel_did_not_take_is_asked_again_after_a_while(monkeypatch, status):
    status("1000")
    monkeypatch.setattr(guarding, "find_program", lambda names: "nft")
    asked, now = [], [1000.0]
    monkeypatch.setattr(probing.subprocess, "run", counting(asked, 1))
    monkeypatch.setattr(probing.time, "monotonic", lambda: now[0])
    assert guarding.missing() == guarding.missing()
    assert len(asked) == 1
    now[0] += 61
    monkeypatch.setattr(probing.subprocess, "run", counting(asked, 0))
    assert guarding.missing() == ""
    assert len(asked) == 2
