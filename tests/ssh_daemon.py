"""A real sshd on a loopback address, as a child with a configuration, host keys and a port of its own.

def test_something(ssh):
    daemon = ssh.daemon()
    ssh.trust(daemon)
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from command_line import Tools, wait_for

__all__ = ["Ssh", "SshDaemon", "make_key", "ssh"]

_KEEPER = "scistream.hops.keeper"
# sshd wants to be called by its whole path. As root, it looks for a directory that its package's unit makes.
_PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_EMPTY = Path("/run/sshd")
_START = 10.0


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A pair of keys: `path` and `path.pub`."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30)
    return path


@dataclass
class SshDaemon:
    """An sshd; `settings` are further lines of its configuration."""

    directory: Path
    address: str
    port: int
    authorized: str
    settings: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def via(self) -> str:
        return f"ssh://{self.endpoint}"

    @property
    def host_key(self) -> Path:
        return self.directory / "host_key"

    def start(self) -> SshDaemon:
        self.directory.mkdir(exist_ok=True)
        if not self.host_key.exists():
            make_key(self.host_key)
        (self.directory / "authorized_keys").write_text(self.authorized)
        lines = [
            *self.settings,
            f"ListenAddress {self.endpoint}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
            "PidFile none",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "LogLevel VERBOSE",
        ]
        configuration = self.directory / "sshd_config"
        configuration.write_text("\n".join(lines) + "\n")
        assert _PROGRAM, "sshd is missing: make packages"
        if os.geteuid() == 0:
            _EMPTY.mkdir(mode=0o755, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            command = [_PROGRAM, "-D", "-e", "-f", str(configuration)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_listening()
        return self

    def _wait_listening(self) -> None:
        deadline = time.monotonic() + _START
        while not self._listens():
            assert self.process is not None
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.02)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
            return True
        return False

    def known(self, *names: str, key: Path | None = None) -> str:
        """The line of a file of known hosts."""
        kind, content = (key or self.host_key).with_name(f"{(key or self.host_key).name}.pub").read_text().split()[:2]
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{','.join(names or (name,))} {kind} {content}\n"

    def words(self) -> str:
        return (self.directory / "log").read_text()

    def logins(self) -> int:
        """How many SSH connections it has let in."""
        return self.words().count("Accepted publickey")

    def cut(self) -> None:
        """End the connections, and not the daemon."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Let the connections be, and say nothing: as a network that went away."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.send_signal(number)

    def end(self) -> None:
        """End it, with its connections."""
        if self.process is not None and self.process.poll() is None:
            self.cut()
            self.process.terminate()
            self.process.wait(_START)


@dataclass
class Ssh:
    """The client's side: a home with keys, known hosts and a configuration; and the daemons of one test."""

    home: Path
    runtime: Path
    environment: dict[str, str]
    daemons: list[SshDaemon] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.home / ".ssh"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def configuration(self) -> Path:
        return self.directory / "config"

    def daemon(self, address: str = "127.0.50.1", port: int = 2250, *settings: str, start: bool = True) -> SshDaemon:
        """An sshd that lets this user in with the key of the home."""
        if not self.key.exists():
            make_key(self.key)
        directory = self.home / f"sshd-{len(self.daemons)}"
        made = SshDaemon(directory, address, port, self.key.with_suffix(".pub").read_text(), settings)
        self.daemons.append(made)
        return made.start() if start else made

    def trust(self, *daemons: SshDaemon) -> None:
        """Know the keys of these daemons, and no others."""
        (self.directory / "known_hosts").write_text("".join(daemon.known() for daemon in daemons))

    def configure(self, text: str) -> None:
        """Write the configuration; the next call has another keeper."""
        self.configuration.write_text(text)
        self.configuration.chmod(0o600)

    def keepers(self) -> list[psutil.Process]:
        """The processes that hold connections of this test."""
        return [process for process in psutil.process_iter() if self._is_own(process)]

    def _is_own(self, process: psutil.Process) -> bool:
        try:
            return _KEEPER in process.cmdline() and process.environ().get("XDG_RUNTIME_DIR") == str(self.runtime)
        except psutil.Error:
            return False

    def sockets(self) -> list[Path]:
        """What lies in the directory of the sockets, but for the lock."""
        return sorted(path for path in (self.runtime / "scistream").glob("*") if path.name != "lock")

    def clear(self) -> None:
        """End the daemons; the keepers end with them, and those that do not are ended."""
        for daemon in self.daemons:
            daemon.end()
        for process in self.keepers():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
                process.wait(_START)


@pytest.fixture
def ssh(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ssh]:
    """SSH for the tools, and for the library in this process."""
    (tools.directory / ".ssh").mkdir(mode=0o700)
    with tempfile.TemporaryDirectory(prefix="hop-") as runtime:
        own = {"HOME": str(tools.directory), "XDG_RUNTIME_DIR": runtime, "SCISTREAM_SSH_IDLE": "20"}
        for variable in ("SSH_AUTH_SOCK", "SCISTREAM_SSH_CONFIG", "SCISTREAM_VIA"):
            monkeypatch.delenv(variable, raising=False)
            tools.environment.pop(variable, None)
        for variable, value in own.items():
            monkeypatch.setenv(variable, value)
        tools.environment.update(own)
        made = Ssh(tools.directory, Path(runtime), tools.environment)
        try:
            yield made
        finally:
            made.clear()
            wait_for(lambda: not made.keepers())


def me() -> str:
    """The user whose keys they are."""
    return getpass.getuser()
