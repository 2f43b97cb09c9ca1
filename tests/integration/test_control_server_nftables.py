"""nftables through real control servers on two gateways: streams, refusals, crashes, and what is left."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import sqlite3
import threading

import pytest

from kernel_gateways import Client, Gateway, Pipe, Target, dial, lacking
from kernel_queues import read_queues
from places import until
from scistream import certificates
from scistream.demo.network import Network
from scistream.engines import nft_conntrack
from scistream.errors import ExitCode

PLAIN = "--encryption=none"
READABLE = "nothing protects the bytes between the gateways: encryption none was asked for"
TABLE_LINE = "the kernel forwards packets and encrypts nothing: ask for encryption none, or choose another engine"


@pytest.fixture(scope="module")
def network():
    if words := lacking():
        # Continuous integration has a machine where it can be done: nothing is left out there unnoticed.
        (pytest.fail if os.environ.get("SCISTREAM_TEST_PACKAGES") else pytest.skip)(words)
    with Network("test control server nftables") as built:
        yield built


@pytest.fixture
def client(network, tmp_path, free_environment):
    yield from _client(network, tmp_path, free_environment, v6=False)


@pytest.fixture
def client_v6(network, tmp_path, free_environment):
    yield from _client(network, tmp_path, free_environment, v6=True)


def _client(network, tmp_path, environment, *, v6):
    gateways = []
    for host in (network.outbound_gateway, network.inbound_gateway):
        directory = tmp_path / host.name.replace(" ", "-")
        directory.mkdir()
        address = (host.addresses_v6 if v6 else host.addresses)[0]
        certificate = directory / "server.crt"
        now = datetime.datetime.now(datetime.UTC)
        certificates.issue(certificate, directory / "server.key", names=[address], days=1, ca=None, now=now)
        gateways.append(Gateway(host, address, directory, certificate).start())
    yield Client(network.application, tmp_path, *gateways, environment | {"HOME": str(tmp_path)})
    for gateway in gateways:
        if gateway.process.poll() is None:
            gateway.kill()
        gateway.flush()
        with gateway.host.entered():
            forget_all()


def forget_all() -> None:
    for number in nft_conntrack.open_by_number():
        nft_conntrack.forget(number)


def port_of(entry_point: str) -> int:
    return int(entry_point.rpartition(":")[2])


def is_over(end: socket.socket) -> bool:
    """Whether a connection ended, however that is told; what is on its way is read before."""
    with contextlib.suppress(ConnectionError):
        while end.recv(1 << 16):
            pass
    return True


def nothing_is_left(gateway: Gateway) -> bool:
    return not gateway.rules() and not gateway.connections()


@pytest.mark.parametrize("version", [4, 6])
def test_a_stream_goes_through_two_gateways_is_counted_and_leaves_nothing(network, request, version) -> None:
    client: Client = request.getfixturevalue("client" if version == 4 else "client_v6")
    target = Target.of(network, v6=version == 6)
    uid, entry_point = client.open(target, PLAIN)
    pipe = Pipe.of(network, entry_point, target)
    pipe.carries(1 << 22)
    for gateway in (client.outbound, client.inbound):
        until(lambda gateway=gateway: client.status(gateway, uid)["traffic"]["bytes_to_targets"])
        session = client.status(gateway, uid)
        assert (session["state"], session["engine"], session["encryption"]) == ("active", "nftables", "none")
        assert session["warnings"][0] == READABLE
        told = session["traffic"]
        assert (told["connections_open"], told["connections_total"], told["refused_peers"]) == (1, 1, 0)
        # What is sent twice is counted twice.
        assert 1 << 22 <= told["bytes_to_targets"] < 5 << 20
        assert 1 << 21 <= told["bytes_from_targets"] < 3 << 20
        assert gateway.rules()
        assert gateway.connections() == 1
    client.release(uid)
    # The connection is over at both ends, and both are told.
    for end in (pipe.near, pipe.far):
        assert is_over(end)
    for gateway in (client.outbound, client.inbound):
        until(lambda gateway=gateway: nothing_is_left(gateway))
        assert gateway.is_free(5100)
    with pytest.raises(ConnectionRefusedError):
        dial(network.application, entry_point)


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_go_through_both_ways(network, request, version) -> None:
    client: Client = request.getfixturevalue("client" if version == 4 else "client_v6")
    target = Target.of(network, v6=version == 6, kind=socket.SOCK_DGRAM)
    uid, entry_point = client.open(target, PLAIN, "--transport=udp")
    assert client.status(client.outbound, uid)["transport"] == "udp"
    with dial(network.application, entry_point, socket.SOCK_DGRAM) as near:
        for size in (1, 1200, 1400):
            near.send(b"q" * size)
            data, sender = target.listener.recvfrom(65536)
            assert data == b"q" * size
            target.listener.sendto(b"a" * size, sender)
            assert near.recv(65536) == b"a" * size
    until(lambda: client.status(client.outbound, uid)["traffic"]["bytes_to_targets"] == 2601)
    assert client.status(client.outbound, uid)["traffic"]["bytes_from_targets"] == 2601
    client.release(uid)
    for gateway in (client.outbound, client.inbound):
        until(lambda gateway=gateway: nothing_is_left(gateway))


def test_encryption_is_refused_with_the_line_of_the_table_and_sources_are_kept_out(network, client) -> None:
    target = Target.of(network)
    _, err = client.run(client.inbound, "inbound-request", *target.words, code=ExitCode.UNSUPPORTED)
    assert TABLE_LINE in err
    assert TABLE_LINE in client.inbound.s2cs("engines", "--json")
    facts = client.ask(client.inbound, "status")
    assert TABLE_LINE in str(facts)
    assert not client.inbound.rules()

    allowed, entry_point = client.open(target, PLAIN, outbound=("--sources=198.18.1.0/24",))
    Pipe.of(network, entry_point, target).carries()
    refused, other = client.open(target, PLAIN, outbound=("--sources=198.51.100.0/24,2001:db8::/32",))
    with pytest.raises(ConnectionRefusedError):
        dial(network.application, other)
    assert client.status(client.outbound, refused)["sources"] == ["198.51.100.0/24", "2001:db8::/32"]
    until(lambda: client.status(client.outbound, refused)["traffic"]["refused_peers"] == 1)
    until(lambda: "peers refused" in client.outbound.words())
    assert client.status(client.outbound, allowed)["traffic"]["refused_peers"] == 0


def test_u57_a_rate_is_kept(network, client) -> None:
    target = Target.of(network)
    rate = 20_000
    uid, entry_point = client.open(target, PLAIN, outbound=(f"--rate={rate}",))
    assert client.status(client.outbound, uid)["rate"] == rate
    pipe = Pipe.of(network, entry_point, target)
    size = 4 << 20
    sending = threading.Thread(target=pipe.near.sendall, args=(bytes(size),))
    sending.start()
    left = size
    while left:
        left -= len(pipe.far.recv(left))
    sending.join()
    host = client.outbound.host
    devices = re.findall(r"^\d+: ([^:@]+)", host.run(["ip", "-o", "link"]).stdout, re.MULTILINE)
    queues = [read_queues(host.run(["tc", "-s", "class", "show", "dev", device]).stdout) for device in devices]
    # How exactly it is kept is measured elsewhere.
    assert any(queue.holds(rate, size) for each in queues for queue in each.values()), queues
    client.release(uid)
    until(lambda: nothing_is_left(client.outbound))
    assert "htb" not in client.outbound.host.run(["tc", "qdisc", "show"]).stdout


def test_u40_a_stream_outlives_its_control_server_and_is_adopted_by_the_next(network, client) -> None:
    target = Target.of(network)
    uid, entry_point = client.open(target, PLAIN)
    pipe = Pipe.of(network, entry_point, target)
    client.outbound.kill()
    pipe.carries()
    Pipe.of(network, entry_point, target).carries()
    client.outbound.start()
    pipe.carries()
    session = client.status(client.outbound, uid)
    assert (session["state"], session["restarts"], session["entry_points"]) == ("active", 0, [entry_point])
    # Its port is held for it again.
    assert not client.outbound.is_free(port_of(entry_point))
    client.release(uid)
    until(lambda: nothing_is_left(client.outbound))
    assert client.outbound.is_free(port_of(entry_point))


def test_rules_that_somebody_flushes_come_back_by_themselves_and_running_connections_go_on(network, client) -> None:
    target = Target.of(network)
    uid, entry_point = client.open(target, PLAIN)
    pipe = Pipe.of(network, entry_point, target)
    pipe.carries()
    client.outbound.flush()
    assert not client.outbound.rules()
    until(lambda: client.status(client.outbound, uid)["restarts"] == 1)
    session = client.status(client.outbound, uid)
    assert (session["state"], session["failure"], session["entry_points"]) == ("active", "", [entry_point])
    assert "somebody removed its rules from the kernel" in client.outbound.words()
    pipe.carries()
    other = Pipe.of(network, entry_point, target)
    other.carries()
    # It is the same session's connections still, and they end with it.
    assert client.outbound.connections() == 2
    client.release(uid)
    assert is_over(pipe.near)
    assert is_over(other.near)
    until(lambda: nothing_is_left(client.outbound))


def test_stop_release_ends_sessions_whether_a_control_server_runs_or_not(network, client) -> None:
    target = Target.of(network)
    _, entry_point = client.open(target, PLAIN)
    pipe = Pipe.of(network, entry_point, target)
    pipe.carries()
    client.inbound.kill()
    pipe.carries()
    assert client.inbound.s2cs("stop", "--release") == "not running, 1 left sessions released\n"
    assert nothing_is_left(client.inbound)
    client.outbound.s2cs("stop", "--release")
    assert client.outbound.process.wait(30) == 0
    assert nothing_is_left(client.outbound)
    assert client.outbound.is_free(port_of(entry_point))


@pytest.mark.parametrize("is_served", [True, False])
def test_what_no_journal_knows_goes_on_is_named_keeps_its_port_and_is_ended_when_somebody_asks(
    network, client, is_served
) -> None:
    target, gateway = Target.of(network), client.outbound
    uid, entry_point = client.open(target, PLAIN)
    pipe = Pipe.of(network, entry_point, target)
    gateway.kill()
    gateway.lose_journal()
    pipe.carries()
    if is_served:
        gateway.start()
        pipe.carries()
        port = port_of(entry_point)
        (words,) = [each for each in client.warnings(gateway) if uid in each]
        assert words == (
            f"the data server of session {uid} (rules of nftables, on port {port}) is in no journal and goes on: its "
            "ports are kept free of others, s2cs stop --release ends it"
        )
        assert words in gateway.words()
        assert client.ask(gateway, "list")["sessions"] == []
        _, other = client.open(target, PLAIN)
        assert port_of(other) != port
        pipe.carries()
        gateway.s2cs("stop", "--release")
    else:
        assert gateway.s2cs("stop", "--release") == "not running, 1 left sessions released\n"
    assert nothing_is_left(gateway)
    with pytest.raises(ConnectionError):
        pipe.carries()


def test_what_no_journal_knows_and_somebody_flushes_gives_its_port_back(network, client) -> None:
    target, gateway = Target.of(network), client.outbound
    uid, entry_point = client.open(target, PLAIN)
    gateway.kill()
    gateway.lose_journal()
    gateway.start()
    assert uid in str(client.warnings(gateway))
    gateway.flush()
    until(lambda: uid not in str(client.warnings(gateway)))
    assert client.open(target, PLAIN)[1] == entry_point


def test_u29_new_connections_go_to_new_targets_and_a_drain_waits_for_the_last_one(network, client) -> None:
    first, second = Target.of(network), Target.of(network)
    ticket = client.directory / "a.ticket"
    names = ("--name=a", f"--ticket={ticket}", PLAIN)
    client.ask(client.inbound, "inbound-request", *first.words, *names)
    session = client.ask(client.outbound, "outbound-request", f"--ticket={ticket}")["session"]
    uid, (entry_point,) = session["uid"], session["entry_points"]
    running = Pipe.of(network, entry_point, first)
    client.ask(client.inbound, "inbound-request", *second.words, *names)
    running.carries()
    Pipe.of(network, entry_point, second).carries()
    assert client.status(client.inbound, uid)["restarts"] == 0

    client.run(client.outbound, "drain", uid)
    until(lambda: client.status(client.outbound, uid)["state"] == "draining")
    with pytest.raises(ConnectionRefusedError):
        dial(network.application, entry_point)
    # It goes on draining under the next control server.
    client.outbound.kill()
    client.outbound.start()
    running.carries()
    running.close()
    until(lambda: not client.ask(client.outbound, "list")["sessions"])
    assert nothing_is_left(client.outbound)


def test_what_a_crash_kept_out_of_the_journal_is_ended_and_its_session_can_be_opened_again(network, client) -> None:
    target, gateway = Target.of(network), client.outbound
    uid, entry_point = client.open(target, PLAIN)
    client.outbound.kill()
    # As where it ended between the making of the rules and the journal's line.
    change(gateway, "UPDATE sessions SET state = 'registered', pid = NULL, started = NULL, wanted = 0")
    assert gateway.rules()
    gateway.start()
    until(lambda: not gateway.rules())
    assert client.status(gateway, uid)["state"] == "registered"
    client.release(uid)
    assert gateway.is_free(port_of(entry_point))


def test_who_cannot_read_the_journal_names_the_sessions_and_touches_none(network, client) -> None:
    target, gateway = Target.of(network), client.outbound
    uid, entry_point = client.open(target, PLAIN)
    gateway.kill()
    change(gateway, "PRAGMA user_version = 99")
    with pytest.raises(AssertionError, match="JOURNAL_UNREADABLE") as refused:
        gateway.start()
    assert f"data servers still run: nftables {uid}" in str(refused.value)
    Pipe.of(network, entry_point, target).carries()


def change(gateway: Gateway, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(gateway.state / "journal.sqlite3")) as database:
        database.execute(statement)
        database.commit()
