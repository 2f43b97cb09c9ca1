"""A thousand random lives of sessions on real control servers: afterwards the machine is as it was before.

`SCISTREAM_LIVES` says how many, `SCISTREAM_SEED` which ones; both stand in the message of a failure.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from lives import WAIT, Calls, kill, wait_until
from scistream.control_server.data_servers import survey
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA, LEASE_METADATA
from scistream.protocol import control_pb2 as wire

LIVES = int(os.environ.get("SCISTREAM_LIVES", "1000"))
SEED = int(os.environ.get("SCISTREAM_SEED", "20260501"))
WORKERS = 12
# One end of a control server for so many lives.
ENDS = 100
KEY = bytes(range(100, 132))
NOWHERE = "no-such-host.invalid:5074"

LIVED, CUT_OFF = "it went as asked", "its control server was killed"
# What a life may be told; the errors where its control server ended in the middle of it.
EXPECTED = frozenset(
    {
        Code.CONTROL_SERVER_ENDING,
        Code.ENGINE_CANNOT,
        Code.SESSION_NOT_ACTIVE,
        Code.SESSION_NOT_REGISTERED,
        Code.TARGET_UNRESOLVED,
        Code.UID_EXISTS,
        Code.UID_UNKNOWN,
        LIVED,
        CUT_OFF,
    }
)


class Life:
    """One session from its request to its end, whatever that is. Calls that a crash cuts off are left at that."""

    def __init__(self, number: int, dice: random.Random, server, calls: Calls, target: str) -> None:
        self.uid = f"life-{number}"
        self.dice = dice
        self.server = server
        self.calls = calls
        self.target = target

    def run(self) -> Code | str:
        kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
        try:
            self.dice.choice(kinds)(self)
        except grpc.RpcError as error:
            return code_of(error)
        return LIVED

    def open(self, metadata: tuple = ()) -> None:
        self.calls.register(self.uid, self.target, number=self.dice.choice((1, 1, 1, 2, 3)), metadata=metadata)
        self.calls.update(self.uid, self.target, key=KEY)

    def ordinary(self) -> None:
        self.open()
        self.calls.release(self.uid)

    def forgotten(self) -> None:
        """Nobody releases it; the end of the test does."""
        self.open()

    def client_gone(self) -> None:
        request = self.calls.stub.req.future(wire.Request(uid=self.uid, role="PROD", num_conn=1), timeout=WAIT)
        self._pause()
        request.cancel()

    def never_updated(self) -> None:
        self.calls.register(self.uid, self.target)
        self.calls.release(self.uid)

    def failed_start(self) -> None:
        self.calls.register(self.uid, NOWHERE)
        with contextlib.suppress(grpc.RpcError):
            self.calls.update(self.uid, NOWHERE, key=KEY)
        self.calls.release(self.uid)

    def killed(self) -> None:
        self.open()
        for mark in survey(self.server.state_directory).get(self.uid, ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                kill(psutil.Process(mark.pid))
        if self.dice.random() < 0.5:
            self._pause()
        self.calls.release(self.uid)

    def drained(self) -> None:
        self.open()
        self.calls.drain(self.uid)

    def lease_ends(self) -> None:
        self.open(((LEASE_METADATA, "1"),))

    def released_in_the_midst(self) -> None:
        self.calls.register(self.uid, self.target)
        message = wire.UpdateTargets(uid=self.uid, role="PROD", remote_listeners=[self.target])
        update = self.calls.stub.update.future(message, timeout=WAIT)
        self._pause()
        self.calls.release(self.uid)
        update.cancel()

    def _pause(self) -> None:
        threading.Event().wait(self.dice.uniform(0, 0.05))


KINDS = {
    Life.ordinary: 6,
    Life.forgotten: 2,
    Life.client_gone: 3,
    Life.never_updated: 2,
    Life.failed_start: 2,
    Life.killed: 4,
    Life.drained: 2,
    Life.lease_ends: 1,
    Life.released_in_the_midst: 2,
}


def code_of(error: grpc.RpcError) -> Code | str:
    """What it was told, where the control server was not killed before it could."""
    token = dict(error.trailing_metadata() or ()).get(ERROR_METADATA)
    if token is None:
        assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, error
        return CUT_OFF
    found = SciStreamError.from_wire(token)
    assert found is not None
    return found.code


def listening() -> set[tuple[str, int]]:
    """Everything that accepts in this network namespace."""
    found = psutil.net_connections("tcp")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}


def firewall() -> str:
    """All rules of this network namespace; where they cannot be told, a warning of this test says so."""
    program = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        warnings.warn("the firewall was not compared: nft is not there", stacklevel=2)
        return ""
    listed = subprocess.run([program, "list", "ruleset"], capture_output=True, text=True, check=False)
    if listed.returncode:
        warnings.warn(f"the firewall was not compared: {listed.stderr}", stacklevel=2)
    return listed.stdout


def processes(place: Path) -> dict[int, str]:
    """The command lines of all that this test has below it, and of all that has to do with `place`, wherever it is."""
    children = {process.pid for process in psutil.Process().children(recursive=True)}
    found = children | {pid for pid in psutil.pids() if pid != os.getpid() and has_to_do_with(pid, os.fsencode(place))}
    return {pid: read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace") for pid in found}


def has_to_do_with(pid: int, place: bytes) -> bool:
    """By its command line, environment, directory or one of its open files, also a removed one."""
    with contextlib.suppress(OSError):
        links = [Path(f"/proc/{pid}/cwd"), *Path(f"/proc/{pid}/fd").iterdir()]
        if any(os.fsencode(link_of(link)).startswith(place) for link in links):
            return True
    return any(place in read(pid, name) for name in ("cmdline", "environ"))


def read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def descriptors(pid: int) -> Counter[str]:
    """What a control server holds of sessions that may be gone: processes that it watches or has not taken leave of."""
    links = [link_of(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    zombies = sum(map(is_zombie, psutil.Process(pid).children()))
    return Counter({"watched": links.count("anon_inode:[pidfd]"), "zombies": zombies})


def link_of(entry: Path) -> str:
    with contextlib.suppress(OSError):
        return str(entry.readlink())
    return ""


def is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return False


@pytest.mark.timeout(900)
def test_after_a_thousand_random_lives_the_machine_is_as_it_was(control_server_factory, echo_target, tmp_path):
    before = (listening(), firewall(), processes(tmp_path))
    servers = [
        control_server_factory(address=f"127.0.20.{number}", port_range="22100-23099", engine=engine)
        for number, engine in ((1, "nginx"), (2, "stunnel"), (3, "haproxy"))
    ]
    seen = live(servers, echo_target.endpoint)
    told = f"{seen}, with SCISTREAM_SEED={SEED} and SCISTREAM_LIVES={LIVES}"
    assert set(seen) <= EXPECTED, told
    # It proves nothing where hardly any session comes to life.
    assert seen[LIVED] >= LIVES // 2, told
    # It proves nothing either where it does not see what runs.
    running = {process.pid for server in servers for process in server.data_servers()}
    assert processes(tmp_path).keys() >= running | {server.pid for server in servers}
    for server in servers:
        clear(server)
        assert server.end(signal.SIGINT) == 0
        assert {path.name for path in server.state_directory.iterdir()} == {"journal.sqlite3", "s2cs.lock"}
        assert "Traceback" not in server.words()
        assert "unforeseen" not in server.words()
    assert (listening(), firewall(), processes(tmp_path)) == before
    assert [path for path in tmp_path.rglob("*") if path.is_file() and holds_key(path.read_bytes())] == []


def live(servers: list, target: str) -> Counter[Code | str]:
    """Every life, many at a time, while their control servers are killed and ended; what they were told."""
    dice = random.Random(SEED)  # noqa: S311 - what is wanted is the same again
    done = threading.Semaphore(0)
    calls = [[Calls(server) for _ in range(WORKERS)] for server in servers]
    seen: Counter[Code | str] = Counter()

    def run(number: int, choice: int, seed: int) -> None:
        mine = random.Random(seed)  # noqa: S311
        try:
            life = Life(number, mine, servers[choice], calls[choice][number % WORKERS], target)
            seen[life.run()] += 1
        finally:
            done.release()

    with ThreadPoolExecutor(WORKERS) as threads:
        # HAProxy takes ten times as long to start as the others.
        choices = dice.choices(range(len(servers)), weights=(6, 5, 1), k=LIVES)
        lives = [threads.submit(run, number, choice, dice.getrandbits(32)) for number, choice in enumerate(choices)]
        for count in range(1, LIVES + 1):
            done.acquire()
            if count % ENDS == 0:
                server = servers[count // ENDS % len(servers)]
                server.end(dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
                server.start()
        for each in lives:
            each.result()
    return seen


def clear(server) -> None:
    """Release what is left, and see that nothing is there."""
    calls = Calls(server)
    for session in calls.sessions():
        with contextlib.suppress(grpc.RpcError):  # its lease may end in the same moment
            calls.release(session.uid)
    wait_until(lambda: calls.sessions() == [])
    assert survey(server.state_directory) == {}
    assert not [each for each in listening() if each[0] == server.address and each[1] != server.port]
    assert list(server.state_directory.glob("life-*")) == []
    wait_until(lambda: not any(descriptors(server.pid).values()))
    assert calls.facts().sessions == 0


def holds_key(data: bytes) -> bool:
    return KEY in data or KEY.hex().encode() in data.lower()
