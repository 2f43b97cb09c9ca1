"""The hosts of a stream, each with a thread that lives on it: this one, or the four of a network of namespaces.

A socket belongs to the host where it was made, and may then be used from anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from scistream.addresses import Endpoint
from scistream.demo.network import Network
from scistream.terms import Transport

__all__ = ["WAIT", "Place", "Places", "both", "connect", "exactly", "listener", "loopback", "network", "until"]

# Seconds after which what did not come will not come.
WAIT = 60
_LOOPBACK = "127.0.11.1"
_KINDS = {Transport.TCP: socket.SOCK_STREAM, Transport.UDP: socket.SOCK_DGRAM}


class Place:
    """A host: a loop in a thread of its own, in the host's network namespace.

    `engines` are those of the control server there.
    """

    def __init__(self, entered: AbstractContextManager[None]) -> None:
        self.engines: dict[Any, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, args=[entered])
        self._thread.start()

    def _live(self, entered: AbstractContextManager[None]) -> None:
        with entered:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.begin(work).result(WAIT)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def call() -> Any:
            return function(*arguments)

        return self.run(call())

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class Places:
    """Where the four of a stream are: on loopback all the same."""

    application: Place
    outbound: Place
    inbound: Place
    target: Place
    addresses: tuple[str, str, str]
    """Where the outbound gateway, the inbound gateway and the target accept."""


@contextlib.contextmanager
def loopback() -> Iterator[Places]:
    """This host, for all four."""
    here = Place(contextlib.nullcontext())
    try:
        yield Places(here, here, here, here, (_LOOPBACK, _LOOPBACK, _LOOPBACK))
    finally:
        here.end()


@contextlib.contextmanager
def network(*, version: int = 4) -> Iterator[Places]:
    """A network of four hosts, whose gateways accept at the address that is nearer to the application."""
    with Network("test streams") as built, contextlib.ExitStack() as stack:
        four = [Place(host.entered()) for host in built.hosts]
        for each in four:
            stack.callback(each.end)
        near = [(host.addresses if version == 4 else host.addresses_v6)[0] for host in built.hosts[1:]]
        yield Places(*four, (near[0], near[1], near[2]))


def connect(place: Place, to: Endpoint, transport: Transport = Transport.TCP) -> socket.socket:
    """A connection from a place."""
    family = socket.AF_INET6 if to.is_ipv6 else socket.AF_INET
    made: socket.socket = place.do(socket.socket, family, _KINDS[transport])
    made.settimeout(WAIT)
    try:
        made.connect((to.host, to.port))
    except BaseException:
        made.close()
        raise
    return made


def listener(place: Place, host: str, transport: Transport = Transport.TCP) -> socket.socket:
    """A target at a place, on a port that is free there."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _KINDS[transport])
        made.bind((host, 0))
        if transport is Transport.TCP:
            made.listen(4096)
        return made

    made: socket.socket = place.do(make)
    made.settimeout(WAIT)
    return made


def both(*work: Callable[[], Any]) -> list[Any]:
    """Do it all at once, in threads; gives the results in order."""
    with ThreadPoolExecutor(len(work)) as threads:
        return [each.result(WAIT) for each in [threads.submit(each) for each in work]]


def until(true: Callable[[], object]) -> None:
    """Wait for what the kernel or a data server does in its own time."""
    pause, last = threading.Event(), time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < last, "it did not come"
        pause.wait(0.01)


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or those until the end."""
    room, got = bytearray(size), 0
    with memoryview(room) as view:
        while got < size and (piece := connection.recv_into(view[got:])):
            got += piece
    return bytes(room[:got])
