"""A session is kept to its rate: real data servers, the kernel's own queues, in a network of namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kernel_queues import Queue, read_queues
from scistream.addresses import Endpoint
from scistream.demo.network import Host, Network
from scistream.engines import ENGINES, Plan, Route, shaping, shaping_tools
from scistream.engines.shaping_cgroups import Cgroup, Slot
from scistream.engines.shaping_marks import TABLE, read_slots
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport, Uid

RATE = 40_000
DATAGRAM_RATE = 5_000
# Bytes, many times what may go at once, of a stream that goes on.
SIZE = 2 << 20
DATAGRAMS = 128 << 10
CONNECTIONS = 4
ALL = ("haproxy", "nginx", "stunnel", "nftables")


@dataclass
class Site:
    """A gateway between an application and a target, and what was started on it."""

    network: Network
    directory: Path
    marks: list[tuple[Any, Plan, Any]] = field(default_factory=list)

    @property
    def gateway(self) -> Host:
        return self.network.outbound_gateway

    def plan(self, name: str = "one", *, directory: str = "", rate: int = RATE, **options: Any) -> Plan:
        place = self.directory / directory
        place.mkdir(exist_ok=True)
        port = options.pop("port", 5100)
        target = Endpoint(options.pop("target", self.network.target.addresses[0]), 5074)
        route = Route(Endpoint(self.gateway.addresses[0], port), target)
        facts = {"encryption": Encryption.NONE, "rate": rate} | options
        return Plan(Uid(name), Direction.INBOUND, (route,), place, name, **facts)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """On the gateway, with a loop whose threads are there too."""
        with self.gateway.entered():
            return asyncio.run(work)

    def start(self, engine: str, plan: Plan) -> None:
        self.marks.append((ENGINES[engine], plan, self.run(ENGINES[engine].start(plan))))

    def stop_all(self) -> None:
        while self.marks:
            engine, plan, mark = self.marks.pop()
            self.run(engine.stop(plan, mark))

    def limit(self, plan: Plan, **options: Any) -> shaping.Priorities:
        found: shaping.Priorities = self.run(shaping.limit(plan, "HAProxy", **options))
        return found

    def tell(self, command: str) -> str:
        return self.gateway.run(command.split()).stdout

    def kept(self) -> dict[str, str]:
        """All that shaping may have changed."""
        devices = ("lo", "near", "far")
        cgroups = Cgroup.of(Slot("", "")).path.parent.glob("scistream-*-one*")
        return {
            # A count of packets that had no class yet is no part of what is kept.
            "qdiscs": re.sub(r"direct_packets_stat \d+ ", "", self.tell("tc qdisc show")),
            "classes": "".join(self.tell(f"tc class show dev {device}") for device in devices),
            "rules": self.tell("nft list ruleset"),
            "cgroups": " ".join(path.name for path in cgroups if path.name.split("-")[1] in self.instances()),
        }

    def queue(self, plan: Plan, *, back: bool = False) -> Queue:
        """What holds one direction of a session's bytes."""
        known = read_slots(self.tell(f"nft -j list table {TABLE}"))[Slot.of(plan)]
        assert known is not None
        told = self.tell(f"tc -s class show dev {'near' if back else 'far'}")
        return read_queues(told)[known.to_clients if back else known.to_targets]

    def instances(self) -> set[str]:
        return {Slot.instance_of(path) for path in (self.directory, *self.directory.glob("*/"))}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    lacking = "network namespaces need root" if os.geteuid() else shaping.missing()
    if lacking:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(lacking)
    with Network("shaping-tests", congestion="cubic") as built:
        yield built


@pytest.fixture
def site(network: Network, tmp_path: Path) -> Iterator[Site]:
    """A gateway as it was, before and after."""
    made = Site(network, tmp_path)
    before = made.kept()
    yield made
    made.stop_all()
    assert made.kept() == before


def _pour(connection: socket.socket) -> None:
    data = bytes(1 << 16)
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(data)


@dataclass
class Sink:
    """Counts what comes."""

    received: int = 0

    def take(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                self.received += len(data)

    def take_more(self, size: int = SIZE) -> int:
        """Wait until so many bytes more have come; how many have come since the beginning."""
        enough, deadline = self.received + size, time.monotonic() + 30
        while self.received < enough:
            assert time.monotonic() < deadline, f"{enough - self.received} bytes did not come"
            time.sleep(0.02)
        return self.received


def _shut(connection: socket.socket) -> None:
    """A thread that waits in it does not hear of its being closed."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _apart(work: Callable[[socket.socket], None], connection: socket.socket) -> None:
    threading.Thread(target=work, args=(connection,), daemon=True).start()


@contextlib.contextmanager
def _streams(site: Site, *, back: bool, port: int = 5100) -> Iterator[Sink]:
    """As many bytes as there is room for, over several connections of one session."""
    sink = Sink()
    with contextlib.ExitStack() as stack:
        with site.network.target.entered():
            server = stack.enter_context(socket.create_server(("", 5074)))
        for _ in range(CONNECTIONS):
            with site.network.application.entered():
                client = socket.create_connection((site.gateway.addresses[0], port), timeout=5)
            accepted, _peer = server.accept()
            client.settimeout(None)
            giving, taking = (accepted, client) if back else (client, accepted)
            for end in (client, accepted):
                stack.callback(end.close)
                stack.callback(_shut, end)
            _apart(_pour, giving)
            _apart(sink.take, taking)
        yield sink


@pytest.mark.parametrize("back", [False, True], ids=["to targets", "to clients"])
@pytest.mark.parametrize("engine", ["haproxy", "nginx", "nftables"])
def test_u57_a_session_is_kept_to_its_rate_over_all_its_connections(site: Site, engine: str, back: bool) -> None:
    plan = site.plan()
    site.start(engine, plan)
    with _streams(site, back=back) as sink:
        received = sink.take_more()
        assert site.queue(plan, back=back).holds(RATE, received)
    # How exactly, and over how long, is the benchmark's: `benchmarks/rates.py`.


@pytest.mark.parametrize("engine", ["nginx", "nftables"])
def test_u57_datagrams_are_kept_to_the_rate(site: Site, engine: str) -> None:
    plan = site.plan(rate=DATAGRAM_RATE, transport=Transport.UDP)
    site.start(engine, plan)
    sink = Sink()
    with contextlib.ExitStack() as stack:
        with site.network.target.entered():
            taking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        taking.bind((site.network.target.addresses[0], 5074))
        with site.network.application.entered():
            giving = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        giving.connect((site.gateway.addresses[0], 5100))
        ended = threading.Event()
        stack.callback(ended.set)
        threading.Thread(target=_patter, args=(giving, ended), daemon=True).start()
        _apart(sink.take, taking)
        received = sink.take_more(DATAGRAMS)
        assert site.queue(plan).holds(DATAGRAM_RATE, received)


def _patter(giving: socket.socket, ended: threading.Event) -> None:
    """Twice the rate; what a busy machine kept from being sent in time is sent at once."""
    pause, due = 1400 * 8 / (2 * DATAGRAM_RATE * 1000), time.monotonic()
    with contextlib.suppress(OSError):
        while not ended.wait(max(0.0, due - time.monotonic())):
            giving.send(bytes(1400))
            due += pause


def test_u57_another_rate_holds_for_running_streams(site: Site) -> None:
    plan = site.plan()
    site.start("haproxy", plan)
    with _streams(site, back=False) as sink:
        before = site.limit(dataclasses.replace(plan, rate=RATE // 2))
        assert _is_kept_to(site, plan, sink, RATE // 2)
        assert site.limit(plan) == before
        assert _is_kept_to(site, plan, sink, RATE)


def _is_kept_to(site: Site, plan: Plan, sink: Sink, rate: int) -> bool:
    """Whether what comes from now on waits in a queue of that rate; some was on its way already."""
    before = site.queue(plan)
    sink.take_more()
    after = site.queue(plan)
    return after.holds(rate, before.sent + SIZE // 2) and after.waits > before.waits


def test_u57_a_session_without_a_rate_is_not_slowed_by_one_with(site: Site) -> None:
    site.start("haproxy", held := site.plan(rate=1000))
    site.start("haproxy", site.plan("one-free", port=5101, rate=0))
    with _streams(site, back=False, port=5101) as sink:
        sink.take_more(4 * SIZE)
        assert site.queue(held).sent < SIZE


def test_the_whole_host_is_as_before_after_the_last_session(site: Site) -> None:
    before = site.kept()
    first, second = site.plan(directory="a"), site.plan(directory="b", port=5101)
    site.start("haproxy", first)
    site.start("nftables", second)
    during = site.kept()
    assert during["qdiscs"].count("qdisc htb 5c1e: ") == 3
    engine, plan, mark = site.marks.pop(0)
    site.run(engine.stop(plan, mark))
    # The other control server's session has the same uid, and all of its own.
    between = site.kept()
    assert between["qdiscs"].count("qdisc htb 5c1e: ") == 3
    assert between["classes"].count("class htb") == during["classes"].count("class htb") // 2
    assert f"s-{Slot.of(second).name}" in between["rules"]
    assert f"s-{Slot.of(first).name}" not in between["rules"]
    site.stop_all()
    assert site.kept() == before


def test_sessions_at_once_have_classes_of_their_own(site: Site) -> None:
    plans = [site.plan(f"one-{number}", port=5100 + number) for number in range(5)]

    async def all_at_once() -> list[shaping.Priorities]:
        return await asyncio.gather(*(shaping.limit(plan, "HAProxy") for plan in plans))

    found = site.run(all_at_once())
    assert len({each.to_targets for each in found} | {each.to_clients for each in found}) == 10
    for plan in plans:
        site.run(shaping.unlimit(plan, "HAProxy"))


def test_a_qdisc_that_somebody_chose_is_not_replaced(site: Site) -> None:
    site.tell("tc qdisc add dev far root handle 7: pfifo limit 99")
    try:
        before = site.kept()
        with pytest.raises(SciStreamError) as caught:
            site.start("haproxy", site.plan())
        assert caught.value.code is Code.ENGINE_CANNOT
        assert "HAProxy cannot do what was asked: it cannot be kept to a rate: device far has a root qdisc of its " in (
            str(caught.value)
        )
        assert "own (pfifo 7:), which is not ours to replace" in str(caught.value)
        assert site.kept() == before
    finally:
        site.tell("tc qdisc del dev far root")


@pytest.mark.parametrize("engine", ["haproxy", "nftables"])
def test_a_data_server_that_does_not_start_leaves_no_rate_behind(site: Site, engine: str) -> None:
    before = site.kept()
    with (
        site.gateway.entered(),
        socket.create_server((site.gateway.addresses[0], 5100)),
        pytest.raises(SciStreamError) as caught,
    ):
        asyncio.run(ENGINES[engine].start(site.plan()))
    assert caught.value.code is Code.ENTRY_POINT_IN_USE
    assert site.kept() == before


def test_commands_that_fail_half_way_are_undone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.kept()
    monkeypatch.setattr(shaping, "mark", lambda *_: "nonsense\n")
    with pytest.raises(SciStreamError, match=r"it cannot be kept to a rate: nft: .*nonsense") as caught:
        site.limit(site.plan())
    assert caught.value.code is Code.ENGINE_CANNOT
    assert site.kept() == before


def _is_held(site: Site, plan: Plan) -> bool:
    """Whether what goes to the target passes the queue of the session's rate."""
    size = 1 << 20
    with contextlib.ExitStack() as stack:
        with site.network.target.entered():
            server = stack.enter_context(socket.create_server(("", 5074)))
        with site.network.application.entered():
            entry_point = plan.routes[0].entry_point
            client = stack.enter_context(socket.create_connection((entry_point.host, entry_point.port), timeout=20))
        accepted = stack.enter_context(server.accept()[0])
        _apart(lambda end: end.sendall(bytes(size)), client)
        accepted.settimeout(20)
        left = size
        while left:
            left -= len(accepted.recv(left))
    return site.queue(plan).sent >= size


def test_u57_rules_that_somebody_flushed_come_back(site: Site) -> None:
    plan = site.plan()
    site.start("haproxy", plan)
    site.tell("nft flush ruleset")
    site.limit(plan)
    assert _is_held(site, plan)
    # Its first classes have no owner any more, and went.
    assert site.kept()["classes"].count("class htb") == 6


@pytest.mark.parametrize("engine", ["haproxy", "nftables"])
def test_a_session_that_ends_after_a_flush_leaves_nothing(site: Site, engine: str) -> None:
    before = site.kept()
    site.start(engine, site.plan())
    site.tell("nft flush ruleset")
    site.stop_all()
    assert site.kept() == before


@pytest.mark.parametrize("engine", ["haproxy", "nftables"])
def test_u57_a_queue_that_somebody_removed_comes_back(site: Site, engine: str) -> None:
    plan = site.plan()
    site.start(engine, plan)
    site.tell("tc qdisc del dev far root")
    site.run(ENGINES[engine].keep_bounds(plan))
    assert _is_held(site, plan)


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "nftables"])
def test_u57_a_target_behind_another_device_is_kept_to_the_rate_too(site: Site, engine: str) -> None:
    site.start(engine, site.plan(target=site.network.application.addresses[0]))
    assert "dev far" not in " ".join(line for line in site.kept()["qdiscs"].splitlines() if "htb 5c1e:" in line)
    plan = site.plan()
    _retarget(site, plan)
    assert _is_held(site, plan)


def _retarget(site: Site, plan: Plan) -> None:
    engine, _, mark = site.marks.pop()
    site.marks.append((engine, plan, mark))
    site.run(engine.retarget(plan, mark))


@pytest.mark.parametrize("work", ["keep", "retarget"])
def test_u57_the_kernels_rules_follow_the_numbers_of_their_queues(site: Site, work: str) -> None:
    plan, slower = site.plan(), site.plan("one-slower", port=5101, directory="b", rate=RATE // 4)
    site.start("nftables", plan)
    site.tell("nft delete table inet scistream_rates")
    for device in ("lo", "near", "far"):
        site.tell(f"tc qdisc del dev {device} root")
    # Another session gets the numbers that were this one's.
    site.limit(slower, forwarded=True)
    if work == "keep":
        site.run(ENGINES["nftables"].keep_bounds(plan))
    else:
        _retarget(site, plan)
    assert _is_held(site, plan)
    site.run(shaping.unlimit(slower, "nftables"))


def test_a_new_session_never_gets_numbers_that_another_one_has(site: Site) -> None:
    first, second = site.plan(), site.plan("one-other", port=5101)
    one = site.limit(first)
    for device in ("lo", "near", "far"):
        site.tell(f"tc qdisc del dev {device} root")
    assert site.limit(second) != one
    assert site.limit(first) == one
    for plan in (first, second):
        site.run(shaping.unlimit(plan, "HAProxy"))


def test_a_cgroup_that_somebody_removed_is_no_obstacle(site: Site) -> None:
    before = site.kept()
    gone, other = site.plan(), site.plan("one-other", port=5101)
    site.limit(other)
    site.limit(gone)
    Cgroup.of(Slot.of(gone)).path.rmdir()
    site.run(shaping.unlimit(gone, "HAProxy"))
    assert f'"{Cgroup.of(Slot.of(other)).name}" : goto s-{Slot.of(other).name}' in site.kept()["rules"]
    assert Slot.of(gone).name not in site.kept()["rules"].replace(Slot.of(other).name, "")
    site.run(shaping.unlimit(other, "HAProxy"))
    assert site.kept() == before


def test_what_a_control_server_left_is_swept_and_nothing_else(site: Site) -> None:
    before = site.kept()
    alive, dead, elsewhere = (
        site.plan("one-alive", port=5101),
        site.plan("one-dead"),
        site.plan("one-elsewhere", directory="b", port=5102),
    )
    for plan in (alive, dead, elsewhere):
        site.limit(plan)
    site.run(shaping.sweep(site.directory, lambda: [alive.stem]))
    rules = site.kept()["rules"]
    assert [f"s-{Slot.of(plan).name}" in rules for plan in (alive, dead, elsewhere)] == [True, False, True]
    assert not Cgroup.of(Slot.of(dead)).path.exists()
    site.run(shaping.sweep(site.directory, tuple))
    site.run(shaping.sweep(site.directory / "b", tuple))
    assert site.kept() == before


def test_u57_a_session_that_comes_back_while_a_sweep_waits_keeps_its_rate(site: Site) -> None:
    plan, running = site.plan(), []
    site.limit(plan)
    before = site.kept()

    async def sweep(lock: socket.socket) -> None:
        sweeping = asyncio.ensure_future(shaping.sweep(site.directory, lambda: list(running)))
        # Long enough for the sweep to stand before the lock.
        assert not (await asyncio.wait([sweeping], timeout=0.3))[0]
        running.append(plan.stem)
        lock.close()
        await sweeping

    with site.gateway.entered(), socket.socket(socket.AF_UNIX) as other:
        other.bind(b"\0scistream-rates")
        other.listen()
        asyncio.run(sweep(other))
    assert site.kept() == before
    site.run(shaping.unlimit(plan, "HAProxy"))


def test_the_end_is_the_end_the_second_time_too(site: Site) -> None:
    plan = site.plan()
    site.limit(plan)
    for _ in range(2):
        site.run(shaping.unlimit(plan, "HAProxy"))


def test_another_process_that_does_not_let_go_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping_tools, "_TIMEOUT", 0.2)
    with site.gateway.entered(), socket.socket(socket.AF_UNIX) as other:
        other.bind(b"\0scistream-rates")
        other.listen()
        with pytest.raises(SciStreamError, match="another process is holding the lock of all rates") as caught:
            asyncio.run(shaping.limit(site.plan(), "HAProxy"))
    assert caught.value.code is Code.ENGINE_CANNOT


def test_the_data_server_alone_is_in_the_sessions_cgroup(site: Site) -> None:
    plan = site.plan()
    site.start("nginx", plan)
    _, _, mark = site.marks[0]
    inside = {int(pid) for pid in (Cgroup.of(Slot.of(plan)).path / "cgroup.procs").read_text().split()}
    assert mark.pid in inside
    assert os.getpid() not in inside
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in inside}
    assert names == {"nginx"}


@pytest.mark.parametrize("engine", ALL)
def test_every_engine_can_keep_a_rate_here(network: Network, engine: str) -> None:
    with network.outbound_gateway.entered():
        assert ENGINES[engine].shortfall() == ""
        assert shaping.missing(forwarded=engine == "nftables") == ""


def test_a_user_without_the_capability_is_told_which(network: Network) -> None:
    code = "from scistream.engines import shaping; print(shaping.missing())"
    command = ["setpriv", "--bounding-set", "-net_admin", "--", sys.executable, "-c", code]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert words.startswith("it cannot be kept to a rate here: the control server has not the capability CAP_NET_ADMIN")
