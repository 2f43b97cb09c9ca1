"""A control server as its host's commands see it: started in the background, asked, ended."""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scistream import certificates
from scistream.addresses import Endpoint
from scistream.control_server.configuration import CREDENTIALS_DIRECTORY, ENVIRONMENT_PREFIX, Settings
from scistream.control_server.judgement import judge
from scistream.control_server.private_files import check_directory, check_holder, open_private, prepare_directory
from scistream.control_server.state_directory import Announcement, Traces, log_of, read_announcement
from scistream.errors import Code, ExitCode, SciStreamError, one_line
from scistream.protocol import AUTHORIZATION, operations_pb2, operations_pb2_grpc

__all__ = ["StartError", "Status", "start", "status", "stop"]

_PAUSE: Final = 0.05
# Seconds that one question to a control server may take.
_ANSWER: Final = 5.0
# Seconds that a child gets to end before it is killed.
_END: Final = 10.0
# What the command line tool writes in front of its errors (cli.common).
_ERROR: Final = "s2cs: error: "
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class StartError(Exception):
    """A control server in the background ended before it answered: its words and its exit code."""

    def __init__(self, words: str, exit_code: int) -> None:
        super().__init__(words)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Status:
    """A control server that runs and answers; `states` counts its sessions by state."""

    announcement: Announcement
    version: str
    sessions: int
    warnings: tuple[str, ...] = ()
    states: Mapping[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, object]:
        """As plain data."""
        running = self.announcement
        return {
            "pid": running.pid,
            "address": running.address,
            "engine": running.engine,
            "tls": running.tls,
            "authentication": running.authentication,
            "sessions": self.sessions,
            "states": dict(self.states),
            "version": self.version,
            "warnings": list(self.warnings),
        }


def start(settings: Settings, *, timeout: float) -> tuple[Announcement, bool]:
    """Start a control server in the background, and return when it answers; one that runs already is left alone.

    Returns:
        who runs, and whether it was started by this call.

    Raises:
        StartError: it ended at once.
        SciStreamError: ALREADY_RUNNING where the one that runs has other settings; DEADLINE; ENDED_MEANWHILE; what
            `judge` raises.
    """
    if settings.state_directory.is_dir():
        # Before its lock is believed.
        check_directory(settings.state_directory)
    traces = Traces(settings.state_directory)
    children: list[_Child] = []
    kept = 0
    try:
        running = _until_it_answers(settings, timeout, children)
        kept = running.pid
    finally:
        # Another call was faster, or this one failed or was interrupted: nothing of ours may come up later.
        for child in children:
            if child.pid != kept:
                child.end()
        if not kept:
            traces.remove()
    return running, any(child.pid == kept for child in children)


def _until_it_answers(settings: Settings, timeout: float, children: list[_Child]) -> Announcement:
    deadline, last = time.monotonic() + timeout, "nothing"
    while time.monotonic() < deadline:
        running = read_announcement(settings.state_directory)
        if running is not None and running.address:
            _require_same(running, settings)
            last = _health(running)
            if not last:
                return running
            _require_unexpired(running)
        if running is None and not children:
            judge(settings)
            children.append(_Child(settings))
        elif children and (running is None or running.pid == children[-1].pid):
            children[-1].check()
        time.sleep(_PAUSE)
    raise SciStreamError(Code.DEADLINE, what="the start of the control server", seconds=timeout, last=last)


class _Child:
    """A control server that this process started."""

    def __init__(self, settings: Settings) -> None:
        self._log = _open_log(settings.state_directory)
        self._read_from = self._log.stat().st_size
        # -P: the state directory is no place to import from.
        command = [sys.executable, "-P", "-m", "scistream.cli.s2cs", *settings.arguments()]
        secret = settings.client_secret.get_secret_value()
        if secret:
            # Through a pipe: a command line is everybody's to read, and an environment is handed on to data servers.
            command.append("--client-secret=-")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if secret else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=settings.state_directory,
                env=_environment(),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._hand_over(secret)

    def _hand_over(self, secret: str) -> None:
        if self._process.stdin is not None:
            # Where it has ended already, `check` tells.
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(f"{secret}\n".encode())

    def check(self) -> None:
        """Raise what the child said last, where it has ended; ENDED_MEANWHILE where it was told to."""
        code = self._process.poll()
        if code is None:
            return
        with self._log.open("rb") as log:
            log.seek(self._read_from)
            lines = log.read().decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith(_ERROR)]
        if not errors and code <= 0:
            # Its last lines tell of a start, not of why there is none.
            ending = f"signal {signal.Signals(-code).name}" if code else "exit status 0"
            raise SciStreamError(Code.ENDED_MEANWHILE, pid=self.pid, ending=ending)
        words = errors[-1] if errors else _ERROR + one_line(" ".join(lines[-3:]) or "it ended without a word")
        raise StartError(words, code if code > 0 else ExitCode.INTERNAL)

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment() -> dict[str, str]:
    """Ours, less what configures a control server: the child is told everything by its options."""
    told = {ENVIRONMENT_PREFIX + key.upper() for key in ("config", *Settings.model_fields)} | {CREDENTIALS_DIRECTORY}
    return {key: value for key, value in os.environ.items() if key not in told}


def _open_log(directory: Path) -> Path:
    prepare_directory(directory)
    path = log_of(directory)
    try:
        os.close(open_private(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
    return path


def _require_same(running: Announcement, settings: Settings) -> None:
    if running.settings != settings.digest():
        raise SciStreamError(Code.ALREADY_RUNNING, pid=running.pid, directory=str(settings.state_directory))


def stop(state_directory: Path, *, release: bool, timeout: float) -> bool:
    """End the control server of a state directory, and wait until it is gone; False where none runs.

    Args:
        state_directory: the server's.
        release: have it release its sessions first; otherwise their data servers go on.
        timeout: seconds to wait.

    Raises:
        SciStreamError: DEADLINE; BAD_CONFIGURATION where the lock names a process of another user than the directory's.
    """
    running = read_announcement(state_directory)
    if running is None:
        return False
    try:
        descriptor = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return False
    try:
        check_holder(state_directory, running.pid)
        # The lock proves that the number was not given to another process before it was opened.
        if read_announcement(state_directory) == running:
            signal.pidfd_send_signal(descriptor, signal.SIGINT if release else signal.SIGTERM)
        if not select.select([descriptor], [], [], timeout)[0]:
            last = f"pid {running.pid} runs"
            raise SciStreamError(Code.DEADLINE, what="the end of the control server", seconds=timeout, last=last)
    finally:
        os.close(descriptor)
    return True


def status(state_directory: Path) -> Status:
    """Ask the control server of a state directory how it is.

    Raises:
        SciStreamError: NOT_RUNNING, CONTROL_SERVER_UNREACHABLE.
    """
    running = read_announcement(state_directory)
    if running is None:
        raise SciStreamError(Code.NOT_RUNNING, directory=str(state_directory))
    reason = _health(running) if running.address else "it is starting"
    if reason:
        _require_unexpired(running)
        raise SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server=running.address, reason=reason)
    try:
        with _channel(running) as channel:
            stub = operations_pb2_grpc.OperationsStub(channel)
            token = ((AUTHORIZATION, running.host_secret),) if running.host_secret else ()
            facts = stub.GetServerFacts(operations_pb2.GetServerFactsRequest(), timeout=_ANSWER, metadata=token)
            listed = stub.ListSessions(operations_pb2.ListSessionsRequest(), timeout=_ANSWER, metadata=token)
    except grpc.RpcError as error:
        reason = _words(error)
        raise SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server=running.address, reason=reason) from None
    states = Counter(each.state for each in listed.sessions)
    return Status(running, facts.version, facts.sessions, tuple(facts.warnings), dict(sorted(states.items())))


def _health(running: Announcement) -> str:
    """Why a control server does not serve, or nothing where it does."""
    try:
        with _channel(running) as channel:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER)
    except grpc.RpcError as error:
        return _words(error)
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def _require_unexpired(running: Announcement) -> None:
    """Name the cause where no one can connect any more: the certificate that it started with is over.

    Raises:
        SciStreamError: CERTIFICATE_EXPIRED.
    """
    try:
        end = x509.load_pem_x509_certificate(running.certificate.encode()).not_valid_after_utc
    except ValueError:
        # Plain text, or none that says when it ends.
        return
    if end < datetime.datetime.now(datetime.UTC):
        whose = f"that the control server (pid {running.pid}) started with"
        raise SciStreamError(Code.CERTIFICATE_EXPIRED, path=whose, date=certificates.spell_time(end))


def _words(error: grpc.RpcError) -> str:
    return str(error.details()) if isinstance(error, grpc.Call) else str(error)


def _channel(running: Announcement) -> grpc.Channel:
    """The real channel, by an address of this host; the certificate is the one that the server announced."""
    address = Endpoint.parse(running.address)
    target = str(Endpoint(_LOOPBACK.get(address.host, address.host), address.port))
    direct = ("grpc.enable_http_proxy", 0)
    if not running.tls:
        return grpc.insecure_channel(target, options=(direct,))
    credentials = grpc.ssl_channel_credentials(running.certificate.encode())
    # Its names need not include this address, where it listens on all of them or its clients use another.
    name = ("grpc.ssl_target_name_override", running.certificate_name or address.host)
    return grpc.secure_channel(target, credentials, options=(direct, name))
