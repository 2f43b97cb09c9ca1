"""The command line tools as people run them: processes, in a directory of the test's own.

def test_something(tools, gateway):
    server = gateway(11)
    out, err = tools.run("s2uc", "list", "--s2cs", server.endpoint)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scistream.addresses import Endpoint
from scistream.client import Connection, ControlServer, connect
from scistream.errors import ExitCode

__all__ = ["Tools", "connection_to", "gateway", "listeners_in", "tools", "uids", "wait_for"]


@dataclass
class Tools:
    """Runs the tools in a directory of the test's own, with a home of its own."""

    directory: Path
    environment: dict[str, str]

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self.environment,
        )

    def run(self, *words: str, code: int = ExitCode.OK) -> tuple[str, str]:
        """Run to its end, which has to be `code`; what it said on stdout and stderr."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{words} ended with {process.returncode}: {out}{err}"
        assert "Traceback" not in err
        return out, err

    def fail(self, code: ExitCode, *words: str) -> str:
        """Run to a failure: nothing that says Listeners, one sentence."""
        out, err = self.run(*words, code=code)
        assert "Listeners" not in out
        assert err.count("error:") == 1
        return err


@pytest.fixture
def tools(tmp_path: Path, free_environment: dict[str, str]) -> Tools:
    home = tmp_path / "home"
    home.mkdir()
    environment = free_environment | {"HOME": str(home)}
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        environment.pop(variable, None)
    return Tools(home, environment)


@pytest.fixture
def gateway(control_server_factory, tools: Tools) -> Callable[..., object]:
    """Start a control server on 127.0.30.NUMBER; its certificate is the tools' `server.crt`."""

    def start(number: int = 11, **options):
        port = 23300 + 30 * (number - 11)
        usual = {"address": f"127.0.30.{number}", "port": port, "port_range": f"{port + 1}-{port + 20}"}
        server = control_server_factory(**usual | options)
        name = "server.crt" if number == 11 else f"server-{number}.crt"
        (tools.directory / name).write_bytes(server.certificate.read_bytes())
        return server

    return start


def connection_to(server) -> Connection:
    return connect(ControlServer(Endpoint.parse(server.endpoint), server.certificate))


def uids(server) -> list[str]:
    with connection_to(server) as connection:
        return [session.uid for session in connection.list_sessions()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listeners_in(out: str) -> str:
    """What a script of today takes out of the output."""
    (line,) = [line for line in out.splitlines() if line.startswith("Listeners: ")]
    return ",".join(json.loads(line.removeprefix("Listeners: ").replace("'", '"')))
