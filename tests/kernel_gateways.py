"""Two control servers with nftables on the gateways of four hosts, and `s2uc` on the application's (demo/network.py).

Everything is as at a site: the servers are processes on their hosts, the client is the tool, and bytes go from the
application's host to the target's through both gateways.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from places import WAIT, both, exactly, until
from scistream.demo.network import Host, Network
from scistream.engines import nft_conntrack
from scistream.engines.host import find_program
from scistream.errors import ExitCode

__all__ = ["Client", "Gateway", "Pipe", "Target", "lacking"]

_READY = "control server ready"
_PORT = 5000


def lacking() -> str:
    """What keeps these tests from running here; empty where nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("nft", "ip", "tc") if not find_program([program])]
    return f"{', '.join(missing)} is missing" if missing else ""


@dataclass
class Gateway:
    """A control server on a host, which listens at one of its addresses."""

    host: Host
    address: str
    directory: Path
    certificate: Path
    engine: str = "nftables"
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"[{self.address}]:{_PORT}" if ":" in self.address else f"{self.address}:{_PORT}"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def words(self) -> str:
        """All that it has logged."""
        log = self.directory / "words"
        return log.read_text() if log.exists() else ""

    def start(self) -> Gateway:
        before = self.words().count(_READY)
        words = {
            "listener-ip": self.address,
            "port": _PORT,
            "port-range": "5100-5120",
            "type": self.engine,
            "server-crt": self.certificate,
            "server-key": self.certificate.with_suffix(".key"),
            "state-directory": self.state,
            "quarantine": 0,
        }
        command = [sys.executable, "-m", "scistream.cli.s2cs", "--insecure-no-auth"]
        command += [f"--{word}={value}" for word, value in words.items()]
        with (self.directory / "words").open("ab") as log:
            self.process = self.host.popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.words().count(_READY) > before or self.process.poll() is not None)
        assert self.process.poll() is None, self.words()
        return self

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(WAIT)

    def lose_journal(self) -> None:
        for path in self.state.glob("journal.*"):
            path.unlink()

    def s2cs(self, *words: str) -> str:
        """What a command of its operator says."""
        command = [sys.executable, "-m", "scistream.cli.s2cs", *words, f"--state-directory={self.state}"]
        done = self.host.run(command, timeout=WAIT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rules(self) -> list[str]:
        """The tables of control servers that stand on the host."""
        answer = json.loads(self.host.run([str(shutil.which("nft")), "-j", "list", "tables"]).stdout)
        names = [each["table"]["name"] for each in answer["nftables"] if "table" in each]
        return [name for name in names if name.startswith("scistream")]

    def flush(self) -> None:
        """What an operator does who loads the firewall anew."""
        self.host.run([str(shutil.which("nft")), "flush", "ruleset"])

    def connections(self) -> int:
        """Those of sessions that the kernel tracks."""
        with self.host.entered():
            return sum(nft_conntrack.open_by_number().values())

    def is_free(self, port: int) -> bool:
        """Whether nobody is on a port, neither of TCP nor of UDP."""
        with self.host.entered():
            return all(self._binds(port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))

    def _binds(self, port: int, kind: socket.SocketKind) -> bool:
        with socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET, kind) as trial:
            try:
                trial.bind((self.address, port))
            except OSError:
                return False
            return True


@dataclass
class Target:
    """What listens on the target's host."""

    listener: socket.socket

    @classmethod
    def of(cls, network: Network, *, v6: bool = False, kind: socket.SocketKind = socket.SOCK_STREAM) -> Target:
        host = (network.target.addresses_v6 if v6 else network.target.addresses)[0]
        with network.target.entered():
            made = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
        made.settimeout(WAIT)
        made.bind((host, 0))
        if kind is socket.SOCK_STREAM:
            made.listen(16)
        return cls(made)

    @property
    def words(self) -> list[str]:
        """How `s2uc` is told of it."""
        host, port = self.listener.getsockname()[:2]
        return [f"--remote-ip={host}", f"--receiver-ports={port}"]


@dataclass
class Pipe:
    """One connection from the application to the target, through whatever is between."""

    near: socket.socket
    far: socket.socket

    @classmethod
    def of(cls, network: Network, entry_point: str, target: Target) -> Pipe:
        near = dial(network.application, entry_point)
        far, _ = target.listener.accept()
        far.settimeout(WAIT)
        return cls(near, far)

    def carries(self, size: int = 1 << 20) -> None:
        """Whole bytes, both ways at once."""
        there, back = secrets.token_bytes(size), secrets.token_bytes(size // 2)
        _, _, came, went = both(
            lambda: self.near.sendall(there),
            lambda: self.far.sendall(back),
            lambda: exactly(self.far, len(there)),
            lambda: exactly(self.near, len(back)),
        )
        assert [hashlib.sha256(each).digest() for each in (came, went)] == [
            hashlib.sha256(each).digest() for each in (there, back)
        ]

    def close(self) -> None:
        self.near.close()
        self.far.close()


def dial(host: Host, entry_point: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket of a host that is connected to an entry point."""
    address, _, port = entry_point.rpartition(":")
    with host.entered():
        made = socket.socket(socket.AF_INET6 if "[" in address else socket.AF_INET, kind)
    made.settimeout(WAIT)
    try:
        made.connect((address.strip("[]"), int(port)))
    except BaseException:
        made.close()
        raise
    return made


@dataclass
class Client:
    """`s2uc` on the application's host."""

    host: Host
    directory: Path
    outbound: Gateway
    inbound: Gateway
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, gateway: Gateway, *words: str, code: int = ExitCode.OK) -> tuple[str, str]:
        """Run to its end, which has to be `code`; what it said on stdout and stderr."""
        program = str(Path(sys.executable).with_name("s2uc"))
        place = [f"--s2cs={gateway.endpoint}", f"--server-cert={gateway.certificate}"]
        done = self.host.run(
            [program, *words, *place], timeout=WAIT, check=False, env=self.environment, cwd=self.directory
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout, done.stderr

    def ask(self, gateway: Gateway, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(gateway, *words, "--json")[0])
        return found

    def open(self, target: Target, *words: str, outbound: tuple[str, ...] = ()) -> tuple[str, str]:
        """Both ends of a stream; the uid, and the entry point that the application is told."""
        ticket = self.directory / f"{secrets.token_hex(4)}.ticket"
        self.ask(self.inbound, "inbound-request", *target.words, *words, f"--ticket={ticket}")
        session = self.ask(self.outbound, "outbound-request", f"--ticket={ticket}", *outbound)["session"]
        return session["uid"], session["entry_points"][0]

    def status(self, gateway: Gateway, uid: str) -> dict[str, Any]:
        """All about a session; `s2uc status` itself fails where the session has."""
        (session,) = [each for each in self.ask(gateway, "list")["sessions"] if each["uid"] == uid]
        found: dict[str, Any] = session
        return found

    def warnings(self, gateway: Gateway) -> list[str]:
        """What the control server has to say of itself."""
        found: list[str] = self.ask(gateway, "status")["control_server"]["warnings"]
        return found

    def release(self, uid: str) -> None:
        for gateway in (self.outbound, self.inbound):
            self.run(gateway, "release", uid)
