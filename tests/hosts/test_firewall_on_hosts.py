"""Who reaches a gateway, with firewalld and without, over IPv4 and IPv6; and that nothing of it is left.

gateway_a has firewalld, with rules of its site's own, and the engine nftables. gateway_b listens on [::].
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from hosts.hosts import Host
from hosts.sites import Site

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group(__name__)]

_CONTROL = "5000"
_INSTRUMENT, _CONTROLLER, _OTHER_GATEWAY = "198.18.11.10", "198.18.10.1", "198.18.12.3"
_A = {
    "scistream_firewall": True,
    "scistream_engines": ["nftables", "haproxy"],
    "scistream_engine": "nftables",
    "scistream_peers": ["198.18.11.0/24", _CONTROLLER, _OTHER_GATEWAY],
}
_ULA = "fd5c:12::"
_B = {"scistream_firewall": True, "scistream_listen_address": "::", "scistream_peers": [f"{_ULA}2", _CONTROLLER]}
# A rule that the role would make as well, and one that is there until firewalld starts anew.
_KEPT = 'rule family="ipv4" source address="198.18.11.0/24" port port="5100-5200" protocol="tcp" accept'
_FOR_NOW = 'rule family="ipv4" source address="198.18.12.0/24" port port="7000" protocol="tcp" accept'
_KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2, source_address=(sys.argv[3], 0)).close()
except OSError as error:
    print(type(error).__name__, error)
else:
    print("open")
"""
_ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    while data := connection.recv(1024):
        connection.sendall(data)
"""
_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
    for line in sys.stdin:
        connection.sendall(line.encode())
        print(connection.recv(1024).decode(), end="", flush=True)
"""
# Without counters, which go on; all that this role may change, and what firewalld makes of it.
_PICTURE = """
nft --stateless list ruleset
sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding
find /etc/systemd /etc/sysctl.d /etc/scistream -newermt 2000-01-01 ! -type d 2>/dev/null | sort
if command -v firewall-cmd >/dev/null; then
    firewall-cmd --permanent --list-all
    firewall-cmd --list-all
    cat /etc/firewalld/zones/*.xml
fi
"""


def _picture(host: Host) -> str:
    return host.run(["sh", "-c", _PICTURE]).stdout


def _provision(site: Site, name: str, variables: Mapping[str, object], **more: object) -> str:
    told = shlex.quote(json.dumps({**variables, **more}))
    return site.provision("--limit", name, "-e", told)


def _knock(host: Host, address: str, port: str = _CONTROL, source: str = "") -> str:
    return host.run(["python3", "-c", _KNOCK, address, port, source]).stdout.strip()


def _install(host: Host, *packages: str) -> None:
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "--yes", "--no-install-recommends"]
    host.run([*quiet, "install", *packages], timeout=120)
    host.run(["systemctl", "disable", "--now", "haproxy"])


@pytest.fixture(scope="module")
def before(bare_site: Site) -> Mapping[str, str]:
    """What the hosts were before anything was provisioned; gateway_a with firewalld. Packages stay: they are there."""
    a, b = bare_site.hosts["gateway_a"], bare_site.hosts["gateway_b"]
    _install(a, "firewalld", "haproxy")
    _install(b, "haproxy")
    a.run(["systemctl", "enable", "--now", "firewalld"])
    a.run(["firewall-cmd", "--permanent", f"--add-rich-rule={_KEPT}"])
    a.run(["firewall-cmd", "--reload"])
    a.run(["firewall-cmd", f"--add-rich-rule={_FOR_NOW}"])
    b.run(["ip", "-6", "address", "add", f"{_ULA}3/64", "dev", "wan", "nodad"])
    for number in (2, 9):
        a.run(["ip", "-6", "address", "add", f"{_ULA}{number}/64", "dev", "wan", "nodad"])
    return {host.name: _picture(host) for host in (a, b)}


@pytest.fixture(scope="module")
def site(bare_site: Site, before: Mapping[str, str]) -> Site:
    _provision(bare_site, "gateway_a", _A)
    return bare_site


@pytest.fixture(scope="module")
def entry_point(site: Site) -> str:
    """Of a session on gateway_a that leads to the instrument's host; the port."""
    gateway = "hostvars.gateway_a"
    told = {
        "name": "flow",
        "direction": "inbound",
        "targets": [f"{_INSTRUMENT}:5074"],
        "encryption": "none",
        "control_server": f"{{{{ {gateway}.scistream_control_server }}}}",
        "server_certificate": f"{{{{ {gateway}.scistream_server_certificate }}}}",
    }
    words = shlex.quote(json.dumps(told))
    said = site.type(f"ansible localhost -i inventory/example -m scistream.core.session -a {words}")
    found = re.search(r"198\.18\.10\.21:(51\d\d)", said)
    assert found, said
    return found[1]


@pytest.fixture(scope="module")
def flow(site: Site, entry_point: str) -> Iterator[subprocess.Popen[str]]:
    """A connection from gateway_b's host through gateway_a, whose lines come back from the instrument's host."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    echo = site.hosts["instrument"].popen(["python3", "-c", _ECHO, _INSTRUMENT, "5074"], **pipes)
    assert echo.stdout is not None
    assert echo.stdout.readline() == "listening\n"
    asking = site.hosts["gateway_b"].popen(["python3", "-c", _ASK, "198.18.12.2", entry_point], **pipes)
    yield asking
    for process in (asking, echo):
        process.kill()
        process.communicate()


def _comes_back(flow: subprocess.Popen[str], word: str) -> bool:
    assert flow.stdin is not None
    assert flow.stdout is not None
    flow.stdin.write(f"{word}\n")
    flow.stdin.flush()
    return flow.stdout.readline() == f"{word}\n"


def test_firewalld_lets_in_the_peers_and_nobody_else(site: Site) -> None:
    hosts = site.hosts
    assert _knock(hosts["instrument"], "198.18.11.2") == "open"
    assert _knock(hosts["gateway_b"], "198.18.12.2") == "open"
    assert _knock(hosts["compute"], "198.18.10.21").startswith("TimeoutError")
    # Its zone by itself would not: what is let in, is let in by the role's rules.
    a = hosts["gateway_a"]
    a.run(["nft", "delete", "table", "inet", "scistream_gateway"])
    assert _knock(hosts["compute"], "198.18.10.21").startswith("OSError")
    assert _knock(hosts["instrument"], "198.18.11.2") == "open"


def test_rules_that_somebody_took_out_of_the_kernel_come_back(site: Site) -> None:
    assert "changed=1 " in _provision(site, "gateway_a", _A)
    assert _knock(site.hosts["compute"], "198.18.10.21").startswith("TimeoutError")
    assert "changed=0 " in _provision(site, "gateway_a", _A)


def test_another_list_of_peers_cuts_no_stream_that_runs(
    site: Site, entry_point: str, flow: subprocess.Popen[str]
) -> None:
    b = site.hosts["gateway_b"]
    assert _comes_back(flow, "before")
    _provision(site, "gateway_a", _A, scistream_peers=["198.18.11.0/24", _CONTROLLER])
    assert _comes_back(flow, "afterwards")
    for port in (_CONTROL, entry_point):
        assert _knock(b, "198.18.12.2", port).startswith("TimeoutError")
    rules = site.hosts["gateway_a"].run(["firewall-cmd", "--list-rich-rules"]).stdout
    assert _OTHER_GATEWAY not in rules
    # Firewalld was not loaded anew.
    assert _FOR_NOW in rules


def test_absent_leaves_firewalld_and_the_kernel_as_they_were(site: Site, before: Mapping[str, str]) -> None:
    a = site.hosts["gateway_a"]
    assert "ip_forward = 1" in _picture(a)
    _provision(site, "gateway_a", _A, scistream_state="absent")
    assert _picture(a) == before["gateway_a"]
    assert _KEPT in before["gateway_a"]
    assert _FOR_NOW in before["gateway_a"]


def test_ipv6_peers_come_to_a_gateway_that_listens_on_all_addresses(site: Site, before: Mapping[str, str]) -> None:
    a, b = site.hosts["gateway_a"], site.hosts["gateway_b"]
    _provision(site, "gateway_b", _B)
    assert _knock(a, f"{_ULA}3", source=f"{_ULA}2") == "open"
    assert _knock(a, f"{_ULA}3", source=f"{_ULA}9").startswith("TimeoutError")
    assert _knock(a, f"{_ULA}3", "22", source=f"{_ULA}9") == "open"
    _provision(site, "gateway_b", _B, scistream_state="absent")
    assert _picture(b) == before["gateway_b"]
