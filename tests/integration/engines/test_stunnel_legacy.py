"""Stunnel towards a deployed gateway: TLS 1.2, a key that is no secret, nothing encrypted, and nobody without the key.

The deployed gateway is built here from what is said of it (protocol reference, "What the gateways must agree on for a
stunnel pair"): identity `client1`, key = the uid without its dashes, `ciphers = eNULL`.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Plan
from scistream.engines.base import Handshake
from scistream.engines.connections import accepting
from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, Direction, Encryption, Uid

STUNNEL = ENGINES["stunnel"]
GREETING = b"the target's secret data"
CONFIGURATION = """
foreground = yes
pid =
debug = 7
sslVersion = TLSv1.2
ciphers = eNULL
securityLevel = 0
PSKsecrets = {secrets}
{role}
[r]
accept = {accept}
connect = {connect}
"""
CLIENT = "client = yes\nPSKidentity = client1"


@pytest.fixture(autouse=True)
def _legacy(bench: Any) -> None:
    bench.uid, bench.key, bench.encryption = Uid(str(uuid.uuid4())), None, Encryption.LEGACY_PSK


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await writer.drain()
    await reader.read(1)


async def answer(bench: Any, entry_point: Endpoint) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        async with bench.connected(entry_point) as (reader, _):
            while len(got) < len(GREETING) and (data := await reader.read(65536)):
                got += data
    return got


@contextlib.asynccontextmanager
async def deployed(
    bench: Any, accept: Endpoint, connect: Endpoint, *, role: str = "", key: str = ""
) -> AsyncIterator[Path]:
    """A deployed gateway; gives its log."""
    files = [bench.directory / f"deployed.{kind}" for kind in ("psk", "conf", "log")]
    secrets, configuration, log = files
    secrets.touch(0o600)
    secrets.write_text(f"client1:{key or bench.uid.replace('-', '')}\n")
    configuration.write_text(CONFIGURATION.format(secrets=secrets, role=role, accept=accept, connect=connect))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            STUNNEL.locate().program, configuration, stdout=output, stderr=output
        )
    try:
        await bench.until(lambda: accepting([process.pid], [accept]))
        yield log
    finally:
        process.terminate()
        await process.wait()


def inbound(bench: Any, target: Endpoint) -> Plan:
    return bench.plan((bench.address(), target))


def outbound(bench: Any, target: Endpoint) -> Plan:
    return bench.plan((bench.address(), target), direction=Direction.OUTBOUND)


def test_u01_a_deployed_outbound_gateway_gets_through_to_ours(bench: Any) -> None:
    async def main() -> tuple[bytes, Handshake | None]:
        async with bench.serving(greet) as target:
            plan, outer = inbound(bench, target), bench.address()
            async with (
                bench.running(STUNNEL, plan) as mark,
                deployed(bench, outer, plan.routes[0].entry_point, role=CLIENT),
            ):
                return await answer(bench, outer), await STUNNEL.handshake(plan, mark)

    got, handshake = asyncio.run(main())
    assert got == GREETING
    assert handshake == Handshake("PSK-NULL-SHA256", "whoever has the key of client1")


def test_u01_ours_gets_through_to_a_deployed_inbound_gateway(bench: Any) -> None:
    async def main() -> tuple[bytes, Handshake | None]:
        async with bench.serving(greet) as target:
            inner = bench.address()
            plan = outbound(bench, inner)
            async with deployed(bench, inner, target), bench.running(STUNNEL, plan) as mark:
                return await answer(bench, plan.routes[0].entry_point), await STUNNEL.handshake(plan, mark)

    got, handshake = asyncio.run(main())
    assert got == GREETING
    assert handshake == Handshake("PSK-NULL-SHA256", "whoever has the key of client1")


def s_client(address: Endpoint, *options: str) -> str:
    command = ["openssl", "s_client", "-connect", str(address), "-quiet", "-no_ign_eof", *options]
    return subprocess.run(command, input="", capture_output=True, text=True, timeout=20, check=False).stdout


STRANGERS = {
    "anonymous": ["-tls1_2", "-cipher", "eNULL:aNULL:@SECLEVEL=0"],
    "anonymous, encrypted": ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
    "wrong key": ["-tls1_2", "-cipher", "PSK+eNULL:@SECLEVEL=0", "-psk", "00" * 16, "-psk_identity", "client1"],
    "wrong identity": ["-tls1_2", "-cipher", "PSK+eNULL:@SECLEVEL=0", "-psk", "KEY", "-psk_identity", "another"],
    "TLS 1.3": ["-tls1_3", "-psk", "KEY", "-psk_identity", "client1"],
}


@pytest.mark.parametrize("stranger", list(STRANGERS))
def test_u01_whoever_has_not_the_key_is_refused_counted_and_logged(bench: Any, stranger: str) -> None:
    options = [option.replace("KEY", bench.uid.replace("-", "")) for option in STRANGERS[stranger]]

    async def main() -> tuple[str, str, int]:
        async with bench.serving(greet) as target:
            plan = inbound(bench, target)
            async with bench.running(STUNNEL, plan) as mark:
                got = await asyncio.to_thread(s_client, plan.routes[0].entry_point, *options)
                log = await bench.log(plan, "SSL_accept: ")
                return got, log, (await STUNNEL.traffic(plan, mark)).refused_peers

    got, log, refused = asyncio.run(main())
    assert got == ""
    assert refused == 1
    assert "connected remote server" not in log


def test_u01_the_deployed_gateway_lets_a_stranger_in(bench: Any) -> None:
    """The tests above mean something: an anonymous suite gets into a gateway with the deployed list."""

    async def main() -> str:
        async with bench.serving(greet) as target:
            inner = bench.address()
            async with deployed(bench, inner, target) as log:
                await asyncio.to_thread(s_client, inner, *STRANGERS["anonymous"])
                await bench.until(lambda: "connected remote server" in log.read_text())
                return log.read_text()

    assert "ciphersuite: AECDH-NULL-SHA" in asyncio.run(main())


def test_u01_a_deployed_gateway_with_another_key_gets_nothing_through(bench: Any) -> None:
    async def main() -> tuple[bytes, str]:
        async with bench.serving(greet) as target:
            inner = bench.address()
            plan = outbound(bench, inner)
            async with deployed(bench, inner, target, key="00" * 16), bench.running(STUNNEL, plan):
                return await answer(bench, plan.routes[0].entry_point), await bench.log(plan, "SSL_connect: ")

    got, log = asyncio.run(main())
    assert got == b""
    assert "SSL_connect: " in log


def test_u01_ours_says_nothing_to_an_anonymous_inbound_gateway(bench: Any) -> None:
    inner = bench.address()
    command = ["openssl", "s_server", "-accept", str(inner), "-nocert", "-tls1_2", "-quiet"]
    command += ["-cipher", "eNULL:aNULL:@SECLEVEL=0"]

    async def main() -> str:
        plan = outbound(bench, inner)
        pipe = asyncio.subprocess.PIPE
        impostor = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            await bench.until(lambda: accepting([impostor.pid], [inner]))
            async with bench.running(STUNNEL, plan), bench.connected(plan.routes[0].entry_point) as (_, writer):
                writer.write(b"for the gateway's eyes only")
                log = await bench.log(plan, "SSL_connect: ")
        finally:
            impostor.terminate()
            heard, _ = await impostor.communicate()
        assert b"for the gateway" not in heard
        return str(log)

    assert "handshake failure" in asyncio.run(main())


def test_u06_the_published_uid_is_no_key(bench: Any) -> None:
    bench.uid = Uid(MOCK_UID)
    error = bench.fails(Code.UID_PUBLISHED, lambda: STUNNEL.start(bench.one_route()))
    assert f"session {MOCK_UID} cannot have encryption legacy-psk: this uid never has a key" in str(error)


def test_a_uid_that_is_too_short_for_a_key_is_refused_by_name(bench: Any) -> None:
    bench.uid = Uid("sim-1")
    error: SciStreamError = bench.fails(Code.ENGINE_CANNOT, lambda: STUNNEL.start(bench.one_route()))
    assert "the deployed form's key is the uid without its dashes, and this one has fewer than 16 bytes" in str(error)
