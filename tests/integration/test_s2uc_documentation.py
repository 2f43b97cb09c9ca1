"""Every command of docs/s2uc.md, pasted into a shell beside a real control server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Tools, uids
from scistream.cli import s2uc
from scistream.errors import ExitCode

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "s2uc.md").read_text()
COMMANDS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def target():
    """What the page's examples lead to."""
    program = (
        "import socketserver\n"
        "class Handler(socketserver.BaseRequestHandler):\n"
        "    def handle(self):\n"
        "        while self.request.recv(1024): pass\n"
        "socketserver.ThreadingTCPServer.allow_reuse_address = True\n"
        "with socketserver.ThreadingTCPServer(('localhost', 5074), Handler) as server:\n"
        "    print(flush=True)\n"
        "    server.serve_forever()\n"
    )
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_commands_work_as_they_stand(tools: Tools, gateway, target) -> None:
    server = gateway(
        11,
        address="127.0.0.1",
        port=5000,
        port_range="5100-5120",
        names=["localhost", "127.0.0.1"],
    )
    path = f"{Path(sys.executable).parent}:{tools.environment['PATH']}"
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", "\n".join(COMMANDS)],
        cwd=tools.directory,
        env=tools.environment | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    # Six sessions, and the application controller is told of one of them.
    assert done.stdout.count("Listeners: ['127.0.0.1:51") == 7
    assert "accepted, and not closed within 5 s; whether the target has it is not known" in done.stdout
    assert uids(server) == []
    assert not (tools.directory / "beam.ticket").exists()
    assert list(tools.directory.glob(".local/state/scistream/tickets/*")) == []


def test_every_command_stands_on_the_page() -> None:
    for name in s2uc.command.commands:
        assert re.search(rf"`?(s2uc )?{name}\b", PAGE), name


def test_the_exit_codes_are_the_catalogues() -> None:
    table = {int(code): name for code, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PAGE, re.MULTILINE)}
    assert table == {code.value: code.name for code in ExitCode}
