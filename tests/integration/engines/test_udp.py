"""UDP through a data server: who has a port, datagrams both ways, sources, retargeting, and the end (U63)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import ipaddress
import os
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Plan
from scistream.engines.connections import accepting, listening
from scistream.engines.holders import who_listens
from scistream.engines.processes import bind_failure
from scistream.errors import Code
from scistream.terms import Encryption, Transport

NGINX = ENGINES["nginx"]
# A UDP socket of another process, which ends when its input does.
_HOLDER = """
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
held.bind((sys.argv[1], int(sys.argv[2])))
print("bound", flush=True)
sys.stdin.read()
"""


class Datagrams(asyncio.DatagramProtocol):
    """A socket that keeps what comes, and answers with its name where it has one."""

    def __init__(self, name: bytes = b"") -> None:
        self.heard: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self._name = name

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.put_nowait((data, addr))
        if self._name:
            self.transport.sendto(self._name + data, addr)


@contextlib.asynccontextmanager
async def receiving(name: bytes, address: Endpoint) -> AsyncIterator[Datagrams]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Datagrams(name), local_addr=(address.host, address.port)
    )
    try:
        yield protocol
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def application(to: Endpoint, host: str = "127.0.10.1") -> AsyncIterator[Datagrams]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        Datagrams, local_addr=(host, 0), remote_addr=(to.host, to.port)
    )
    try:
        yield protocol
    finally:
        transport.close()


async def exchange(one: Datagrams, words: bytes) -> bytes:
    one.transport.sendto(words)
    async with asyncio.timeout(10):
        return (await one.heard.get())[0]


def udp(bench: Any, target: Endpoint) -> Plan:
    return dataclasses.replace(
        bench.plan((bench.address(), target), encryption=Encryption.NONE), transport=Transport.UDP
    )


async def until(true: Any) -> None:
    for _ in range(1000):
        if await true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def test_u63_datagrams_go_through_both_ways_in_the_sizes_they_have(bench: Any) -> None:
    async def main() -> None:
        target = bench.address()
        plan = udp(bench, target)
        async with (
            receiving(b"to ", target),
            bench.running(NGINX, plan),
            application(plan.routes[0].entry_point) as one,
            application(plan.routes[0].entry_point) as two,
        ):
            for size in (1, 1400, 9000, 60000):
                words = os.urandom(size)
                assert await exchange(one, words) == b"to " + words
            assert await exchange(two, b"hello") == b"to hello"
            assert one.heard.empty()

    asyncio.run(main())


def test_u63_a_source_list_keeps_datagrams_of_others_out_and_counts_them(bench: Any) -> None:
    async def main() -> None:
        target = bench.address()
        plan = dataclasses.replace(udp(bench, target), sources=(ipaddress.ip_network("127.0.10.1/32"),))
        entry = plan.routes[0].entry_point
        async with (
            receiving(b"to ", target) as server,
            bench.running(NGINX, plan) as mark,
            application(entry, "127.0.10.66") as stranger,
            application(entry) as known,
        ):
            stranger.transport.sendto(b"stranger")
            assert await exchange(known, b"known") == b"to known"

            async def refused() -> bool:
                return (await NGINX.traffic(plan, mark)).refused_peers == 1

            await until(refused)
            assert server.heard.qsize() == 1

    asyncio.run(main())


def test_u63_a_session_over_udp_is_retargeted(bench: Any) -> None:
    async def main() -> None:
        target, other = bench.address(), bench.address()
        plan = udp(bench, target)
        async with receiving(b"one ", target), receiving(b"two ", other), bench.running(NGINX, plan) as mark:
            async with application(plan.routes[0].entry_point) as one:
                assert await exchange(one, b"x") == b"one x"
            moved = dataclasses.replace(udp(bench, other), routes=(dataclasses.replace(plan.routes[0], target=other),))
            await NGINX.retarget(moved, mark)
            async with application(plan.routes[0].entry_point) as one:
                assert await exchange(one, b"x") == b"two x"

    asyncio.run(main())


def test_u63_the_port_is_held_by_the_data_server_and_free_afterwards(bench: Any) -> None:
    async def main() -> None:
        plan = udp(bench, bench.address())
        entry = plan.routes[0].entry_point
        async with bench.running(NGINX, plan) as mark:
            failure = bind_failure(entry, Transport.UDP)
            assert failure is not None
            assert failure.errno == errno.EADDRINUSE
            assert bind_failure(entry) is None
            assert "nginx (pid " in str(who_listens(entry, Transport.UDP))
            assert who_listens(entry) is None
            assert entry in accepting([mark.pid], [entry], Transport.UDP)
            assert accepting([mark.pid], [entry]) == {}
            assert accepting([os.getpid()], [entry], Transport.UDP) == {}
        assert bind_failure(entry, Transport.UDP) is None
        assert listening(entry.port, Transport.UDP) == []

    asyncio.run(main())


def test_u63_a_port_that_another_process_takes_datagrams_on_is_refused_by_its_name(bench: Any) -> None:
    """Also where that process lets others bind: its datagrams would go astray."""

    async def main() -> None:
        plan = udp(bench, bench.address())
        entry = plan.routes[0].entry_point
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _HOLDER, entry.host, str(entry.port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        await holder.stdout.readline()
        try:
            with pytest.raises(Exception, match=rf"\(pid {holder.pid}\)") as caught:
                await NGINX.start(plan)
            assert getattr(caught.value, "code", None) is Code.ENTRY_POINT_IN_USE
        finally:
            holder.stdin.close()
            await holder.wait()

    asyncio.run(main())


def test_u63_our_own_reservation_of_a_udp_port_is_no_hindrance(bench: Any) -> None:
    address = bench.address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind((address.host, address.port))
        assert bind_failure(address, Transport.UDP) is not None
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert bind_failure(address, Transport.UDP) is None
    assert bind_failure(Endpoint("192.0.2.1", address.port), Transport.UDP) is not None


def test_u63_a_session_over_udp_drains_and_ends(bench: Any) -> None:
    async def main() -> None:
        target = bench.address()
        plan = udp(bench, target)
        async with (
            receiving(b"to ", target),
            bench.running(NGINX, plan) as mark,
            application(plan.routes[0].entry_point) as one,
        ):
            assert await exchange(one, b"x") == b"to x"
            deaf = asyncio.Event()
            async with asyncio.timeout(60):
                await NGINX.drain(plan, mark, deaf.set)
            assert deaf.is_set()

    asyncio.run(main())
