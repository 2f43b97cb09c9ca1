"""Sessions of nftables on a gateway of four hosts (`scistream.demo.network`), with sockets of this process on each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import socket
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scistream.addresses import Endpoint
from scistream.demo.network import Host, Network
from scistream.engines import Plan, Route
from scistream.engines.host import find_program
from scistream.engines.marks import ProcessMark
from scistream.engines.nft_names import table_of
from scistream.engines.nftables import NFTables
from scistream.terms import Direction, Encryption, Transport, Uid

Result = TypeVar("Result")
TIMEOUT = 10.0


def _lacking() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(find_program([program]) for program in ("nft", "ip")):
        return "nft (package nftables) or ip (package iproute2) is missing"
    return ""


class Site:
    """One gateway with its engine, the application's host before it, and the target's behind it."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        self.engine = NFTables()
        self.directory = directory
        self.sockets = contextlib.ExitStack()
        self._ports = itertools.count(5100)

    @property
    def gateway(self) -> Host:
        return self.network.outbound_gateway

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run code of the engine on the gateway."""
        with self.gateway.entered():
            return asyncio.run(work)

    def entry_point(self, *, v6: bool = False, host: str | None = None) -> Endpoint:
        addresses = self.gateway.addresses_v6 if v6 else self.gateway.addresses
        return Endpoint(host or addresses[0], next(self._ports))

    def listener(
        self, *, v6: bool = False, kind: socket.SocketKind = socket.SOCK_STREAM, host: str = ""
    ) -> socket.socket:
        """Something that listens on the target's host."""
        addresses = self.network.target.addresses_v6 if v6 else self.network.target.addresses
        with self.network.target.entered():
            return self.bound(host or addresses[0], kind, listens=kind is socket.SOCK_STREAM)

    def bound(
        self, host: str, kind: socket.SocketKind = socket.SOCK_STREAM, port: int = 0, *, listens: bool
    ) -> socket.socket:
        """A socket on the host where the calling thread is."""
        made = self.sockets.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind))
        made.settimeout(TIMEOUT)
        made.bind((host, port))
        if listens:
            made.listen(1024)
        return made

    def connect(
        self, to: Endpoint, *, host: Host | None = None, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> socket.socket:
        """A connection from the application's host, or another one."""
        with (host or self.network.application).entered():
            made = socket.socket(socket.AF_INET6 if to.is_ipv6 else socket.AF_INET, kind)
        self.sockets.enter_context(made)
        made.settimeout(TIMEOUT)
        made.connect((to.host, to.port))
        return made

    def accept(self, listener: socket.socket) -> socket.socket:
        made = self.sockets.enter_context(listener.accept()[0])
        made.settimeout(TIMEOUT)
        return made

    def pair(self, plan: Plan, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
        """A connection through the session: its client's end and its target's."""
        return self.connect(plan.routes[0].entry_point), self.accept(listener)

    @staticmethod
    def ping(client: socket.socket, target: socket.socket, times: int = 1) -> None:
        """A byte there and back, so often."""
        for _ in range(times):
            for sender, receiver in ((client, target), (target, client)):
                sender.sendall(b"x")
                assert receiver.recv(1) == b"x"

    @staticmethod
    def assert_reset(end: socket.socket) -> None:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            end.recv(1)

    def plan(self, *targets: socket.socket, entry_points: Sequence[Endpoint] = (), **options: Any) -> Plan:
        """A plan for these targets, with entry points of its own where none are given."""
        uid = options.pop("uid", None) or Uid(f"test-{secrets.token_hex(4)}")
        given = entry_points or [self.entry_point(v6=target.family == socket.AF_INET6) for target in targets]
        ends = [Endpoint(*target.getsockname()[:2]) for target in targets]
        facts: dict[str, Any] = {
            "routes": tuple(map(Route, given, ends)),
            "transport": Transport.UDP if targets[0].type is socket.SOCK_DGRAM else Transport.TCP,
            "directory": self.directory,
            "stem": f"{uid}.outbound",
            "encryption": Encryption.NONE,
        }
        return Plan(uid, Direction.OUTBOUND, **(facts | options))

    def started(self, plan: Plan) -> ProcessMark:
        return self.run(self.engine.start(plan))

    def stopped(self, plan: Plan, mark: ProcessMark) -> None:
        self.run(self.engine.stop(plan, mark))

    def table(self, plan: Plan) -> str:
        return table_of(plan.directory)

    def rules(self) -> str:
        return self.gateway.run(["nft", "list", "ruleset"]).stdout

    def nft(self, text: str) -> None:
        self.gateway.run(["nft", "-f", "-"], input=text)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The hosts, for all tests of this directory."""
    if lacking := _lacking():
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    with Network("nft-tests") as built:
        yield built


@pytest.fixture
def site(network: Network, tmp_path: Path) -> Iterator[Site]:
    """A gateway without rules; none are left behind."""
    made = Site(network, tmp_path)
    with made.sockets:
        yield made
    left = made.rules()
    made.nft("flush ruleset")
    assert "scistream" not in left


@pytest.fixture(params=[False, True], ids=["IPv4", "IPv6"])
def v6(request: pytest.FixtureRequest) -> bool:
    """Both families."""
    return bool(request.param)
