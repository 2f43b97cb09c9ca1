"""Where a session accepts, on all engines: at the address it was told, and nowhere else on its gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import Flow, datagram
from places import Place, connect, network
from scistream.addresses import Endpoint
from scistream.terms import Transport
from streams import Carrier, Gateway, carriers, stream

LOOPBACK = ("127.0.0.1", "127.0.0.2", "::1")


def accepts(place: Place, to: Endpoint, transport: Transport) -> bool:
    try:
        with connect(place, to, transport) as made:
            if transport is Transport.TCP:
                return True
            made.settimeout(1)
            made.send(b"hello")
            made.recv(1)
    except ConnectionRefusedError:
        return False
    except TimeoutError:
        return True  # taken, and not answered
    raise AssertionError("nobody answers here")


def listeners(gateway: Gateway) -> set[str]:
    """All that listens on a gateway, UDP as well."""
    told = gateway.place.do(subprocess.check_output, ["ss", "-tulnH"]).decode()
    return {line.split()[4] for line in told.splitlines()}


def others(gateway: Gateway, near: Place) -> Iterator[tuple[Place, Endpoint]]:
    """Every other address of a gateway, each with the host from which it is tried."""
    told = gateway.place.do(subprocess.check_output, ["ip", "-oneline", "address"]).decode()
    port = gateway.entry_point.port
    for address in {line.split()[3].partition("/")[0] for line in told.splitlines()} - {gateway.entry_point.host}:
        if address.startswith("fe80:"):
            continue
        yield (gateway.place if address in LOOPBACK else near), Endpoint(address, port)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("carrier", carriers() + carriers(Transport.UDP), ids=str)
def test_u04_a_session_accepts_where_it_was_told_and_nowhere_else(
    carrier: Carrier, version: int, tmp_path: Path
) -> None:
    with network(version=version) as hosts, stream(carrier, tmp_path, hosts) as made:
        if carrier.transport is Transport.UDP:
            with made.connect() as application:
                datagram(application, made.target, b"hello")
        else:
            with made.connected() as ends, Flow(*ends) as flow:
                flow.goes_on()
        for gateway, near in ((made.outbound, hosts.application), (made.inbound, hosts.outbound)):
            tried = list(others(gateway, near))
            assert len(tried) == 5
            assert [str(to) for place, to in tried if accepts(place, to, carrier.transport)] == []
            assert accepts(near, gateway.entry_point, carrier.transport)
            # Rules of the kernel's are no listeners.
            assert listeners(gateway) <= {str(gateway.entry_point)}
            assert listeners(gateway) or not carrier.is_proxy
