"""Stunnel with the session's certificates, towards HAProxy and itself: who gets through, and who does not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import secrets
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.certificates.sessions import SessionAuthority
from scistream.engines import ENGINES, Plan
from scistream.engines.base import Handshake
from scistream.errors import Code
from scistream.terms import MOCK_UID, Direction, Encryption, Transport, Uid

STUNNEL = ENGINES["stunnel"]
GREETING = b"the target's secret data"
WORDS = b"for the gateway's eyes only"
PAIRS = [("stunnel", "haproxy"), ("haproxy", "stunnel")]
every_pair = pytest.mark.parametrize(("inner", "outer"), [*PAIRS, ("stunnel", "stunnel")])


@pytest.fixture(autouse=True)
def _certified(bench: Any) -> None:
    bench.encryption = Encryption.TLS


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await writer.drain()
    await reader.read(1)


async def answer(bench: Any, entry_point: Endpoint, said: bytes = b"") -> bytes:
    """What an application gets: the greeting, or nothing and the end, be it a reset."""
    got = b""
    with contextlib.suppress(ConnectionError):
        async with bench.connected(entry_point) as (reader, writer):
            writer.write(said)
            while len(got) < len(GREETING) and (data := await reader.read(65536)):
                got += data
    return got


@contextlib.asynccontextmanager
async def stream(
    bench: Any, inner: str, outer: str, target: Endpoint, *, key: bytes | None = None
) -> AsyncIterator[list[tuple[str, Plan, Any]]]:
    """Both data servers of a stream, the inbound one first; `key` is the outbound one's where it has another."""
    inbound = bench.plan((bench.address(), target))
    outbound = bench.plan((bench.address(), inbound.routes[0].entry_point), direction=Direction.OUTBOUND, key=key)
    async with bench.running(ENGINES[inner], inbound) as one, bench.running(ENGINES[outer], outbound) as other:
        yield [(inner, inbound, one), (outer, outbound, other)]


async def refused(bench: Any, plan: Plan, mark: Any) -> str:
    """The log of a data server that has refused a peer, and counted it."""
    for _ in range(800):
        if (await STUNNEL.traffic(plan, mark)).refused_peers:
            return str(await bench.log(plan, "SSL_"))
        await asyncio.sleep(0.01)
    raise AssertionError("no refused peer was counted")


@every_pair
def test_u03_two_engines_carry_bytes_and_stunnel_tells_who_the_other_is(bench: Any, inner: str, outer: str) -> None:
    async def main() -> tuple[bytes, list[tuple[Plan, Handshake | None]]]:
        async with bench.serving(greet) as target, stream(bench, inner, outer, target) as ends:
            got = await answer(bench, ends[1][1].routes[0].entry_point)
            ours = [(plan, mark) for name, plan, mark in ends if name == "stunnel"]
            return got, [(plan, await STUNNEL.handshake(plan, mark)) for plan, mark in ours]

    got, told = asyncio.run(main())
    assert got == GREETING
    for plan, handshake in told:
        other = "inbound" if plan.direction is Direction.OUTBOUND else "outbound"
        assert handshake is not None
        assert handshake.cipher.startswith("TLS_")
        assert handshake.peer == f"O=SciStream {other} gateway, CN={bench.uid}"


@every_pair
def test_u01_gateways_with_different_keys_carry_nothing(bench: Any, inner: str, outer: str) -> None:
    async def main() -> bytes:
        other = secrets.token_bytes(32)
        async with bench.serving(greet) as target, stream(bench, inner, outer, target, key=other) as ends:
            got = await answer(bench, ends[1][1].routes[0].entry_point, WORDS)
            # The outbound gateway is the first to see what the other shows.
            if outer == "stunnel":
                assert "certificate verify failed" in await refused(bench, *ends[1][1:])
            return got

    assert asyncio.run(main()) == b""


def leaf(directory: Path, key: bytes, uid: str, role: Direction) -> str:
    """A certificate file as a gateway of that session and role has it."""
    made = SessionAuthority.derive(key, Uid(uid)).issue(role, datetime.datetime.now(datetime.UTC))
    path = directory / f"{secrets.token_hex(4)}.pem"
    path.write_text(made.certificate + made.private_key)
    return str(path)


def s_client(address: Endpoint, *options: str) -> str:
    command = ["openssl", "s_client", "-connect", str(address), "-quiet", *options]
    return subprocess.run(command, input="x\n", capture_output=True, text=True, timeout=20, check=False).stdout


VISITORS = {
    "no certificate": ([], "peer did not return a certificate"),
    "a self-made authority's": (["-cert", "FORGED"], "certificate verify failed"),
    "another session's": (["-cert", "OTHER"], "certificate verify failed"),
    "its own role's": (["-cert", "INBOUND"], "unsuitable certificate purpose"),
    "TLS 1.2": (["-cert", "OUTBOUND", "-tls1_2"], "unsupported protocol"),
}


@pytest.mark.parametrize("visitor", list(VISITORS))
def test_u01_u03_a_peer_without_the_certificate_is_refused_counted_and_logged(
    bench: Any, tmp_path: Path, visitor: str
) -> None:
    known = {
        "FORGED": leaf(tmp_path, secrets.token_bytes(32), bench.uid, Direction.OUTBOUND),
        "OTHER": leaf(tmp_path, bench.key, "another-session", Direction.OUTBOUND),
        "INBOUND": leaf(tmp_path, bench.key, bench.uid, Direction.INBOUND),
        "OUTBOUND": leaf(tmp_path, bench.key, bench.uid, Direction.OUTBOUND),
    }
    options, words = VISITORS[visitor]

    async def main() -> tuple[str, str, str]:
        async with bench.serving(greet) as target:
            plan = bench.plan((bench.address(), target))
            async with bench.running(STUNNEL, plan) as mark:
                entry_point = plan.routes[0].entry_point
                stranger = await asyncio.to_thread(s_client, entry_point, *(known.get(each, each) for each in options))
                log = await refused(bench, plan, mark)
                # The same visit with what the other gateway has is let in.
                guest = await asyncio.to_thread(s_client, entry_point, "-cert", known["OUTBOUND"])
                return stranger, log, guest

    stranger, log, guest = asyncio.run(main())
    assert stranger == ""
    assert words in log
    assert "connected remote server" not in log
    assert guest == GREETING.decode()


@pytest.mark.parametrize("whose", ["self-made", "another session's", "the client's own"])
def test_u01_a_server_without_the_certificate_gets_no_byte(bench: Any, tmp_path: Path, whose: str) -> None:
    made = {
        "self-made": leaf(tmp_path, secrets.token_bytes(32), bench.uid, Direction.INBOUND),
        "another session's": leaf(tmp_path, bench.key, "another-session", Direction.INBOUND),
        "the client's own": leaf(tmp_path, bench.key, bench.uid, Direction.OUTBOUND),
        "the gateway's": leaf(tmp_path, bench.key, bench.uid, Direction.INBOUND),
    }

    async def heard(certificate: str, *, is_refused: bool) -> bytes:
        got: list[bytes] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        done = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer):
                got.append(await reader.read(100))
            done.set()

        plan = bench.plan((bench.address(), bench.address()), direction=Direction.OUTBOUND)
        impostor = plan.routes[0].target
        async with (
            await asyncio.start_server(listen, impostor.host, impostor.port, ssl=context),
            bench.running(STUNNEL, plan) as mark,
            bench.connected(plan.routes[0].entry_point) as (_, writer),
        ):
            writer.write(WORDS)
            if is_refused:
                assert "certificate verify failed" in await refused(bench, plan, mark)
            else:
                await done.wait()
        return b"".join(got)

    assert asyncio.run(heard(made[whose], is_refused=True)) == b""
    assert asyncio.run(heard(made["the gateway's"], is_refused=False)) == WORDS


def test_a_new_certificate_for_new_connections(bench: Any) -> None:
    """Both gateways renew theirs; what runs goes on, and what comes is shown the new one."""

    async def main() -> None:
        async with bench.serving(greet) as target, stream(bench, "stunnel", "stunnel", target) as ends:
            entry_point = ends[1][1].routes[0].entry_point
            async with bench.connected(entry_point) as (reader, writer):
                assert await reader.readexactly(4) == GREETING[:4]
                before = [plan.path("pem").read_text() for _, plan, _ in ends]
                for _, plan, mark in ends:
                    await STUNNEL.renew_certificates(plan, mark)
                assert all(plan.path("pem").read_text() not in before for _, plan, _ in ends)
                assert all(plan.path("pem").stat().st_mode & 0o777 == 0o600 for _, plan, _ in ends)
                assert await answer(bench, entry_point) == GREETING
                assert await reader.readexactly(len(GREETING) - 4) == GREETING[4:]
                writer.write(b"x")

    asyncio.run(main())


def test_a_pair_with_the_sessions_key_has_no_certificate_to_renew(bench: Any) -> None:
    bench.encryption = Encryption.TLS_PSK

    async def main() -> None:
        plan = bench.one_route()
        async with bench.running(STUNNEL, plan) as mark:
            await STUNNEL.renew_certificates(plan, mark)

    assert "the session has no certificates" in str(bench.fails(Code.ENGINE_CANNOT, main))


@pytest.mark.parametrize("encryption", [Encryption.TLS, Encryption.TLS_PSK])
def test_u06_the_published_uid_never_has_a_key(bench: Any, encryption: Encryption) -> None:
    bench.uid = Uid(MOCK_UID)
    error = bench.fails(Code.UID_PUBLISHED, lambda: STUNNEL.start(bench.one_route(encryption=encryption)))
    assert f"cannot have encryption {encryption.value}: this uid never has a key" in str(error)


def test_what_it_carries_not_is_refused_by_name(bench: Any) -> None:
    plain = bench.fails(Code.ENGINE_CANNOT, lambda: STUNNEL.start(bench.one_route(encryption=Encryption.NONE)))
    assert "Stunnel cannot do what was asked: it carries nothing unencrypted" in str(plain)
    plan = dataclasses.replace(bench.one_route(), transport=Transport.UDP)
    assert "it carries TCP only" in str(bench.fails(Code.ENGINE_CANNOT, lambda: STUNNEL.start(plan)))
