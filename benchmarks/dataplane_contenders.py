"""Who is compared, and each of them set up in a network that is made for one measurement and gone after it.

So no process that was left over holds a port, no rule that was left over slows a packet down, and no port has to wait
until its time has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dataplane_deployed import start_deployed

from scistream.addresses import Endpoint
from scistream.demo.network import Host, Network
from scistream.engines import find_engine
from scistream.engines.base import Plan, Route
from scistream.engines.connections import accepting
from scistream.engines.processes import listeners
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Uid

__all__ = ["CONTENDERS", "DIRECT", "ECHO_PORT", "IPERF_PORT", "OWN", "Contender", "Course", "standing"]

IPERF_PORT: Final = 5201
ECHO_PORT: Final = 5202
# Below the ports that connections begin at.
_PORTS: Final = (IPERF_PORT, ECHO_PORT)
_EPHEMERAL: Final = "10000 65000"
# Bytes that may wait for the receivers of all streams together. One stream never needs more here; where each of 64 may
# have the 33 MB that this machine grants, the kernel (6.18) drops for want of room what it had let in, and the figures
# tell of retransmissions (docs/benchmarks.md).
_RECEIVE_MEMORY: Final = 64 * 1024 * 1024
_RECEIVE_BUFFERS: Final = Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()
_UID: Final = Uid("bench")
# Seconds that a data server may take until it accepts.
_START: Final = 10.0


_CUBIC: Final = "cubic"


@dataclass(frozen=True)
class Contender:
    """One way for the bytes: an engine, what protects the bytes, and whose settings it runs with.

    `settings` is `direct` where there is nothing but routes, `deployed`, or `ours`. `congestion` is the congestion
    control of every route: cubic is what all are compared with, since it does not pace; the machine's own is what
    applications have.
    """

    engine: str
    encryption: Encryption
    settings: str
    congestion: str = _CUBIC

    @property
    def title(self) -> str:
        """How people read it."""
        if self.congestion != _CUBIC:
            return f"{replace(self, congestion=_CUBIC).title}, {self.congestion}"
        if self.settings == "direct":
            return "direct, routed"
        name = {"haproxy": "HAProxy", "nginx": "Nginx", "stunnel": "Stunnel"}.get(self.engine, self.engine)
        return f"{name} as deployed" if self.settings == "deployed" else f"{name}, {_WORDS[self.encryption]}"

    @property
    def direct(self) -> Contender:
        """The direct way with the same congestion control."""
        return DIRECT if self.congestion == _CUBIC else OWN[0]

    @property
    def rival(self) -> Contender | None:
        """The deployed one that it is compared with: what a user who wants the same had until now."""
        if self.settings == "direct" or self.congestion != _CUBIC:
            return None
        if self.encryption is not Encryption.NONE:
            return _DEPLOYED["stunnel"]
        return _DEPLOYED.get(self.engine, _DEPLOYED["haproxy"])


_WORDS: Final = {Encryption.NONE: "plain", Encryption.TLS: "TLS 1.3", Encryption.TLS_PSK: "TLS 1.3, pre-shared key"}
_DEPLOYED: Final = {
    "haproxy": Contender("haproxy", Encryption.NONE, "deployed"),
    "nginx": Contender("nginx", Encryption.NONE, "deployed"),
    "stunnel": Contender("stunnel", Encryption.LEGACY_PSK, "deployed"),
}
DIRECT: Final = Contender("direct", Encryption.NONE, "direct")
_NFTABLES: Final = Contender("nftables", Encryption.NONE, "ours")
_OWN: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
# With the machine's own congestion control, one connection; nobody where that is cubic.
OWN: Final = tuple(
    replace(each, congestion=_OWN)
    for each in (DIRECT, Contender("nftables", Encryption.NONE, "ours"))
    if _OWN != _CUBIC
)
CONTENDERS: Final = (
    DIRECT,
    Contender("nftables", Encryption.NONE, "ours"),
    _DEPLOYED["haproxy"],
    Contender("haproxy", Encryption.NONE, "ours"),
    _DEPLOYED["nginx"],
    Contender("nginx", Encryption.NONE, "ours"),
    _DEPLOYED["stunnel"],
    Contender("stunnel", Encryption.TLS_PSK, "ours"),
    Contender("haproxy", Encryption.TLS, "ours"),
    Contender("nginx", Encryption.TLS, "ours"),
    *OWN,
)


@dataclass(frozen=True)
class Course:
    """What bytes are sent over: a network, and the address by which the application reaches its target."""

    network: Network
    address: str

    @property
    def gateways(self) -> tuple[Host, Host]:
        """The two hosts with the data servers."""
        return self.network.outbound_gateway, self.network.inbound_gateway


@contextlib.contextmanager
def standing(contender: Contender, streams: int = 1) -> Iterator[Course]:
    """A network with the contender on both gateways, for that many streams at once.

    Raises:
        SciStreamError: what the engine raises where it cannot start; NETWORK_UNAVAILABLE.
        RuntimeError: somebody listens where nobody should, or the contender does not.
    """
    with ExitStack() as stack:
        network = stack.enter_context(Network("bench", congestion=contender.congestion))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scistream-bench-")))
        for host in network.hosts:
            host.set("ipv4/ip_local_port_range", _EPHEMERAL)
            host.set("ipv4/tcp_rmem", _receive_buffers(streams))
        if contender.settings == "direct":
            yield Course(network, network.target.addresses[0])
            return
        outbound, inbound = network.outbound_gateway, network.inbound_gateway
        key = secrets.token_bytes(SESSION_KEY_SIZE)
        for host, direction, onward in (
            (inbound, Direction.INBOUND, network.target),
            (outbound, Direction.OUTBOUND, inbound),
        ):
            _require_nobody(host)
            addresses = host.addresses[0], onward.addresses[0]
            routes = tuple(Route(*(Endpoint(address, port) for address in addresses)) for port in _PORTS)
            stack.enter_context(_started(contender, _plan(contender, direction, routes, place, key), host))
        yield Course(network, outbound.addresses[0])


def _receive_buffers(streams: int) -> str:
    least, first, most = map(int, _RECEIVE_BUFFERS)
    return f"{least} {first} {min(most, _RECEIVE_MEMORY // streams)}"


def _require_nobody(host: Host) -> None:
    with host.entered():
        found = list(listeners())
    if found:
        raise RuntimeError(f"on the {host.name} somebody listens already: {found}")


def _plan(contender: Contender, direction: Direction, routes: tuple[Route, ...], place: Path, key: bytes) -> Plan:
    directory = place / direction.value
    directory.mkdir(mode=0o700)
    return Plan(_UID, direction, routes, directory, _UID, key=key, encryption=contender.encryption)


@contextlib.contextmanager
def _started(contender: Contender, plan: Plan, host: Host) -> Iterator[None]:
    engine = find_engine(contender.engine)
    if contender.settings == "ours" and contender.encryption not in engine.encryptions:
        raise RuntimeError(f"{engine.title} does not do {contender.encryption.value}")
    if contender.settings == "deployed":
        with host.entered():
            process = start_deployed(engine, plan)
        try:
            _wait_accepting(plan, host)
            yield
        finally:
            process.terminate()
            process.wait()
        return
    with asyncio.Runner() as runner:
        # The loop's threads begin in here, and so they are on the host as well.
        with host.entered():
            mark = runner.run(engine.start(plan))
        try:
            yield
        finally:
            with host.entered():
                runner.run(engine.stop(plan, mark))


def _wait_accepting(plan: Plan, host: Host) -> None:
    deadline = time.monotonic() + _START
    entry_points = [route.entry_point for route in plan.routes]
    with host.entered():
        while len(accepting(host.pids(), entry_points)) < len(entry_points):
            if time.monotonic() > deadline:
                words = (plan.directory / "log").read_text(errors="replace")[-300:]
                raise RuntimeError(f"the deployed one does not accept on the {host.name}: {words}")
            time.sleep(0.01)
