"""Real bytes through two data servers in a row: application, outbound, inbound, target."""

from __future__ import annotations

import asyncio
import hashlib
from asyncio import StreamReader, StreamWriter
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine
from scistream.terms import Direction

MEBIBYTE = 1 << 20


async def digest_of(reader: StreamReader, size: int) -> bytes:
    """Reads so many bytes, or to the end where the size is -1."""
    digest = hashlib.sha256()
    while size and (chunk := await reader.read(65536 if size < 0 else min(size, 65536))):
        digest.update(chunk)
        size -= len(chunk) if size > 0 else 0
    return digest.digest()


async def send(writer: StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), 65536):
        writer.write(data[start : start + 65536])
        await writer.drain()


@pytest.mark.parametrize(("connections", "size"), [(1, 8 * MEBIBYTE), (8, 2 * MEBIBYTE), (100, 65536)])
def test_bytes_go_both_ways_at_once_whole(bench: Any, engine: Engine, load: Any, connections: int, size: int) -> None:
    there, back = load(size), load(size)

    async def target(reader: StreamReader, writer: StreamWriter) -> None:
        received, _ = await asyncio.gather(digest_of(reader, size), send(writer, back.data))
        writer.write(received)
        await reader.read()

    async def application(entry_point: Endpoint) -> tuple[bytes, bytes]:
        async with bench.connected(entry_point) as (reader, writer):
            received, _ = await asyncio.gather(digest_of(reader, size), send(writer, there.data))
            return received, await reader.readexactly(32)

    async def main() -> list[tuple[bytes, bytes]]:
        async with bench.serving(target) as address, bench.stream(engine, address) as entry_point:
            return await asyncio.gather(*(application(entry_point) for _ in range(connections)))

    assert set(asyncio.run(main())) == {(back.digest, there.digest)}


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_u72_half_closed_connections_are_whole(bench: Any, name: str, load: Any) -> None:
    there, back = load(4 * MEBIBYTE), load(4 * MEBIBYTE)

    async def target(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(await digest_of(reader, -1))
        await send(writer, back.data)

    async def application(entry_point: Endpoint) -> tuple[bytes, bytes]:
        async with bench.connected(entry_point) as (reader, writer):
            await send(writer, there.data)
            writer.write_eof()
            return await reader.readexactly(32), await digest_of(reader, -1)

    async def main() -> list[tuple[bytes, bytes]]:
        async with bench.serving(target) as address, bench.stream(ENGINES[name], address) as entry_point:
            return await asyncio.gather(*(application(entry_point) for _ in range(6)))

    assert set(asyncio.run(main())) == {(there.digest, back.digest)}


def test_one_way_and_the_end_of_it_are_whole(bench: Any, engine: Engine, load: Any) -> None:
    """How an instrument streams: it sends, and closes."""
    sent = load(4 * MEBIBYTE)
    digests: asyncio.Queue[bytes] = asyncio.Queue()

    async def target(reader: StreamReader, _: StreamWriter) -> None:
        await digests.put(await digest_of(reader, -1))

    async def main() -> list[bytes]:
        async with bench.serving(target) as address, bench.stream(engine, address) as entry_point:
            for _ in range(5):
                async with bench.connected(entry_point) as (_, writer):
                    await send(writer, sent.data)
            return [await digests.get() for _ in range(5)]

    assert asyncio.run(main()) == [sent.digest] * 5


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def test_u58_ipv6_carries_bytes(bench: Any, engine: Engine) -> None:
    bench.host = "::1"

    async def main() -> bytes:
        async with bench.serving(echo) as address, bench.stream(engine, address) as entry_point:
            assert str(entry_point).startswith("[::1]:")
            async with bench.connected(entry_point) as (reader, writer):
                writer.write(b"over IPv6")
                return await reader.readexactly(9)

    assert asyncio.run(main()) == b"over IPv6"


def test_a_targets_name_is_resolved(bench: Any, engine: Engine) -> None:
    async def main() -> bytes:
        async with bench.serving(echo, "127.0.0.1") as address:
            named = Endpoint("localhost", address.port)
            async with bench.stream(engine, named) as entry_point, bench.connected(entry_point) as (reader, writer):
                writer.write(b"by name")
                return await reader.readexactly(7)

    assert asyncio.run(main()) == b"by name"


def test_u23_each_entry_point_has_its_own_target(bench: Any, engine: Engine) -> None:
    def saying(word: bytes) -> Any:
        async def say(reader: StreamReader, writer: StreamWriter) -> None:
            writer.write(word)
            await reader.read()

        return say

    async def ask(entry_point: Endpoint) -> bytes:
        async with bench.connected(entry_point) as (reader, _):
            return await reader.readexactly(3)

    async def main() -> list[bytes]:
        inner, outer = [bench.address() for _ in range(3)], [bench.address() for _ in range(3)]
        async with (
            bench.serving(saying(b"one")) as one,
            bench.serving(saying(b"two")) as two,
            bench.running(engine, bench.plan((inner[0], one), (inner[1], two), (inner[2], one))),
            bench.running(engine, bench.plan(*zip(outer, inner, strict=True), direction=Direction.OUTBOUND)),
        ):
            return [await ask(entry_point) for entry_point in outer]

    assert asyncio.run(main()) == [b"one", b"two", b"one"]


def test_u41_a_thousand_connections_and_their_log_freeze_nothing(bench: Any, engine: Engine) -> None:
    async def once(entry_point: Endpoint, word: bytes) -> bytes:
        async with bench.connected(entry_point) as (reader, writer):
            writer.write(word)
            return await reader.readexactly(len(word))

    async def main() -> list[int]:
        async with bench.serving(echo) as address, bench.stream(engine, address) as entry_point:
            for number in range(500):
                assert await once(entry_point, b"%d" % number) == b"%d" % number
            words = [b"%d" % number for number in range(500)]
            held = await asyncio.gather(*(once(entry_point, word) for word in words))
            assert held == words
            return [path.stat().st_size for path in bench.directory.glob("test-*.log")]

    sizes = asyncio.run(main())
    assert len(sizes) == 2
    if engine.name == "stunnel":
        # More than a pipe holds: as an unread pipe it would have frozen.
        assert min(sizes) > 65536
    else:
        # What goes well is not worth a line.
        assert max(sizes) < 4096


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_a_target_that_refuses_is_in_the_log(bench: Any, name: str) -> None:
    async def main() -> tuple[bytes, str]:
        plan = bench.plan((bench.address(), bench.address()))
        async with bench.running(ENGINES[name], plan):
            async with bench.connected(plan.routes[0].entry_point) as (reader, _):
                got = await reader.read()
            return got, await bench.log(plan, words)

    words = {"haproxy": " SC ", "nginx": "Connection refused"}[name]
    got, log = asyncio.run(main())
    assert got == b""
    assert words in log
