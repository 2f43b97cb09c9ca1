"""The measurements of the control server and the client, one method each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from figures import ENGINES, Figures
from gateways import Crowd, Gateway, Targets
from reenactment import share_at_once

from scistream.addresses import Endpoint
from scistream.client import Connection, SessionRequest, open_session, release_session
from scistream.terms import Direction, Encryption, Uid

__all__ = ["Bench", "Size"]

# What carries the thousand: 1.6 MiB a session (reference/dataplane.md), so that they fit into any machine's memory.
LIGHT: Final = "nginx"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    set_ups: int
    walls: int
    kills: int
    burst: int
    thousand: int
    seconds: float


@dataclass(frozen=True)
class Pair:
    """Two control servers, and a user's connections to them: where data comes in, and where it comes from.

    `gateway` is the inbound one.
    """

    engine: str
    gateway: Gateway
    inbound: Connection
    outbound: Connection


class Bench:
    """The measurements, one method each."""

    def __init__(self, size: Size, directory: Path, figures: Figures) -> None:
        self._size = size
        self._directory = directory
        self._figures = figures
        self._count = 0
        self.steps: dict[str, Callable[[], None]] = {
            f"{size.set_ups} set-ups an engine": self._set_ups,
            "s2uc inbound-request": self._walls,
            f"{size.burst} at once": lambda: asyncio.run(self._burst()),
            f"{size.thousand} waiting": lambda: asyncio.run(self._waiting()),
            f"{size.thousand} live": lambda: asyncio.run(self._live()),
            "killed data servers": lambda: asyncio.run(self._restarts()),
            "the deployed design": self._reenact,
        }

    @contextlib.contextmanager
    def _gateways(self, *engines: str, ports: int = 100) -> Iterator[list[Gateway]]:
        with contextlib.ExitStack() as stack:
            gateways = []
            for index, engine in enumerate(engines):
                self._count += 1
                place = self._directory / str(self._count)
                gateway = Gateway(place, f"127.0.60.{index + 1}", engine, f"26100-{26099 + ports}")
                stack.callback(gateway.clear)
                gateways.append(gateway.served())
            yield gateways

    @contextlib.contextmanager
    def _pairs(self) -> Iterator[list[Pair]]:
        """Both ends of each engine."""
        with contextlib.ExitStack() as stack:
            gateways = stack.enter_context(self._gateways(*(engine for engine in ENGINES for _ in range(2))))
            links = [stack.enter_context(gateway.connect()) for gateway in gateways]
            ends = zip(ENGINES, gateways[::2], links[::2], links[1::2], strict=True)
            yield [Pair(*each) for each in ends]

    def _set_ups(self) -> None:
        with self._pairs() as pairs:
            for pair in pairs:
                # The first one warms both connections.
                _set_up(pair)
            for _ in range(self._size.set_ups):
                for pair in pairs:
                    self._figures.add(f"setup_{pair.engine}", _set_up(pair) * 1000)

    def _walls(self) -> None:
        with self._gateways("haproxy") as (gateway,):
            for index in range(self._size.walls):
                self._figures.add("inbound_request_wall", self._wall(gateway, f"wall-{index}"))

    def _wall(self, gateway: Gateway, name: str) -> float:
        command = [str(Path(sys.executable).with_name("s2uc")), "inbound-request", f"--s2cs={gateway.address}"]
        command += [f"--server-cert={gateway.certificate}", "--remote-ip=127.0.60.100", "--receiver-ports=26001"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SCISTREAM_")}
        begun = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment | {"HOME": str(self._directory)},
            timeout=60,
        )
        return time.perf_counter() - begun

    async def _burst(self) -> None:
        number = self._size.burst
        with self._gateways("haproxy", ports=number + 20) as (gateway,):
            async with Crowd.at(gateway) as crowd, Targets("127.0.60.100").serving(number) as targets:
                begun = time.perf_counter()
                entry_points = await _opened(crowd, targets)
                seconds = time.perf_counter() - begun
                right = await asyncio.gather(*map(crowd.leads_to, entry_points, targets))
                distinct = len({entry_point for entry_point in entry_points if entry_point})
                self._figures.add("at_once_right", min(sum(right), distinct) / number)
                self._figures.add("at_once_rate", sum(right) / seconds)
                await _released(crowd, number)

    async def _waiting(self) -> None:
        number = self._size.thousand
        with self._gateways(LIGHT, ports=number + 20) as (gateway,):
            async with Crowd.at(gateway) as crowd:
                await self._register("req_alone", crowd)
                waiting = [crowd.request(f"waiting-{index}") for index in range(number)]
                begun = time.perf_counter()
                await _until_there_are(crowd, number)
                self._figures.add("waiting_accepted", time.perf_counter() - begun)
                await self._register("req_among_waiting", crowd)
                self._figures.add("waiting_memory", gateway.memory())
                begun = time.perf_counter()
                for call in waiting:
                    call.cancel()
                await _until_there_are(crowd, 0)
                self._figures.add("waiting_gone", time.perf_counter() - begun)

    async def _register(self, name: str, crowd: Crowd) -> None:
        for index in range(10):
            begun = time.perf_counter()
            await crowd.register(f"{name}-{index}".replace("_", "-"), Endpoint("127.0.60.100", 26001))
            self._figures.add(name, (time.perf_counter() - begun) * 1000)
            await crowd.release(f"{name}-{index}".replace("_", "-"))

    async def _live(self) -> None:
        number = self._size.thousand
        with self._gateways(LIGHT, ports=number + 20) as (gateway,):
            async with Targets("127.0.60.100").serving(number) as targets:
                async with Crowd.at(gateway) as crowd:
                    begun = time.perf_counter()
                    entry_points = await _opened(crowd, targets)
                    self._figures.add("live_rate", number / (time.perf_counter() - begun))
                    self._figures.add("live_memory", gateway.memory())
                begun = time.perf_counter()
                gateway.kill_and_restart()
                gateway.served()
                async with Crowd.at(gateway) as crowd:
                    await _until_active(crowd, number)
                    self._figures.add("live_recovery", time.perf_counter() - begun)
                    right = await asyncio.gather(*map(crowd.leads_to, entry_points, targets))
                    self._figures.add("live_right", sum(right) / number)
                    self._figures.add("live_recovered_memory", gateway.memory())
                    begun = time.perf_counter()
                    await _released(crowd, number)
                    await _until_there_are(crowd, 0)
                    self._figures.add("live_release", time.perf_counter() - begun)

    async def _restarts(self) -> None:
        with self._pairs() as pairs:
            async with Targets("127.0.60.100").serving(1) as (target,), contextlib.AsyncExitStack() as stack:
                crowds = [await stack.enter_async_context(Crowd.at(pair.gateway)) for pair in pairs]
                for index in range(self._size.kills):
                    for pair, crowd in zip(pairs, crowds, strict=True):
                        # Another session each time: one that dies again is given a pause.
                        seconds = await _restarted(pair, crowd, Uid(f"killed-{index}"), target)
                        self._figures.add(f"restart_{pair.engine}", seconds)

    def _reenact(self) -> None:
        self._figures.add("deployed_design_alone_right", share_at_once(1))
        self._figures.add("deployed_design_at_once_right", share_at_once(20))


def _set_up(pair: Pair) -> float:
    """Open both ends of a stream with a key, as a user does; seconds. It is released after the clock has stopped."""
    uid = Uid(f"set-up-{secrets.token_hex(4)}")
    begun = time.perf_counter()
    _open_both(pair, uid, Endpoint("127.0.60.100", 26001))
    seconds = time.perf_counter() - begun
    _release_both(pair, uid)
    return seconds


def _open_both(pair: Pair, uid: Uid, target: Endpoint) -> Endpoint:
    """Returns where the stream begins."""
    key = secrets.token_bytes(32)
    near = open_session(pair.inbound, SessionRequest(uid, Direction.INBOUND, (target,), connections=1, key=key))
    towards = tuple(map(Endpoint.parse, near.entry_points))
    encryption = Encryption(near.encryption)
    wish = SessionRequest(uid, Direction.OUTBOUND, towards, connections=1, key=key, encryption=encryption)
    far = open_session(pair.outbound, wish)
    return Endpoint.parse(far.entry_points[0])


def _release_both(pair: Pair, uid: Uid) -> None:
    release_session(pair.outbound, uid)
    release_session(pair.inbound, uid)


async def _restarted(pair: Pair, crowd: Crowd, uid: Uid, target: Endpoint) -> float:
    """Seconds from the end of a data server until bytes go through the new one that stands in for it."""
    entry_point = await asyncio.to_thread(_open_both, pair, uid, target)
    if not await Crowd.leads_to(entry_point, target):
        raise RuntimeError(f"{uid} does not lead to its target")
    begun = time.perf_counter()
    pair.gateway.kill_data_server(uid)
    async with asyncio.timeout(60):
        while not await crowd.restarts(uid):  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.005)
        while not await Crowd.leads_to(entry_point, target):
            pass
    seconds = time.perf_counter() - begun
    await asyncio.to_thread(_release_both, pair, uid)
    return seconds


async def _opened(crowd: Crowd, targets: Sequence[Endpoint]) -> list[Endpoint | None]:
    return await asyncio.gather(*(crowd.open(f"session-{index}", target) for index, target in enumerate(targets)))


async def _released(crowd: Crowd, number: int) -> None:
    await asyncio.gather(*(crowd.release(f"session-{index}") for index in range(number)))


async def _until_there_are(crowd: Crowd, number: int) -> None:
    async with asyncio.timeout(60):
        while await crowd.number() != number:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.02)


async def _until_active(crowd: Crowd, number: int) -> None:
    async with asyncio.timeout(60):
        while (await crowd.states()).count("active") != number:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
