"""What engines and the kernel say of connections, as it is read."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

import pytest

from scistream.addresses import Endpoint
from scistream.engines import Engine, Plan, Route, counting
from scistream.engines.children import ProcessMark
from scistream.engines.connections import Socket, parse_sockets
from scistream.engines.haproxy import HAProxy
from scistream.engines.nginx import Nginx
from scistream.engines.stunnel import Stunnel
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

UID = Uid("4a5b")
ENTRY = Endpoint("127.0.10.1", 21990)
CLIENT: Peer = (ipaddress.ip_address("192.0.2.7"), 54008)
MARK = ProcessMark(1, 1)

SHOW_STAT = """\
# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,dcon,dses,
route-1,FRONTEND,,,1,1,9986,4,1000,1002,0,0,0,2,1,
route-2,FRONTEND,,,2,3,9986,5,10,20,0,0,0,0,0,
GLOBAL,FRONTEND,,,7,7,10,7,7,7,7,7,7,7,7,

"""
SERVERS_STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight and so on
2 route-1 1 target ::1 2 0 1 1 0 1 0 2 0 0 0 0 - 5002 - 0 0 - - 0
3 route-2 1 target 192.0.2.7 2 0 1 1 0 1 0 2 0 0 0 0 name.example 5003 - 0 0 - - 0
4 <HTTPCLIENT> 1 <HTTPSCLIENT> - 2 0 1 1 0 1 0 2 0 0 0 0 - 0 - 0 0 - - 0

"""


def plan(directory: Path = Path("/state"), direction: Direction = Direction.OUTBOUND) -> Plan:
    route = Route(ENTRY, Endpoint("192.0.2.9", 5074))
    return Plan(UID, direction, (route,), directory, UID, encryption=Encryption.NONE)


def test_haproxy_adds_its_frontends_up() -> None:
    assert HAProxy().read_traffic(SHOW_STAT) == Traffic(3, 9, 1010, 1022, 3)
    assert HAProxy().read_traffic("") == Traffic()


def test_haproxy_tells_its_targets() -> None:
    assert HAProxy().read_targets(SERVERS_STATE) == [Endpoint("::1", 5002), Endpoint("192.0.2.7", 5003)]


def test_haproxys_commands_for_new_targets() -> None:
    routes = [Route(ENTRY, Endpoint("2001:db8::7", 5074)), Route(ENTRY, Endpoint("192.0.2.7", 5075))]
    assert HAProxy().switch_commands(routes) == [
        "set server route-1/target addr 2001:db8::7 port 5074",
        "set server route-2/target addr 192.0.2.7 port 5075",
    ]


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ("IP changed from '127.0.0.1' to '::1', no need to change the port by 'stats socket command'\n\n", True),
        ("no need to change the addr, port changed from '1' to '2' by 'stats socket command'\n\n", True),
        ("no need to change the addr, no need to change the port by 'stats socket command'\n\n", True),
        ("Invalid addr 'bogus' by 'stats socket command'\n\n", False),
        ("No such backend.\n\n", False),
        ("Permission denied\n\n", False),
        ("", False),
    ],
)
def test_haproxy_took_the_target_or_not(answer: str, taken: bool) -> None:
    assert HAProxy().switched(answer) is taken


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("192.0.2.7 54008 1000 2000 200\n", Count(Traffic(0, 1, 1000, 2000, 0), [CLIENT])),
        ("192.0.2.7 54008 0 0 502\n", Count(Traffic(0, 1, 0, 0, 0), [CLIENT])),
        ("192.0.2.7 54008 0 0 403\n", Count(Traffic(0, 0, 0, 0, 1), [CLIENT])),
        ("2001:db8::7 1 5 6 200\n", Count(Traffic(0, 1, 5, 6, 0), [(ipaddress.ip_address("2001:db8::7"), 1)])),
    ],
)
def test_nginx_tells_of_a_connection_that_ended(line: str, count: Count) -> None:
    assert Nginx().count(plan(), line, {}) == count


@pytest.mark.parametrize(
    ("direction", "carried"),
    [(Direction.OUTBOUND, Traffic(0, 1, 7, 9, 0)), (Direction.INBOUND, Traffic(0, 1, 9, 7, 0))],
)
def test_stunnel_tells_of_a_connection_in_several_lines(direction: Direction, carried: Traffic) -> None:
    accepted: dict[str, list[Peer]] = {}
    own: Peer = (ipaddress.ip_address("2001:db8::1"), 40000)

    def count(words: str) -> Count:
        return Stunnel().count(plan(direction=direction), f"2026.11.23 02:26:25 {words}\n", accepted)

    assert count("LOG5[ui]: Configuration successful") == Count(Traffic())
    assert count("LOG5[16]: Service [route-1] accepted connection from 192.0.2.7:54008") == Count(Traffic())
    assert count("LOG5[17]: Service [route-1] accepted connection from ::1:5") == Count(Traffic())
    assert count("LOG5[16]: Service [route-1] connected remote server from 2001:db8::1:40000") == Count(Traffic())
    assert accepted["16"] == [CLIENT, own]
    ended = count("LOG5[16]: Connection closed: 7 byte(s) sent to TLS, 9 byte(s) sent to socket")
    assert ended == Count(carried, [CLIENT, own])
    assert list(accepted) == ["17"]


@pytest.mark.parametrize("how", ["reset", "closed", "reset/closed"])
def test_stunnel_tells_of_connections_whose_beginning_nobody_read(how: str) -> None:
    line = f"2026.11.23 02:26:25 LOG5[1]: Connection {how}: 1 byte(s) sent to TLS, 2 byte(s) sent to socket"
    assert Stunnel().count(plan(), line, {}) == Count(Traffic(0, 1, 1, 2, 0), ())


def test_stunnel_tells_of_refused_peers() -> None:
    for words in ("SSL_accept: ssl/statem/extensions.c:1612: error:0A0000FD:SSL routines::binder", "SSL_connect: x"):
        assert Stunnel().count(plan(), f"x LOG3[1]: {words}\n", {}) == Count(Traffic(refused_peers=1))


@pytest.mark.parametrize("words", ["", "LOG5[ui]: Reading configuration from file /x/y.conf\n"])
def test_a_reload_that_goes_on(words: str) -> None:
    assert not Stunnel().reloaded(words)


def test_a_reload_that_was_taken_or_refused() -> None:
    assert Stunnel().reloaded("x LOG3[ui]: No trusted certificates found\nx LOG5[ui]: Configuration successful\n")
    assert Nginx().reloaded("")
    for engine, words, told in (
        (
            Stunnel(),
            'LOG3[ui]: /x/4a5b.conf:13: "b": no\nLOG3[ui]: Failed to reload the configuration file',
            "b.conf:13",
        ),
        (
            Stunnel(),
            "LOG5[ui]: Configuration successful\nLOG3[ui]: Binding service [route-1] failed",
            "Binding service",
        ),
        (Nginx(), "x [emerg] 1#1: unexpected end of file in /x/4a5b.conf:9\n", "unexpected end of file in 4a5b.conf:9"),
    ):
        with pytest.raises(SciStreamError) as caught:
            engine.reloaded(words)
        assert caught.value.code is Code.ENGINE_CANNOT
        assert told in str(caught.value)
        assert "/x/" not in str(caught.value)


def message(family: int, state: int, ends: tuple[Peer, Peer], carried: tuple[int, int], inode: int) -> bytes:
    source, other = ends
    body = struct.pack("=BBBB", family, state, 0, 0) + struct.pack("!HH", source[1], other[1])
    body += source[0].packed.ljust(16, b"\0") + other[0].packed.ljust(16, b"\0") + bytes(12)
    body += struct.pack("=IIIII", 0, 0, 0, 0, inode)
    # An attribute of another kind comes first, of a size that is no multiple of four.
    body += struct.pack("=HH", 5, 4 + 1) + b"x\0\0\0"
    body += (
        struct.pack("=HH", 4 + 136, 2)[:0] + struct.pack("=HH", 4 + 136, 2) + bytes(120) + struct.pack("=QQ", *carried)
    )
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 0, 0) + body


def test_the_kernels_answer_is_read() -> None:
    local4: Peer = (ipaddress.ip_address("127.0.10.1"), 21990)
    local6: Peer = (ipaddress.ip_address("::1"), 21990)
    other6: Peer = (ipaddress.ip_address("2001:db8::7"), 7)
    answer = message(socket.AF_INET, 1, (local4, CLIENT), (10, 20), 99) + message(
        socket.AF_INET6, 8, (local6, other6), (30, 41), 98
    )
    # The end that the other side has sent is no byte of the application.
    expected = [Socket(local4, CLIENT, 10, 20, 99), Socket(local6, other6, 30, 40, 98)]
    assert parse_sockets(answer) == (expected, True)
    done = struct.pack("=IHHIIi", 20, 3, 2, 0, 0, 0)
    assert parse_sockets(answer + done) == (expected, False)
    assert parse_sockets(done) == ([], False)


def test_a_kernel_that_does_not_tell() -> None:
    with pytest.raises(FileNotFoundError):
        parse_sockets(struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -2) + bytes(16))


def test_an_ipv4_client_of_an_ipv6_socket_is_the_same_client() -> None:
    mapped = (ipaddress.ip_address("::ffff:192.0.2.7"), 54008)
    (found,), _ = parse_sockets(message(socket.AF_INET6, 1, (mapped, mapped), (0, 0), 1))
    assert found.peer == CLIENT


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [("127.0.10.1:21990", True), ("0.0.0.0:21990", True), ("name:21990", True), ("127.0.10.2:21990", False)],
)
def test_whose_entry_point_a_connection_came_to(endpoint: str, expected: bool) -> None:
    found = Socket((ipaddress.ip_address("127.0.10.1"), 21990), CLIENT, 0, 0, 1)
    assert found.is_at(Endpoint.parse(endpoint)) is expected
    assert not found.is_at(Endpoint("127.0.10.1", 21991))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[Socket]:
    """The connections that the kernel tells of; each look is a new one."""
    found: list[Socket] = []
    counting._meters.clear()
    monkeypatch.setattr(counting, "connections", lambda: list(found))
    monkeypatch.setattr(counting, "_FRESH", -1)
    return found


def ledger(directory: Path, engine: Engine, text: str) -> None:
    with plan(directory).path(engine.ledger).open("a") as file:
        file.write(text)


def test_a_ledger_is_read_on_from_where_it_was_left(tmp_path: Path, kernel: list[Socket]) -> None:
    engine = Nginx()
    assert kernel == []
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic()
    ledger(tmp_path, engine, "192.0.2.7 1 10 20 200\n192.0.2.7 2 1")
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(0, 1, 10, 20, 0)
    ledger(tmp_path, engine, "00 200 200\nthis line is damaged\n192.0.2.7 3 0 0 403\n")
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(0, 2, 110, 220, 1)
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(0, 2, 110, 220, 1)
    # Another data server of the same session begins anew.
    plan(tmp_path).path("traffic").write_text("192.0.2.7 1 1 1 200\n")
    assert counting.measure(engine, plan(tmp_path), ProcessMark(2, 2)) == Traffic(0, 1, 1, 1, 0)


def test_a_ledger_that_somebody_emptied_is_read_from_its_beginning(tmp_path: Path, kernel: list[Socket]) -> None:
    engine = Nginx()
    assert kernel == []
    ledger(tmp_path, engine, "192.0.2.7 1 10 20 200\n" * 3)
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(0, 3, 30, 60, 0)
    plan(tmp_path).path("traffic").write_text("192.0.2.7 1 1 1 200\n")
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(0, 4, 31, 61, 0)


def test_open_connections_come_from_the_kernel_and_ended_ones_are_not_counted_twice(
    tmp_path: Path, kernel: list[Socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Nginx()
    local: Peer = (ipaddress.ip_address(ENTRY.host), ENTRY.port)
    foreign: Peer = (ipaddress.ip_address("127.0.10.2"), ENTRY.port)
    kernel += [Socket(local, CLIENT, 7, 5, 1), Socket(foreign, CLIENT, 100, 100, 2)]
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(1, 1, 5, 7, 0)
    ledger(tmp_path, engine, "192.0.2.7 54008 6 8 200\n")
    # The last look at the kernel is from before the line: it still has the connection.
    monkeypatch.setattr(counting, "_FRESH", float("inf"))
    assert counting.measure(engine, plan(tmp_path), MARK) == Traffic(0, 1, 6, 8, 0)


def test_the_encrypted_side_of_stunnel_is_not_what_counts(tmp_path: Path, kernel: list[Socket]) -> None:
    engine = Stunnel()
    inbound = plan(tmp_path, Direction.INBOUND)
    own: Peer = (ipaddress.ip_address("192.0.2.1"), 40000)
    target: Peer = (ipaddress.ip_address("192.0.2.9"), 5074)
    kernel += [
        Socket((ipaddress.ip_address(ENTRY.host), ENTRY.port), CLIENT, 2000, 3000, 1),
        Socket(own, target, 101, 50, 2),
    ]
    ledger(tmp_path, engine, "x LOG5[0]: Service [route-1] accepted connection from 192.0.2.7:54008\n")
    assert counting.measure(engine, inbound, MARK) == Traffic(1, 1, 0, 0, 0)
    ledger(tmp_path, engine, "x LOG5[0]: Service [route-1] connected remote server from 192.0.2.1:40000\n")
    assert counting.measure(engine, inbound, MARK) == Traffic(1, 1, 100, 50, 0)


def test_figures_do_not_fall_but_for_the_open_ones() -> None:
    assert Traffic(1, 5, 10, 10, 0).since(Traffic(3, 4, 20, 5, 1)) == Traffic(1, 5, 20, 10, 1)
    assert Traffic(1, 2, 3, 4, 5) + Traffic(1, 1, 1, 1, 1) == Traffic(2, 3, 4, 5, 6)
