"""What data servers bind: the entry points they were told, where those are free, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from scistream.addresses import Endpoint
from scistream.engines import Engine, Installation, Plan
from scistream.engines.lifecycle import start
from scistream.engines.processes import bind_failure, group_of
from scistream.errors import Code
from scistream.terms import Direction


@contextlib.contextmanager
def listening(address: Endpoint) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    with socket.create_server((address.host, address.port), family=family) as server:
        yield server


def bound(pid: int) -> set[tuple[str, int]]:
    """What the processes of a data server listen on, as the kernel says."""
    processes = [psutil.Process(facts.pid) for facts in group_of(pid)]
    sockets = [entry for process in processes for entry in process.net_connections(kind="tcp")]
    return {(entry.laddr.ip, entry.laddr.port) for entry in sockets if entry.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("host", ["127.0.10.7", "::1"])
@pytest.mark.parametrize("direction", list(Direction))
def test_u04_binds_what_it_was_told(bench: Any, engine: Engine, host: str, direction: Direction) -> None:
    entry_points = [bench.address(host) for _ in range(3)]

    async def main() -> set[tuple[str, int]]:
        plan = bench.plan(*((entry_point, bench.address()) for entry_point in entry_points), direction=direction)
        async with bench.running(engine, plan) as mark:
            return bound(mark.pid)

    assert asyncio.run(main()) == {(entry_point.host, entry_point.port) for entry_point in entry_points}


@pytest.mark.parametrize(("host", "other"), [("0.0.0.0", "::"), ("::", "0.0.0.0")])  # noqa: S104
def test_u04_all_addresses_of_one_family(bench: Any, engine: Engine, host: str, other: str) -> None:
    async def main() -> set[tuple[str, int]]:
        plan = bench.one_route()
        wide = bench.plan((Endpoint(host, plan.routes[0].entry_point.port), plan.routes[0].target))
        async with bench.running(engine, wide) as mark:
            assert bind_failure(Endpoint(other, wide.routes[0].entry_point.port)) is None
            return {ip for ip, _ in bound(mark.pid)}

    assert asyncio.run(main()) == {host}


def test_the_control_servers_reservation_is_no_hindrance(bench: Any, engine: Engine) -> None:
    """As the port pool holds a port: bound without SO_REUSEADDR, which is set afterwards; never listening."""

    async def main() -> set[tuple[str, int]]:
        plan = bench.one_route()
        entry_point = plan.routes[0].entry_point
        with socket.socket() as held:
            held.bind((entry_point.host, entry_point.port))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            async with bench.running(engine, plan) as mark:
                return bound(mark.pid)

    assert len(asyncio.run(main())) == 1


def test_u04_a_data_server_that_listens_elsewhere_does_not_pass(bench: Any) -> None:
    wide = bench.script("import socket, sys, time; s = socket.create_server(('', int(sys.argv[2]))); time.sleep(60)")
    bench.fails(Code.DATA_SERVER_SILENT, lambda: start(wide, bench.one_route(), timeout=0.5))


def test_an_entry_point_in_use_names_the_process(bench: Any, engine: Engine) -> None:
    plan = bench.one_route()
    with listening(plan.routes[0].entry_point):
        error = bench.fails(Code.ENTRY_POINT_IN_USE, lambda: start(engine, plan))
    told = rf"entry point {plan.routes[0].entry_point} is in use by (pytest|python[0-9.]*) \(pid {os.getpid()}\)"
    assert re.match(told, str(error))
    assert list(bench.directory.iterdir()) == []


def test_an_entry_point_in_use_on_all_addresses_names_the_process(bench: Any, engine: Engine) -> None:
    plan = bench.one_route()
    with listening(Endpoint("0.0.0.0", plan.routes[0].entry_point.port)):  # noqa: S104
        error = bench.fails(Code.ENTRY_POINT_IN_USE, lambda: start(engine, plan))
    assert f"(pid {os.getpid()})" in str(error)


def test_an_entry_point_that_is_held_without_listening(bench: Any, engine: Engine) -> None:
    plan = bench.one_route()
    entry_point = plan.routes[0].entry_point
    with socket.socket() as held:
        held.bind((entry_point.host, entry_point.port))
        error = bench.fails(Code.ENTRY_POINT_IN_USE, lambda: start(engine, plan))
    assert "a process that holds it and does not listen" in str(error)


def test_an_entry_point_that_is_taken_during_the_start(bench: Any) -> None:
    """The race that looking first cannot win."""
    late = bench.script("import sys; sys.exit('bind: Address already in use')")
    plan = bench.one_route()

    class Taken(type(late)):  # type: ignore[misc]
        def start_command(self, plan: Plan, installation: Installation) -> list[str]:
            server.bind((plan.routes[0].entry_point.host, plan.routes[0].entry_point.port))
            server.listen()
            return late.start_command(plan, installation)

    with socket.socket() as server:
        bench.fails(Code.ENTRY_POINT_IN_USE, lambda: start(Taken(late.text), plan))


def test_an_address_of_another_host(bench: Any, engine: Engine) -> None:
    plan = bench.plan((bench.address("192.0.2.1"), bench.address()))
    error = bench.fails(Code.LISTEN_ADDRESS_FOREIGN, lambda: start(engine, plan))
    assert f"cannot listen on {plan.routes[0].entry_point}: Cannot assign requested address" in str(error)
