"""Data servers of all engines on loopback, 127.0.10.x and ports 21000 to 21999, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import pickle
import secrets
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine, Installation, Plan, Route
from scistream.engines.lifecycle import ProcessMark, start, stop
from scistream.engines.processes import group_of
from scistream.engines.proxy import Proxy
from scistream.errors import Code, SciStreamError
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Uid

# A control server that starts one data server, and ends.
_ELSEWHERE = """
import asyncio, pickle, sys
from scistream.engines import find_engine
from scistream.engines.lifecycle import start
engine, plan = pickle.load(sys.stdin.buffer)
mark = asyncio.run(start(find_engine(engine), plan))
print(mark.pid, mark.started)
"""
_ports = itertools.cycle(range(21000, 21900))


class Script(Proxy):
    """A data server in a few lines of Python, for behaviour that no engine shows when asked."""

    name: ClassVar[str] = "script"
    title: ClassVar[str] = "Script"
    encryptions: ClassVar[tuple[Encryption, ...]] = (Encryption.NONE,)

    def __init__(self, text: str) -> None:
        self.text = textwrap.dedent(text)

    def locate(self) -> Installation:
        return Installation(Path(sys.executable), "1")

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        return {plan.path("conf"): self.text}

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        return None

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        entry_point = plan.routes[0].entry_point
        return [sys.executable, "-u", str(plan.path("conf")), entry_point.host, str(entry_point.port)]


@dataclass
class Bench:
    """Where one test builds its data servers."""

    directory: Path
    host: str = "127.0.10.1"
    uid: Uid = field(default_factory=lambda: Uid(f"test-{secrets.token_hex(6)}"))
    key: bytes = field(default_factory=lambda: secrets.token_bytes(SESSION_KEY_SIZE))
    encryption: Encryption = Encryption.NONE
    marks: list[ProcessMark] = field(default_factory=list)

    def address(self, host: str | None = None) -> Endpoint:
        """An address that no other test has."""
        return Endpoint(host or self.host, next(_ports))

    def plan(
        self,
        *routes: tuple[Endpoint, Endpoint],
        direction: Direction = Direction.INBOUND,
        key: bytes | None = None,
        encryption: Encryption | None = None,
    ) -> Plan:
        made = tuple(itertools.starmap(Route, routes))
        stem = f"{self.uid}.{direction.value}"
        return Plan(
            self.uid, direction, made, self.directory, stem, key or self.key, encryption=encryption or self.encryption
        )

    @contextlib.asynccontextmanager
    async def running(self, engine: Engine, plan: Plan) -> AsyncIterator[ProcessMark]:
        mark = await start(engine, plan)
        self.marks.append(mark)
        try:
            yield mark
        finally:
            await stop(plan, mark, engine_title=engine.title)

    def start_elsewhere(self, engine: Engine, plan: Plan) -> ProcessMark:
        """A data server that an earlier control server started; it is no child of ours."""
        command = [sys.executable, "-c", _ELSEWHERE]
        done = subprocess.run(command, input=pickle.dumps((engine.name, plan)), stdout=subprocess.PIPE, check=True)
        self.marks.append(ProcessMark(*map(int, done.stdout.split())))
        return self.marks[-1]

    def one_route(self, **options: Any) -> Plan:
        """A plan with a target that nobody serves."""
        return self.plan((self.address(), self.address()), **options)

    def script(self, text: str) -> Engine:
        """An engine that does what no real one does when asked."""
        return Script(text)

    def fails(self, code: Code, run: Callable[[], Coroutine[Any, Any, object]]) -> SciStreamError:
        """The error that a start or stop ends with."""
        with pytest.raises(SciStreamError) as caught:
            asyncio.run(run())
        assert caught.value.code is code, str(caught.value)
        return caught.value

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for what the kernel or a proxy does in its own time."""
        for _ in range(1000):
            if true():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come")

    async def log(self, plan: Plan, *words: str) -> str:
        """A data server's log, once the words are in it: a peer may learn of its refusal before the log does."""
        for _ in range(500):
            text = plan.path("log").read_text()
            if all(word in text for word in words):
                break
            await asyncio.sleep(0.01)
        return text

    @contextlib.asynccontextmanager
    async def stream(self, engine: Engine, target: Endpoint) -> AsyncIterator[Endpoint]:
        """Both data servers of a stream; gives the outbound one's entry point."""
        outer, inner = self.address(), self.address()
        inbound = self.plan((inner, target))
        outbound = self.plan((outer, inner), direction=Direction.OUTBOUND)
        async with self.running(engine, inbound), self.running(engine, outbound):
            yield outer

    @contextlib.asynccontextmanager
    async def serving(
        self, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], host: str | None = None
    ) -> AsyncIterator[Endpoint]:
        """A target."""
        address = self.address(host)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                await handle(reader, writer)

        async with await asyncio.start_server(serve, address.host, address.port, backlog=1024):
            yield address

    @contextlib.asynccontextmanager
    async def connected(self, to: Endpoint) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """An application."""
        reader, writer = await asyncio.open_connection(to.host, to.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench; at the test's end no process and no file of its data servers may be there.

    Its plans ask for no encryption where the test's engine can do without.
    """
    made = Bench(tmp_path)
    if "engine" in request.fixturenames:
        encryptions = request.getfixturevalue("engine").encryptions
        made.encryption = Encryption.NONE if Encryption.NONE in encryptions else encryptions[0]
    yield made
    assert [facts for mark in made.marks for facts in group_of(mark.pid)] == []
    zombies = [child.pid for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("test-")) == []


@pytest.fixture(params=[name for name, engine in ENGINES.items() if isinstance(engine, Proxy)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the engines that are processes."""
    return ENGINES[request.param]


@dataclass(frozen=True)
class Load:
    """Bytes and their digest."""

    data: bytes = field(repr=False)

    @classmethod
    def of(cls, size: int) -> Load:
        return cls(os.urandom(size))

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()


@pytest.fixture
def load() -> Callable[[int], Load]:
    """Random bytes."""
    return Load.of
