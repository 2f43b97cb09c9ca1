"""Reservation by binding, against the kernel that it relies on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scistream.addresses import Endpoint, PortRange
from scistream.control_server.ports import PortPool
from scistream.engines.processes import who_listens
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


def test_u26_all_or_nothing_and_the_holders_are_named(sockets):
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
