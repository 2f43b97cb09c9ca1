"""Source lists of Stunnel's sessions through real control servers on two gateways: strangers, crashes, what is left."""

from __future__ import annotations

import datetime
import os

import psutil
import pytest

from kernel_gateways import Client, Gateway, Pipe, Target, dial, lacking
from places import until
from scistream import certificates
from scistream.demo.network import Network


@pytest.fixture(scope="module")
def network():
    if words := lacking():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(words)
    with Network("test control server sources") as built:
        yield built


@pytest.fixture
def client(network, tmp_path, free_environment):
    gateways = []
    for host in (network.outbound_gateway, network.inbound_gateway):
        directory = tmp_path / host.name.replace(" ", "-")
        directory.mkdir()
        certificate, now = directory / "server.crt", datetime.datetime.now(datetime.UTC)
        address = host.addresses[0]
        certificates.issue(certificate, directory / "server.key", names=[address], days=1, ca=None, now=now)
        gateways.append(Gateway(host, address, directory, certificate, engine="stunnel").start())
    yield Client(network.application, tmp_path, *gateways, free_environment | {"HOME": str(tmp_path)})
    for gateway in gateways:
        if gateway.process.poll() is None:
            gateway.kill()
        for pid in gateway.host.pids():
            psutil.Process(pid).kill()
        gateway.flush()


def opened(client: Client, network: Network, target: Target) -> tuple[str, str]:
    """A stream whose outbound end lets in the application's host, and whose inbound end the outbound gateway."""
    application, gateway = network.application.addresses[0], network.outbound_gateway.addresses[1]
    return client.open(target, f"--sources={gateway}", outbound=(f"--sources={application}",))


def keeps_out(network: Network, entry_point: str) -> bool:
    try:
        dial(network.target, entry_point).close()
    except ConnectionRefusedError:
        return True
    return False


def test_u03_strangers_are_refused_and_shown_in_the_status_and_a_release_leaves_nothing(network, client) -> None:
    target = Target.of(network)
    uid, entry_point = opened(client, network, target)
    pipe = Pipe.of(network, entry_point, target)
    assert keeps_out(network, entry_point)
    pipe.carries()
    until(lambda: client.status(client.outbound, uid)["traffic"]["refused_peers"] == 1)
    assert client.status(client.outbound, uid)["sources"] == [f"{network.application.addresses[0]}/32"]
    client.release(uid)
    pipe.close()
    assert [gateway.rules() for gateway in (client.outbound, client.inbound)] == [[], []]


def test_u03_a_list_outlives_the_control_server_and_comes_back_with_a_data_server(network, client) -> None:
    target = Target.of(network)
    uid, entry_point = opened(client, network, target)
    pipe = Pipe.of(network, entry_point, target)
    client.outbound.kill()
    assert keeps_out(network, entry_point)
    pipe.carries()
    client.outbound.start()
    assert keeps_out(network, entry_point)
    pipe.carries()
    pipe.close()
    # Everything of it is lost, and the rules with it.
    client.outbound.kill()
    for pid in client.outbound.host.pids():
        psutil.Process(pid).kill()
    client.outbound.flush()
    client.outbound.start()
    until(lambda: client.status(client.outbound, uid)["state"] == "active")
    assert keeps_out(network, entry_point)
    Pipe.of(network, entry_point, target).carries()
    client.release(uid)
    assert client.outbound.rules() == []


def test_u03_a_list_of_a_session_that_nobody_knows_stands_until_that_one_ends(network, client) -> None:
    target = Target.of(network)
    _, entry_point = opened(client, network, target)
    client.outbound.kill()
    client.outbound.lose_journal()
    client.outbound.start()
    assert keeps_out(network, entry_point)
    Pipe.of(network, entry_point, target).carries()
    client.outbound.s2cs("stop", "--release")
    assert client.outbound.rules() == []


def test_u03_a_list_whose_data_server_has_ended_too_is_taken_away(network, client) -> None:
    target = Target.of(network)
    opened(client, network, target)
    assert client.outbound.rules()
    client.outbound.kill()
    for pid in client.outbound.host.pids():
        psutil.Process(pid).kill()
    client.outbound.s2cs("stop", "--release")
    assert client.outbound.rules() == []
