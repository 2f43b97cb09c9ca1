"""Streams through the library's own data servers: both of them, between an application and a target, and real sockets.

A `Carrier` is an engine with what protects its bytes. Proxies run on loopback, in this network namespace; what works in
the kernel, in a network of namespaces. Tests see no difference: `stream()` gives them connections from end to end.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import re
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from places import WAIT, Place, Places, connect, listener, loopback, network
from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine, Plan, Route
from scistream.engines.base import Feature
from scistream.engines.marks import ProcessMark
from scistream.engines.nft_base import Patience
from scistream.engines.nftables import NFTables
from scistream.engines.processes import group_of
from scistream.engines.proxy import Proxy
from scistream.engines.traffic import Traffic
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Transport, Uid

__all__ = ["Carrier", "Gateway", "Stream", "carriers", "every", "mixed", "refused", "stream"]

_ports = itertools.cycle(range(22000, 23000))


@dataclass(frozen=True)
class Carrier:
    """An engine, and what protects the bytes between its two data servers; `inbound` is another facility's engine."""

    engine: Engine
    encryption: Encryption
    transport: Transport = Transport.TCP
    inbound: Engine | None = None
    patience: Patience | None = None

    def __str__(self) -> str:
        names = [each.name for each in (self.engine, self.inbound) if each]
        what = self.encryption if self.transport is Transport.TCP else self.transport
        return "-".join([*names, what.value])

    @property
    def is_proxy(self) -> bool:
        return isinstance(self.engine, Proxy)

    @property
    def half_closes(self) -> bool:
        return all(Feature.HALF_CLOSE not in each.cannot for each in (self.engine, self.inbound) if each)

    def at(self, direction: Direction) -> Engine:
        """What works in the kernel remembers what it saw there, and is one for each control server."""
        if not self.is_proxy:
            return NFTables(self.patience)
        return self.inbound if self.inbound and direction is Direction.INBOUND else self.engine

    def altered(self, pattern: str, replacement: str) -> Carrier:
        """The same with other words in what it renders, where they have to be."""
        engine: Any = copy.copy(self.engine)
        render = engine.render

        def other(plan: Plan, installation: Any) -> dict[Path, str]:
            files = dict(render(plan, installation))
            text, count = re.subn(pattern, replacement, files[plan.path("conf")])
            assert count, text
            return files | {plan.path("conf"): text}

        engine.render = other
        return dataclasses.replace(self, engine=engine)


def carriers(transport: Transport = Transport.TCP) -> list[Carrier]:
    """Every engine with everything that can protect its bytes."""
    made = [Carrier(engine, each, transport) for engine in ENGINES.values() for each in engine.encryptions]
    if transport is Transport.UDP:
        return [each for each in made if transport in each.engine.transports and each.encryption is Encryption.NONE]
    # LEGACY_PSK is for a deployed peer, and the only one of its sort.
    return [each for each in made if each.encryption is not Encryption.LEGACY_PSK]


def mixed() -> list[Carrier]:
    """Every two engines that work with each other's encryption, each at both ends."""
    pairs = [pair for pair in _speaking_tls() if not _is_refused(*pair)]
    return [Carrier(outbound, Encryption.TLS, inbound=inbound) for outbound, inbound in pairs]


def refused() -> list[Carrier]:
    """Every two that understand each other's encryption, and are refused all the same."""
    pairs = [pair for pair in _speaking_tls() if _is_refused(*pair)]
    return [Carrier(outbound, Encryption.TLS, inbound=inbound) for outbound, inbound in pairs]


def _speaking_tls() -> Iterator[tuple[Engine, Engine]]:
    return itertools.permutations([each for each in ENGINES.values() if Encryption.TLS in each.encryptions], 2)


def _is_refused(*pair: Engine) -> bool:
    return "nginx" in {each.name for each in pair} and any(Feature.TLS_WITH_NGINX in each.cannot for each in pair)


def every(transport: Transport = Transport.TCP) -> pytest.MarkDecorator:
    """A test's `carrier`, one after the other."""
    return pytest.mark.parametrize("carrier", carriers(transport), ids=str)


@dataclass
class Gateway:
    """One of the two data servers of a stream, and what the control server would ask of it."""

    engine: Engine
    plan: Plan
    place: Place
    mark: ProcessMark

    @property
    def entry_point(self) -> Endpoint:
        return self.plan.routes[0].entry_point

    def run(self, work: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        """One of its engine's methods, with its plan and mark."""
        return self.place.run(work(self.plan, self.mark))

    def traffic(self) -> Traffic:
        found = self.run(self.engine.traffic)
        assert isinstance(found, Traffic)
        return found

    def retarget(self, target: Endpoint) -> None:
        self.plan = dataclasses.replace(self.plan, routes=(Route(self.entry_point, target),))
        self.run(self.engine.retarget)

    def begin_drain(self) -> Any:
        """Back when it accepts no more; the future is done when it has ended."""
        deaf = threading.Event()
        drained = self.place.begin(self.engine.drain(self.plan, self.mark, deaf.set))
        drained.add_done_callback(lambda _: deaf.set())
        assert deaf.wait(WAIT)
        return drained

    def processes(self) -> list[psutil.Process]:
        found = group_of(self.mark.pid) if isinstance(self.engine, Proxy) else []
        return [psutil.Process(facts.pid) for facts in found]

    def memory(self) -> int:
        """Bytes, what its processes share counted once (PSS)."""
        return sum(process.memory_full_info().pss for process in self.processes())


class Stream:
    """Both data servers, and a target that waits for connections."""

    def __init__(self, places: Places, outbound: Gateway, inbound: Gateway, target: socket.socket) -> None:
        self.places = places
        self.outbound = outbound
        self.inbound = inbound
        self.gateways = (outbound, inbound)
        self.target = target

    def connect(self) -> socket.socket:
        """A connection of the application; through some engines it is there before the target's is."""
        return connect(self.places.application, self.outbound.entry_point, self.outbound.plan.transport)

    def accept(self) -> socket.socket:
        """The next connection that reaches the target."""
        connection, _ = self.target.accept()
        connection.settimeout(WAIT)
        return connection

    @contextlib.contextmanager
    def connected(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Both ends of a new connection, which nobody else makes meanwhile."""
        with self.connect() as application, self.accept() as target:
            yield application, target


@contextlib.contextmanager
def stream(
    carrier: Carrier, directory: Path, where: Places | None = None, beside: Stream | None = None
) -> Iterator[Stream]:
    """A stream, on hosts of its own where none are told; `beside` another one it has the same target, too."""
    with contextlib.ExitStack() as stack:
        hosts = beside.places if beside else where or stack.enter_context(loopback() if carrier.is_proxy else network())
        target = (
            beside.target
            if beside
            else stack.enter_context(listener(hosts.target, hosts.addresses[2], carrier.transport))
        )
        uid, key = Uid(f"test-{secrets.token_hex(6)}"), secrets.token_bytes(SESSION_KEY_SIZE)

        def gateway(place: Place, direction: Direction, host: str, to: Endpoint) -> Gateway:
            home = directory / direction.value
            home.mkdir(exist_ok=True)
            route = Route(Endpoint(host, next(_ports)), to)
            plan = Plan(uid, direction, (route,), home, uid, key, carrier.transport, encryption=carrier.encryption)
            engine = place.engines.setdefault((carrier, direction), carrier.at(direction))
            made = Gateway(engine, plan, place, place.run(engine.start(plan)))
            stack.callback(made.run, engine.stop)
            return made

        inbound = gateway(hosts.inbound, Direction.INBOUND, hosts.addresses[1], Endpoint(*target.getsockname()[:2]))
        outbound = gateway(hosts.outbound, Direction.OUTBOUND, hosts.addresses[0], inbound.entry_point)
        yield Stream(hosts, outbound, inbound, target)
