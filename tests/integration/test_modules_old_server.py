"""Module session against a control server with the old protocol only: a named session is idempotent there as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import run_play, steps
from old_protocol import OldControlServer

_HOST, _PORT = "127.0.40.4", 24200
_SESSION, _INFO = "scistream.core.session", "scistream.core.session_info"
_SERVER_INFO = "scistream.core.control_server_info"


@pytest.fixture
def old_server(certificate_factory: Any) -> Iterator[tuple[OldControlServer, dict[str, Any]]]:
    """The server, and how it is reached."""
    files = certificate_factory(_HOST)
    with OldControlServer(_HOST, _PORT, range(24210, 24220), files.certificate, files.key) as server:
        yield (
            server,
            {"control_server": f"{_HOST}:{_PORT}", "server_certificate": str(files.certificate), "timeout": 20},
        )


def test_a_named_session_walks_on_an_old_control_server(
    tmp_path: Path, old_server: tuple[OldControlServer, dict[str, Any]], echo_target: Any, round_trip: Any
) -> None:
    server, reach = old_server
    secret, ticket = tmp_path / "site.secret", tmp_path / "beam.ticket"
    named = reach | {"encryption": "none", "name": "beam", "site_secret": str(secret), "ticket": str(ticket)}
    run = run_play(
        steps(_SESSION, named | {"direction": "inbound", "targets": [echo_target.endpoint]}), directory=tmp_path
    )
    assert run.code == 0, run.output
    check, do, check_again, do_again = run.results
    assert [one.changed for one in run.results] == [True, True, False, False]
    assert check["diff"] == do["diff"]
    assert do_again["session"] == check_again["session"] == do["session"]
    assert do["session"]["entry_points"] == [f"{_HOST}:24210"]
    assert (do["session"]["engine"], do["session"]["opened"]) == ("", 0)
    assert "speaks the old protocol only" in run.output
    assert server.uids == {do["session"]["uid"]}
    assert round_trip(f"{_HOST}:24210", b"through") == b"through"

    run = run_play(steps(_SESSION, named | {"direction": "inbound", "state": "absent"}), directory=tmp_path)
    assert run.code == 0, run.output
    assert [one.changed for one in run.results] == [True, True, False, False]
    assert server.uids == set()
    assert not ticket.exists()


def test_a_uid_that_is_taken_is_the_session_that_is_there(
    tmp_path: Path, old_server: tuple[OldControlServer, dict[str, Any]]
) -> None:
    server, reach = old_server
    wish = reach | {"uid": "beam", "direction": "outbound", "targets": ["127.0.40.9:24999"], "encryption": "none"}
    tasks = [
        {"name": "first", _SESSION: wish},
        {"name": "second", _SESSION: wish},
        {"name": "gone", _SESSION: reach | {"uid": "beam", "state": "absent"}},
        {"name": "gone again", _SESSION: reach | {"uid": "beam", "state": "absent"}},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    assert [one.changed for one in run.results] == [True, False, True, False]
    assert run.named("second")["session"]["entry_points"] == run.named("first")["session"]["entry_points"]
    for name in ("first", "second"):
        session = run.named(name)["session"]
        assert (session["encryption"], session["engine"]) == ("none", "")
        assert "encryption none was asked for; of its control server that is all" in session["warnings"][0]
    assert "outbound session beam: nothing protects the bytes between the gateways" in run.output
    assert server.uids == set()


def test_what_an_old_control_server_cannot_tell_is_said(
    tmp_path: Path, old_server: tuple[OldControlServer, dict[str, Any]]
) -> None:
    _, reach = old_server
    tasks = [{"name": "server", _SERVER_INFO: reach}, {"name": "sessions", _INFO: reach, "ignore_errors": True}]
    run = run_play(tasks, directory=tmp_path)
    facts = run.named("server")["control_server"]
    assert facts.pop("address") == f"{_HOST}:{_PORT}"
    assert set(facts.values()) == {None}
    assert "it answers, and tells nothing of itself" in run.output
    assert run.named("sessions").failure == "OLD_CONTROL_SERVER"


def test_a_data_server_that_fails_there_leaves_nothing(
    tmp_path: Path, old_server: tuple[OldControlServer, dict[str, Any]]
) -> None:
    server, reach = old_server
    server.broken_update = "[Errno 2] No such file or directory: 'haproxy'"
    wish = reach | {"uid": "beam", "direction": "inbound", "targets": ["127.0.40.9:24999"]}
    encrypted = {"name": "encrypted", _SESSION: wish, "ignore_errors": True}
    run = run_play([encrypted, {"name": "opens", _SESSION: wish | {"legacy_psk": True}}], directory=tmp_path)
    assert run.named("encrypted").failure == "ENCRYPTION_UNAVAILABLE"
    assert "--encryption none (module: encryption: none)" in run.named("encrypted")["msg"]
    assert run.code == 2
    assert run.named("opens").failure == "ENGINE_MISSING"
    assert "apt-get install haproxy" in run.named("opens")["msg"]
    assert server.uids == set()
