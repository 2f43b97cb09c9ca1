"""Draining, on all engines: nobody comes in, who is in finishes with every byte, and then the process ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from scistream.addresses import Endpoint
from scistream.control_server.data_servers import Engines
from scistream.engines import ENGINES, Engine, counting
from scistream.engines.lifecycle import alive, start, stop
from scistream.engines.processes import group_of
from scistream.engines.running import drain, traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption

SIZE = 4 << 20


def refuses(entry_point: Endpoint) -> bool:
    try:
        socket.create_connection((entry_point.host, entry_point.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def exchange(load: Any, arrived: asyncio.Event) -> tuple[Any, Any, Callable[[StreamReader, StreamWriter], Any]]:
    """What goes there and back, and a target that waits for all of it, says its digest, and answers."""
    there, back = load(SIZE), load(SIZE)

    async def target(reader: StreamReader, writer: StreamWriter) -> None:
        first = await reader.readexactly(1)
        arrived.set()
        writer.write(hashlib.sha256(first + await reader.readexactly(SIZE - 1)).digest() + back.data)
        await writer.drain()
        await reader.read()

    return there, back, target


@pytest.mark.parametrize("interrupted", [False, True], ids=["", "taken up again"])
def test_a_drain_lets_running_connections_finish_whole(
    bench: Any, engine: Engine, load: Any, interrupted: bool
) -> None:
    arrived = asyncio.Event()
    there, back, target = exchange(load, arrived)

    async def main() -> tuple[bytes, bytes]:
        outer, inner = bench.address(), bench.address()
        async with bench.serving(target) as address:
            inbound = bench.plan((inner, address))
            outbound = bench.plan((outer, inner), direction=Direction.OUTBOUND)
            async with bench.running(engine, inbound) as first, bench.running(engine, outbound) as second:
                async with bench.connected(outer) as (reader, writer):
                    writer.write(there.data[: SIZE // 2])
                    # What still waits in a queue of the kernel is refused with the others.
                    await arrived.wait()
                    drains = [
                        asyncio.create_task(drain(engine, plan, mark))
                        for plan, mark in ((inbound, first), (outbound, second))
                    ]
                    await bench.until(lambda: refuses(outer) and refuses(inner))
                    if interrupted:
                        for each in drains:
                            each.cancel()
                        await asyncio.wait(drains)
                        drains = [
                            asyncio.create_task(drain(engine, plan, mark))
                            for plan, mark in ((inbound, first), (outbound, second))
                        ]
                    writer.write(there.data[SIZE // 2 :])
                    digest = await reader.readexactly(32)
                    got = await reader.readexactly(SIZE)
                    assert alive(first)
                    assert alive(second)
                    assert [each.done() for each in drains] == [False, False]
                await asyncio.gather(*drains)
                assert not alive(first)
                assert not alive(second)
                assert group_of(first.pid) == group_of(second.pid) == []
                return digest, got

    assert asyncio.run(main()) == (there.digest, back.data)


def test_an_idle_data_server_ends_at_once_and_draining_a_dead_one_is_no_fault(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan = bench.plan((bench.address(), bench.address()), (bench.address("::1"), bench.address()))
        async with bench.running(engine, plan) as mark:
            await drain(engine, plan, mark)
            assert not alive(mark)
            assert all(refuses(route.entry_point) for route in plan.routes)
            await drain(engine, plan, mark)

    asyncio.run(main())


def test_a_drain_just_after_the_start_is_no_kill(bench: Any, engine: Engine) -> None:
    """Proxies accept before they have handlers for signals."""

    async def main() -> list[str]:
        endings = []
        for _ in range(10):
            plan = bench.one_route()
            async with bench.running(engine, plan) as mark:
                await drain(engine, plan, mark)
                endings.append(await Engines().ended(engine, mark))
        return endings

    assert set(asyncio.run(main())) == {"exit status 0"}


def test_what_does_not_heed_the_signal_is_not_drained(bench: Any) -> None:
    deaf = bench.script(
        "import socket, sys, time; s = socket.create_server((sys.argv[1], int(sys.argv[2]))); time.sleep(60)"
    )

    async def main() -> SciStreamError:
        plan = bench.one_route()
        async with bench.running(deaf, plan) as mark:
            with pytest.raises(SciStreamError) as caught:
                await drain(deaf, plan, mark)
            assert alive(mark)
            return caught.value

    error = asyncio.run(main())
    assert error.code is Code.ENGINE_CANNOT
    assert "Script cannot do what was asked: it cannot stop accepting alone" in str(error)


def test_a_stunnel_that_does_not_take_the_configuration_accepts_as_before(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, bench.encryption = ENGINES["stunnel"], Encryption.TLS_PSK
    monkeypatch.setattr(type(engine), "deaf", lambda *_: "[nothing]\nbogus = 1\n")

    async def main() -> SciStreamError:
        plan = bench.one_route()
        async with bench.running(engine, plan) as mark:
            before = plan.path("conf").read_text()
            with pytest.raises(SciStreamError) as caught:
                await drain(engine, plan, mark)
            assert plan.path("conf").read_text() == before
            await bench.until(lambda: not refuses(plan.routes[0].entry_point))
            return caught.value

    error = asyncio.run(main())
    assert error.code is Code.ENGINE_CANNOT
    assert "Failed to reload the configuration file" in str(error)
    assert str(bench.directory) not in str(error)


def test_figures_while_it_drains(bench: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_FRESH", 0)

    async def main() -> None:
        async def echo(reader: StreamReader, writer: StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)

        outer, inner = bench.address(), bench.address()
        async with bench.serving(echo) as address:
            inbound = bench.plan((inner, address))
            outbound = bench.plan((outer, inner), direction=Direction.OUTBOUND)
            async with bench.running(engine, inbound), bench.running(engine, outbound) as mark:
                async with bench.connected(outer) as (reader, writer):
                    writer.write(b"x" * 1000)
                    await reader.readexactly(1000)
                    task = asyncio.create_task(drain(engine, outbound, mark))
                    await bench.until(lambda: refuses(outer))
                    told = await traffic(engine, outbound, mark)
                    for _ in range(1000):
                        if told.connections_open == 1:
                            break  # those that looked whether it still accepts are gone
                        await asyncio.sleep(0.01)
                        told = await traffic(engine, outbound, mark)
                    assert told.connections_open == 1
                    assert told.connections_total >= 1
                    # HAProxy says no more, and may not have counted them yet.
                    assert told.bytes_to_targets in ({0, 1000} if engine.name == "haproxy" else {1000})
                await task

    asyncio.run(main())


def test_u42_a_frozen_data_server_ends_at_once_and_is_no_zombie(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan = bench.one_route()
        mark = await start(engine, plan)
        for facts in group_of(mark.pid):
            os.kill(facts.pid, signal.SIGSTOP)
        # So long a grace that only SIGTERM can end it within the test's time, once it is awake.
        await stop(plan, mark, engine_title=engine.title, grace=1000)
        assert not psutil.pid_exists(mark.pid)

    asyncio.run(main())
