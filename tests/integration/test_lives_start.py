"""The start of a control server that has a thousand sessions to take over, each with a process that lives."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from lives import Calls
from scistream.control_server.journal import Journal, Record
from scistream.engines.processes import ProcessFacts
from scistream.terms import NO_AUTH, Direction, Encryption, SessionState, parse_uid

SESSIONS = 1000
# The first of their ports, above those that the kernel gives to anybody.
FIRST = 61000


@pytest.fixture
def state(control_server_factory):
    """A control server that is yet to start, and the processes that its journal tells of, in place of proxies."""
    server = control_server_factory(engine="nginx", start=False, port_range=f"{FIRST}-{FIRST + SESSIONS - 1}")
    server.state_directory.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        processes = []
        for number in range(SESSIONS):
            process = sleeping(server.state_directory / f"s{number}.log")
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        journal = Journal(server.state_directory / "journal.sqlite3", boot_id())
        journal.put(*(record(number, process.pid) for number, process in enumerate(processes)))
        journal.close()
        yield server
        # Not SIGINT: it would release them one by one.
        server.end(signal.SIGKILL)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def sleeping(log: Path) -> subprocess.Popen[bytes]:
    program = shutil.which("sleep")
    with log.open("ab") as output:
        return subprocess.Popen([program, "300"], stdin=subprocess.DEVNULL, stdout=output, start_new_session=True)


def record(number: int, pid: int) -> Record:
    uid, facts = parse_uid(f"s{number}"), ProcessFacts.of(pid)
    return Record(
        uid=uid,
        direction=Direction.INBOUND,
        state=SessionState.ACTIVE,
        engine="nginx",
        stem=uid,
        bound_host="127.0.20.1",
        told_host="127.0.20.1",
        ports=(FIRST + number,),
        targets=("127.0.20.100:5074",),
        connections=1,
        rate=0,
        owner=NO_AUTH,
        opened=1000.0 + number,
        failure="",
        pid=pid,
        started=facts.started,
        wanted=True,
        encryption=Encryption.NONE,
    )


def test_a_thousand_sessions_whose_processes_live_are_taken_over(state):
    server = state.start()
    calls = Calls(server)
    assert Counter(calls.states().values()) == {"active": SESSIONS}
    assert calls.facts().ports_free == 0
    assert {session.restarts for session in calls.sessions()} == {0}
    assert server.words().count("session taken over") == SESSIONS
