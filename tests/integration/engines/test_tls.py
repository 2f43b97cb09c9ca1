"""TLS between two gateways: whole streams, what was negotiated, and who is let in by whom."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from scistream.addresses import Endpoint
from scistream.certificates.sessions import SessionAuthority, gateway_name
from scistream.engines import ENGINES, Engine, Plan
from scistream.terms import Direction, Encryption, Uid

GREETING = b"the target's secret data"
WORDS = b"for the gateway's eyes only"
NAMES = ["haproxy", "nginx"]
PAIRS = [(inbound, outbound) for inbound in NAMES for outbound in NAMES]

every_pair = pytest.mark.parametrize(("inner", "outer"), PAIRS, ids=[f"{a} {b}" for a, b in PAIRS])
every_tls = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def bench(bench: Any) -> Any:
    bench.encryption = Encryption.TLS
    return bench


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await reader.read(1)


async def echo_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer when the client has said all, into a connection that is closed one way."""
    writer.write(await reader.read())
    await writer.drain()


@contextlib.asynccontextmanager
async def stream(bench: Any, inner: str, outer: str, target: Endpoint) -> AsyncIterator[tuple[Plan, Plan, Any, Any]]:
    """Both data servers of a stream: their plans and their marks."""
    inbound = bench.plan((bench.address(), target))
    outbound = bench.plan((bench.address(), inbound.routes[0].entry_point), direction=Direction.OUTBOUND)
    async with bench.running(ENGINES[inner], inbound) as one, bench.running(ENGINES[outer], outbound) as other:
        yield inbound, outbound, one, other


async def answer(bench: Any, entry_point: Endpoint, said: bytes = b"") -> bytes:
    """What an application gets until the end, be it a reset: a refused stream may have it at the connect."""
    got = b""
    with contextlib.suppress(ConnectionError):
        async with bench.connected(entry_point) as (reader, writer):
            writer.write(said)
            while data := await reader.read(65536):
                got += data
    return got


async def refused(bench: Any, engine: Engine, plan: Plan, mark: Any) -> None:
    """Wait until the refusal of a peer is counted."""
    for _ in range(800):
        if (await engine.traffic(plan, mark)).refused_peers:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no refused peer was counted")


@every_pair
def test_u02_a_stream_is_encrypted_and_whole_with_its_halves_closed_one_by_one(
    bench: Any, load: Any, inner: str, outer: str
) -> None:
    sent = load(8 << 20)

    async def main() -> bytes:
        async with (
            bench.serving(echo_to_the_end) as target,
            stream(bench, inner, outer, target) as (_, outbound, *_),
            bench.connected(outbound.routes[0].entry_point) as (reader, writer),
        ):
            writer.write(sent.data)
            writer.write_eof()
            return type(sent)(await reader.read()).digest

    assert asyncio.run(main()) == sent.digest


@every_pair
def test_u02_what_goes_between_the_gateways_is_no_plain_text(bench: Any, inner: str, outer: str) -> None:
    """A tap between the two gateways sees TLS 1.3, and nothing of what the application says."""
    seen = bytearray()
    taps: list[Any] = []

    async def main() -> bytes:
        async with bench.serving(echo_to_the_end) as target:
            inbound = bench.plan((bench.address(), target))

            async def tap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                # The loop alone does not keep it.
                taps.append(asyncio.current_task())
                async with bench.connected(inbound.routes[0].entry_point) as (back, on):
                    await asyncio.gather(copy(reader, on), copy(back, writer))

            async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while data := await reader.read(65536):
                    seen.extend(data)
                    writer.write(data)
                with contextlib.suppress(OSError):
                    writer.write_eof()

            async with bench.serving(tap) as middle:
                outbound = bench.plan((bench.address(), middle), direction=Direction.OUTBOUND)
                async with (
                    bench.running(ENGINES[inner], inbound),
                    bench.running(ENGINES[outer], outbound),
                    bench.connected(outbound.routes[0].entry_point) as (reader, writer),
                ):
                    writer.write(WORDS)
                    writer.write_eof()
                    return await reader.read()

    assert asyncio.run(main()) == WORDS
    assert seen.startswith(b"\x16\x03\x01")
    # supported_versions of the server's hello: TLS 1.3 and nothing else.
    assert b"\x00\x2b\x00\x02\x03\x04" in seen
    assert WORDS not in seen


@every_tls
def test_the_tap_would_see_plain_text(bench: Any, name: str) -> None:
    """The test above means something: without encryption the words are there."""
    bench.encryption = Encryption.NONE
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    async def main() -> None:
        async with bench.serving(hear) as target:
            plan = bench.plan((bench.address(), target), direction=Direction.OUTBOUND)
            async with bench.running(ENGINES[name], plan):
                await answer(bench, plan.routes[0].entry_point, WORDS)

    asyncio.run(main())
    assert heard == [WORDS]


def fingerprint(plan: Plan, kind: hashes.HashAlgorithm) -> str:
    return x509.load_pem_x509_certificate(plan.path("pem").read_bytes()).fingerprint(kind).hex()


async def agreed(engine: Engine, plan: Plan, mark: Any) -> Any:
    """What the data server says that it agreed on, once it does."""
    for _ in range(1000):
        if (told := await engine.handshake(plan, mark)) is not None:
            return told
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was told")


@pytest.mark.parametrize("inner", NAMES)
def test_u02_the_cipher_and_the_peer_are_told_as_negotiated_while_the_first_connection_runs(
    bench: Any, inner: str
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        engine = ENGINES["haproxy"]
        async with (
            bench.serving(silent) as target,
            stream(bench, inner, "haproxy", target) as (inbound, outbound, one, other),
        ):
            assert await engine.handshake(outbound, other) is None
            # One-way, and nothing was said yet.
            async with bench.connected(outbound.routes[0].entry_point):
                ends = [(inbound, outbound, one)] if inner == "haproxy" else []
                for plan, peer, mark in [(outbound, inbound, other), *ends]:
                    told = await agreed(engine, plan, mark)
                    # Neither side has another one first.
                    assert told.cipher == "TLS_AES_128_GCM_SHA256"
                    assert f"O=SciStream {peer.direction.value} gateway/CN={bench.uid}" in told.peer
                    assert f"(SHA-256 {fingerprint(peer, hashes.SHA256())})" in told.peer

    asyncio.run(main())


def test_u02_nginx_tells_at_the_inbound_end_when_a_connection_has_ended(bench: Any) -> None:
    async def main() -> None:
        engine = ENGINES["nginx"]
        async with (
            bench.serving(greet) as target,
            stream(bench, "nginx", "nginx", target) as (inbound, outbound, one, other),
        ):
            assert await engine.handshake(inbound, one) is None
            async with bench.connected(outbound.routes[0].entry_point) as (reader, _):
                await reader.readexactly(len(GREETING))
            told = await agreed(engine, inbound, one)
            assert told.cipher.startswith("TLS_AES_")
            assert f"CN={bench.uid},O=SciStream outbound gateway" in told.peer
            # Nginx tells no other.
            assert f"(SHA-1 {fingerprint(outbound, hashes.SHA1())})" in told.peer  # noqa: S303
            assert await engine.handshake(outbound, other) is None

    asyncio.run(main())


def leaf(directory: Path, key: bytes, uid: Uid, role: Direction) -> str:
    """A certificate file as a gateway of that session and role has it."""
    made = SessionAuthority.derive(key, uid).issue(role, datetime.datetime.now(datetime.UTC))
    path = directory / f"{role.value}-{secrets.token_hex(4)}.pem"
    path.write_text(made.certificate + made.private_key)
    return str(path)


def forged(directory: Path, uid: Uid, role: Direction) -> str:
    """A certificate of a self-made authority with the very names of the session's."""
    return leaf(directory, secrets.token_bytes(32), uid, role)


def s_client(address: Endpoint, *options: str) -> subprocess.CompletedProcess[str]:
    """What a stranger gets who speaks TLS with the inbound entry point."""
    command = ["openssl", "s_client", "-connect", str(address), "-quiet", *options]
    return subprocess.run(command, input="x\n", capture_output=True, text=True, timeout=20, check=False)


async def visit(bench: Any, name: str, words: str, *options: str) -> tuple[str, str]:
    """A visitor's output, and the data server's log once it has the words."""
    reached: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(True)
        await greet(reader, writer)

    async with bench.serving(serve) as target:
        plan = bench.plan((bench.address(), target))
        async with bench.running(ENGINES[name], plan) as mark:
            done = await asyncio.to_thread(s_client, plan.routes[0].entry_point, *options)
            log = await bench.log(plan, words)
            if words:
                await refused(bench, ENGINES[name], plan, mark)
                assert reached == []
            return done.stdout, log


@every_tls
def test_u01_the_sessions_own_certificate_opens_the_inbound_side(bench: Any, tmp_path: Path, name: str) -> None:
    own = leaf(tmp_path, bench.key, bench.uid, Direction.OUTBOUND)
    got, log = asyncio.run(visit(bench, name, "", "-tls1_3", "-cert", own))
    assert got == GREETING.decode()
    assert "refused" not in log


@every_tls
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-tls1_3"], {"haproxy": "peer did not return a certificate", "nginx": "no required SSL certificate"}),
        (["-tls1_3", "-cert", "FORGED"], {"haproxy": "verify failed", "nginx": "certificate verify error"}),
        (["-tls1_3", "-cert", "OTHER"], {"haproxy": "verify failed", "nginx": "certificate verify error"}),
        (["-tls1_3", "-cert", "INBOUND"], {"haproxy": "verify failed", "nginx": "unsuitable certificate purpose"}),
        (["-tls1_2", "-cert", "OUTBOUND"], {"haproxy": "unsupported protocol", "nginx": "unsupported protocol"}),
    ],
    ids=["no certificate", "self-made authority", "another session", "the server's own role", "TLS 1.2"],
)
def test_u01_u03_a_peer_without_the_certificate_is_refused_counted_and_logged(
    bench: Any, tmp_path: Path, name: str, options: list[str], words: dict[str, str]
) -> None:
    known = {
        "FORGED": forged(tmp_path, bench.uid, Direction.OUTBOUND),
        "OTHER": leaf(tmp_path, bench.key, Uid("another-session"), Direction.OUTBOUND),
        "INBOUND": leaf(tmp_path, bench.key, bench.uid, Direction.INBOUND),
        "OUTBOUND": leaf(tmp_path, bench.key, bench.uid, Direction.OUTBOUND),
    }
    got, log = asyncio.run(visit(bench, name, words[name], *(known.get(option, option) for option in options)))
    assert got == ""
    assert words[name] in log
    assert "127.0.0.1" in log


@every_tls
def test_u01_plain_text_into_the_encrypted_entry_point_is_refused(bench: Any, name: str) -> None:
    async def main() -> tuple[bytes, str]:
        async with bench.serving(greet) as target:
            plan = bench.plan((bench.address(), target))
            async with bench.running(ENGINES[name], plan) as mark:
                got = await answer(bench, plan.routes[0].entry_point, b"GET / HTTP/1.0\r\n\r\n")
                await refused(bench, ENGINES[name], plan, mark)
                return got, await bench.log(plan, "http request")

    got, log = asyncio.run(main())
    assert GREETING not in got
    assert "http request" in log


@every_tls
def test_u01_tls_into_the_plain_entry_point_reaches_nobody(bench: Any, tmp_path: Path, name: str) -> None:
    """Who takes the outbound entry point for the inbound one gets no handshake: its bytes are data."""

    async def main() -> tuple[str, str]:
        async with bench.serving(greet) as target, stream(bench, name, name, target) as (_, outbound, *_):
            own = leaf(tmp_path, bench.key, bench.uid, Direction.OUTBOUND)
            done = await asyncio.to_thread(s_client, outbound.routes[0].entry_point, "-tls1_3", "-cert", own)
            return done.stdout, done.stderr

    got, said = asyncio.run(main())
    assert got == ""
    assert "wrong version number" in said


@pytest.mark.parametrize(("inner", "outer"), [("haproxy", "nginx"), ("nginx", "haproxy")])
def test_u01_gateways_with_different_keys_carry_nothing(bench: Any, inner: str, outer: str) -> None:
    async def main() -> bytes:
        async with bench.serving(greet) as target:
            inbound = bench.plan((bench.address(), target))
            outbound = bench.plan(
                (bench.address(), inbound.routes[0].entry_point),
                direction=Direction.OUTBOUND,
                key=secrets.token_bytes(32),
            )
            async with (
                bench.running(ENGINES[inner], inbound),
                bench.running(ENGINES[outer], outbound) as mark,
            ):
                got = await answer(bench, outbound.routes[0].entry_point, WORDS)
                await refused(bench, ENGINES[outer], outbound, mark)
                await bench.log(outbound, "verify")
                return got

    assert asyncio.run(main()) == b""


@contextlib.contextmanager
def impostor(certificate: str, address: Endpoint, heard: list[bytes]) -> Iterator[None]:
    """A TLS server at the inbound address that is not the gateway. It asks its client for no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # A client that is refused tries again.
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                connection.settimeout(5)
                with context.wrap_socket(connection, server_side=True) as tls:
                    if data := tls.recv(100):
                        heard.append(data)

    with socket.create_server((address.host, address.port)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@every_tls
@pytest.mark.parametrize("whose", ["self-made authority", "another session", "the client's own role"])
def test_u01_a_server_without_the_certificate_gets_no_byte(bench: Any, tmp_path: Path, name: str, whose: str) -> None:
    """The last of them is a reflection: the outbound gateway's own certificate, shown to itself."""
    made = {
        "self-made authority": forged(tmp_path, bench.uid, Direction.INBOUND),
        "another session": leaf(tmp_path, bench.key, Uid("another-session"), Direction.INBOUND),
        "the client's own role": leaf(tmp_path, bench.key, bench.uid, Direction.OUTBOUND),
    }
    heard: list[bytes] = []

    async def main() -> str:
        plan = bench.plan((bench.address(), bench.address()), direction=Direction.OUTBOUND)
        with impostor(made[whose], plan.routes[0].target, heard):
            async with bench.running(ENGINES[name], plan) as mark:
                assert await answer(bench, plan.routes[0].entry_point, WORDS) == b""
                await refused(bench, ENGINES[name], plan, mark)
                return await bench.log(plan, "verif")

    log = asyncio.run(main())
    assert heard == []
    assert "verif" in log


@every_tls
def test_the_impostor_is_a_real_one(bench: Any, tmp_path: Path, name: str) -> None:
    """The test above means something: with the session's certificate the same server gets the bytes."""
    heard: list[bytes] = []
    good = leaf(tmp_path, bench.key, bench.uid, Direction.INBOUND)

    async def main() -> None:
        plan = bench.plan((bench.address(), bench.address()), direction=Direction.OUTBOUND)
        with impostor(good, plan.routes[0].target, heard):
            async with (
                bench.running(ENGINES[name], plan),
                bench.connected(plan.routes[0].entry_point) as (reader, writer),
            ):
                writer.write(WORDS)
                await reader.read()

    asyncio.run(main())
    assert heard == [WORDS]


@every_tls
def test_u01_an_authority_that_the_host_trusts_is_not_trusted(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither end reads the host's certificate store, which OpenSSL would find by this variable."""
    trusted = SessionAuthority.derive(secrets.token_bytes(32), bench.uid)
    (tmp_path / "store.pem").write_text(trusted.certificate())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "store.pem"))
    made = {}
    for role in Direction:
        leaf = trusted.issue(role, datetime.datetime.now(datetime.UTC))
        made[role] = tmp_path / f"{role.value}.pem"
        made[role].write_text(leaf.certificate + leaf.private_key)
    heard: list[bytes] = []

    async def main() -> None:
        got, _ = await visit(bench, name, "verif", "-tls1_3", "-cert", str(made[Direction.OUTBOUND]))
        assert got == ""
        plan = bench.plan((bench.address(), bench.address()), direction=Direction.OUTBOUND)
        with impostor(str(made[Direction.INBOUND]), plan.routes[0].target, heard):
            async with bench.running(ENGINES[name], plan) as mark:
                assert await answer(bench, plan.routes[0].entry_point, WORDS) == b""
                await refused(bench, ENGINES[name], plan, mark)

    asyncio.run(main())
    assert heard == []


@every_tls
def test_u01_nonsense_into_the_encrypted_entry_point_harms_nobody_else(bench: Any, name: str) -> None:
    hello = b"\x16\x03\x01\x00\xe1\x01\x00\x00\xdd\x03\x03"
    nonsense = [secrets.token_bytes(size) for size in (1, 5, 300, 70000)]
    nonsense += [hello, hello + secrets.token_bytes(214), b"\x16\x03\x01\xff\xff", b"\x15\x03\x03\x00\x02\x02\x28", b""]

    async def main() -> None:
        async with (
            bench.serving(echo_to_the_end) as target,
            stream(bench, name, name, target) as (inbound, outbound, *_),
            bench.connected(outbound.routes[0].entry_point) as (reader, writer),
        ):
            writer.write(WORDS)
            for words in nonsense:
                with contextlib.suppress(OSError):
                    async with bench.connected(inbound.routes[0].entry_point) as (back, stranger):
                        stranger.write(words)
                        stranger.write_eof()
                        assert WORDS not in await back.read()
            writer.write_eof()
            assert await reader.read() == WORDS

    asyncio.run(main())


@every_tls
def test_u01_private_keys_are_their_users_alone_and_in_no_other_file(bench: Any, name: str) -> None:
    async def main() -> None:
        plan = bench.plan((bench.address(), bench.address()))
        async with bench.running(ENGINES[name], plan):
            for kind in ("pem", "ca", "psk", "conf"):
                assert plan.path(kind).stat().st_mode & 0o777 == 0o600
            for kind in ("ca", "conf", "log"):
                assert "PRIVATE" not in plan.path(kind).read_text()
                assert bench.key.hex() not in plan.path(kind).read_text()

    asyncio.run(main())


def test_the_names_are_those_that_the_other_end_asks_for(bench: Any, tmp_path: Path) -> None:
    path = Path(leaf(tmp_path, bench.key, bench.uid, Direction.INBOUND))
    names = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == [gateway_name(bench.uid, Direction.INBOUND)]
