"""A site on the test hosts: a copy of the checkout, the hosts of its example inventory, and an operator who types.

Commands run as `docs/` has them, with the copy as their directory and nothing of the tester's own settings.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hosts.hosts import Hosts

__all__ = ["ROOT", "Site", "commands", "copy", "entry_point_in", "outside", "site_at"]

ROOT = Path(__file__).parents[2]
_TARGET = ("198.18.13.10", "5074")
# One command on a machine that has much else to do.
_PATIENCE = 900.0
_RECEIVE = """
import hashlib, socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    digest = hashlib.sha256()
    while block := connection.recv(1 << 20):
        digest.update(block)
print(digest.hexdigest())
"""
_SEND = """
import hashlib, os, socket, sys
digest = hashlib.sha256()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as connection:
    for _ in range(16):
        block = os.urandom(1 << 20)
        digest.update(block)
        connection.sendall(block)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
print(digest.hexdigest())
"""


def commands(page: str, fence: str = "console") -> list[str]:
    """What a page says to type, in its order; `bash` is the fence of what is typed on a gateway."""
    text = (ROOT / "docs" / page).read_text()
    return [line for block in re.findall(rf"```{fence}\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@dataclass
class Site:
    """A copy of the checkout, with hosts where the example inventory looks for them."""

    checkout: Path
    hosts: Hosts

    def type(self, command: str, *, code: int = 0) -> str:
        """Run a command in a shell as an operator does; what it says."""
        done = subprocess.run(
            ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", command],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert done.returncode == code, f"{command}\n{done.stdout[-6000:]}"
        return done.stdout

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Start a command as in a terminal of its own; what it says can be read while it runs."""
        return subprocess.Popen(
            ["/usr/bin/env", "bash", "-c", command],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the operator's shell has."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "SCISTREAM_", "XDG_"))
        }
        state = self.checkout / ".state"
        return kept | {
            "ANSIBLE_NOCOLOR": "1",
            # Other hosts of this machine may have the same addresses.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(state / "cp"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(state / "config"),
            "XDG_STATE_HOME": str(state / "state"),
        }

    def carried(self, entry_point: str) -> bool:
        """Whether bytes from the instrument's host come out whole at the compute host."""
        receiver = self.hosts["compute"].popen(
            ["python3", "-c", _RECEIVE, *_TARGET], user="scientist", stdout=subprocess.PIPE, text=True
        )
        with receiver:
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "listening\n"
            host, _, port = entry_point.rpartition(":")
            sent = self.hosts["instrument"].run(["python3", "-c", _SEND, host, port], user="scientist").stdout
            return sent == receiver.stdout.read()

    def provision(self, *words: str, code: int = 0) -> str:
        """The playbook of that name, with the library of the copy; further words go on to ansible-playbook."""
        told = f"-i inventory/example -e scistream_library_source={self.checkout}"
        return self.type(f"ansible-playbook {told} playbooks/provision.yml {' '.join(words)}", code=code)


@contextlib.contextmanager
def site_at(place: Path, *, more: int = 0) -> Iterator[Site]:
    """A site whose hosts nobody has touched; the library for them is on the controller already."""
    checkout = place / "scistream"
    copy(checkout)
    with Hosts(checkout / ".state" / "hosts", more=more) as hosts:
        site = Site(checkout, hosts)
        # The library comes from a package index, and that is in the machine's own network only.
        site.type(f"{outside()} ansible localhost -m scistream.core.wheelhouse -a source={checkout}")
        yield site


def outside() -> str:
    """Into the network of who started this worker (own_network.py); nothing where that is this one."""
    here = Path("/proc/thread-self/ns/net").stat().st_ino
    network = Path(f"/proc/{os.getppid()}/ns/net")
    return f"nsenter --net={network}" if network.stat().st_ino != here else ""


def copy(checkout: Path) -> None:
    """Make a directory with what a clone has."""
    names = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    there = [name for name in names if (ROOT / name).exists() or (ROOT / name).is_symlink()]
    checkout.mkdir()
    archive = subprocess.run(["/usr/bin/env", "tar", "c", *there], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["/usr/bin/env", "tar", "x", "-C", checkout], input=archive.stdout, check=True)


def entry_point_in(words: str) -> str:
    """Where open_stream says that the application connects to."""
    found = re.search(r"Applications connect to ([0-9.]+:[0-9]+)", words)
    assert found, words
    return found[1]
