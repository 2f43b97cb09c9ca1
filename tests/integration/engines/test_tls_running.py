"""Encrypted streams that run: many at once, counted, retargeted, drained, and with certificates replaced under them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import hashlib
import ipaddress
import os
import re
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine, Plan, renewal
from scistream.engines.texts import SecretText
from scistream.errors import Code
from scistream.terms import Direction, Encryption

NAMES = ["haproxy", "nginx"]
PAIRS = [(inbound, outbound) for inbound in NAMES for outbound in NAMES]
PIECE = os.urandom(1 << 16)
MANY = 1000

every_pair = pytest.mark.parametrize(("inner", "outer"), PAIRS, ids=[f"{a} {b}" for a, b in PAIRS])
every_tls = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def bench(bench: Any) -> Any:
    bench.encryption = Encryption.TLS
    return bench


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


class Stream:
    """Both data servers of a stream."""

    def __init__(self, bench: Any, inner: str, outer: str, target: Endpoint) -> None:
        self.engines = (ENGINES[inner], ENGINES[outer])
        self.inbound = bench.plan((bench.address(), target))
        entry = self.inbound.routes[0].entry_point
        self.outbound = bench.plan((bench.address(), entry), direction=Direction.OUTBOUND)
        self.entry_point: Endpoint = self.outbound.routes[0].entry_point
        self.marks: list[Any] = []

    @property
    def ends(self) -> list[tuple[Engine, Plan, Any]]:
        return list(zip(self.engines, (self.inbound, self.outbound), self.marks, strict=True))


@contextlib.asynccontextmanager
async def stream(bench: Any, inner: str, outer: str, target: Endpoint) -> AsyncIterator[Stream]:
    made = Stream(bench, inner, outer, target)
    async with (
        bench.running(made.engines[0], made.inbound) as one,
        bench.running(made.engines[1], made.outbound) as two,
    ):
        made.marks = [one, two]
        yield made


async def ask(bench: Any, entry_point: Endpoint, words: bytes = b"hello") -> bytes:
    """What comes back over a connection of its own.

    Raises:
        ConnectionError: the other end cut it.
    """
    async with bench.connected(entry_point) as (reader, writer):
        writer.write(words)
        try:
            writer.write_eof()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            # It was cut before its last word, and that is no ConnectionError.
            raise ConnectionResetError(str(error)) from error
        answer: bytes = await reader.read()
        return answer


async def until(true: Any) -> Any:
    """Wait for what an engine tells in its own time."""
    for _ in range(1000):
        if found := await true():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def fingerprints(plan: Plan) -> list[str]:
    """A gateway's certificate on the disk, by both names that engines have for it."""
    certificate = x509.load_pem_x509_certificate(plan.path("pem").read_bytes())
    return [certificate.fingerprint(kind).hex() for kind in (hashes.SHA256(), hashes.SHA1())]  # noqa: S303 - Nginx's


async def shown(address: Endpoint) -> str:
    """The SHA-256 fingerprint of the certificate that a TLS server shows."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", str(address), "-showcerts"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    found = re.search(rb"-----BEGIN CERT.*?END CERTIFICATE-----", output, re.DOTALL)
    assert found is not None
    return x509.load_pem_x509_certificate(found.group()).fingerprint(hashes.SHA256()).hex()


class Talk:
    """An application that sends without a pause what comes back to it, and knows both by their digests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.said, self.heard, self.begun = hashlib.sha256(), hashlib.sha256(), asyncio.Event()
        self._reader, self._writer, self._stopped = reader, writer, asyncio.Event()
        self._running = asyncio.gather(self._say(), self._hear())

    async def end(self) -> None:
        self._stopped.set()
        await self._running

    async def _say(self) -> None:
        while not self._stopped.is_set():
            self._writer.write(PIECE)
            self.said.update(PIECE)
            await self._writer.drain()
        self._writer.write_eof()

    async def _hear(self) -> None:
        while data := await self._reader.read(1 << 16):
            self.heard.update(data)
            self.begun.set()


async def renew(made: Stream) -> None:
    await asyncio.gather(*(engine.renew_certificates(plan, mark) for engine, plan, mark in made.ends))


@every_pair
def test_certificates_are_replaced_at_both_ends_under_a_running_stream(bench: Any, inner: str, outer: str) -> None:
    """What runs stays whole in both directions; what comes afterwards proves itself with the new certificates."""

    async def main() -> None:
        async with bench.serving(echo) as target, stream(bench, inner, outer, target) as made:
            before = [fingerprints(made.inbound), fingerprints(made.outbound)]
            assert await shown(made.inbound.routes[0].entry_point) == before[0][0]
            async with bench.connected(made.entry_point) as (reader, writer):
                talk = Talk(reader, writer)
                await talk.begun.wait()
                await renew(made)
                await renew(made)
                after = [fingerprints(made.inbound), fingerprints(made.outbound)]
                assert await ask(bench, made.entry_point) == b"hello"
                assert await shown(made.inbound.routes[0].entry_point) == after[0][0]
                await talk.end()
            assert talk.said.digest() == talk.heard.digest()
            assert not set(before[0] + before[1]) & set(after[0] + after[1])

            async def seen_by_the_other_end() -> bool:
                await ask(bench, made.entry_point)
                told = await made.engines[0].handshake(made.inbound, made.marks[0])
                return told is not None and any(name in told.peer for name in after[1])

            assert await until(seen_by_the_other_end)
            assert [plan.path("pem").stat().st_mode & 0o777 for _, plan, _ in made.ends] == [0o600, 0o600]

    asyncio.run(main())


@every_tls
def test_a_certificate_that_is_not_taken_leaves_the_old_one(
    bench: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with bench.serving(echo) as target, stream(bench, name, name, target) as made:
            engine, plan, mark = made.ends[0]
            old = plan.path("pem").read_bytes()
            monkeypatch.setattr(renewal, "certificate_file", lambda *_: SecretText("no certificate\n"))
            with pytest.raises(Exception, match=r"HAProxy|Nginx") as caught:
                await engine.renew_certificates(plan, mark)
            assert getattr(caught.value, "code", None) is Code.ENGINE_CANNOT
            assert plan.path("pem").read_bytes() == old
            assert await shown(plan.routes[0].entry_point) == fingerprints(plan)[0]
            monkeypatch.undo()
            await engine.renew_certificates(plan, mark)
            assert await ask(bench, made.entry_point) == b"hello"

    asyncio.run(main())


@every_tls
def test_a_session_without_encryption_has_no_certificate_to_replace(bench: Any, name: str) -> None:
    bench.encryption = Encryption.NONE

    async def main() -> None:
        plan = bench.one_route()
        async with bench.running(ENGINES[name], plan) as mark:
            with pytest.raises(Exception, match="the session has no certificates"):
                await ENGINES[name].renew_certificates(plan, mark)
            assert await ENGINES[name].handshake(plan, mark) is None
            assert not plan.path("pem").exists()

    asyncio.run(main())


@pytest.mark.parametrize(("inner", "outer"), [("haproxy", "haproxy"), ("nginx", "nginx")])
def test_a_thousand_encrypted_connections_at_once(bench: Any, inner: str, outer: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gate = asyncio.Semaphore(64)

    async def main() -> None:
        async with (
            bench.serving(echo) as target,
            stream(bench, inner, outer, target) as made,
            contextlib.AsyncExitStack() as stack,
        ):

            async def open_one(number: int) -> tuple[bytes, Any, Any]:
                async with gate:
                    reader, writer = await stack.enter_async_context(bench.connected(made.entry_point))
                    words = f"stream {number}".encode()
                    writer.write(words)
                    assert await reader.readexactly(len(words)) == words
                    return words, reader, writer

            held = await asyncio.gather(*map(open_one, range(MANY)))
            for engine, plan, mark in made.ends:
                assert (await engine.traffic(plan, mark)).connections_open == MANY

            async def use(words: bytes, reader: Any, writer: Any) -> None:
                writer.write(words)
                writer.write_eof()
                assert await reader.read() == words

            await asyncio.gather(*(use(*each) for each in held))

    try:
        asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@every_pair
def test_application_bytes_are_counted_while_a_connection_runs_and_afterwards(
    bench: Any, inner: str, outer: str
) -> None:
    """Those of the application, not those that the encryption adds."""
    size = 3 * len(PIECE)

    async def main() -> None:
        async with bench.serving(echo) as target, stream(bench, inner, outer, target) as made:

            async def counted(open_now: int) -> bool:
                told = [await engine.traffic(plan, mark) for engine, plan, mark in made.ends]
                return all(
                    (each.connections_open, each.connections_total, each.bytes_to_targets, each.bytes_from_targets)
                    == (open_now, 1, size, size)
                    for each in told
                )

            async with bench.connected(made.entry_point) as (reader, writer):
                for _ in range(3):
                    writer.write(PIECE)
                    await reader.readexactly(len(PIECE))
                await until(lambda: counted(1))
                writer.write_eof()
                assert await reader.read() == b""
            await until(lambda: counted(0))

    asyncio.run(main())


@every_tls
def test_an_encrypted_stream_is_retargeted_and_drained_like_a_plain_one(bench: Any, name: str) -> None:
    async def say_other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(b"the other one")

    async def main() -> None:
        async with (
            bench.serving(echo) as target,
            bench.serving(say_other) as other,
            stream(bench, name, name, target) as made,
            bench.connected(made.entry_point) as (reader, writer),
        ):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            engine, plan, mark = made.ends[0]
            moved = bench.plan((plan.routes[0].entry_point, other))
            await engine.retarget(moved, mark)
            assert await ask(bench, made.entry_point) == b"the other one"
            writer.write(b"two")
            assert await reader.readexactly(3) == b"two"
            deaf = asyncio.Event()
            draining = asyncio.create_task(engine.drain(moved, mark, deaf.set))
            await deaf.wait()
            writer.write(b"three")
            assert await reader.readexactly(5) == b"three"
            writer.write_eof()
            assert await reader.read() == b""
            await draining

    asyncio.run(main())


@every_tls
def test_u03_a_source_list_keeps_others_out_of_the_encrypted_entry_point(bench: Any, name: str) -> None:
    async def main() -> None:
        async with bench.serving(echo) as target:
            made = Stream(bench, name, name, target)
            sources = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32"))
            made.inbound = dataclasses.replace(made.inbound, sources=sources)
            engine = made.engines[0]
            async with bench.running(engine, made.inbound) as mark, bench.running(made.engines[1], made.outbound):
                with contextlib.suppress(ConnectionError):
                    assert await ask(bench, made.entry_point) == b""

                async def refused() -> int:
                    return int((await engine.traffic(made.inbound, mark)).refused_peers)

                assert await until(refused)
                assert (await engine.traffic(made.inbound, mark)).connections_total == 0
                # The outbound data server's address; HAProxy's "refused", Nginx's "forbidden".
                log = await bench.log(made.inbound, "127.0.0.1", "by ")
                assert re.search(r"127\.0\.0\.1 \[.*\] refused: not among the sources|access forbidden by rule", log)

    asyncio.run(main())


@every_tls
@pytest.mark.parametrize("encryption", [Encryption.NONE, Encryption.TLS])
def test_u03_a_source_list_on_the_outbound_entry_point_lets_in_whom_it_names(
    bench: Any, name: str, encryption: Encryption
) -> None:
    bench.encryption = encryption

    async def main() -> None:
        async with bench.serving(echo) as target:
            made = Stream(bench, name, name, target)
            sources = (ipaddress.ip_network("127.0.0.1/32"), ipaddress.ip_network("2001:db8::/32"))
            made.outbound = dataclasses.replace(made.outbound, sources=sources)
            engine, plan = made.engines[1], made.outbound
            async with bench.running(made.engines[0], made.inbound), bench.running(engine, plan) as mark:
                assert await ask(bench, made.entry_point) == b"hello"
                stranger = ("127.0.10.77", 0)
                reader, writer = await asyncio.open_connection(
                    made.entry_point.host, made.entry_point.port, local_addr=stranger
                )
                with contextlib.suppress(ConnectionError):
                    writer.write(b"hello")
                    assert await reader.read() == b""
                writer.close()

                async def refused() -> int:
                    return int((await engine.traffic(plan, mark)).refused_peers)

                assert await until(refused) == 1
                assert "127.0.10.77" in await bench.log(plan, "127.0.10.77")

    asyncio.run(main())


@every_tls
def test_u44_who_proves_nothing_is_not_waited_for_and_who_did_may_pause(
    bench: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time for a proof shortened to a second, one who says nothing is cut and a stream that idles lives on."""
    engine = ENGINES[name]
    render = engine.render  # type: ignore[attr-defined]

    def shortened(plan: Plan, installation: Any) -> dict[Any, str]:
        files = dict(render(plan, installation))
        conf = files[plan.path("conf")]
        short = conf.replace("timeout client 10s", "timeout client 1s").replace(
            "handshake_timeout 10s", "handshake_timeout 1s"
        )
        assert plan.direction is Direction.OUTBOUND or short != conf
        return files | {plan.path("conf"): short}

    monkeypatch.setattr(engine, "render", shortened)

    async def main() -> None:
        async with (
            bench.serving(echo) as target,
            stream(bench, name, name, target) as made,
            bench.connected(made.entry_point) as (reader, writer),
        ):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            async with bench.connected(made.inbound.routes[0].entry_point) as (silent, _):
                with contextlib.suppress(ConnectionError):
                    assert await silent.read() == b""
            writer.write(b"two")
            assert await reader.readexactly(3) == b"two"

    asyncio.run(main())
