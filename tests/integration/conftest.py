"""What integration tests stand on: certificates, real control servers (`s2cs` processes), real targets.

    def test_something(control_server_factory, echo_target):
        inbound = control_server_factory(address="127.0.20.1")
        outbound = control_server_factory(address="127.0.20.2", engine="haproxy")

Every control server has its own state directory, certificate and log below the test's `tmp_path`. What a test leaves
running is ended after it, data servers included; nothing that the test did not start is touched.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from command_line import gateway, tools  # noqa: F401 - fixtures
from scistream import certificates
from scistream.protocol import control_pb2_grpc, operations_pb2_grpc
from ssh_daemon import ssh  # noqa: F401 - fixture

_START = 30.0
_END = 30.0
_PAUSE = 0.05


@pytest.fixture(autouse=True, scope="session")
def compiled_once() -> Iterator[None]:
    """Modules of Ansible's are not compiled by every process again (tests/compiled_once/sitecustomize.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "compiled_once"), prepend=os.pathsep)
        yield


@dataclass
class CertificateFiles:
    """A self-signed certificate and its key."""

    certificate: Path
    key: Path


@dataclass
class ControlServerProcess:
    """A control server that runs as a process of its own.

    `command` starts it again in the same way: `restart()` is what an operator's restart is.
    """

    address: str
    port: int
    engine: str
    state_directory: Path
    certificate: Path
    command: list[str]
    log: Path
    tls: bool
    process: subprocess.Popen[bytes] | None = None
    channels: list[grpc.Channel] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> ControlServerProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.log.parent
            )
        self._wait_serving()
        return self

    def _wait_serving(self) -> None:
        deadline = time.monotonic() + _START
        while not self.serves():
            assert self.process is not None
            assert self.process.poll() is None, f"s2cs ended with {self.process.returncode}: {self.words()}"
            assert time.monotonic() < deadline, f"s2cs does not serve: {self.words()}"
            time.sleep(_PAUSE)

    def serves(self) -> bool:
        """Whether the standard health service says so, over the real channel."""
        channel = self.channel()
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        finally:
            channel.close()
        return reply.status == health_pb2.HealthCheckResponse.SERVING

    def channel(self) -> grpc.Channel:
        """A new channel, closed at the end of the test at the latest."""
        # Channels of one process share connections where they are told nothing else; a restart would show late.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        if self.tls:
            credentials = grpc.ssl_channel_credentials(self.certificate.read_bytes())
            channel = grpc.secure_channel(self.endpoint, credentials, options=options)
        else:
            channel = grpc.insecure_channel(self.endpoint, options=options)
        self.channels.append(channel)
        return channel

    def control(self) -> control_pb2_grpc.ControlStub:
        """The deployed protocol."""
        return control_pb2_grpc.ControlStub(self.channel())

    def operations(self) -> operations_pb2_grpc.OperationsStub:
        """What goes beyond it."""
        return operations_pb2_grpc.OperationsStub(self.channel())

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; returns its exit code. SIGINT releases all sessions, SIGTERM none."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(_END)

    def restart(self) -> None:
        """SIGTERM, then the same command again."""
        self.end()
        self.start()

    def words(self) -> str:
        """All that it has written."""
        return self.log.read_text() if self.log.exists() else ""

    def files(self, uid: str) -> list[str]:
        """The files of a session."""
        return sorted(path.name for path in self.state_directory.glob(f"{uid}*"))

    def data_servers(self) -> list[psutil.Process]:
        """The data servers that run on this control server's state directory: their output goes to its logs."""
        return [process for process in psutil.process_iter() if _writes_below(process, self.state_directory)]

    def clear(self) -> None:
        """End everything that this control server started."""
        for channel in self.channels:
            channel.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(_END)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.data_servers():
            with contextlib.suppress(psutil.Error):
                process.kill()


def _writes_below(process: psutil.Process, directory: Path) -> bool:
    try:
        output = Path(f"/proc/{process.pid}/fd/1").readlink()
    except OSError:
        return False
    # The control server's own output lies beside the state directory.
    return output.is_relative_to(directory)


CertificateFactory = Callable[..., CertificateFiles]
ControlServerFactory = Callable[..., ControlServerProcess]


@pytest.fixture
def certificate_factory(tmp_path: Path) -> CertificateFactory:
    """Self-signed certificates: `certificate_factory("127.0.20.1", "localhost")`, valid now and for a day."""
    count = iter(range(1000))

    def issue(*names: str, days: int = 90, now: datetime.datetime | None = None) -> CertificateFiles:
        directory = tmp_path / f"certificate-{next(count)}"
        directory.mkdir()
        files = CertificateFiles(directory / "server.crt", directory / "server.key")
        moment = now or datetime.datetime.now(datetime.UTC)
        certificates.issue(files.certificate, files.key, names=names, days=days, ca=None, now=moment)
        return files

    return issue


@pytest.fixture
def control_server_factory(tmp_path: Path, certificate_factory: CertificateFactory) -> Iterator[ControlServerFactory]:
    """Real control servers, which serve: `control_server_factory(address="127.0.20.1", engine="haproxy")`.

    Arguments, all by name:
        address: where it listens, also its entry points (default 127.0.20.1).
        port: the control port (default 22000).
        port_range: of the entry points (default 22100-22199).
        engine: haproxy, nginx or stunnel.
        ssl: False for a plain-text channel.
        options: more words of the command line; by default, deployed clients are served unencrypted.
        names: of the certificate, beside the address.
        start: False to be given it without its being started.
    """
    made: list[ControlServerProcess] = []

    def make(
        *,
        address: str = "127.0.20.1",
        port: int = 22000,
        port_range: str = "22100-22199",
        engine: str = "haproxy",
        ssl: bool = True,
        options: Sequence[str] = (),
        names: Sequence[str] = (),
        start: bool = True,
    ) -> ControlServerProcess:
        directory = tmp_path / f"s2cs-{len(made)}"
        directory.mkdir()
        files = certificate_factory(*(names or (address,)))
        words = {
            "listener-ip": address,
            "port": port,
            "port-range": port_range,
            "type": engine,
            "server-crt": files.certificate,
            "server-key": files.key,
            "state-directory": directory / "state",
            "ssl": ssl,
            # A bare stub says no more than a deployed client does.
            "old-clients": "plain",
        }
        command = [sys.executable, "-m", "scistream.cli.s2cs", "--insecure-no-auth"]
        command += [f"--{word}={value}" for word, value in words.items()] + list(options)
        server = ControlServerProcess(
            address, port, engine, directory / "state", files.certificate, command, directory / "words", ssl
        )
        made.append(server)
        return server.start() if start else server

    try:
        yield make
    finally:
        for server in made:
            server.clear()


@dataclass
class EchoTarget:
    """A target that sends back what it gets, until the sender is done."""

    address: str
    port: int

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def echo_target() -> Iterator[EchoTarget]:
    """A real TCP target on a loopback address, at a port that the kernel chooses."""
    with _EchoServer(("127.0.20.100", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield EchoTarget(*server.server_address)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def round_trip() -> Callable[[str, bytes], bytes]:
    """Sends bytes to an entry point and returns what comes back: `round_trip("127.0.20.2:22100", b"...")`."""

    def run(endpoint: str, data: bytes) -> bytes:
        host, _, port = endpoint.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=20) as connection:
            sender = threading.Thread(target=_send, args=(connection, data))
            sender.start()
            received = bytearray()
            while len(received) < len(data) and (part := connection.recv(65536)):
                received += part
            sender.join()
            return bytes(received)

    return run


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


@pytest.fixture
def is_free() -> Callable[[str], bool]:
    """Whether nobody is on an address: `is_free("127.0.20.1:22100")`. Old connections that wait out do not count."""

    def look(endpoint: str) -> bool:
        host, _, port = endpoint.rpartition(":")
        bare = host.strip("[]")
        with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((bare, int(port)))
            except OSError:
                return False
            return True

    return look


@pytest.fixture
def free_environment() -> dict[str, str]:
    """This process's environment less what would configure a SciStream tool."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SCISTREAM_")}
