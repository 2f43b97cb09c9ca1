"""Retargeting, on all engines: new connections go elsewhere, running ones go on, and nobody is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scistream.addresses import Endpoint, PortRange
from scistream.control_server.ports import PortPool
from scistream.engines import ENGINES, Engine, Plan, Route, counting
from scistream.engines.connections import accepting
from scistream.engines.lifecycle import start, stop
from scistream.engines.processes import group_of
from scistream.engines.running import drain, retarget, traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption

SIZE = 4 << 20


def to(plan: Plan, *targets: Endpoint) -> Plan:
    """The same data server with other targets."""
    pairs = zip(plan.routes, targets, strict=True)
    return dataclasses.replace(plan, routes=tuple(Route(route.entry_point, target) for route, target in pairs))


def saying(word: bytes) -> Any:
    """A target that says its name, takes SIZE bytes, and says their digest."""

    async def say(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(word)
        with contextlib.suppress(asyncio.IncompleteReadError):
            writer.write(hashlib.sha256(await reader.readexactly(SIZE)).digest())
            await reader.read()

    return say


@contextlib.asynccontextmanager
async def stream(bench: Any, engine: Engine, *targets: Endpoint) -> AsyncIterator[tuple[list[Endpoint], Plan, Any]]:
    """Both data servers; gives the outer entry points, and the inbound side, which is what is retargeted."""
    inner, outer = [bench.address() for _ in targets], [bench.address() for _ in targets]
    inbound = bench.plan(*zip(inner, targets, strict=True))
    outbound = bench.plan(*zip(outer, inner, strict=True), direction=Direction.OUTBOUND)
    async with bench.running(engine, inbound) as mark, bench.running(engine, outbound):
        yield outer, inbound, mark


async def name_at(bench: Any, entry_point: Endpoint) -> bytes:
    async with bench.connected(entry_point) as (reader, _):
        return await reader.readexactly(3)


def test_new_connections_go_elsewhere_and_running_ones_go_on_whole(bench: Any, engine: Engine, load: Any) -> None:
    sent = load(SIZE)

    async def main() -> tuple[list[bytes], bytes]:
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two")) as two,
            stream(bench, engine, one, one) as ((outer, second), plan, mark),
            bench.connected(outer) as (reader, writer),
        ):
            names = [await reader.readexactly(3)]
            writer.write(sent.data[: SIZE // 2])
            await retarget(engine, to(plan, two, one), mark)
            names += [await name_at(bench, outer), await name_at(bench, second)]
            await retarget(engine, to(plan, two, two), mark)
            names += [await name_at(bench, outer), await name_at(bench, second)]
            writer.write(sent.data[SIZE // 2 :])
            return names, await reader.readexactly(32)

    names, digest = asyncio.run(main())
    assert names == [b"one", b"two", b"one", b"two", b"two"]
    assert digest == sent.digest


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_nobody_is_refused_meanwhile(bench: Any, name: str) -> None:
    engine = ENGINES[name]

    async def main() -> list[bytes]:
        heard: list[bytes] = []
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two")) as two,
            stream(bench, engine, one) as ((outer,), plan, mark),
        ):

            async def knock() -> None:
                while True:
                    heard.append(await name_at(bench, outer))

            knocking = [asyncio.create_task(knock()) for _ in range(4)]
            for target in (two, one, two, one, two):
                await retarget(engine, to(plan, target), mark)
                await asyncio.sleep(0)
            heard.clear()
            await bench.until(lambda: len(heard) > 20)
            assert not any(task.done() for task in knocking)
            for task in knocking:
                task.cancel()
            await asyncio.gather(*knocking, return_exceptions=True)
            return heard

    # The first of each may have been on their way when the last change came.
    assert set(asyncio.run(main())[4:]) == {b"two"}


def test_a_retargeted_data_server_drains_and_its_configuration_has_the_new_target(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two"), "127.0.0.1") as two,
            stream(bench, engine, one) as ((outer,), plan, mark),
        ):
            async with bench.connected(outer) as (reader, writer):
                assert await reader.readexactly(3) == b"one"
                await retarget(engine, to(plan, Endpoint("localhost", two.port)), mark)
                assert f"localhost:{two.port}" in plan.path("conf").read_text()
                assert plan.path("conf").stat().st_mode & 0o777 == 0o600
                assert await name_at(bench, outer) == b"two"
                task = asyncio.create_task(drain(engine, plan, mark))
                writer.write(bytes(SIZE))
                assert len(await reader.readexactly(32)) == 32
                assert not task.done()
            await task

    asyncio.run(main())


def test_u40_what_an_earlier_control_server_started_is_retargeted_counted_and_drained(
    bench: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_FRESH", 0)
    outer, inner = bench.address(), bench.address()
    plan = bench.plan((outer, bench.address()), direction=Direction.OUTBOUND)
    mark = bench.start_elsewhere(engine, plan)

    async def steer() -> None:
        await retarget(engine, to(plan, inner), mark)
        async with bench.connected(outer) as (reader, _):
            assert await reader.readexactly(3) == b"one"
            assert (await traffic(engine, plan, mark)).connections_total == 1
            task = asyncio.create_task(drain(engine, plan, mark))
            await bench.until(lambda: not accepting([mark.pid], [outer]))
            assert not task.done()
        await task
        assert group_of(mark.pid) == []

    async def main() -> None:
        try:
            async with bench.serving(saying(b"one")) as one, bench.running(engine, bench.plan((inner, one))):
                await steer()
        finally:
            await stop(plan, mark, engine_title=engine.title)

    asyncio.run(main())


def test_u58_from_ipv4_to_ipv6_and_back(bench: Any, engine: Engine) -> None:
    async def main() -> list[bytes]:
        names = []
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two"), "::1") as two,
            stream(bench, engine, one) as ((outer,), plan, mark),
        ):
            for target in (two, one):
                await retarget(engine, to(plan, target), mark)
                names.append(await name_at(bench, outer))
        return names

    assert asyncio.run(main()) == [b"two", b"one"]


def test_a_target_that_has_no_address_changes_nothing(bench: Any, engine: Engine) -> None:
    async def main() -> SciStreamError:
        async with bench.serving(saying(b"one")) as one, stream(bench, engine, one) as ((outer,), plan, mark):
            before, processes = plan.path("conf").read_text(), group_of(mark.pid)
            with pytest.raises(SciStreamError) as caught:
                await retarget(engine, to(plan, Endpoint("no-such-host.invalid", 5074)), mark)
            assert plan.path("conf").read_text() == before
            assert group_of(mark.pid) == processes
            assert await name_at(bench, outer) == b"one"
            return caught.value

    error = asyncio.run(main())
    assert error.code is Code.CONFIGURATION_REJECTED
    assert f"{ENGINES[engine.name].title} rejects the configuration" in str(error)
    assert "no-such-host.invalid" in str(error)


def test_what_an_engine_does_not_take_changes_nothing(
    bench: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> SciStreamError:
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two")) as two,
            stream(bench, engine, one) as ((outer,), plan, mark),
        ):
            before = plan.path("conf").read_text()
            with monkeypatch.context() as patched:
                broken = {plan.path("conf"): before + ("\nbogus 1;\n" if engine.name == "nginx" else "\nbogus = 1\n")}
                patched.setattr(type(engine), "render", lambda *_: broken)
                with pytest.raises(SciStreamError) as caught:
                    await retarget(engine, to(plan, two), mark)
            assert plan.path("conf").read_text() == before
            assert await name_at(bench, outer) == b"one"
            await retarget(engine, to(plan, two), mark)
            assert await name_at(bench, outer) == b"two"
            return caught.value

    error = asyncio.run(main())
    assert error.code is (Code.ENGINE_CANNOT if engine.name == "stunnel" else Code.CONFIGURATION_REJECTED)
    assert "bogus" in str(error)
    assert str(bench.directory) not in str(error)


def test_haproxy_takes_all_targets_or_none(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ENGINES["haproxy"]
    commands = type(engine).switch_commands

    async def main() -> list[bytes]:
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two")) as two,
            stream(bench, engine, one, one) as (outer, plan, mark),
        ):
            calls = iter((["set server route-2/target addr nowhere port 1"],))
            monkeypatch.setattr(
                type(engine), "switch_commands", lambda self, routes: [*commands(self, routes)[:1], *next(calls, [])]
            )
            with pytest.raises(SciStreamError, match="Invalid addr 'nowhere'") as caught:
                # Once to learn whether there are commands is once too often for this test's iterator.
                await retarget(engine, to(plan, two, two), mark)
            assert caught.value.code is Code.ENGINE_CANNOT
            return [await name_at(bench, each) for each in outer]

    assert asyncio.run(main()) == [b"one", b"one"]


def test_what_does_not_answer_is_not_retargeted(bench: Any) -> None:
    engine = ENGINES["haproxy"]

    async def main() -> list[SciStreamError]:
        errors = []
        plan = bench.one_route()
        async with bench.running(engine, plan) as mark:
            before = plan.path("conf").read_text()
            os.kill(mark.pid, signal.SIGSTOP)
            with pytest.raises(SciStreamError) as caught:
                await retarget(engine, to(plan, bench.address()), mark)
            errors.append(caught.value)
            assert plan.path("conf").read_text() == before
            os.kill(mark.pid, signal.SIGCONT)
            await drain(engine, plan, mark)
            with pytest.raises(SciStreamError) as caught:
                await retarget(engine, plan, mark)
            return [*errors, caught.value]

    frozen, ended = asyncio.run(main())
    # Another engine would do no better with a process that is stopped.
    assert (frozen.code, ended.code) == (Code.DATA_SERVER_UNRESPONSIVE, Code.ENGINE_CANNOT)
    assert "its command socket does not answer (too late)" in str(frozen)
    assert "it has ended, or it drains" in str(ended)


def test_ports_that_are_reserved_are_bound_anew_where_that_is_admitted(bench: Any, engine: Engine) -> None:
    """Stunnel closes its listeners and makes others, and the reservation of the control server is there too."""

    async def main() -> list[bytes]:
        reservation = PortPool(bench.host, PortRange(21900, 21910), lambda _: None).reserve(1)
        async with bench.serving(saying(b"one")) as one, bench.serving(saying(b"two")) as two:
            inner = [bench.address(), bench.address()]
            first, second = bench.plan((inner[0], one)), bench.plan((inner[1], two), direction=Direction.INBOUND)
            second = dataclasses.replace(second, uid=bench.uid, directory=bench.directory / "second")
            second.directory.mkdir()
            plan = bench.plan((Endpoint(bench.host, reservation.ports[0]), inner[0]), direction=Direction.OUTBOUND)
            names = []
            async with bench.running(engine, first), bench.running(engine, second):
                with reservation.admitted():
                    mark = await start(engine, plan)
                bench.marks.append(mark)
                for target in (inner[1], inner[0], inner[1]):
                    with reservation.admitted():
                        await retarget(engine, to(plan, target), mark)
                    names.append(await name_at(bench, plan.routes[0].entry_point))
                with reservation.admitted():
                    await stop(plan, mark, engine_title=engine.title)
            reservation.close()
            return names

    assert asyncio.run(main()) == [b"two", b"one", b"two"]


def test_what_cannot_be_bound_again_is_said_and_comes_back(bench: Any) -> None:
    """A caller that forgets to admit it: Stunnel lets go of its port first, and then may not have it."""
    engine, bench.encryption = ENGINES["stunnel"], Encryption.TLS_PSK

    async def main() -> SciStreamError:
        reservation = PortPool(bench.host, PortRange(21900, 21910), lambda _: None).reserve(1)
        plan = bench.plan((Endpoint(bench.host, reservation.ports[0]), bench.address()))
        with reservation.admitted():
            mark = await start(engine, plan)
        bench.marks.append(mark)
        before = plan.path("conf").read_text()
        task = asyncio.create_task(retarget(engine, to(plan, bench.address()), mark))
        await bench.until(lambda: "Binding service" in plan.path("log").read_text())
        with pytest.raises(SciStreamError) as caught, reservation.admitted():
            await task
        assert plan.path("conf").read_text() == before
        with reservation.admitted():
            assert accepting([mark.pid], [plan.routes[0].entry_point])
            await stop(plan, mark, engine_title=engine.title)
        reservation.close()
        return caught.value

    error = asyncio.run(main())
    assert error.code is Code.ENGINE_CANNOT
    assert "Binding service [route-1] failed" in str(error)
