"""Playbook decommission on inventory/local: refused while sessions run, drained, released, and nothing left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ansible_runs import ROOT, Run, run_play, run_playbook

_PLAYBOOKS = ROOT / "playbooks"
_INVENTORY = ROOT / "inventory/local"
_ADDRESS, _PORT, _PORTS = "127.0.1.1", 24700, "24710-24715"
_LONG = 400

Play = Callable[..., Run]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Runs a playbook for facility_a, on ports and a state directory of its own."""
    state = tmp_path / "state"
    own = {"scistream_local_state": str(state), "scistream_control_port": _PORT, "scistream_port_range": _PORTS}

    def run(name: str, *options: str, **variables: Any) -> Run:
        words = ["-i", str(_INVENTORY), "-e", json.dumps(own | variables), *options]
        return run_playbook(_PLAYBOOKS / f"{name}.yml", directory=tmp_path, options=words)

    try:
        yield run
    finally:
        for process in _processes(state):
            process.kill()


def _processes(state: Path) -> list[psutil.Process]:
    """The processes that were started on the test's state directory."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(state) in words and "pytest" not in words:
            found.append(process)
    return found


def _open(directory: Path, target: str) -> str:
    """Open a session, and tell its entry point."""
    session = {
        "control_server": f"{_ADDRESS}:{_PORT}",
        "server_certificate": str(directory / "state/controller/facility_a/ca.crt"),
        "uid": "beam",
        "direction": "inbound",
        "targets": [target],
        "encryption": "none",
    }
    run = run_play([{"name": "open", "scistream.core.session": session}], directory=directory)
    assert run.code == 0, run.output
    return str(run.named("open")["session"]["entry_points"][0])


def _sentence(run: Run) -> str:
    failed = next(one for one in run.results if one.outcome == "failed")
    return " ".join(str(failed["msg"]).split())


def test_gateways_are_named(play: Play) -> None:
    run = play("decommission")
    assert run.code == 2
    assert "decommission_gateways is not set, and is to be the gateways that go out of service for good." in (
        _sentence(run)
    )
    run = play("decommission", decommission_clients="facility_a")
    assert run.code == 2
    assert "decommission_clients is facility_a, and is to be clients of the inventory: of (there is none)." in (
        _sentence(run)
    )
    run = play("decommission", decommission_gateways="facility_x")
    assert run.code == 2
    assert "decommission_gateways is facility_x, and is to be gateways of the inventory: of facility_a," in _sentence(
        run
    )


@pytest.mark.parametrize("name", ["decommission", "rotate_certificates"])
def test_a_token_that_nobody_gave_a_name_goes_to_no_gateway_of_several(tmp_path: Path, name: str) -> None:
    def run(gateways: str, **environment: str) -> Run:
        words = ["-i", str(_INVENTORY), "-e", f"decommission_gateways={gateways}", "--limit", f"{gateways},localhost"]
        words += ["-e", f"scistream_local_state={tmp_path}"]
        given = {"SCISTREAM_TOKEN": "hunter2", **environment}
        return run_playbook(_PLAYBOOKS / f"{name}.yml", directory=tmp_path, options=words, environment=given)

    refused = run("facility_a,facility_b")
    assert refused.code == 2
    assert _sentence(refused) == (
        "SCISTREAM_TOKEN is set in the environment and SCISTREAM_TOKEN_FOR is not, and 2 gateways would get the token "
        "(facility_a, facility_b). Name the control servers that it is for (SCISTREAM_TOKEN_FOR=HOST:PORT,HOST:PORT), "
        "or give each gateway its own (scistream_token)"
    )
    assert "hunter2" not in refused.output
    assert not any("Ask" in result.task for result in refused.results)
    for gateways, named in (("facility_a", ""), ("facility_a,facility_b", "127.0.1.1:24700")):
        assert "would get the token" not in run(gateways, SCISTREAM_TOKEN_FOR=named).output


@pytest.mark.timeout(_LONG)
def test_sessions_are_not_cut_unasked_and_nothing_is_left_in_the_end(
    tmp_path: Path, play: Play, echo_target: Any
) -> None:
    one = {"decommission_gateways": "facility_a", "decommission_packages": False}
    assert play("provision", "--limit", "facility_a").code == 0
    host, _, port = _open(tmp_path, echo_target.endpoint).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(b"before")
        assert stream.recv(100) == b"before"
        refused = play("decommission", **one)
        assert refused.code == 2
        assert "facility_a: 1 session runs, and decommission_release is False: beam inbound." in _sentence(refused)
        assert "Nothing was touched on any gateway" in _sentence(refused)
        assert not any(result.changed for result in refused.results)
        checked = play("decommission", "--check", **one, decommission_release=True)
        assert checked.code == 0, checked.output
        stream.sendall(b"after")
        assert stream.recv(100) == b"after"
    # Its last connection has ended: draining need not wait.
    gone = play("decommission", **one, decommission_drain=30)
    assert gone.code == 0, gone.output
    looked = gone.named("Say what was looked for, and what stays and why")["msg"]
    assert "processes: none" in looked
    assert "ports: none" in looked
    assert any(line.startswith("stays: the facility's certificate authority") for line in looked)
    assert _processes(tmp_path / "state") == []
    again = play("decommission", **one)
    assert again.code == 0, again.output
    assert not any(result.changed for result in again.results), again.output


@pytest.mark.timeout(_LONG)
def test_a_control_server_that_does_not_answer_is_no_empty_one(tmp_path: Path, play: Play, echo_target: Any) -> None:
    one = {"decommission_gateways": "facility_a", "decommission_packages": False, "scistream_timeout": 5}
    assert play("provision", "--limit", "facility_a").code == 0
    entry_point = _open(tmp_path, echo_target.endpoint)
    stopped = play("provision", "--limit", "facility_a", control_server_state="stopped")
    assert stopped.code == 0, stopped.output
    refused = play("decommission", **one)
    assert refused.code == 2
    assert "facility_a: its control server does not answer, so that nobody knows which sessions would be cut" in (
        _sentence(refused)
    )
    host, _, port = entry_point.rpartition(":")
    socket.create_connection((host, int(port)), timeout=20).close()
    gone = play("decommission", **one, decommission_release=True)
    assert gone.code == 0, gone.output
    assert _processes(tmp_path / "state") == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.timeout(_LONG)
def test_what_is_left_is_named(tmp_path: Path, play: Play) -> None:
    assert play("provision", "--limit", "facility_a").code == 0
    with socket.create_server((_ADDRESS, 24712)):
        run = play("decommission", decommission_gateways="facility_a", decommission_packages=False)
    assert run.code == 2
    assert "facility_a is out of service, and something is left: a listener on port 24712 of 127.0.1.1." in _sentence(
        run
    )


def _remains(directory: Path, **asked: Any) -> dict[str, Any]:
    """What remains.py says of this machine, asked as the playbook asks it."""
    usual = {
        "audit": [],
        "directories": [],
        "files": [],
        "library": "",
        "others": [],
        "own_group": False,
        "own_user": False,
        "ports": [],
        "state_directory": str(directory / "state"),
        "tables": False,
        "unit": "",
        "user": "",
    }
    command = [sys.executable, "-I", str(_PLAYBOOKS / "files/remains.py"), json.dumps(usual | asked)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_listeners_are_looked_for_where_the_gateway_had_them(tmp_path: Path) -> None:
    doors = [{"address": _ADDRESS, "range": "24712"}, {"address": "127.0.1.2", "range": "24713-24714"}]
    with socket.create_server((_ADDRESS, 24712)), socket.create_server((_ADDRESS, 24714)):
        left = _remains(tmp_path, ports=doors)["left"]
        assert left == [f"a listener on port 24712 of {_ADDRESS}"]
        with socket.create_server(("127.0.1.2", 24714)):
            assert _remains(tmp_path, ports=doors)["left"] == [*left, "a listener on port 24714 of 127.0.1.2"]


def test_processes_are_known_by_their_user_and_their_files_and_not_by_what_they_say(tmp_path: Path) -> None:
    told = _remains(tmp_path)
    assert told["left"] == []
    words = [sys.executable, "-c", "input()", str(tmp_path / "state")]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as own:
        (left,) = _remains(tmp_path)["left"]
        assert left.startswith(f"process {own.pid} ({sys.executable} -c input() ")
        # Another user's gateway: what this process says of itself is no sign.
        theirs = _remains(tmp_path, user="nobody", own_user=True)["left"]
        assert not any(line.startswith(f"process {own.pid} ") for line in theirs)
        # What it has mapped is, whoever's it is.
        program = Path(f"/proc/{own.pid}/exe").readlink()
        mapped = _remains(tmp_path, user="nobody", library=str(program.parent))["left"]
        assert any(line.startswith(f"process {own.pid} ") for line in mapped)
        # A part of a path is another path.
        for part in (program.parent.name, str(program)[:-1], str(program.parent / "x")):
            apart = _remains(tmp_path, user="nobody", library=part)
            assert not any(f"process {own.pid} " in line for line in apart["left"] + apart["stays"])
        own.communicate(b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to be another user")
def test_what_a_third_user_runs_from_the_library_is_his(tmp_path: Path) -> None:
    words = ["/usr/bin/env", "sh", "-c", "read x", "\x1b]0;evil\x07\n"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, user="daemon", cwd="/") as theirs:
        while Path(f"/proc/{theirs.pid}/cmdline").read_bytes().startswith(b"/usr/bin/env"):
            pass
        told = _remains(tmp_path, user="nobody", library=str(Path(f"/proc/{theirs.pid}/exe").readlink().parent))
        assert not any(f"process {theirs.pid} " in line for line in told["left"])
        (line,) = (line for line in told["stays"] if f"process {theirs.pid} " in line)
        assert line.startswith(
            f"stays: process {theirs.pid} of user daemon (sh -c read x ?]0;evil?), which runs from /"
        )
        theirs.communicate(b"\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to be another user")
def test_all_processes_of_a_user_who_came_with_the_gateway_are_left(tmp_path: Path) -> None:
    with subprocess.Popen(["/usr/bin/env", "cat"], stdin=subprocess.PIPE, user="nobody", cwd="/") as theirs:
        left = _remains(tmp_path, user="nobody", own_user=True)["left"]
        assert any(line.startswith(f"process {theirs.pid} ") for line in left)
        assert "user nobody" in left
        # One who was there before has other things to do as well.
        told = _remains(tmp_path, user="nobody")
        assert not any(line.startswith(f"process {theirs.pid} ") for line in told["left"])
        assert "stays: user nobody, who was there before the gateway" in told["stays"]
        theirs.communicate(b"")


def test_a_directory_that_others_use_by_now_stays_and_an_empty_one_is_left(tmp_path: Path) -> None:
    made = tmp_path / "made"
    asked = {"directories": [str(made)]}
    gone = _remains(tmp_path, **asked)
    assert (gone["left"], gone["stays"]) == ([], [])
    made.mkdir()
    assert _remains(tmp_path, **asked)["left"] == [f"directory {made}"]
    (made / "s2uc.toml").touch()
    used = _remains(tmp_path, **asked)
    assert (used["left"], used["stays"]) == ([], [f"stays: {made}, where others have s2uc.toml"])


def test_what_is_the_sites_to_keep_is_said(tmp_path: Path) -> None:
    audit, state = tmp_path / "audit", tmp_path / "state"
    assert _remains(tmp_path, audit=[str(audit)], others=[str(state)])["stays"] == []
    audit.touch()
    state.mkdir()
    assert _remains(tmp_path, audit=[str(audit)], others=[str(state)])["stays"] == [
        f"stays: {audit}, the record of what users did",
        f"stays: {state}, which was there before the gateway",
    ]
