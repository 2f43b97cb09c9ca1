"""Playbook provision on inventory/local: from nothing, again, restarted, stopped, and gone, by real runs of Ansible."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from ansible_runs import ROOT, Run, run_play, run_playbook
from identity_provider import IdentityProvider
from scistream import certificates

_PLAYBOOK = ROOT / "playbooks/provision.yml"
_INVENTORY = ROOT / "inventory/local"
_GATEWAYS = {"facility_a": "127.0.1.1", "facility_b": "127.0.2.1"}
_PORT, _METRICS, _PORTS = 24300, 24301, "24310-24315"
# Seconds for tests of seven runs and more, on a machine that has other work as well.
_LONG = 400

Provision = Callable[..., Run]


@pytest.fixture
def provision(tmp_path: Path) -> Iterator[Provision]:
    """Runs the playbook on ports and a state directory of its own, with the variables that are named."""
    own = {
        "scistream_local_state": str(tmp_path / "state"),
        "scistream_control_port": _PORT,
        "scistream_port_range": _PORTS,
        # What this machine notes of its own packages is not what these gateways may remove.
        "data_server_directory": str(tmp_path / "packages"),
    }

    def run(*options: str, playbook: Path = _PLAYBOOK, **variables: Any) -> Run:
        given = [word for key, value in {**own, **variables}.items() for word in ("-e", f"{key}={value}")]
        words = ("-i", str(_INVENTORY), *given, *options)
        return run_playbook(playbook, directory=tmp_path, options=words)

    try:
        yield run
    finally:
        _end(tmp_path / "state")


def _end(state: Path) -> None:
    """End what a failed test left: processes that were started on these state directories, and no others."""
    for process in psutil.process_iter():
        words = " ".join(_words(process))
        if str(state) in words and process.pid != os.getpid():
            process.kill()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def control_servers(state: Path) -> dict[str, int]:
    """The control servers that run on these state directories, by gateway."""
    found = {}
    for process in psutil.process_iter():
        words = _words(process)
        for gateway in _GATEWAYS:
            if "scistream.cli.s2cs" in words and f"--state-directory={state / gateway}" in words:
                found[gateway] = process.pid
    return found


def assert_fine(run: Run) -> None:
    assert run.code == 0, run.output
    assert {one.outcome for one in run.results} <= {"ok", "skipped"}


def changes(run: Run) -> dict[str, set[str]]:
    """What changed, by gateway."""
    return {gateway: {one.task for one in run.results if one.changed and one.host == gateway} for gateway in _GATEWAYS}


def reach(state: Path, gateway: str) -> dict[str, Any]:
    certificate = state / "controller" / gateway / "ca.crt"
    return {"control_server": f"{_GATEWAYS[gateway]}:{_PORT}", "server_certificate": str(certificate), "timeout": 20}


@pytest.mark.timeout(_LONG)
def test_two_gateways_from_nothing_to_serving_and_back(tmp_path: Path, provision: Provision) -> None:
    state = tmp_path / "state"
    predicted = provision("--check", "--diff")
    assert_fine(predicted)
    assert not state.exists()
    assert control_servers(state) == {}
    assert "type = " in predicted.output
    assert "PRIVATE KEY" not in predicted.output

    done = provision("--diff")
    assert_fine(done)
    assert all(changes(done).values())
    # Real runs find the state directory made by the first role; a prediction cannot know.
    spoken = {"Make the state directory", "Say what a real run starts"}
    started = {"Start the control server, and wait until it answers"}
    for gateway in _GATEWAYS:
        assert changes(predicted)[gateway] - spoken == changes(done)[gateway] - started
    assert "PRIVATE KEY" not in done.output
    assert set(control_servers(state)) == set(_GATEWAYS)
    for gateway, address in _GATEWAYS.items():
        modes = {
            name: stat.S_IMODE((state / gateway / name).stat().st_mode) for name in ("", "server.crt", "server.key")
        }
        assert modes == {"": 0o700, "server.crt": 0o644, "server.key": 0o600}
        assert stat.S_IMODE((state / gateway / "s2cs.toml").stat().st_mode) == 0o600
        assert set(certificates.read(state / gateway / "server.crt").names) == {gateway, address}

    before = control_servers(state)
    again, checked = provision("--diff"), provision("--check", "--diff")
    for run in (again, checked):
        assert_fine(run)
        assert changes(run) == {gateway: set() for gateway in _GATEWAYS}
    assert control_servers(state) == before

    tasks = [{"name": gateway, "scistream.core.control_server_info": reach(state, gateway)} for gateway in _GATEWAYS]
    asked = run_play(tasks, directory=tmp_path)
    assert asked.code == 0, asked.output
    assert [one["control_server"]["port_range"] for one in asked.results] == [_PORTS] * 2

    predicted, gone, again = (provision(*options, scistream_state="absent") for options in (["--check"], [], []))
    for run in (predicted, gone, again):
        assert_fine(run)
    spoken = {"Say what a real run stops", "Release all sessions, and stop the control server"}
    # In a real run they went with the state directory.
    with_it = {"Take certificate and private key from the gateway"}
    for gateway in _GATEWAYS:
        assert changes(predicted)[gateway] - spoken - with_it == changes(gone)[gateway] - spoken
        assert changes(predicted)[gateway] & spoken
        assert changes(gone)[gateway] & spoken
    assert changes(again) == {gateway: set() for gateway in _GATEWAYS}
    assert control_servers(state) == {}
    # The authorities stay with the controller: other facilities may trust them.
    left = sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.is_file())
    assert left == [f"controller/{gateway}/ca.{kind}" for gateway in _GATEWAYS for kind in ("crt", "key")]


@pytest.mark.timeout(_LONG)
def test_another_certificate_or_configuration_restarts_and_cuts_no_stream(
    tmp_path: Path, provision: Provision, echo_target: Any, round_trip: Any
) -> None:
    state, one = tmp_path / "state", ["--limit", "facility_a"]
    extra = ["-e", '{"certificates_extra_names": ["gateway.example"]}']
    assert_fine(provision(*one))
    session = reach(state, "facility_a") | {"uid": "beam", "direction": "inbound", "targets": [echo_target.endpoint]}
    # What connects to it is no gateway.
    session["encryption"] = "none"
    opened = run_play([{"name": "open", "scistream.core.session": session}], directory=tmp_path)
    entry_point = opened.named("open")["session"]["entry_points"][0]
    host, port = entry_point.split(":")
    first = control_servers(state)
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(b"before")
        assert stream.recv(100) == b"before"
        predicted = provision(*one, *extra, "--check")
        assert_fine(predicted)
        assert "Say what a real run starts" in changes(predicted)["facility_a"]
        assert control_servers(state) == first
        renewed = provision(*one, *extra)
        assert_fine(renewed)
        assert "Stop the control server that runs with the old configuration" in changes(renewed)["facility_a"]
        second = control_servers(state)
        assert second["facility_a"] != first["facility_a"]
        again = provision(*one, *extra)
        assert changes(again)["facility_a"] == set()
        verbose = provision(*one, *extra, control_server_verbose="true")
        assert_fine(verbose)
        assert changes(verbose)["facility_a"] == {
            "Configure the control server",
            "Start the control server, and wait until it answers",
            "Stop the control server that runs with the old configuration",
        }
        assert control_servers(state)["facility_a"] != second["facility_a"]
        stopped, stopped_again = (provision(*one, control_server_state="stopped") for _ in range(2))
        assert_fine(stopped)
        assert control_servers(state) == {}
        assert "Stop the control server; streams go on" in changes(stopped)["facility_a"]
        assert "Stop the control server; streams go on" not in changes(stopped_again)["facility_a"]
        stream.sendall(b"after")
        assert stream.recv(100) == b"after"
    assert round_trip(entry_point, b"anew") == b"anew"
    assert_fine(provision(*one, scistream_state="absent"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"scistream_engine": "squid"},
            "scistream_engine is squid, and is to be one of haproxy, nftables, nginx, stunnel",
        ),
        (
            {"scistream_insecure_no_auth": "false"},
            "scistream_insecure_no_auth: true, where all who reach the port may enter",
        ),
        (
            {"control_server_port_range": "24315-24310"},
            "control_server_port_range is 24315-24310, and is to be FIRST-LAST (it runs backwards)",
        ),
        ({"control_server_listen_address": "192.0.2.7"}, "cannot listen on 192.0.2.7"),
        ({"control_server_certificate": "/nowhere.crt"}, "facility_a has no certificate /nowhere.crt: the role"),
        (
            {"control_server_scope": "kernel"},
            "control_server_scope is kernel, and is to be one of process, system, user",
        ),
        (
            {"control_server_firewall": "true"},
            "control_server_firewall is true, and is to be false, since scistream_scope is process",
        ),
        ({"scistream_old_clients": "perhaps"}, "is perhaps, and is to be one of refuse, plain, legacy-psk"),
        ({"scistream_allowed_targets": "198.51.100.0/99"}, "198.51.100.0/99"),
    ],
)
def test_a_wrong_variable_is_named_in_a_sentence(
    tmp_path: Path, provision: Provision, variables: dict[str, str], words: str
) -> None:
    run = provision("--limit", "facility_a", **variables)
    assert run.code == 2
    assert words in " ".join(run.output.split())
    assert control_servers(tmp_path / "state") == {}


def test_u13_u19_tokens_are_checked_where_there_is_a_secret_and_nobody_sees_it(
    tmp_path: Path, provision: Provision
) -> None:
    secret = {"scistream_client_id": "gateway-a", "scistream_client_secret": "very-secret"}
    leases = {"control_server_lease": 60, "control_server_longest_lease": "1h30m"}
    run = provision("--limit", "facility_a", "--diff", "-v", scistream_insecure_no_auth="false", **secret, **leases)
    assert_fine(run)
    assert "very-secret" not in run.output
    (configuration,) = (tmp_path / "state").rglob("s2cs.toml")
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    written = tomllib.loads(configuration.read_text())
    assert (written["client_secret"], written["longest_lease"]) == ("very-secret", "1h30m")
    assert (written["old_clients"], "allowed_targets" in written) == ("refuse", False)
    command = [sys.executable, "-m", "scistream.cli.s2cs", "status", "--state-directory", str(configuration.parent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "NO_AUTH" not in said


def test_u13_an_issuer_that_is_not_globus_is_set_up(tmp_path: Path, provision: Provision) -> None:
    with IdentityProvider("127.0.20.91") as issuer:
        issuer.clients["gateway-a"] = "very-secret"
        told = {
            "scistream_insecure_no_auth": "false",
            "scistream_client_id": "gateway-a",
            "scistream_client_secret": "very-secret",
            "scistream_provider": issuer.issuer,
            "scistream_introspection_url": f"{issuer.issuer}/introspect",
            "scistream_audience": "beamline",
            "scistream_token_scope": "scistream",
            "control_server_quarantine": "2s",
            "control_server_log_format": "json",
            "control_server_metrics_ip": _GATEWAYS["facility_a"],
            "control_server_metrics_port": _METRICS,
            "control_server_lease": "8h",
        }
        assert_fine(provision("--limit", "facility_a", **told))
        state = tmp_path / "state"
        good = issuer.issue("alice", scope="scistream", audience="beamline")
        # The audience that would be the default.
        other = issuer.issue("alice", scope="scistream", audience="gateway-a")
        session = {"uid": "beam", "direction": "inbound", "targets": ["127.0.0.1:9"]}
        ask = {"scistream.core.session": reach(state, "facility_a") | session}
        tasks = [
            {"name": "other", **ask, "environment": {"SCISTREAM_TOKEN": other}, "ignore_errors": True},
            {"name": "good", **ask, "environment": {"SCISTREAM_TOKEN": good}},
        ]
        run = run_play(tasks, directory=tmp_path)
    assert run.named("other").failure == "TOKEN_REFUSED", run.output
    opened = run.named("good")["session"]
    assert round(opened["lease_expires"] - opened["opened"]) == 8 * 3600
    with urlopen(f"http://{_GATEWAYS['facility_a']}:{_METRICS}/metrics", timeout=20) as figures:
        assert b"scistream_sessions" in figures.read()


@pytest.mark.parametrize(
    "variables",
    [{"scistream_engine": "squid"}, {"scistream_insecure_no_auth": "false"}, {"ansible_connection": "ssh"}],
)
def test_a_wrong_variable_is_found_before_anything_is_touched(
    tmp_path: Path, provision: Provision, variables: dict[str, str]
) -> None:
    run = provision(**variables)
    assert run.code == 2
    assert "nothing was touched on any host" in run.output
    assert not any(one.changed for one in run.results)
    assert not (tmp_path / "state").exists()


def test_a_gateway_behind_ssh_is_no_process_of_this_machine(tmp_path: Path) -> None:
    role = {"ansible.builtin.include_role": {"name": "scistream.core.control_server"}}
    variables = {"scistream_insecure_no_auth": True, "scistream_scope": "process"}
    run = run_play([role], directory=tmp_path, options=["-i", "gw.example,"], hosts="gw.example", vars=variables)
    assert run.code == 2
    words = " ".join(run.output.split())
    assert "gw.example is reached by ssh, and scistream_scope is process" in words
    assert "set it to user where there is no root" in words


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"scistream_scope": "user", "scistream_engine": "nftables"}, "the engine nftables needs root on the gateway"),
        ({"scistream_scope": "user", "scistream_rates": True}, "control_server_rates: true needs root on the gateway"),
        ({"scistream_firewall": True}, "control_server_firewall_peers names nobody who may reach the gateway"),
        (
            {
                "scistream_firewall": True,
                "scistream_peers": ["198.51.100.0/24"],
                "control_server_firewall_stream_peers": [],
            },
            "control_server_firewall_stream_peers names nobody",
        ),
    ],
)
def test_variables_of_a_host_behind_ssh_are_judged_without_it(
    tmp_path: Path, variables: dict[str, Any], words: str
) -> None:
    role = {"ansible.builtin.include_role": {"name": "scistream.core.control_server", "tasks_from": "preflight"}}
    given = {"scistream_insecure_no_auth": True, **variables}
    run = run_play([role], directory=tmp_path, options=["-i", "gw.example,"], hosts="gw.example", vars=given)
    assert run.code == 2
    told = " ".join(run.output.split())
    assert words in told
    assert "gw.example: " in told


def test_a_control_port_that_is_taken_names_who_has_it(tmp_path: Path, provision: Provision) -> None:
    with socket.create_server((_GATEWAYS["facility_a"], _PORT)):
        run = provision("--limit", "facility_a")
    assert run.code == 2
    words = " ".join(run.output.split())
    assert f"the control port 127.0.1.1:{_PORT} is in use by" in words
    assert f"(pid {os.getpid()})" in words
    assert control_servers(tmp_path / "state") == {}


def test_a_directory_that_is_none_of_the_roles_is_not_removed(tmp_path: Path, provision: Provision) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("ten years of work")
    run = provision("--limit", "facility_a", scistream_state="absent", scistream_state_directory=str(mine))
    assert_fine(run)
    assert (mine / "thesis.tex").read_text() == "ten years of work"
