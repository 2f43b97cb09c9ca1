"""Stunnel's entry points are kept to their sources by the kernel: a real pair in a network of namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.control_server.data_servers import Engines
from scistream.demo.network import Host, Network
from scistream.engines import ENGINES, Plan, Route, guarding
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

STUNNEL = ENGINES["stunnel"]
EVERYBODY = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
# What a control server without the privilege says to who asks it for a list.
_ASK = """
from scistream.engines import ENGINES
from scistream.engines.abilities import Wishes, abilities, require
from scistream.errors import SciStreamError
from scistream.terms import Encryption
print(next(each.words for each in abilities(ENGINES["stunnel"]) if each.feature.value == "source list"))
try:
    require(ENGINES["stunnel"], Wishes(encryption=Encryption.TLS, sources=True))
except SciStreamError as error:
    print(error.code.name, error)
"""
both = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])


@dataclass
class Site:
    """The network, the target on it, and what was started on its gateways."""

    network: Network
    directory: Path
    echo: dict[bool, Endpoint]
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    marks: list[tuple[Host, Plan, Any]] = field(default_factory=list)

    def plan(
        self, entry_point: Endpoint, target: Endpoint, *sources: str, direction: Direction = Direction.OUTBOUND
    ) -> Plan:
        stem = f"one.{direction.value}"
        networks = tuple(map(ipaddress.ip_network, sources))
        routes = (Route(entry_point, target),)
        return Plan(
            Uid("one"),
            direction,
            routes,
            self.directory,
            stem,
            self.key,
            encryption=Encryption.TLS_PSK,
            sources=networks,
        )

    def run(self, host: Host, work: Coroutine[Any, Any, Any]) -> Any:
        """On a host, with a loop whose threads are there too."""
        with host.entered():
            return asyncio.run(work)

    def start(self, host: Host, plan: Plan) -> Any:
        mark = self.run(host, STUNNEL.start(plan))
        self.marks.append((host, plan, mark))
        return mark

    def stop_all(self) -> None:
        while self.marks:
            host, plan, mark = self.marks.pop()
            self.run(host, STUNNEL.stop(plan, mark))

    def refused(self, plan: Plan) -> int:
        host, mark = next((host, mark) for host, each, mark in self.marks if each.stem == plan.stem)
        # Each look is a fresh one.
        guarding._looks.clear()
        return int(self.run(host, STUNNEL.traffic(plan, mark)).refused_peers)

    def rules(self, host: Host) -> str:
        return host.run(["nft", "list", "ruleset"]).stdout

    @property
    def gateway(self) -> Host:
        return self.network.outbound_gateway

    @property
    def pair(self) -> tuple[Host, Host]:
        return self.network.outbound_gateway, self.network.inbound_gateway


def address(host: Host, *, v6: bool, far: bool = False) -> str:
    return (host.addresses_v6 if v6 else host.addresses)[-1 if far else 0]


@contextlib.contextmanager
def connected(host: Host, to: Endpoint) -> Iterator[socket.socket]:
    """A connection from a host."""
    with host.entered():
        connection = socket.create_connection((to.host, to.port), timeout=20)
    with connection:
        yield connection


def heard(connection: socket.socket, words: bytes) -> bool:
    """Whether the target sends it back."""
    connection.sendall(words)
    got = b""
    while len(got) < len(words) and (data := connection.recv(65536)):
        got += data
    return got == words


def is_refused(host: Host, to: Endpoint) -> bool:
    try:
        with connected(host, to):
            return False
    except ConnectionRefusedError:
        return True


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    lacking = "network namespaces need root" if os.geteuid() else guarding.missing()
    if lacking:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(lacking)
    with Network("guarding-tests") as built:
        # For a second after its start, IPv6 loses answers; what is asked again then would count twice.
        for host in (built.target, built.application, built.inbound_gateway):
            for gateway in (built.outbound_gateway, built.inbound_gateway):
                assert is_refused(host, Endpoint(address(gateway, v6=True), 9))
        yield built


def _echo(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)


@pytest.fixture(scope="module")
def echo(network: Network) -> Iterator[dict[bool, Endpoint]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for v6, family in ((False, socket.AF_INET), (True, socket.AF_INET6)):
            host = address(network.target, v6=v6)
            with network.target.entered():
                listener = stack.enter_context(socket.create_server((host, 5074), family=family))
            threading.Thread(target=_echo, args=(listener,), daemon=True).start()
            # A thread that waits in it does not hear of its being closed.
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            found[v6] = Endpoint(host, 5074)
        yield found


@pytest.fixture
def site(network: Network, echo: dict[bool, Endpoint], tmp_path: Path) -> Iterator[Site]:
    """Gateways whose kernels have no rules, before and after."""
    made = Site(network, tmp_path, echo)
    assert [made.rules(host) for host in made.pair] == ["", ""]
    try:
        yield made
    finally:
        made.stop_all()
        left = [made.rules(host) for host in made.pair]
        for host in made.pair:
            host.run(["nft", "flush", "ruleset"])
    assert left == ["", ""]


@pytest.fixture
def stream(site: Site) -> Callable[..., tuple[Plan, Plan]]:
    """Both ends of a stream: `stream(v6=False)`; the application's host may connect here, the outer gateway there."""

    def make(*, v6: bool = False, entry_host: str = "") -> tuple[Plan, Plan]:
        outer, inner = site.pair
        own = address(outer, v6=v6, far=True)
        middle = Endpoint(address(inner, v6=v6), 5100)
        # The other family's is there to be told apart.
        inbound = site.plan(middle, site.echo[v6], own, "198.18.77.0/24", direction=Direction.INBOUND)
        entry_point = Endpoint(entry_host or address(outer, v6=v6), 5100)
        allowed = [address(site.network.application, v6=each) for each in (False, True)]
        outbound = site.plan(entry_point, middle, *allowed)
        site.start(inner, inbound)
        site.start(outer, outbound)
        return inbound, outbound

    return make


@both
def test_u03_who_is_on_stunnels_list_gets_through_and_others_are_reset_counted_and_logged(
    site: Site, stream: Any, v6: bool
) -> None:
    inbound, outbound = stream(v6=v6)
    entry_point, middle = (plan.routes[0].entry_point for plan in (outbound, inbound))
    with connected(site.network.application, entry_point) as connection:
        assert heard(connection, b"hello")
        strangers = (site.network.target, site.network.inbound_gateway, site.gateway)
        assert [is_refused(host, entry_point) for host in strangers] == [True] * 3
        # The inbound gateway's list has the outbound gateway alone.
        assert is_refused(site.network.application, middle)
        assert heard(connection, b"and on")
    assert (site.refused(outbound), site.refused(inbound)) == (3, 1)
    log = outbound.path("log").read_text()
    for host, far in ((site.network.target, False), (site.network.inbound_gateway, False), (site.gateway, False)):
        assert f"\n{address(host, v6=v6, far=far)} [" in log
    assert "refused: not among the sources; 3 peers refused by now" in log
    assert 'limit rate 10/minute log prefix "scistream refused one.outbound " level info' in site.rules(site.gateway)
    assert is_refused(site.network.target, entry_point)
    assert site.refused(outbound) == 4
    # Who was named is not named again.
    assert outbound.path("log").read_text().count("not among the sources") == 3


@pytest.mark.parametrize("entry_host", ["0.0.0.0", "::"])  # noqa: S104 - in a network of its own
def test_u03_an_entry_point_on_all_addresses_is_kept_to_its_sources(site: Site, stream: Any, entry_host: str) -> None:
    _, outbound = stream(entry_host=entry_host)
    of_it, of_the_other = (
        Endpoint(address(site.gateway, v6=v6), outbound.routes[0].entry_point.port)
        for v6 in (entry_host == "::", entry_host != "::")
    )
    with connected(site.network.application, of_it) as connection:
        assert heard(connection, b"hello")
    assert is_refused(site.network.target, of_it)
    assert site.refused(outbound) == 1
    # The other IP version has no way in that would have to be guarded.
    assert is_refused(site.network.application, of_the_other)


def test_u03_a_list_that_was_flushed_comes_back_under_a_running_connection(site: Site, stream: Any) -> None:
    _, outbound = stream()
    entry_point = outbound.routes[0].entry_point
    assert is_refused(site.network.target, entry_point)
    assert site.refused(outbound) == 1
    with connected(site.network.application, entry_point) as connection:
        assert heard(connection, b"before")
        site.gateway.run(["nft", "flush", "ruleset"])
        assert not is_refused(site.network.target, entry_point)
        assert site.refused(outbound) == 1
        for _ in range(2):
            site.run(site.gateway, STUNNEL.keep_bounds(outbound))
        assert is_refused(site.network.target, entry_point)
        assert heard(connection, b"after")
    assert site.refused(outbound) == 2


def test_u03_a_new_list_is_for_new_connections(site: Site, stream: Any) -> None:
    _, outbound = stream()
    entry_point = outbound.routes[0].entry_point
    with connected(site.network.application, entry_point) as connection:
        assert heard(connection, b"before")
        other = dataclasses.replace(outbound, sources=(ipaddress.ip_network("198.18.3.0/24"),))
        site.run(site.gateway, guarding.guard(other, "Stunnel"))
        assert is_refused(site.network.application, entry_point)
        assert heard(connection, b"after")


def test_u03_a_data_server_that_does_not_start_leaves_no_list(site: Site) -> None:
    entry_point = Endpoint(address(site.gateway, v6=False), 5100)
    plan = site.plan(entry_point, site.echo[False], "198.18.1.1")
    with site.gateway.entered(), socket.create_server((entry_point.host, entry_point.port)):
        with pytest.raises(SciStreamError) as caught:
            asyncio.run(STUNNEL.start(plan))
        assert caught.value.code is Code.ENTRY_POINT_IN_USE
    assert site.rules(site.gateway) == ""


def test_u03_a_session_whose_data_server_nobody_finds_any_more_leaves_no_list(site: Site) -> None:
    plan = site.plan(Endpoint(address(site.gateway, v6=False), 5100), site.echo[False], "198.18.1.1")
    site.run(site.gateway, guarding.guard(plan, "Stunnel"))
    for _ in range(2):
        site.run(site.gateway, Engines().stop(STUNNEL, plan, None))
    assert site.rules(site.gateway) == ""


def test_u03_what_a_control_server_that_died_has_left_is_swept_and_others_stays(site: Site) -> None:
    def made(name: str, port: int) -> Plan:
        entry_point = Endpoint(address(site.gateway, v6=False), port)
        return dataclasses.replace(site.plan(entry_point, site.echo[False], "198.18.1.1"), uid=Uid(name), stem=name)

    alive, dead = made("alive", 5101), made("dead", 5102)
    (site.directory / "b").mkdir()
    other = dataclasses.replace(made("other", 5103), directory=site.directory / "b")
    for plan in (alive, dead, other):
        site.run(site.gateway, guarding.guard(plan, "Stunnel"))
    site.run(site.gateway, guarding.sweep(site.directory, lambda: ["alive"]))
    rules = site.rules(site.gateway)
    assert [name in rules for name in ("alive", "dead", "other")] == [True, False, True]
    # A door that leads to a session which is over is the next one's.
    heir = made("heir", 5101)
    site.run(site.gateway, guarding.guard(heir, "Stunnel"))
    assert "5101 : goto s-heir" in site.rules(site.gateway)
    for plan in (heir, other, other):
        site.run(site.gateway, guarding.unguard(plan, "Stunnel"))


def test_u03_a_long_list_and_one_for_everybody_are_taken(site: Site) -> None:
    entry_point = Endpoint(address(site.gateway, v6=False), 5100)
    plan = site.plan(entry_point, site.echo[False], *(f"198.18.{number}.0/25" for number in range(250)))
    for sources in (plan.sources, EVERYBODY):
        site.run(site.gateway, guarding.guard(dataclasses.replace(plan, sources=sources), "Stunnel"))
    with site.gateway.entered(), socket.create_server((entry_point.host, entry_point.port)):
        assert not is_refused(site.network.target, entry_point)
    site.run(site.gateway, guarding.unguard(plan, "Stunnel"))


def test_u03_without_the_privilege_stunnel_refuses_a_list_by_name_and_says_why(network: Network) -> None:
    command = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps=-net_admin", "--", sys.executable, "-c", _ASK]
    with network.outbound_gateway.entered():
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    reason = (
        "it has no source list of its own, and the kernel cannot keep one here: the control server has not the "
        "capability CAP_NET_ADMIN (root has it; its unit: AmbientCapabilities=CAP_NET_ADMIN)"
    )
    assert told[0] == reason
    assert told[1].startswith(f"ENGINE_CANNOT Stunnel cannot do what was asked: {reason}")
