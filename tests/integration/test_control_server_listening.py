"""Where the control server listens. Wildcard addresses are tried in a network namespace of their own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

import pytest

from scistream.addresses import Endpoint
from scistream.control_server.listening import bind, told_host
from scistream.errors import Code, SciStreamError

HOST = "127.0.20.31"
ANYWHERE = "0.0.0.0"  # noqa: S104 - told, never listened on

# Prints what listens, and what a client at each of the addresses is told, for the control server's address in argv.
_SCRIPT = """
import asyncio, sys
import grpc, psutil
from scistream.addresses import Endpoint
from scistream.control_server import listening

async def main():
    address = Endpoint.parse(sys.argv[1])
    server = grpc.aio.server(options=listening.OPTIONS)
    listening.bind(server, address, None)
    tell = listening.told_host(address)

    async def answer(request, context):
        return tell(context.peer()).encode()

    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"told": handler}),))
    await server.start()
    for connection in psutil.Process().net_connections("tcp"):
        print("listens", connection.laddr.ip)
    for target in sys.argv[2:]:
        async with grpc.aio.insecure_channel(target) as channel:
            try:
                print(target, (await channel.unary_unary("/test/told")(b"", timeout=5)).decode())
            except grpc.aio.AioRpcError as error:
                print(target, error.code().name)
    await server.stop(0)

asyncio.run(main())
"""


def in_a_namespace_of_its_own(*words: str) -> list[str]:
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not make network namespaces, and a wildcard address is not listened on elsewhere")
    shell = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    command = [*unshare, *shell, sys.executable, "-c", _SCRIPT, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_u04_all_ipv4_addresses_are_no_ipv6_ones_and_the_client_is_told_the_one_it_reached():
    found = in_a_namespace_of_its_own("0.0.0.0:5000", "127.0.20.31:5000", "127.0.20.32:5000", "[::1]:5000")
    assert found == [
        "listens 0.0.0.0",
        "127.0.20.31:5000 127.0.20.31",
        "127.0.20.32:5000 127.0.20.32",
        "[::1]:5000 UNAVAILABLE",
    ]


def test_all_ipv6_addresses_are_told_to_ipv6_clients_only():
    found = in_a_namespace_of_its_own("[::]:5000", "127.0.20.31:5000", "[::1]:5000")
    assert found == ["listens ::", "127.0.20.31:5000 ::", "[::1]:5000 ::1"]


def test_one_address_is_told_to_everybody():
    assert told_host(Endpoint(HOST, 22500))("ipv4:192.0.2.7:41000") == HOST


def test_the_address_that_a_client_reached_is_found_by_its_connection():
    with socket.create_server((HOST, 22500)) as server, socket.create_connection((HOST, 22500)) as client:
        accepted, _ = server.accept()
        with accepted:
            host, port = client.getsockname()
            tell = told_host(Endpoint.parse("0.0.0.0:22500"))
            assert tell(f"ipv4:{host}:{port}") == HOST
            # Where nothing is seen, the wildcard is what there is to tell.
            assert tell("ipv4:192.0.2.7:41000") == ANYWHERE
            assert tell("unix:") == ANYWHERE


def test_a_foreign_address_is_named():
    with pytest.raises(SciStreamError, match=r"cannot listen on 192\.0\.2\.200:22500") as raised:
        bind(None, Endpoint("192.0.2.200", 22500), None)
    assert raised.value.code is Code.LISTEN_ADDRESS_FOREIGN
