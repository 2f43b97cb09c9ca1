"""What running data servers carried, as they and the kernel tell it; and their logs, kept small."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine, Plan, counting
from scistream.engines.lifecycle import ProcessMark
from scistream.engines.running import rotate, traffic
from scistream.engines.traffic import Traffic
from scistream.terms import Direction, Encryption

SIZE = 300_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the kernel's connections is a new one."""
    monkeypatch.setattr(counting, "_FRESH", 0)


async def reversing(reader: StreamReader, writer: StreamWriter) -> None:
    """A target that answers each byte with two."""
    while data := await reader.read(65536):
        writer.write(data + data)
        await writer.drain()


@contextlib.asynccontextmanager
async def both(bench: Any, engine: Engine) -> AsyncIterator[tuple[Endpoint, list[tuple[Plan, ProcessMark]]]]:
    outer, inner = bench.address(), bench.address()
    async with bench.serving(reversing) as address:
        inbound = bench.plan((inner, address))
        outbound = bench.plan((outer, inner), direction=Direction.OUTBOUND)
        async with bench.running(engine, inbound) as first, bench.running(engine, outbound) as second:
            yield outer, [(inbound, first), (outbound, second)]


async def exchange(bench: Any, outer: Endpoint, size: int = SIZE) -> None:
    async with bench.connected(outer) as (reader, writer):
        writer.write(bytes(size))
        await reader.readexactly(2 * size)


async def figures(engine: Engine, plan: Plan, mark: ProcessMark, wanted: Traffic) -> Traffic:
    """The traffic, once it is what is expected: logs are written, and counters brought up to date, a moment later."""
    told = Traffic()
    for _ in range(1000):
        told = await traffic(engine, plan, mark)
        if told == wanted:
            break
        await asyncio.sleep(0.01)
    return told


def test_connections_and_bytes_each_way(bench: Any, engine: Engine) -> None:
    wanted = Traffic(0, 5, 5 * SIZE, 10 * SIZE, 0)

    async def main() -> list[Traffic]:
        async with both(bench, engine) as (outer, servers):
            for plan, mark in servers:
                assert await traffic(engine, plan, mark) == Traffic()
            assert {path.stat().st_mode & 0o777 for path in bench.directory.iterdir()} == {0o600}
            for _ in range(5):
                await exchange(bench, outer)
            return [await figures(engine, plan, mark, wanted) for plan, mark in servers]

    assert asyncio.run(main()) == [wanted, wanted]


def test_a_running_connection_counts(bench: Any, engine: Engine) -> None:
    """Else an instrument that sends for hours would pass for idle."""

    async def main() -> None:
        async with both(bench, engine) as (outer, servers):
            plan, mark = servers[1]
            await exchange(bench, outer)
            async with bench.connected(outer) as (reader, writer):
                writer.write(bytes(SIZE))
                await reader.readexactly(2 * SIZE)
                wanted = Traffic(1, 2, 2 * SIZE, 4 * SIZE, 0)
                assert await figures(engine, plan, mark, wanted) == wanted
                assert await figures(engine, *servers[0], wanted) == wanted
            wanted = Traffic(0, 2, 2 * SIZE, 4 * SIZE, 0)
            assert await figures(engine, plan, mark, wanted) == wanted

    asyncio.run(main())


def test_figures_never_fall(bench: Any, engine: Engine) -> None:
    def totals(told: Traffic) -> tuple[int, ...]:
        return told.connections_total, told.bytes_to_targets, told.bytes_from_targets, told.refused_peers

    async def main() -> list[Traffic]:
        async with both(bench, engine) as (outer, servers):
            seen = []
            work = asyncio.gather(*(exchange(bench, outer, 20_000) for _ in range(100)))
            while not work.done():
                seen.append(await traffic(engine, *servers[1]))
                await asyncio.sleep(0)
            await work
            wanted = Traffic(0, 100, 100 * 20_000, 200 * 20_000, 0)
            return [*seen, await figures(engine, *servers[1], wanted)]

    seen = asyncio.run(main())
    assert len(seen) > 2
    assert all(a <= b for one, two in itertools.pairwise(seen) for a, b in zip(totals(one), totals(two), strict=True))
    assert seen[-1] == Traffic(0, 100, 100 * 20_000, 200 * 20_000, 0)


def test_u41_what_an_old_look_still_shows_is_not_counted_twice(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the kernel's connections serves all sessions for a second; a ledger is read each time."""
    engine = ENGINES["nginx"]
    wanted = Traffic(0, 1, SIZE, 2 * SIZE, 0)

    async def main() -> Traffic:
        async with both(bench, engine) as (outer, servers):
            plan, mark = servers[1]
            async with bench.connected(outer) as (reader, writer):
                writer.write(bytes(SIZE))
                await reader.readexactly(2 * SIZE)
                assert (await traffic(engine, plan, mark)).connections_open == 1
                monkeypatch.setattr(counting, "_FRESH", 1e9)
            await bench.until(lambda: plan.path("traffic").stat().st_size)
            return await traffic(engine, plan, mark)

    assert asyncio.run(main()) == wanted


def test_a_control_server_that_starts_again_counts_from_the_ledgers_beginning(bench: Any, engine: Engine) -> None:
    wanted = Traffic(0, 1, SIZE, 2 * SIZE, 0)

    async def main() -> None:
        async with both(bench, engine) as (outer, servers):
            await exchange(bench, outer)
            assert await figures(engine, *servers[1], wanted) == wanted
            counting._meters.clear()
            assert await traffic(engine, *servers[1]) == wanted

    asyncio.run(main())


def test_a_released_session_leaves_no_figures(bench: Any, engine: Engine) -> None:
    known = len(counting._meters)

    async def main() -> None:
        async with both(bench, engine) as (_, servers):
            await traffic(engine, *servers[0])
            assert len(counting._meters) == known + 1

    asyncio.run(main())
    assert len(counting._meters) == known


def test_stunnel_tells_of_peers_that_it_refused(bench: Any) -> None:
    engine, bench.encryption = ENGINES["stunnel"], Encryption.TLS_PSK
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def main() -> Traffic:
        plan = bench.one_route()
        entry_point = plan.routes[0].entry_point
        async with bench.running(engine, plan) as mark:
            for _ in range(3):
                with contextlib.suppress(OSError):
                    await asyncio.open_connection(entry_point.host, entry_point.port, ssl=context)
            return await figures(engine, plan, mark, Traffic(0, 3, 0, 0, 3))

    assert asyncio.run(main()) == Traffic(0, 3, 0, 0, 3)


def test_u43_large_logs_are_put_aside_and_nothing_is_counted_twice_or_lost(
    bench: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_LARGE", 2000)

    async def main() -> None:
        async with both(bench, engine) as (outer, servers):
            plan, mark = servers[1]
            with plan.path("log").open("a") as log:
                log.write("a line of the log\n" * 200)
            for count in range(1, 61):
                await exchange(bench, outer, 100)
                if count % 20 == 0:
                    wanted = Traffic(0, count, 100 * count, 200 * count, 0)
                    assert await figures(engine, plan, mark, wanted) == wanted
            aside = plan.path("log.1")
            assert aside.stat().st_mode & 0o777 == 0o600
            assert aside.stat().st_size > 2000
            assert plan.path("log").stat().st_size <= 2000
            if engine.name == "nginx":
                assert plan.path("traffic").stat().st_size <= 2000
            # The data server goes on writing where the file begins now.
            rotate(plan)
            assert not plan.path("log").read_bytes().startswith(b"\0")

    asyncio.run(main())
    assert list(bench.directory.iterdir()) == []


def test_a_log_that_cannot_be_put_aside_stays(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_LARGE", 100)
    engine = ENGINES["haproxy"]

    async def main() -> None:
        plan = bench.one_route()
        async with bench.running(engine, plan) as mark:
            plan.path("log").write_text("x" * 200)
            plan.path("log.1").mkdir()
            with pytest.raises(OSError, match=r"log\.1"):
                rotate(plan)
            assert await traffic(engine, plan, mark) == Traffic()
            assert plan.path("log").stat().st_size == 200
            plan.path("log.1").rmdir()

    asyncio.run(main())
