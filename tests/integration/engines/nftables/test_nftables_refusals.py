"""What nftables refuses, and in which words."""

from __future__ import annotations

import dataclasses
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint, parse_networks
from scistream.engines.nftables import NFTables
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption

# A control server's engine, with the rights that it is given: start, one connection, stop.
_ELSEWHERE = """
import asyncio, pickle, socket, sys
from scistream.engines.nftables import NFTables
engine, plan = NFTables(), pickle.load(sys.stdin.buffer)
async def work():
    mark = await engine.start(plan)
    with socket.create_connection((plan.routes[0].entry_point.host, plan.routes[0].entry_point.port)) as client:
        client.sendall(b"x")
        print(client.recv(1).decode(), (await engine.traffic(plan, mark)).connections_open, flush=True)
        await engine.stop(plan, mark)
        try:
            client.recv(1)
        except ConnectionResetError:
            print("reset")
print(engine.shortfall())
if not engine.shortfall():
    asyncio.run(work())
"""


def refused(site: Any, plan: Any, code: Code = Code.ENGINE_CANNOT) -> SciStreamError:
    with pytest.raises(SciStreamError) as caught:
        site.started(plan)
    assert caught.value.code is code
    return caught.value


def test_peers_that_are_not_in_the_source_list_are_refused_and_counted(site: Any, v6: bool) -> None:
    listener = site.listener(v6=v6)
    here, elsewhere = ("2001:db8:1::/64", "198.18.1.0/24") if v6 else ("198.18.1.0/24", "2001:db8:1::/64")
    plan = site.plan(listener, sources=parse_networks(f"{here},{elsewhere}"))
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            site.connect(plan.routes[0].entry_point, host=site.network.target)
    told = site.run(site.engine.traffic(plan, mark))
    assert (told.connections_open, told.connections_total, told.refused_peers) == (1, 1, 3)
    site.stopped(plan, mark)
    assert client.fileno() != target.fileno()


def test_a_source_list_of_the_other_family_lets_nobody_in(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener, sources=parse_networks("2001:db8::/32"))
    mark = site.started(plan)
    with pytest.raises(ConnectionRefusedError):
        site.connect(plan.routes[0].entry_point)
    assert site.run(site.engine.traffic(plan, mark)).refused_peers == 1
    site.stopped(plan, mark)


def test_datagrams_from_elsewhere_are_refused(site: Any) -> None:
    receiver = site.listener(kind=socket.SOCK_DGRAM)
    plan = site.plan(receiver, sources=parse_networks("198.18.3.0/24"))
    mark = site.started(plan)
    client = site.connect(plan.routes[0].entry_point, kind=socket.SOCK_DGRAM)
    client.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        client.recv(1)
    assert site.run(site.engine.traffic(plan, mark)).refused_peers == 1
    site.stopped(plan, mark)


def test_refused_peers_are_in_the_kernels_log(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener, sources=parse_networks("198.18.3.0/24"))
    mark = site.started(plan)
    assert f'limit rate 10/minute log prefix "scistream refused {plan.stem} " level info' in site.rules()
    site.stopped(plan, mark)


def test_an_entry_point_and_a_target_of_two_ip_versions_are_refused(site: Any) -> None:
    plan = site.plan(site.listener(v6=True), entry_points=[site.entry_point()])
    assert (
        f"nftables cannot do what was asked: entry point {plan.routes[0].entry_point} is IPv4, {plan.routes[0].target} "
        "is IPv6: it rewrites addresses within one IP version only. "
    ) in str(refused(site, plan))


def test_encryption_is_refused(site: Any) -> None:
    plan = site.plan(site.listener(), encryption=Encryption.TLS)
    assert "the kernel forwards packets and encrypts nothing: ask for encryption none" in str(refused(site, plan))


def test_an_entry_point_that_somebody_listens_on_is_named_before_rules_are_made(site: Any) -> None:
    with site.gateway.entered():
        taken = site.bound(site.gateway.addresses[0], listens=True)
    plan = site.plan(site.listener(), entry_points=[Endpoint(*taken.getsockname())])
    error = refused(site, plan, Code.ENTRY_POINT_IN_USE)
    assert str(error).startswith(f"entry point {plan.routes[0].entry_point} is in use by ")
    assert "scistream" not in site.rules()


def test_an_entry_point_of_another_host_is_refused(site: Any) -> None:
    plan = site.plan(site.listener(), entry_points=[Endpoint("198.18.2.2", 5100)])
    assert str(refused(site, plan, Code.LISTEN_ADDRESS_FOREIGN)).startswith("cannot listen on 198.18.2.2:5100: ")


def test_a_target_that_has_no_address_is_refused(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    route = type(plan.routes[0])(plan.routes[0].entry_point, Endpoint("nobody.invalid", 5000))
    plan = dataclasses.replace(plan, routes=(route,))
    assert "nobody.invalid: " in str(refused(site, plan, Code.CONFIGURATION_REJECTED))


@pytest.mark.parametrize("ends", [("198.18.1.2", "127.0.0.1"), ("127.0.0.1", "198.18.3.2")])
def test_nothing_is_forwarded_between_loopback_and_the_outside(site: Any, ends: tuple[str, str]) -> None:
    route = type(site.plan(site.listener()).routes[0])(Endpoint(ends[0], 5100), Endpoint(ends[1], 5000))
    plan = site.plan(site.listener())
    plan = dataclasses.replace(plan, routes=(route,))
    assert "is this gateway's loopback, " in str(refused(site, plan))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("ipv4/ip_forward",), "this host forwards no IPv4 packets: switch it on with sysctl -w net.ipv4.ip_forward=1"),
        (
            ("ipv4/ip_forward", "ipv6/conf/all/forwarding"),
            "this host forwards no IPv4 packets: switch it on with sysctl -w net.ipv4.ip_forward=1",
        ),
    ],
)
def test_a_host_that_forwards_nothing_is_told_how_to(site: Any, keys: tuple[str, ...], words: str) -> None:
    plan = site.plan(site.listener())
    for key in keys:
        site.gateway.set(key, 0)
    try:
        assert words in str(refused(site, plan))
        with site.gateway.entered():
            assert site.engine.shortfall() == (words if len(keys) == 2 else "")
            # It is for the host's operator to switch on.
            assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
    finally:
        for key in keys:
            site.gateway.set(key, 1)


def test_a_host_without_nft_is_told_its_package(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NFTables, "program", "no-such-nft")
    error = refused(site, site.plan(site.listener()), Code.ENGINE_MISSING)
    assert "nftables is not installed on this gateway: no program 'no-such-nft'. " in str(error)
    assert "apt-get install nftables" in str(error)


def elsewhere(site: Any, plan: Any, *rights: str) -> subprocess.CompletedProcess[bytes]:
    command = ["setpriv", *rights, sys.executable, "-c", _ELSEWHERE]
    with site.gateway.entered():
        return subprocess.run(command, input=pickle.dumps(plan), capture_output=True, timeout=30, check=False)


def test_one_capability_is_enough(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)

    def serve() -> None:
        target = site.accept(listener)
        target.sendall(target.recv(1))
        with pytest.raises(ConnectionResetError):
            target.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    done = elsewhere(site, plan, "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin")
    thread.join()
    assert (done.stdout.decode().split(), done.stderr) == (["x", "1", "reset"], b"")


def test_without_the_capability_it_says_what_is_missing(site: Any) -> None:
    done = elsewhere(site, site.plan(site.listener()), "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    assert done.stdout.decode() == (
        "the control server has not the capability CAP_NET_ADMIN (root has it; its unit: "
        "AmbientCapabilities=CAP_NET_ADMIN)\n"
    )


def test_a_firewall_that_may_let_nothing_pass_is_warned_of(site: Any) -> None:
    site.nft("table ip filter {\n chain FORWARD { type filter hook forward priority 0; policy drop; }\n}")
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    words = site.engine.warnings(Encryption.NONE, plan.transport)[-1]
    assert words == (
        "chain ip filter FORWARD of this host drops forwarded packets that none of its rules accepts: see that one "
        "accepts the session's (ct mark and 0xff000000 == 0x5c000000)"
    )
    # The words are nft's own.
    site.nft("add rule ip filter FORWARD ct mark and 0xff000000 == 0x5c000000 accept")
    site.ping(*site.pair(plan, listener))
    site.stopped(plan, mark)
