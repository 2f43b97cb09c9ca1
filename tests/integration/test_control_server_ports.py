"""Reservation by binding, against the kernel that it relies on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scistream.addresses import Endpoint, PortRange
from scistream.control_server import ports
from scistream.control_server.ports import PortPool, Reservation
from scistream.engines.holders import who_listens
from scistream.errors import Code, SciStreamError

HOST = "127.0.20.11"


@pytest.fixture(params=[HOST, "::1"])
def host(request) -> str:
    return request.param


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def pool_of(first: int, last: int, host: str = HOST) -> PortPool:
    return PortPool(host, PortRange(first, last), who_listens)


def bind(sockets, port: int, *, host: str = HOST, reuse: bool = True, listen: bool = True) -> socket.socket:
    """As engines do it: with SO_REUSEADDR."""
    made = sockets.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    made.bind((host, port))
    if listen:
        made.listen()
    return made


def is_refused(sockets, port: int, **how) -> bool:
    try:
        bind(sockets, port, **how)
    except OSError:
        return True
    return False


def test_a_reserved_port_is_kept_from_everyone(sockets, host):
    reservation = pool_of(22300, 22301, host).reserve(2)
    assert reservation.ports == (22300, 22301)
    for reuse in (False, True):
        for listen in (False, True):
            assert is_refused(sockets, 22300, host=host, reuse=reuse, listen=listen)
    reservation.close()
    assert not is_refused(sockets, 22300, host=host)


def test_a_data_server_is_let_in_beside_it_and_nobody_after_it(sockets, host):
    reservation = pool_of(22300, 22300, host).reserve(1)
    with reservation.admitted():
        server = bind(sockets, 22300, host=host)
    with socket.create_connection(("::1" if ":" in host else HOST, 22300)):
        server.accept()[0].close()
    # It ends: the port is the reservation's still.
    server.close()
    assert is_refused(sockets, 22300, host=host)
    with reservation.admitted():
        bind(sockets, 22300, host=host)
    reservation.close()


def test_a_port_that_waits_out_an_old_connection_is_taken_last_and_kept_as_well(sockets):
    server = bind(sockets, 22300)
    client = sockets.enter_context(socket.create_connection((HOST, 22300)))
    accepted, _ = server.accept()
    # Who closes first waits (TIME_WAIT): the server's side, and so its port.
    accepted.close()
    client.recv(1)
    client.close()
    server.close()
    assert is_refused(sockets, 22300, reuse=False)
    pool = pool_of(22300, 22301)
    first = pool.reserve(1)
    assert first.ports == (22301,)
    second = pool.reserve(1)
    assert second.ports == (22300,)
    assert is_refused(sockets, 22300, reuse=True, listen=False)
    with second.admitted():
        bind(sockets, 22300)
    first.close()
    second.close()


def test_two_pools_of_one_range_never_share_a_port():
    one, other = pool_of(22300, 22309), pool_of(22300, 22309)
    first, second = one.reserve(5), other.reserve(5)
    assert not set(first.ports) & set(second.ports)
    first.close()
    second.close()


def test_u25_all_or_nothing_and_the_holders_are_named(sockets):
    bind(sockets, 22301)
    pool = pool_of(22300, 22302)
    with pytest.raises(SciStreamError) as raised:
        pool.reserve(3)
    assert raised.value.code is Code.PORTS_EXHAUSTED
    assert str(raised.value).startswith(
        f"3 ports were asked for, 2 of 3 in 22300-22302 are free; others hold {HOST}:22301 by "
    )
    assert f"(pid {os.getpid()})" in str(raised.value)
    assert pool.free == 3
    reservation = pool.reserve(2)
    assert reservation.ports == (22300, 22302)
    reservation.close()


def test_u24_closed_ports_are_given_out_again_and_closing_twice_frees_nobody_elses():
    pool = pool_of(22300, 22300)
    first = pool.reserve(1)
    first.close()
    second = pool.reserve(1)
    first.close()
    assert pool.free == 0
    second.close()
    assert pool.free == 1


def test_an_address_of_another_host_is_named():
    with pytest.raises(SciStreamError, match=r"cannot listen on 192\.0\.2\.200:22300") as raised:
        pool_of(22300, 22300, "192.0.2.200").reserve(1)
    assert raised.value.code is Code.LISTEN_ADDRESS_FOREIGN


def test_the_ports_of_a_running_session_are_claimed_without_a_socket(sockets):
    server = bind(sockets, 22300)
    pool = pool_of(22300, 22301)
    claimed = pool.claim(HOST, (22300,), in_use=True)
    server.close()
    reservation = pool.reserve(1)
    assert reservation.ports == (22301,)
    claimed.close()
    reservation.close()


def test_a_claim_of_a_port_that_somebody_took_names_him_and_claims_none(sockets):
    bind(sockets, 22301)
    pool = pool_of(22300, 22301)
    with pytest.raises(SciStreamError, match=rf"{HOST}:22301 is in use by .*\(pid {os.getpid()}\)") as raised:
        pool.claim(HOST, (22300, 22301), in_use=False)
    assert raised.value.code is Code.ENTRY_POINT_IN_USE
    assert pool.free == 2
    assert not is_refused(sockets, 22300)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def resting_pool(first: int, last: int) -> tuple[PortPool, Clock]:
    clock = Clock()
    return PortPool(HOST, PortRange(first, last), who_listens, quarantine=5.0, clock=clock), clock


def use_up(pool: PortPool, count: int, owner: str = "") -> None:
    """A session's life: its data server was let in, and it is over."""
    reservation = pool.reserve(count, owner=owner)
    with reservation.admitted():
        pass
    reservation.close()


def test_a_port_that_was_used_rests_and_an_unused_one_does_not():
    pool, clock = resting_pool(22340, 22341)
    pool.reserve(2).close()
    assert pool.free == 2
    use_up(pool, 1)
    assert pool.free == 1
    other = pool.reserve(1)
    assert other.ports == (22341,)
    other.close()
    clock.now += 5
    assert pool.free == 2
    use_up(pool, 2)


def test_where_only_resting_ports_are_left_the_error_says_when_enough_will_be_free():
    pool, clock = resting_pool(22340, 22343)
    use_up(pool, 1)
    clock.now += 1
    held = pool.reserve(1)
    use_up(pool, 1)
    clock.now += 1
    for count, left in [(2, 3.0), (3, 4.0)]:
        with pytest.raises(SciStreamError) as raised:
            pool.reserve(count)
        assert raised.value.code is Code.PORTS_EXHAUSTED
        assert raised.value.facts["retry_after"] == left
        assert raised.value.seen == (
            f"{count} ports were asked for, 1 of 4 in 22340-22343 are free; enough will be in {left} s, when the ports "
            "of released sessions have rested"
        )
    with pytest.raises(SciStreamError) as raised:
        pool.reserve(4)
    # A session holds one: nobody knows for how long.
    assert "retry_after" not in raised.value.facts
    assert not raised.value.facts["others"]
    clock.now += 4
    pool.reserve(3).close()
    held.close()


def test_u53_named_ports_are_reserved_in_their_order(sockets):
    pool = pool_of(22340, 22349)
    reservation = pool.reserve(2, named=(22345, 22342))
    assert reservation.ports == (22345, 22342)
    assert is_refused(sockets, 22345)
    lowest = pool.reserve(3)
    assert lowest.ports == (22340, 22341, 22343)
    reservation.close()
    lowest.close()


def test_u53_a_named_port_outside_the_range_is_refused():
    pool = pool_of(22340, 22349)
    with pytest.raises(SciStreamError) as raised:
        pool.reserve(2, named=(22345, 22350))
    assert raised.value.code is Code.PORT_NOT_OFFERED
    assert raised.value.seen == "port 22350 was asked for, and this control server offers 22340-22349"
    assert pool.free == 10


def test_u53_a_named_port_that_a_program_has_names_it_and_reserves_none(sockets):
    bind(sockets, 22342)
    pool = pool_of(22340, 22349)
    with pytest.raises(SciStreamError, match=rf"{HOST}:22342 is in use by .*\(pid {os.getpid()}\)") as raised:
        pool.reserve(2, named=(22341, 22342))
    assert raised.value.code is Code.ENTRY_POINT_IN_USE
    assert pool.free == 10
    assert not is_refused(sockets, 22341)


def test_u53_a_named_port_that_a_session_has_is_refused():
    pool = pool_of(22340, 22349)
    reservation = pool.reserve(1, named=(22341,))
    with pytest.raises(SciStreamError, match=rf"{HOST}:22341 is in use by another session"):
        pool.reserve(1, named=(22341,))
    reservation.close()


def test_a_resting_port_is_its_last_owners_who_names_it():
    pool, _ = resting_pool(22340, 22349)
    use_up(pool, 1, "ann")
    with pytest.raises(SciStreamError) as raised:
        pool.reserve(1, owner="bob", named=(22340,))
    assert raised.value.code is Code.ENTRY_POINT_IN_USE
    assert "22340 is in use by nobody, and rests for 5.0 s after another user's session" in raised.value.seen
    again = pool.reserve(1, owner="ann", named=(22340,))
    assert again.ports == (22340,)
    again.close()


def test_a_failure_on_the_way_leaves_nothing_bound(sockets, monkeypatch):
    pool = pool_of(22340, 22349)
    real, seen = ports._bind, []

    def bind_few(kind, host, port, reuse):
        seen.append(port)
        if len(seen) > 2:
            raise OSError(24, "Too many open files")
        return real(kind, host, port, reuse)

    monkeypatch.setattr(ports, "_bind", bind_few)
    with pytest.raises(SciStreamError, match="Too many open files"):
        pool.reserve(4)
    assert pool.free == 10
    assert not is_refused(sockets, 22340, reuse=False)


FIRST, LAST = 22320, 22325
PORTS = st.integers(FIRST, LAST)


class PoolMachine(RuleBasedStateMachine):
    """Random lives of ports, on real sockets, against a model of who has what."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pool = PortPool(HOST, PortRange(FIRST, LAST), lambda _: None, quarantine=5.0, clock=self.clock)
        self.held: list[tuple[Reservation, str, bool]] = []
        self.foreign: dict[int, socket.socket] = {}
        self.resting: dict[int, tuple[float, str]] = {}

    @property
    def taken(self) -> set[int]:
        return {port for reservation, _, _ in self.held for port in reservation.ports}

    def rests(self, port: int) -> bool:
        return port in self.resting and self.resting[port][0] > self.clock.now

    def can_have(self, port: int, owner: str | None = None) -> bool:
        rests = self.rests(port) and self.resting[port][1] != owner
        return port not in self.taken and port not in self.foreign and not rests

    @rule(count=st.integers(1, 4), owner=st.sampled_from("ab"), used=st.booleans())
    def reserve(self, count, owner, used):
        free = [port for port in range(FIRST, LAST + 1) if self.can_have(port)]
        if count > len(free):
            with pytest.raises(SciStreamError) as raised:
                self.pool.reserve(count, owner=owner)
            assert raised.value.code is Code.PORTS_EXHAUSTED
            assert raised.value.facts["free"] == len(free)
            return
        reservation = self.pool.reserve(count, owner=owner)
        assert reservation.ports == tuple(free[:count])
        self.keep(reservation, owner, used)

    @rule(named=st.lists(PORTS, min_size=1, max_size=3, unique=True), owner=st.sampled_from("ab"), used=st.booleans())
    def reserve_named(self, named, owner, used):
        if not all(self.can_have(port, owner) for port in named):
            with pytest.raises(SciStreamError) as raised:
                self.pool.reserve(len(named), owner=owner, named=named)
            assert raised.value.code is Code.ENTRY_POINT_IN_USE
            return
        reservation = self.pool.reserve(len(named), owner=owner, named=named)
        assert reservation.ports == tuple(named)
        self.keep(reservation, owner, used)

    @rule(port=PORTS, in_use=st.booleans())
    def claim(self, port, in_use):
        if port in self.taken:
            return
        if port in self.foreign and not in_use:
            with pytest.raises(SciStreamError) as raised:
                self.pool.claim(HOST, [port], in_use=False, owner="a")
            assert raised.value.code is Code.ENTRY_POINT_IN_USE
            return
        self.keep(self.pool.claim(HOST, [port], in_use=in_use, owner="a"), "a", True)

    def keep(self, reservation: Reservation, owner: str, used: bool) -> None:
        if used:
            with reservation.admitted():
                pass
        for port in reservation.ports:
            self.resting.pop(port, None)
        self.held.append((reservation, owner, used))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), again=st.booleans())
    def close(self, data, again):
        reservation, owner, used = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if used:
            self.resting |= dict.fromkeys(reservation.ports, (self.clock.now + 5.0, owner))
        for _ in range(1 + again):
            reservation.close()

    @rule(port=PORTS, reuse=st.booleans())
    def another_program_binds(self, port, reuse):
        if port in self.foreign:
            return
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            made.bind((HOST, port))
            made.listen()
        except OSError:
            made.close()
            # Only what is held by a socket of ours is refused to others.
            assert port in self.taken
        else:
            self.foreign[port] = made

    @precondition(lambda self: self.foreign)
    @rule(data=st.data())
    def another_program_ends(self, data):
        self.foreign.pop(data.draw(st.sampled_from(sorted(self.foreign)))).close()

    @rule(seconds=st.sampled_from([1.0, 4.0, 5.0]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @invariant()
    def no_port_is_held_twice_and_the_free_ones_are_counted(self):
        held = [port for reservation, _, _ in self.held for port in reservation.ports]
        assert len(held) == len(set(held))
        free = sum(port not in held and not self.rests(port) for port in range(FIRST, LAST + 1))
        assert self.pool.free == free

    def teardown(self):
        for reservation, _, _ in self.held:
            reservation.close()
        for made in self.foreign.values():
            made.close()
        self.clock.now += 5
        # Nothing leaked: all of them can be had.
        self.pool.reserve(len(self.pool.ports)).close()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("listening", [HOST, f"::ffff:{HOST}"])
def test_a_listener_is_seen_at_an_address_however_it_is_written(sockets, listening):
    bind(sockets, 22310, host=listening)
    assert f"(pid {os.getpid()})" in str(who_listens(Endpoint(HOST, 22310)))


def test_a_python_program_is_named_by_what_it_runs(free_environment):
    endpoint = Endpoint(HOST, 22311)
    command = [sys.executable, "-u", "-m", "http.server", "--bind", HOST, str(endpoint.port)]
    with subprocess.Popen(command, env=free_environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            assert who_listens(endpoint) == f"http.server (pid {server.pid})"
        finally:
            server.kill()
