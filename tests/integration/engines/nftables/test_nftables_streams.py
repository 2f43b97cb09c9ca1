"""Bytes through sessions of nftables: whole, counted, and not cut by what happens beside them."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from typing import Any

import pytest

from scistream.engines.nft_base import Patience
from scistream.engines.nftables import NFTables
from scistream.engines.traffic import Traffic

UDP = socket.SOCK_DGRAM
# Longer than TCP waits before it sends the first segment again.
SILENCE = 1.5


class Flow:
    """Bytes from one socket to another for as long as wanted, hashed at both ends."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self.sent, self.received, self.size = hashlib.sha256(), hashlib.sha256(), 0
        self._sender, self._receiver = sender, receiver
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        piece = b"0123456789abcdef" * 4096
        while not self._enough.is_set():
            self._sender.sendall(piece)
            self.sent.update(piece)
            self.size += len(piece)
        self._sender.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while data := self._receiver.recv(1 << 16):
            self.received.update(data)

    def end(self) -> bool:
        """End it; whether all bytes have come."""
        self._enough.set()
        for thread in self._threads:
            thread.join()
        return self.sent.digest() == self.received.digest() and self.size > 0


def test_the_counters_tell_what_applications_sent(site: Any, v6: bool) -> None:
    listener = site.listener(v6=v6)
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    site.ping(client, target, 500)
    told = site.run(site.engine.traffic(plan, mark))
    assert (told.connections_open, told.connections_total, told.refused_peers) == (1, 1, 0)
    # Their packets have 70 times as many bytes. What a lost segment adds: itself, and a longer acknowledgement.
    assert 500 <= told.bytes_to_targets <= 600
    assert 500 <= told.bytes_from_targets <= 600
    site.stopped(plan, mark)


def test_datagrams_go_through_and_are_counted_exactly(site: Any, v6: bool) -> None:
    receiver = site.listener(v6=v6, kind=UDP)
    plan = site.plan(receiver)
    mark = site.started(plan)
    client = site.connect(plan.routes[0].entry_point, kind=UDP)
    for size in (1, 100, 1400):
        client.send(b"x" * size)
        data, peer = receiver.recvfrom(2000)
        receiver.sendto(data * 2 if size < 1000 else data, peer)
        assert len(client.recv(3000)) == (2 * size if size < 1000 else size)
    assert site.run(site.engine.traffic(plan, mark)) == Traffic(1, 1, 1501, 1602)
    site.stopped(plan, mark)


def test_each_entry_point_has_its_target(site: Any) -> None:
    listeners = [site.listener() for _ in range(3)]
    plan = site.plan(*listeners)
    mark = site.started(plan)
    for route, listener in zip(plan.routes, listeners, strict=True):
        site.ping(site.connect(route.entry_point), site.accept(listener))
    site.stopped(plan, mark)


def test_the_end_of_a_session_is_told_to_both_ends_also_of_idle_connections(site: Any, v6: bool) -> None:
    listener = site.listener(v6=v6)
    plan = site.plan(listener)
    mark = site.started(plan)
    pairs = [site.pair(plan, listener) for _ in range(3)]
    site.ping(*pairs[0])
    site.stopped(plan, mark)
    for end in (end for pair in pairs for end in pair):
        site.assert_reset(end)
    with pytest.raises(ConnectionRefusedError):
        site.connect(plan.routes[0].entry_point)


def test_one_session_ends_and_leaves_anothers_stream_to_the_same_target_alone(site: Any) -> None:
    listener = site.listener()
    plans = [site.plan(listener), site.plan(listener)]
    marks = [site.started(plan) for plan in plans]
    gone, stays = (site.pair(plan, listener) for plan in plans)
    flow = Flow(*stays)
    site.stopped(plans[0], marks[0])
    site.assert_reset(gone[0])
    assert flow.end()
    assert site.run(site.engine.traffic(plans[1], marks[1])).bytes_to_targets >= flow.size
    site.stopped(plans[1], marks[1])


def test_retargeted_new_connections_go_to_the_new_target_and_running_ones_go_on(site: Any) -> None:
    old, new = site.listener(), site.listener()
    plan = site.plan(old)
    mark = site.started(plan)
    running = site.pair(plan, old)
    flow = Flow(*running)
    other = site.plan(new, uid=plan.uid, entry_points=[plan.routes[0].entry_point])
    site.run(site.engine.retarget(other, mark))
    site.ping(*site.pair(other, new))
    assert flow.end()
    site.stopped(other, mark)


def test_a_draining_session_refuses_and_ends_with_its_last_connection(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    events: list[str] = []

    def deaf() -> None:
        with pytest.raises(ConnectionRefusedError):
            site.connect(plan.routes[0].entry_point)
        site.ping(client, target)
        client.close()
        assert target.recv(1) == b""
        target.close()
        events.append("closed")

    site.run(site.engine.drain(plan, mark, deaf))
    assert events == ["closed"]
    told = site.run(site.engine.traffic(plan, mark))
    assert (told.connections_open, told.connections_total, told.refused_peers) == (0, 1, 0)
    site.stopped(plan, mark)


def test_half_a_connection_goes_on(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    client.shutdown(socket.SHUT_WR)
    assert target.recv(1) == b""
    flow = Flow(target, client)
    assert flow.end()
    site.stopped(plan, mark)


def test_a_thousand_connections_in_one_session(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    pairs = [site.pair(plan, listener) for _ in range(1000)]
    told = site.run(site.engine.traffic(plan, mark))
    assert (told.connections_open, told.connections_total) == (1000, 1000)
    site.ping(*pairs[-1])
    site.stopped(plan, mark)
    for client, target in pairs:
        site.assert_reset(client)
        site.assert_reset(target)


def test_an_idle_stream_is_forgotten_when_the_timers_say_so(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    patient = site.pair(plan, listener)
    hasty_site_engine = NFTables(Patience(tcp=1))
    other = site.plan(listener, directory=site.directory / "other")
    hasty = site.run(hasty_site_engine.start(other))
    site.pair(other, listener)
    time.sleep(SILENCE)
    assert site.run(hasty_site_engine.traffic(other, hasty)).connections_open == 0
    assert site.run(site.engine.traffic(plan, mark)).connections_open == 1
    site.ping(*patient)
    site.run(hasty_site_engine.stop(other, hasty))
    site.stopped(plan, mark)


def test_an_idle_flow_of_datagrams_is_forgotten_when_the_timers_say_so(site: Any, v6: bool) -> None:
    receiver = site.listener(v6=v6, kind=UDP)
    opened = []
    for name, patience in (("hasty", Patience(udp=1, udp_unanswered=1)), ("patient", Patience())):
        engine = NFTables(patience)
        plan = site.plan(receiver, directory=site.directory / name)
        mark = site.run(engine.start(plan))
        site.connect(plan.routes[0].entry_point, kind=UDP).send(b"x")
        receiver.recv(1)
        opened.append((engine, plan, mark))
    # The host's own timers would have forgotten both after this.
    site.gateway.set("netfilter/nf_conntrack_udp_timeout", 1)
    time.sleep(2 * SILENCE)
    assert [site.run(engine.traffic(plan, mark)).connections_open for engine, plan, mark in opened] == [0, 1]
    for engine, plan, mark in opened:
        site.run(engine.stop(plan, mark))


def test_a_segment_that_fits_nowhere_does_not_cut_the_stream(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    site.ping(client, target)
    # From either end, far outside the window: conntrack finds no connection for it.
    near, far = client.getsockname(), target.getsockname()
    send_segment(site.network.application, near, client.getpeername())
    send_segment(site.network.target, far, target.getpeername())
    site.ping(client, target, 10)
    site.stopped(plan, mark)


def send_segment(host: Any, source: tuple[str, int], to: tuple[str, int]) -> None:
    """An acknowledgement with invented numbers."""
    with host.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        head = struct.pack("!HHIIBBHHH", source[1], to[1], 0x7F000000, 0x7F000000, 5 << 4, 0x10, 1024, 0, 0)
        pseudo = socket.inet_aton(source[0]) + socket.inet_aton(to[0]) + struct.pack("!BBH", 0, 6, len(head))
        total = sum(struct.unpack(f"!{len(pseudo + head) // 2}H", pseudo + head))
        total = (total & 0xFFFF) + (total >> 16)
        check = ~(total + (total >> 16)) & 0xFFFF
        raw.sendto(head[:16] + struct.pack("!H", check) + head[18:], (to[0], 0))


def test_a_client_on_the_gateway_and_a_target_on_the_gateway_are_served(site: Any) -> None:
    away = site.listener()
    plan = site.plan(away)
    mark = site.started(plan)
    site.ping(site.connect(plan.routes[0].entry_point, host=site.gateway), site.accept(away), 100)
    assert 100 <= site.run(site.engine.traffic(plan, mark)).bytes_to_targets <= 150
    site.stopped(plan, mark)
    with site.gateway.entered():
        here = site.bound(site.gateway.addresses[1], listens=True)
    plan = site.plan(here)
    mark = site.started(plan)
    client, target = site.pair(plan, here)
    site.ping(client, target, 100)
    assert 100 <= site.run(site.engine.traffic(plan, mark)).bytes_to_targets <= 150
    site.stopped(plan, mark)
    site.assert_reset(client)
    site.assert_reset(target)


def test_loopback_is_served_within_loopback(site: Any) -> None:
    with site.gateway.entered():
        listener = site.bound("127.0.0.1", listens=True)
    plan = site.plan(listener, entry_points=[site.entry_point(host="127.0.0.1")])
    mark = site.started(plan)
    client, target = site.connect(plan.routes[0].entry_point, host=site.gateway), site.accept(listener)
    site.ping(client, target, 100)
    assert 100 <= site.run(site.engine.traffic(plan, mark)).bytes_to_targets <= 150
    site.stopped(plan, mark)
    site.assert_reset(client)
    site.assert_reset(target)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - what is asked for
def test_a_wildcard_accepts_on_every_address_of_its_family(site: Any, host: str) -> None:
    v6 = host == "::"
    listener = site.listener(v6=v6)
    wildcard = site.entry_point(host=host)
    plan = site.plan(listener, entry_points=[wildcard])
    mark = site.started(plan)
    for address in site.gateway.addresses_v6 if v6 else site.gateway.addresses:
        entry_point = type(wildcard)(address, wildcard.port)
        site.ping(site.connect(entry_point), site.accept(listener))
    site.stopped(plan, mark)


def test_only_the_bound_address_accepts(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    bound = plan.routes[0].entry_point
    with pytest.raises(ConnectionRefusedError):
        site.connect(type(bound)(site.gateway.addresses[1], bound.port))
    site.stopped(plan, mark)


def test_a_session_with_a_rate_goes_through_its_queue_and_takes_it_away(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener, rate=100_000)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    site.ping(client, target, 10)
    ways = re.findall(r"ct direction (\w+) meta priority set (5c1e:\w+)", site.rules())
    assert [way for way, _ in ways] == ["original", "reply"]
    queues = site.gateway.run(["tc", "-s", "class", "show", "dev", "far"]).stdout
    assert re.search(rf"class htb {ways[0][1]} .*rate .*\n Sent [1-9]", queues)
    site.stopped(plan, mark)
    assert "htb" not in site.gateway.run(["tc", "qdisc"]).stdout
