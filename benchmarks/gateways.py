"""What the benchmark measures: control servers as processes, targets, and clients that ask many things at once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scistream import certificates
from scistream.addresses import Endpoint
from scistream.client import Connection, ControlServer, connect
from scistream.errors import SciStreamError
from scistream.protocol import ENCRYPTION_METADATA, control_pb2_grpc, operations_pb2, operations_pb2_grpc
from scistream.protocol import control_pb2 as wire
from scistream.terms import Encryption

__all__ = ["Crowd", "Gateway", "Targets", "wait_until"]

_START: Final = 60.0
_END: Final = 60.0
_CALL: Final = 120.0
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class Gateway:
    """A control server (`s2cs`) on a loopback address of its own, with its files below `directory`."""

    def __init__(self, directory: Path, address: str, engine: str, ports: str) -> None:
        directory.mkdir()
        self.address = Endpoint(address, 26000)
        self.certificate = directory / "server.crt"
        self._state = directory / "state"
        self._words = directory / "words"
        key, now = directory / "server.key", datetime.datetime.now(datetime.UTC)
        certificates.issue(self.certificate, key, names=(address,), days=1, ca=None, now=now)
        self._command = [sys.executable, "-m", "scistream.cli.s2cs", "--insecure-no-auth", f"--listener-ip={address}"]
        self._command += [f"--port={self.address.port}", f"--port-range={ports}", f"--type={engine}"]
        self._command += [f"--server-crt={self.certificate}", f"--server-key={key}", f"--state-directory={self._state}"]
        self._process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SCISTREAM_")}
        with self._words.open("ab") as words:
            # A session of its own: Ctrl-C is the benchmark's to act on.
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
                env=environment,
            )

    def served(self) -> Self:
        """Wait until it serves."""
        wait_until(self._serves, _START, self.words)
        return self

    def _serves(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"s2cs ended: {self.words()}")
        with grpc.secure_channel(str(self.address), self.credentials(), options=_OPTIONS) as channel:
            try:
                reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError:
                return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel to it needs."""
        return grpc.ssl_channel_credentials(self.certificate.read_bytes())

    def connect(self) -> Connection:
        """The library's own client."""
        return connect(ControlServer(self.address, self.certificate))

    def memory(self) -> float:
        """What of it lies in memory (RSS), in MiB."""
        return float(psutil.Process(self._process.pid).memory_info().rss) / 2**20

    def kill_and_restart(self) -> None:
        """SIGKILL, about which it can do nothing, and the same command again at once."""
        self._process.kill()
        self._process.wait()
        self._process = self._launch()

    def kill_data_server(self, uid: str) -> None:
        """SIGKILL for all processes of a session's data server."""
        for process in psutil.process_iter():
            if _writes_below(process.pid, self._state / f"{uid}.log"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def words(self) -> str:
        """The end of what it has written."""
        return self._words.read_text(errors="replace")[-2000:] if self._words.exists() else ""

    def clear(self) -> None:
        """End it and all its data servers."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END)
            self._process.kill()
            self._process.wait()
        for process in psutil.process_iter():
            if _writes_below(process.pid, self._state):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def _writes_below(pid: int, directory: Path) -> bool:
    """Whether a process is a data server of this state directory: its output is a log in there."""
    try:
        return Path(f"/proc/{pid}/fd/1").readlink().is_relative_to(directory)
    except OSError:
        return False


def wait_until(holds: Any, seconds: float, words: Any = lambda: "") -> None:
    """Look every few milliseconds until `holds()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come within {seconds:g} s: {words()}")
        time.sleep(0.005)


class Targets:
    """Services that each say their own address to whoever connects: a session that leads to a wrong one is seen."""

    def __init__(self, host: str) -> None:
        self._host = host

    @contextlib.asynccontextmanager
    async def serving(self, number: int) -> AsyncIterator[Sequence[Endpoint]]:
        """So many of them, inside the block."""
        servers = [await asyncio.start_server(self._answer, self._host, 0) for _ in range(number)]
        try:
            yield [Endpoint(*server.sockets[0].getsockname()) for server in servers]
        finally:
            for server in servers:
                server.close()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_spelled(writer.get_extra_info("sockname")))
        writer.close()


def _spelled(name: tuple[str, int]) -> bytes:
    return str(Endpoint(*name)).encode()


class Crowd:
    """Many users of one control server at once, over one channel: a thousand `req` and not one thread."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._control = control_pb2_grpc.ControlStub(channel)
        self._operations = operations_pb2_grpc.OperationsStub(channel)

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, gateway: Gateway) -> AsyncIterator[Crowd]:
        """Inside the block they have a channel."""
        channel = grpc.aio.secure_channel(str(gateway.address), gateway.credentials(), options=_OPTIONS)
        async with channel:
            await channel.channel_ready()
            yield cls(channel)

    def request(self, uid: str) -> Any:
        """A `req` that waits for its hello."""
        # Their bytes go straight to an entry point: there is no other gateway.
        plain = ((ENCRYPTION_METADATA, Encryption.NONE.value),)
        return self._control.req(wire.Request(uid=uid, role="PROD", num_conn=1), timeout=_CALL, metadata=plain)

    async def register(self, uid: str, target: Endpoint) -> str:
        """A `req` and its hello; returns the entry point."""
        waiting = self.request(uid)
        hello = wire.Hello(uid=uid, role="PROD", prod_listeners=[str(target)])
        await self._control.hello(hello, timeout=_CALL)
        return str((await waiting).listeners[0])

    async def open(self, uid: str, target: Endpoint) -> Endpoint | None:
        """Open a session; None where that is refused."""
        try:
            entry_point = await self.register(uid, target)
            change = wire.UpdateTargets(uid=uid, role="PROD", remote_listeners=[str(target)])
            await self._control.update(change, timeout=_CALL)
        except grpc.aio.AioRpcError:
            return None
        return Endpoint.parse(entry_point)

    async def release(self, uid: str) -> None:
        """Release a session; one that is not there is none."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._control.release(wire.Release(uid=uid), timeout=_CALL)

    async def states(self) -> list[str]:
        """The states of all sessions."""
        reply = await self._operations.ListSessions(operations_pb2.ListSessionsRequest(), timeout=_CALL)
        return [session.state for session in reply.sessions]

    async def restarts(self, uid: str) -> int:
        """How often a session's data server was started again; 0 while it does not run."""
        asked = operations_pb2.DescribeSessionRequest(uid=uid)
        (session,) = (await self._operations.DescribeSession(asked, timeout=_CALL)).sessions
        return int(session.restarts) if session.state == "active" else 0

    async def number(self) -> int:
        """How many sessions there are: a cheap question, also where there are a thousand."""
        facts = await self._operations.GetServerFacts(operations_pb2.GetServerFactsRequest(), timeout=_CALL)
        return int(facts.sessions)

    @staticmethod
    async def leads_to(entry_point: Endpoint | None, target: Endpoint) -> bool:
        """Whether bytes through an entry point come from this very target."""
        if entry_point is None:
            return False
        try:
            reader, writer = await asyncio.open_connection(entry_point.host, entry_point.port)
            async with asyncio.timeout(20):
                answer = await reader.read()
            writer.close()
        except (OSError, TimeoutError, SciStreamError):
            return False
        return answer == str(target).encode()
