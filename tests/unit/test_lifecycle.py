"""The parts of a data server's life that need neither a process nor a socket."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from scistream.addresses import Endpoint
from scistream.engines import Installation, Plan, Route
from scistream.engines.base import FILE_KINDS
from scistream.engines.files import write_files
from scistream.engines.haproxy import HAProxy
from scistream.engines.lifecycle import last_words, remove_files, start
from scistream.engines.processes import Listener, ProcessFacts, parse_listeners, pauses
from scistream.engines.stunnel import Stunnel
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

UID = Uid("4a5b")
ROUTE = Route(Endpoint.parse("127.0.10.1:21990"), Endpoint.parse("127.0.10.1:21991"))

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {lo}:55F6 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000
   1: 00000000:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000
   2: {lo}:55F7 {lo}:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000
   3: this line is never read
"""


def make_plan(directory: Path, *, key: bytes | None = None, encryption: Encryption = Encryption.NONE) -> Plan:
    return Plan(UID, Direction.INBOUND, (ROUTE,), directory, UID, key, encryption=encryption)


def word(ip: bytes) -> str:
    return f"{int.from_bytes(ip, sys.byteorder):08X}"


def test_listeners_are_read_up_to_the_first_connection() -> None:
    lines = iter(TABLE.format(lo=word(bytes((127, 0, 10, 1)))).splitlines())
    found = list(parse_listeners(lines))
    assert found == [
        Listener(ipaddress.ip_address("127.0.10.1"), 0x55F6, 4711),
        Listener(ipaddress.ip_address(0), 5000, 4712),
    ]
    assert next(lines).strip() == "3: this line is never read"


def test_listeners_on_ipv6() -> None:
    packed = ipaddress.ip_address("2001:db8::7").packed
    text = "".join(word(packed[start : start + 4]) for start in range(0, 16, 4))
    row = f"   0: {text}:13D2 {'0' * 32}:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0"
    assert list(parse_listeners(["header", row])) == [Listener(ipaddress.ip_address("2001:db8::7"), 5074, 99)]


@pytest.mark.parametrize(
    ("entry_point", "expected"),
    [("127.0.10.1:5000", True), ("127.0.10.2:5000", False), ("127.0.10.1:5001", False), ("localhost:5000", True)],
)
def test_u04_a_listener_on_another_address_is_no_proof(entry_point: str, expected: bool) -> None:
    listener = Listener(ipaddress.ip_address("127.0.10.1"), 5000, 1)
    assert listener.is_at(Endpoint.parse(entry_point)) is expected


def test_u04_a_listener_on_all_addresses_is_no_proof() -> None:
    everywhere = Listener(ipaddress.ip_address(0), 5000, 1)
    assert not everywhere.is_at(Endpoint.parse("127.0.10.1:5000"))
    assert everywhere.is_at(Endpoint.parse("0.0.0.0:5000"))


@pytest.mark.parametrize(("state", "gone"), [("S", False), ("R", False), ("Z", True), ("X", True)])
def test_process_facts_of_a_name_with_spaces(state: str, gone: bool) -> None:
    fields = " ".join(["1", "41", "40", *["0"] * 15, "123456", "0"])
    facts = ProcessFacts.parse(f"42 (nginx: wor) ker (x) {state} {fields}")
    assert facts == ProcessFacts(pid=42, started=123456, group=41, session=40, gone=gone)


def test_waiting_looks_often_at_first_and_rarely_later() -> None:
    found = list(itertools.islice(pauses(), 30))
    assert found[0] == 0.002
    assert found == sorted(found)
    assert found[-1] == 0.1
    assert sum(found[:8]) < 0.05


def test_u05_files_are_their_owners_only(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    plan.path("conf").write_text("left over, and open to all")
    plan.path("conf").chmod(0o644)
    write_files(plan, {plan.path("conf"): "conf", plan.path("psk"): "secret"})
    assert {path.name: (path.stat().st_mode & 0o777, path.read_text()) for path in tmp_path.iterdir()} == {
        "4a5b.conf": (0o600, "conf"),
        "4a5b.psk": (0o600, "secret"),
        "4a5b.log": (0o600, ""),
    }


def test_what_an_earlier_data_server_counted_is_not_counted_again(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for kind in FILE_KINDS:
        plan.path(kind).write_text("left over")
    write_files(plan, {plan.path("conf"): "conf"})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"4a5b.ca", "4a5b.conf", "4a5b.log", "4a5b.log.1", "4a5b.pem", "4a5b.psk"}


def test_u08_a_link_is_not_written_through(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    plan.path("psk").symlink_to(elsewhere)
    write_files(plan, {plan.path("psk"): "secret"})
    assert elsewhere.read_text() == "kept"
    assert not plan.path("psk").is_symlink()


def test_u43_removing_leaves_nothing_of_this_session_and_all_of_others(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    write_files(plan, {plan.path(kind): "" for kind in FILE_KINDS})
    plan.path("sock.4711.tmp").touch()
    other = tmp_path / f"{UID}.outbound.conf"
    other.touch()
    remove_files(plan, 4711)
    remove_files(plan)
    assert list(tmp_path.iterdir()) == [other]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "absent")
    with pytest.raises(SciStreamError, match=r"absent/4a5b\.conf cannot be written: No such file") as caught:
        write_files(plan, {plan.path("conf"): ""})
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_u28_last_words_are_the_end_of_a_long_log(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    assert last_words(plan) == "it said nothing"
    plan.path("log").write_bytes(b"the beginning\n" + b"line\n" * 100_000 + b"\xff the\tend\n\n")
    words = last_words(plan)
    assert words.endswith("line � the end")
    assert "beginning" not in words
    assert len(words) <= 401


class Absent(HAProxy):
    program: ClassVar[str] = "haproxy-that-nobody-installed"


class Keyless(Stunnel):
    def locate(self) -> Installation:
        return Installation(Path("/usr/bin/stunnel4"), "5.68")


@pytest.mark.parametrize(("engine", "code"), [(Absent(), Code.ENGINE_MISSING), (Keyless(), Code.SESSION_KEY_MISSING)])
def test_what_cannot_work_writes_no_file(tmp_path: Path, engine: HAProxy | Stunnel, code: Code) -> None:
    kept = tmp_path / f"{UID}.log"
    kept.write_text("of a session that runs")
    with pytest.raises(SciStreamError) as caught:
        asyncio.run(start(engine, make_plan(tmp_path, encryption=engine.encryptions[0])))
    assert caught.value.code is code
    assert list(tmp_path.iterdir()) == [kept]


def test_a_file_that_cannot_be_removed_keeps_no_other(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    write_files(plan, {plan.path(kind): "" for kind in ("conf", "ca", "pid")})
    plan.path("ca").unlink()
    plan.path("ca").mkdir()
    plan.path("psk").touch()
    with pytest.raises(SciStreamError, match=r"4a5b\.ca cannot be written") as caught:
        remove_files(plan)
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert list(tmp_path.iterdir()) == [plan.path("ca")]
