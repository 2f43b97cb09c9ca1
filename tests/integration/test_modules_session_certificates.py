"""Module session_certificates, by real runs of Ansible against real control servers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import Run, run_play, steps

_FAR, _NEAR = "127.0.41.1", "127.0.41.2"
_PORT, _PORTS = 24120, "24130-24139"
_SESSION, _ACTION = "scistream.core.session", "scistream.core.session_certificates"


@pytest.fixture
def control_server(control_server_factory: Callable[..., Any]) -> Callable[..., Any]:
    """Starts a control server on an address and ports of these tests."""

    def start(address: str = _FAR, **more: Any) -> Any:
        return control_server_factory(address=address, port=_PORT, port_range=_PORTS, **more)

    return start


def reach(server: Any) -> dict[str, Any]:
    return {"control_server": server.endpoint, "server_certificate": str(server.certificate), "timeout": 20}


def open_stream(directory: Path, far: Any, near: Any, target: str) -> Run:
    ticket, secret = str(directory / "beam.ticket"), str(directory / "site.secret")
    named = {"name": "beam", "site_secret": secret, "ticket": ticket}
    inbound = reach(far) | named | {"direction": "inbound", "targets": [target]}
    outbound = reach(near) | named | {"direction": "outbound"}
    plain = reach(far) | {"uid": "plain", "direction": "inbound", "targets": [target], "encryption": "none"}
    tasks = [
        {"name": "far", _SESSION: inbound},
        {"name": "near", _SESSION: outbound},
        {"name": "plain", _SESSION: plain},
    ]
    run = run_play(tasks, directory=directory)
    assert run.code == 0, run.output
    return run


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_running_connections_go_on_with_new_certificates(
    tmp_path: Path, control_server: Callable[..., Any], echo_target: Any, round_trip: Any, engine: str
) -> None:
    far, near = control_server(_FAR, engine=engine), control_server(_NEAR, engine=engine)
    opened = open_stream(tmp_path, far, near, echo_target.endpoint)
    entry_point = opened.named("near")["session"]["entry_points"][0]
    host, port = entry_point.split(":")
    walk = [
        {**task, "name": f"{end} {task['name']}"}
        for end, server in (("far", far), ("near", near))
        for task in steps(_ACTION, reach(server))
    ]
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(b"before")
        assert stream.recv(100) == b"before"
        run = run_play(walk, directory=tmp_path)
        assert run.code == 0, run.output
        stream.sendall(b"after")
        assert stream.recv(100) == b"after"
    assert round_trip(entry_point, b"anew") == b"anew"
    for end in ("far", "near"):
        predicted, done = run.named(f"{end} check"), run.named(f"{end} do")
        # Nothing is compared with: who asks for new ones gets them, every time.
        assert predicted.changed
        assert done.changed
        assert predicted["diff"] == done["diff"]
        (before,), (after,) = predicted["sessions"], done["sessions"]
        # The plain one has none.
        assert before["direction"] == {"far": "inbound", "near": "outbound"}[end]
        assert before["renewed"]
        assert after["certificate_expires"] >= before["certificate_expires"]


def test_only_what_ends_soon_and_only_what_is_meant(
    tmp_path: Path, control_server: Callable[..., Any], echo_target: Any
) -> None:
    far, near = control_server(_FAR), control_server(_NEAR)
    open_stream(tmp_path, far, near, echo_target.endpoint)
    secret = str(tmp_path / "site.secret")
    tasks = [
        {"name": "fresh", _ACTION: reach(far) | {"renew_before_days": 60}},
        {"name": "old", _ACTION: reach(far) | {"renew_before_days": 91}},
        {"name": "named", _ACTION: reach(far) | {"name": "beam", "site_secret": secret}},
        {"name": "other direction", _ACTION: reach(far) | {"direction": "outbound"}},
        {"name": "plain", _ACTION: reach(far) | {"uid": "plain"}, "ignore_errors": True},
        {"name": "plain, predicted", _ACTION: reach(far) | {"uid": "plain"}, "ignore_errors": True, "check_mode": True},
        {"name": "unknown", _ACTION: reach(far) | {"uid": "nobody"}, "ignore_errors": True},
        {
            "name": "no secret",
            _ACTION: reach(far) | {"name": "beam", "site_secret": str(tmp_path / "none")},
            "ignore_errors": True,
        },
        {"name": "never", _ACTION: reach(far) | {"renew_before_days": -1}, "ignore_errors": True},
    ]
    run = run_play(tasks, directory=tmp_path)
    changed = {one.task: one.changed for one in run.results if one.outcome == "ok"}
    assert changed == {"fresh": False, "old": True, "named": True, "other direction": False}, run.output
    (shown,) = run.named("fresh")["sessions"]
    assert not shown["renewed"]
    assert run.named("named")["sessions"][0]["name"] == "beam"
    assert run.named("other direction")["sessions"] == []
    codes = {one.task: one.failure for one in run.results if one.failure}
    assert codes == {
        "plain": "NO_CERTIFICATES",
        "plain, predicted": "NO_CERTIFICATES",
        "unknown": "UID_UNKNOWN",
        "no secret": "BAD_CONFIGURATION",
        "never": "BAD_CONFIGURATION",
    }
