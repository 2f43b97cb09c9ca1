"""The network of namespaces, for real; it takes root."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scistream.demo.network import Host, Network
from scistream.errors import Code, SciStreamError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's")

_CRASHING = """
import sys, time
from scistream.demo.network import Network
with Network("test-crash") as network:
    # As data servers do: a session of its own, and it heeds no signal but one.
    command = ["sh", "-c", "trap '' TERM HUP INT; exec sleep 1000"]
    child = network.inbound_gateway.popen(command, start_new_session=True)
    print(network.inbound_gateway.namespace, child.pid, flush=True)
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network("test", congestion="cubic") as built:
        yield built


def _listening(host: Host, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.entered():
        return socket.create_server((address, 0), family=family)


@pytest.mark.parametrize("version", [4, 6])
def test_bytes_go_from_the_application_to_the_target_and_to_each_gateway(network, version):
    hosts = network.hosts[1:]
    found = [address for host in hosts for address in (host.addresses if version == 4 else host.addresses_v6)]
    assert len(found) == 5
    owners = {address: host for host in hosts for address in host.addresses + host.addresses_v6}
    for address in found:
        with _listening(owners[address], address) as server:
            with network.application.entered():
                client = socket.create_connection(server.getsockname()[:2], timeout=5)
            accepted, (peer, *_) = server.accept()
            with client, accepted:
                client.sendall(b"frame")
                assert accepted.recv(5, socket.MSG_WAITALL) == b"frame"
                assert peer in network.application.addresses + network.application.addresses_v6


def test_congestion_control_is_the_routes_in_both_directions(network):
    with _listening(network.target, network.target.addresses[0]) as server:
        with network.application.entered():
            client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            found = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) for each in (client, accepted)]
    assert [name.rstrip(b"\0") for name in found] == [b"cubic", b"cubic"]


def test_only_gateways_forward_and_the_machine_outside_stays_as_it_was(network):
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    outside = forwarding.read_text()
    found = [host.run(["cat", str(forwarding)]).stdout.strip() for host in network.hosts]
    assert found == ["0", "1", "1", "0"]
    assert forwarding.read_text() == outside


def test_there_is_no_way_out(network):
    for host in network.hosts:
        with host.entered(), pytest.raises(OSError, match="Network is unreachable"):
            socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_command_runs_where_it_should_and_so_does_its_text(network):
    told = network.target.run(["ip", "-brief", "address"]).stdout
    assert "198.18.3.2/24" in told
    assert "198.18.1.1/24" not in told
    assert subprocess.check_output(network.target.command(["ip", "-brief", "address"]), text=True) == told
    with pytest.raises(subprocess.CalledProcessError):
        network.target.run(["false"])
    assert network.target.run(["false"], check=False).returncode == 1


def test_the_thread_is_back_where_it_was_whatever_happened(network):
    here = Path("/proc/thread-self/ns/net")
    home = here.readlink()
    with network.target.entered():
        inside = here.readlink()
        with pytest.raises(ZeroDivisionError), network.application.entered():
            _fail(here.readlink() not in (home, inside))
        assert here.readlink() == inside
    assert here.readlink() == home != inside


def _fail(is_elsewhere: bool) -> None:
    assert is_elsewhere
    raise ZeroDivisionError


def test_two_networks_of_one_name_stand_side_by_side(network):
    with _listening(network.target, network.target.addresses[0]) as server:
        address = server.getsockname()
        with Network("test") as other, other.application.entered(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)


def test_leaving_ends_what_runs_inside_and_leaves_nothing():
    with Network("test") as built:
        child = built.outbound_gateway.popen(["sleep", "1000"], start_new_session=True)
        places = [host.namespace for host in built.hosts]
        keeper = psutil.Process(int(places[0].parts[2]))
        assert [host.pids() for host in built.hosts] == [[], [child.pid], [], []]
    assert child.wait() == -signal.SIGKILL
    assert not any(place.exists() for place in places)
    assert not keeper.is_running()


def test_nothing_is_left_after_a_crash():
    with subprocess.Popen([sys.executable, "-c", _CRASHING], stdout=subprocess.PIPE, text=True) as crashing:
        namespace, child = crashing.stdout.readline().split()
        inode = Path(namespace).stat().st_ino
        crashing.kill()
    while psutil.pid_exists(int(child)) or Path(namespace).exists():
        time.sleep(0.01)
    for entry in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            assert entry.stat().st_ino != inode
        except OSError:
            continue


def test_a_wrong_congestion_control_is_told_and_leaves_nothing():
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(SciStreamError, match="cannot be made here") as caught, Network("test", congestion="warp"):
        pass
    assert caught.value.code is Code.NETWORK_UNAVAILABLE
    assert set(psutil.Process().children(recursive=True)) <= before


def test_who_is_not_root_is_told_so():
    code = "from scistream.demo.network import Network; Network('test').__enter__()"
    # Root without the right: a container's root, as much as an ordinary user.
    command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "a network of namespaces cannot be made here: Operation not permitted" in done.stderr
