"""Who gets through a stunnel pair: the two gateways that have the session's key, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Plan
from scistream.terms import Direction, Encryption

STUNNEL = ENGINES["stunnel"]
GREETING = b"the target's secret data"


@pytest.fixture(autouse=True)
def _keyed(bench: Any) -> None:
    bench.encryption = Encryption.TLS_PSK


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await reader.read(1)


async def answer(bench: Any, entry_point: Endpoint, said: bytes = b"") -> bytes:
    """What an application gets until the end, be it a reset: a refused stream may have it at the connect."""
    got = b""
    with contextlib.suppress(ConnectionError):
        async with bench.connected(entry_point) as (reader, writer):
            writer.write(said)
            while data := await reader.read(65536):
                got += data
    return got


def s_client(address: Endpoint, *options: str) -> subprocess.CompletedProcess[str]:
    """What a stranger gets who speaks TLS with the inbound entry point."""
    command = ["openssl", "s_client", "-connect", str(address), *options]
    return subprocess.run(command, input="x\n", capture_output=True, text=True, timeout=20, check=False)


async def visit(bench: Any, words: str, *options: str) -> tuple[str, str]:
    """A visitor's output, and the data server's log once it has the words."""
    async with bench.serving(greet) as target:
        plan = bench.plan((bench.address(), target))
        async with bench.running(STUNNEL, plan):
            done = await asyncio.to_thread(s_client, plan.routes[0].entry_point, "-quiet", *options)
            return done.stdout, await bench.log(plan, words)


def test_u05_the_key_opens_the_inbound_side(bench: Any) -> None:
    got, log = asyncio.run(
        visit(bench, "Connection closed", "-tls1_3", "-psk", bench.key.hex(), "-psk_identity", str(bench.uid))
    )
    assert got == GREETING.decode()
    assert "SSL_accept" not in log


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-tls1_3"], "SSL_accept: "),
        (["-tls1_3", "-psk", "00" * 32, "-psk_identity", "UID"], "binder does not verify"),
        (["-tls1_3", "-psk", "KEY", "-psk_identity", "another"], "SSL_accept: "),
        (["-tls1_2", "-psk", "KEY", "-psk_identity", "UID"], "unsupported protocol"),
        (["-tls1_2", "-cipher", "eNULL:aNULL:@SECLEVEL=0"], "unsupported protocol"),
    ],
    ids=["no key", "wrong key", "wrong identity", "TLS 1.2", "anonymous"],
)
def test_u01_a_peer_without_the_key_is_refused_and_logged(bench: Any, options: list[str], words: str) -> None:
    known = {"KEY": bench.key.hex(), "UID": str(bench.uid)}
    got, log = asyncio.run(visit(bench, words, *(known.get(option, option) for option in options)))
    assert got == ""
    assert "accepted connection from 127.0.0.1:" in log
    assert words in log
    assert "connected remote server" not in log


def test_u01_plain_text_is_refused(bench: Any) -> None:
    async def main() -> tuple[bytes, str]:
        async with bench.serving(greet) as target:
            plan = bench.plan((bench.address(), target))
            async with bench.running(STUNNEL, plan):
                got = await answer(bench, plan.routes[0].entry_point, b"GET / HTTP/1.0\r\n\r\n")
                return got, await bench.log(plan, "SSL_accept")

    got, log = asyncio.run(main())
    assert GREETING not in got
    assert "SSL_accept" in log


def test_u01_gateways_with_different_keys_carry_nothing(bench: Any) -> None:
    async def main() -> tuple[bytes, str, str]:
        async with bench.serving(greet) as target:
            inbound = bench.plan((bench.address(), target))
            outbound = bench.plan(
                (bench.address(), inbound.routes[0].entry_point),
                direction=Direction.OUTBOUND,
                key=secrets.token_bytes(32),
            )
            async with bench.running(STUNNEL, inbound), bench.running(STUNNEL, outbound):
                got = await answer(bench, outbound.routes[0].entry_point)
                return got, await bench.log(inbound, "binder"), await bench.log(outbound, "SSL_connect")

    got, inbound_log, outbound_log = asyncio.run(main())
    assert got == b""
    assert "binder does not verify" in inbound_log
    assert "SSL_connect" in outbound_log


@contextlib.contextmanager
def impostor(directory: Path, address: Endpoint, heard: list[bytes]) -> Iterator[None]:
    """A TLS server with a certificate and no key: what sits at the inbound address when it is not the gateway."""
    certificate, key = directory / "impostor.crt", directory / "impostor.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.10.1"]
    command = ["openssl", "req", "-x509", *curve, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as tls:
                heard.append(tls.recv(100))

    with socket.create_server((address.host, address.port)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def outbound_to(bench: Any, address: Endpoint) -> Plan:
    return bench.plan((bench.address(), address), direction=Direction.OUTBOUND)


def test_u01_a_server_with_a_certificate_in_place_of_the_key_is_refused(bench: Any, tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def main() -> str:
        plan = outbound_to(bench, bench.address())
        with impostor(tmp_path, plan.routes[0].target, heard):
            async with bench.running(STUNNEL, plan):
                assert await answer(bench, plan.routes[0].entry_point, b"for the gateway's eyes only") == b""
                return await bench.log(plan, "verify failed")

    log = asyncio.run(main())
    assert heard == []
    assert "certificate verify failed" in log


def test_the_impostor_is_a_real_one(bench: Any, tmp_path: Path) -> None:
    """The test above means something: without the trust anchor the same server gets the bytes."""
    heard: list[bytes] = []

    class Trusting(type(STUNNEL)):  # type: ignore[misc]
        def render(self, plan: Plan, installation: Any) -> Any:
            files = dict(super().render(plan, installation))
            return files | {plan.path("conf"): files[plan.path("conf")].replace("verifyChain = yes", "")}

    async def main() -> None:
        plan = outbound_to(bench, bench.address())
        with impostor(tmp_path, plan.routes[0].target, heard):
            async with bench.running(Trusting(), plan), bench.connected(plan.routes[0].entry_point) as (reader, writer):
                writer.write(b"for the gateway's eyes only")
                await reader.read()

    asyncio.run(main())
    assert heard == [b"for the gateway's eyes only"]


def test_u02_what_is_between_the_gateways_is_not_readable(bench: Any) -> None:
    """A wire tap between the two gateways sees TLS 1.3 and neither the bytes nor the key."""
    seen = bytearray()

    async def main() -> bytes:
        async with bench.serving(greet) as target:
            inbound = bench.plan((bench.address(), target))
            inner = inbound.routes[0].entry_point

            async def tap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                far_reader, far_writer = await asyncio.open_connection(inner.host, inner.port)

                async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                    while data := await source.read(65536):
                        seen.extend(data)
                        sink.write(data)
                    sink.close()

                await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

            async with bench.serving(tap) as wire:
                outbound = outbound_to(bench, wire)
                entry_point = outbound.routes[0].entry_point
                async with (
                    bench.running(STUNNEL, inbound),
                    bench.running(STUNNEL, outbound),
                    bench.connected(entry_point) as (reader, _),
                ):
                    return await reader.readexactly(len(GREETING))

    assert asyncio.run(main()) == GREETING
    assert seen.startswith(b"\x16\x03")
    assert GREETING not in seen
    assert bench.key not in seen


def test_a_restarted_inbound_side_is_found_again(bench: Any) -> None:
    """Sessions that the outbound side remembers are worth nothing to a new inbound side; the key is."""

    async def ask(entry_point: Endpoint) -> bytes:
        async with bench.connected(entry_point) as (reader, _):
            return await reader.readexactly(len(GREETING))

    async def main() -> list[bytes]:
        async with bench.serving(greet) as target:
            inbound = bench.plan((bench.address(), target))
            outbound = outbound_to(bench, inbound.routes[0].entry_point)
            entry_point = outbound.routes[0].entry_point
            async with bench.running(STUNNEL, outbound):
                async with bench.running(STUNNEL, inbound):
                    before = [await ask(entry_point) for _ in range(3)]
                async with bench.running(STUNNEL, inbound):
                    return before + [await ask(entry_point) for _ in range(3)]

    assert asyncio.run(main()) == [GREETING] * 6
