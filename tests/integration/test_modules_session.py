"""Modules session, session_info and control_server_info, by real runs of Ansible against real control servers."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import Result, Run, run_adhoc, run_play, steps
from scistream.addresses import Endpoint
from scistream.terms import MOCK_UID

_INBOUND, _OUTBOUND, _NOBODY = "127.0.40.1", "127.0.40.2", "127.0.40.9:24999"
_PORT, _PORTS = 24100, "24110-24119"
_SESSION, _INFO = "scistream.core.session", "scistream.core.session_info"
_SERVER_INFO = "scistream.core.control_server_info"

ControlServers = Callable[..., Any]


@pytest.fixture
def control_server(control_server_factory: ControlServers) -> ControlServers:
    """Starts a control server on an address and ports of these tests."""

    def start(address: str = _INBOUND, **more: Any) -> Any:
        return control_server_factory(address=address, **{"port": _PORT, "port_range": _PORTS} | more)

    return start


def reach(server: Any) -> dict[str, Any]:
    """The parameters that say how a control server is reached."""
    return {"control_server": server.endpoint, "server_certificate": str(server.certificate), "timeout": 20}


def look(task: str, server: Any, **more: Any) -> dict[str, Any]:
    return {"name": task, _INFO: reach(server) | more}


# For sessions that a test sends its bytes straight into.
_PLAIN = {"encryption": "none"}


def assert_walks(run: Run, before: str = "") -> list[Result]:
    """Check predicts what do does; then there is nothing left to do."""
    check, do, check_again, do_again = walk = [run.named(f"{before}{step}") for step in _steps()]
    assert [one.outcome for one in walk] == ["ok"] * 4, run.output
    assert [one.changed for one in walk] == [True, True, False, False]
    assert check["diff"] == do["diff"]
    assert check["differences"] == do["differences"]
    assert steady(check_again["session"]) == steady(do_again["session"]) == steady(do["session"])
    assert check_again["diff"]["before"] == check_again["diff"]["after"] == {}
    return walk


def steady(session: dict[str, Any] | None) -> dict[str, Any] | None:
    """The facts of a session that do not change by themselves."""
    return session and {key: value for key, value in session.items() if key not in {"idle_since", "traffic"}}


def _steps() -> list[str]:
    return [task["name"] for task in steps("", {})]


def walk(before: str, action: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**task, "name": f"{before}{task['name']}"} for task in steps(action, arguments)]


def foreseeable(result: Result) -> dict[str, Any]:
    """The facts of a session that the control server has no say in."""
    told = (
        "entry_points",
        "opened",
        "owner",
        "lease_expires",
        "idle_since",
        "traffic",
        "warnings",
        "certificate_expires",
    )
    return {key: value for key, value in result["session"].items() if key not in told}


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "stunnel"])
def test_a_stream_walks_from_nothing_and_back(
    tmp_path: Path, control_server: ControlServers, echo_target: Any, round_trip: Any, engine: str
) -> None:
    far, near = control_server(_INBOUND, engine=engine), control_server(_OUTBOUND, engine=engine)
    ticket, secret = str(tmp_path / "beam.ticket"), str(tmp_path / "site.secret")
    named = {"name": "beam", "site_secret": secret, "ticket": ticket}
    inbound = reach(far) | named | {"direction": "inbound", "targets": [echo_target.endpoint]}
    outbound = reach(near) | {"direction": "outbound", "ticket": ticket}
    run = run_play(
        [
            {"name": "outbound before inbound", _SESSION: outbound | named, "check_mode": True},
            *walk("inbound ", _SESSION, inbound),
            *walk("outbound ", _SESSION, outbound),
            look("far", far),
            look("named", near, name="beam", site_secret=secret),
            look("another name", near, name="other", site_secret=secret),
            look("other direction", near, direction="inbound"),
        ],
        directory=tmp_path,
    )
    assert run.code == 0, run.output
    assert run.named("outbound before inbound").changed
    assert run.named("outbound before inbound")["session"]["uid"] is None
    first, opened, *_ = assert_walks(run, "inbound ")
    assert first["session"]["uid"] is None
    assert foreseeable(first) | {"uid": opened["session"]["uid"]} == foreseeable(opened)
    second, connected, *_ = assert_walks(run, "outbound ")
    assert foreseeable(second) == foreseeable(connected)
    assert connected["session"]["uid"] == opened["session"]["uid"]
    assert connected["session"]["targets"] == opened["session"]["entry_points"]
    (far_session,), (near_session,) = run.named("far")["sessions"], run.named("named")["sessions"]
    assert steady(far_session) == steady(opened["session"] | {"name": None})
    assert steady(near_session) == steady(connected["session"])
    assert run.named("another name")["sessions"] == run.named("other direction")["sessions"] == []
    data = bytes(range(256)) * 400
    assert round_trip(connected["session"]["entry_points"][0], data) == data

    key = json.loads(Path(ticket).read_text())["key"]
    assert key is not None
    assert opened["session"]["encryption"] == ("tls-psk" if engine == "stunnel" else "tls")
    assert opened["ticket"] == ticket
    assert connected["ticket"] is None
    run = run_play(
        [
            *walk("outbound ", _SESSION, outbound | {"state": "absent"}),
            *walk("inbound ", _SESSION, reach(far) | {"ticket": ticket, "state": "absent"}),
            look("far", far),
            look("near", near),
        ],
        directory=tmp_path,
        options=["-vvv"],
    )
    assert run.code == 0, run.output
    assert key not in run.output
    assert_walks(run, "outbound ")
    gone = assert_walks(run, "inbound ")
    assert gone[1]["session"] is None
    assert gone[0]["diff"]["before"]["ticket"] == ticket
    assert not Path(ticket).exists()
    assert run.named("far")["sessions"] == run.named("near")["sessions"] == []


def test_u02_without_a_ticket_a_stream_is_encrypted_for_the_same_user(
    tmp_path: Path, control_server: ControlServers, echo_target: Any, round_trip: Any
) -> None:
    far, near = control_server(_INBOUND), control_server(_OUTBOUND)
    inbound = reach(far) | {"uid": "beam", "direction": "inbound", "targets": [echo_target.endpoint]}
    outbound = reach(near) | {"uid": "beam", "direction": "outbound"}
    place = tmp_path / "home/.local/state/scistream/tickets/beam"
    run = run_play([*walk("in ", _SESSION, inbound), *walk("out ", _SESSION, outbound)], directory=tmp_path)
    assert run.code == 0, run.output
    opened = assert_walks(run, "in ")[1]
    connected = assert_walks(run, "out ")[1]
    assert (opened["ticket"], oct(place.stat().st_mode)[-3:]) == (str(place), "600")
    assert connected["session"]["encryption"] == opened["session"]["encryption"] == "tls"
    assert round_trip(connected["session"]["entry_points"][0], b"encrypted") == b"encrypted"
    run = run_play(walk("", _SESSION, reach(near) | {"uid": "beam", "state": "absent"}), directory=tmp_path)
    assert_walks(run)
    # There, it is the other end's.
    assert place.exists()
    run = run_play(walk("", _SESSION, reach(far) | {"uid": "beam", "state": "absent"}), directory=tmp_path)
    assert assert_walks(run)[0]["diff"]["before"]["ticket"] == str(place)
    assert not place.exists()


def test_u03_how_the_bytes_are_carried_is_a_difference_that_reopens(
    tmp_path: Path, control_server: ControlServers
) -> None:
    server = control_server()
    wish = reach(server) | {"uid": "beam", "direction": "inbound", "targets": [_NOBODY]}
    plain = wish | {"encryption": "none", "sources": ["127.0.0.0/8,::1"], "half_close": True}
    run = run_play([{"name": "first", _SESSION: wish}, *walk("", _SESSION, plain)], directory=tmp_path)
    assert run.code == 0, run.output
    check, do, *_ = assert_walks(run)
    differing = {"encryption": "none", "half_close": True, "sources": ["127.0.0.0/8", "::1/128"]}
    assert check["diff"]["after"] == differing
    assert check["diff"]["before"] | {"not_as_wished": None} == {
        "encryption": "tls",
        "half_close": False,
        "not_as_wished": None,
        "sources": [],
    }
    assert (do["action"], do["differences"][0]) == ("reopened", "encryption tls, not none")
    assert "nothing protects the bytes between the gateways" in do["session"]["warnings"][0]
    assert "[WARNING]: inbound session beam: nothing protects the bytes" in run.output


def test_check_only_reads(tmp_path: Path, control_server: ControlServers) -> None:
    server = control_server()
    secret, ticket = tmp_path / "site.secret", tmp_path / "beam.ticket"
    wish = {"name": "beam", "site_secret": str(secret), "ticket": str(ticket), "direction": "inbound"}
    run = run_play(
        [
            {"name": "opens", _SESSION: reach(server) | wish | {"targets": [_NOBODY]}, "check_mode": True},
            look("sessions", server),
        ],
        directory=tmp_path,
    )
    assert run.code == 0, run.output
    assert run.named("opens").changed
    assert run.named("sessions")["sessions"] == []
    assert not secret.exists()
    assert not ticket.exists()
    assert server.files("") == [*server.files("journal."), *server.files("s2cs")]


def test_other_parameters_open_a_session_anew(tmp_path: Path, control_server: ControlServers) -> None:
    server = control_server()
    wish = reach(server) | {"uid": "beam", "direction": "PROD", "targets": [_NOBODY], "lease": "8h"}
    other = wish | {"targets": [_NOBODY, "127.0.40.9:24998"], "num_conn": 3}
    run = run_play(
        [
            {"name": "first", _SESSION: wish},
            *walk("", _SESSION, other),
            {"name": "old words", _SESSION: other | {"prod_listeners": other["targets"], "targets": None}},
            {"name": "other order", _SESSION: wish | {"targets": other["targets"][::-1], "connections": 2}},
        ],
        directory=tmp_path,
    )
    assert run.code == 0, run.output
    check, do, *_ = assert_walks(run)
    assert check["diff"]["before"]["connections"] == 1
    assert check["diff"]["after"] == {"connections": 3, "targets": other["targets"]}
    assert "connections 1, not 3" in do["differences"]
    assert len(do["session"]["entry_points"]) == 3
    first = run.named("first")["session"]
    assert (first["rate"], round(first["lease_expires"] - first["opened"])) == (0, 8 * 3600)
    assert run.named("other order").changed


def test_u29_other_targets_alone_cut_no_connection(
    tmp_path: Path, control_server: ControlServers, echo_target: Any
) -> None:
    server = control_server()
    wish = reach(server) | {"uid": "beam", "direction": "inbound", "ticket": str(tmp_path / "beam.ticket")} | _PLAIN
    first = wish | {"targets": [echo_target.endpoint]}
    opened = run_play([{"name": "first", _SESSION: first}], directory=tmp_path).named("first")
    host, _, port = opened["session"]["entry_points"][0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as running:
        running.sendall(b"before")
        assert running.recv(6, socket.MSG_WAITALL) == b"before"
        run = run_play(walk("", _SESSION, wish | {"targets": [_NOBODY]}), directory=tmp_path)
        assert run.code == 0, run.output
        running.sendall(b"after")
        assert running.recv(5, socket.MSG_WAITALL) == b"after"
    check, do, *again = assert_walks(run)
    assert (opened["action"], check["action"], do["action"]) == ("opened", "retargeted", "retargeted")
    assert [one["action"] for one in again] == ["none", "none"]
    assert do["session"]["entry_points"] == opened["session"]["entry_points"]
    assert do["diff"]["after"] == {"targets": [_NOBODY]}
    assert json.loads((tmp_path / "beam.ticket").read_text())["targets"] == [_NOBODY]


def test_a_failed_session_is_opened_anew(tmp_path: Path, control_server: ControlServers, is_free: Any) -> None:
    server = control_server()
    wish = reach(server) | {"uid": "beam", "direction": "inbound", "targets": [_NOBODY]}
    run = run_play([{"name": "first", _SESSION: wish}], directory=tmp_path)
    assert run.code == 0, run.output
    server.end(signal.SIGKILL)
    for process in server.data_servers():
        process.kill()
        process.wait(20)
    # A stranger has its port: nothing can be started in its place.
    entry_point = Endpoint.parse(run.named("first")["session"]["entry_points"][0])
    with socket.create_server((entry_point.host, entry_point.port)):
        server.start()
        run = run_play([look("failed", server), *walk("", _SESSION, wish)], directory=tmp_path)
    check, do, *again = [run.named(step) for step in _steps()]
    assert [one.changed for one in (check, do, *again)] == [True, True, False, False], run.output
    assert f"{entry_point} is in use by" in run.named("failed")["sessions"][0]["failure"]
    # When it will be tried again is another time in each: it stands among the differences.
    assert check["diff"]["before"]["state"] == do["diff"]["before"]["state"] == "failed"
    assert do["session"]["state"] == "active"


def test_both_ends_at_one_gateway_are_released_together(tmp_path: Path, control_server: ControlServers) -> None:
    server = control_server()
    ends = [
        {"name": one, _SESSION: reach(server) | {"uid": "relay", "direction": one, "targets": [_NOBODY]} | _PLAIN}
        for one in ("inbound", "outbound")
    ]
    absent = reach(server) | {"uid": "relay", "state": "absent"}
    run = run_play([*ends, *walk("", _SESSION, absent), look("left", server)], directory=tmp_path)
    check, *_ = assert_walks(run)
    assert set(check["diff"]["before"]) == {"inbound", "outbound", "ticket"}
    assert run.named("left")["sessions"] == []


def test_a_session_is_drained_before_it_is_absent(
    tmp_path: Path, control_server: ControlServers, echo_target: Any
) -> None:
    server = control_server()
    wish = reach(server) | {"uid": "beam", "direction": "inbound"}
    first = wish | {"targets": [echo_target.endpoint]} | _PLAIN
    run = run_play([{"name": "first", _SESSION: first}], directory=tmp_path)
    entry_point = run.named("first")["session"]["entry_points"][0]
    with socket.create_connection((_INBOUND, int(entry_point.rpartition(":")[2])), timeout=20) as held:
        held.sendall(b"one")
        assert held.recv(3) == b"one"
        run = run_play(walk("", _SESSION, wish | {"state": "absent", "drain": 1}), directory=tmp_path)
        # It had its second, and is cut.
        assert held.recv(1) == b""
    assert_walks(run)
    assert "session draining" in server.words()


def test_a_control_server_says_what_it_is(tmp_path: Path, control_server: ControlServers) -> None:
    secure, plain = control_server(), control_server(_OUTBOUND, ssl=False, engine="nginx")
    tasks = [
        {"name": "secure", _SERVER_INFO: reach(secure)},
        {"name": "plain", _SERVER_INFO: {"s2cs": plain.endpoint, "insecure_plain_text": True}, "check_mode": True},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    facts = run.named("secure")["control_server"]
    assert (facts["address"], facts["engine"], facts["tls"]) == (secure.endpoint, "haproxy", True)
    assert (facts["authentication"], facts["port_range"], facts["sessions"]) == ("NO_AUTH", _PORTS, 0)
    assert facts["certificate_names"] == [_INBOUND]
    assert {engine["name"] for engine in facts["engines"]} >= {"haproxy", "nginx", "stunnel"}
    (haproxy,) = [engine for engine in facts["engines"] if engine["name"] == "haproxy"]
    assert (haproxy["encryptions"], facts["old_clients"]) == (["tls", "none"], "plain")
    assert {"feature": "UDP", "can": False, "words": "it carries TCP only"} in haproxy["abilities"]
    facts = run.named("plain")["control_server"]
    assert (facts["engine"], facts["tls"], facts["certificate_expires"]) == ("nginx", False, 0)


def test_the_group_says_once_how_the_control_server_is_reached(tmp_path: Path, control_server: ControlServers) -> None:
    server = control_server()
    once = {"group/scistream.core.control": reach(server)}
    tasks = [
        {"name": "open", _SESSION: {"uid": "beam", "direction": "inbound", "targets": [_NOBODY]}},
        {"name": "sessions", _INFO: {}},
        {"name": "server", _SERVER_INFO: {}},
    ]
    run = run_play(tasks, directory=tmp_path, module_defaults=once)
    assert run.code == 0, run.output
    assert len(run.named("sessions")["sessions"]) == run.named("server")["control_server"]["sessions"] == 1


def test_an_adhoc_call_works_as_people_type_it(tmp_path: Path, control_server: ControlServers) -> None:
    server = control_server()
    words = f"control_server={server.endpoint} server_certificate={server.certificate}"
    run = run_adhoc("localhost", "-m", _INFO, "-a", words, directory=tmp_path)
    assert run.code == 0, run.output
    assert "localhost | SUCCESS" in run.output
    assert "sessions: []" in run.output
    run = run_adhoc("localhost", "-m", _INFO, "-a", "control_server=127.0.40.8:24100", directory=tmp_path)
    assert run.code == 2
    assert "cannot connect to control server 127.0.40.8:24100: nothing listens there" in run.output
    assert "code: CONTROL_SERVER_UNREACHABLE" in run.output


def test_u50_bad_input_fails_with_a_sentence_and_a_code_and_leaves_nothing(
    tmp_path: Path, control_server: ControlServers, certificate_factory: Any
) -> None:
    server, plain = control_server(), control_server(_OUTBOUND, ssl=False)
    local = control_server("127.0.0.1", port=24120)
    keyed = control_server("127.0.40.3", engine="stunnel")
    stranger = certificate_factory(_INBOUND)
    wish = reach(server) | {"uid": "beam", "direction": "inbound", "targets": [_NOBODY]}
    nameless = {key: value for key, value in wish.items() if key != "uid"}
    wrong: dict[str, tuple[str, dict[str, Any]]] = {
        "no address": ("BAD_ADDRESS", wish | {"targets": ["10.0.0.5"]}),
        "u07 newline": ("BAD_ADDRESS", wish | {"targets": ["10.0.0.5:5074\nbind *:1"]}),
        "u08 path": ("BAD_UID", wish | {"uid": "../beam"}),
        "no connections": ("BAD_CONNECTIONS", wish | {"connections": 0}),
        "a million connections": ("BAD_CONNECTIONS", wish | {"connections": 10**6}),
        "more targets than connections": ("TOO_MANY_TARGETS", wish | {"targets": [_NOBODY] * 2, "connections": 1}),
        "more connections than ports": ("PORTS_EXHAUSTED", wish | {"connections": 11}),
        "no targets": ("NO_TARGETS", wish | {"targets": []}),
        "rate": ("BAD_RATE", wish | {"rate": 0}),
        "lease": ("BAD_LEASE", wish | {"lease": "soon"}),
        "u63 UDP as a link": ("BAD_ADDRESS", wish | {"targets": ["udp://10.0.0.5:5074"]}),
        "u63 UDP encrypted": ("UDP_UNENCRYPTED", wish | {"transport": "udp"}),
        "u63 UDP by an engine that cannot": ("ENGINE_CANNOT", wish | _PLAIN | {"transport": "udp"}),
        "plain by an engine that cannot": ("ENGINE_CANNOT", wish | reach(keyed) | _PLAIN),
        "u72 half-close by an engine that cannot": ("ENGINE_CANNOT", wish | reach(keyed) | {"half_close": True}),
        "u03 sources": ("BAD_SOURCES", wish | {"sources": ["192.0.2.7/24"]}),
        "u06 mock": ("UID_PUBLISHED", wish | {"uid": MOCK_UID}),
        "u01 two wishes": ("BAD_CONFIGURATION", wish | {"legacy_psk": True, "encryption": "tls"}),
        "no key": ("SESSION_KEY_MISSING", wish | {"direction": "outbound"}),
        "u05 no key in plain text": ("SESSION_KEY_MISSING", wish | plain_reach(plain) | {"server_certificate": None}),
        "name": ("BAD_NAME", nameless | {"name": "tab\t"}),
        "neither name nor uid": ("BAD_CONFIGURATION", wish | {"uid": None}),
        "timeout": ("BAD_CONFIGURATION", wish | {"timeout": 0}),
        "ticket missing": ("BAD_TICKET", nameless | {"direction": "outbound", "ticket": "/nowhere"}),
        "nobody there": ("CONTROL_SERVER_UNREACHABLE", wish | {"control_server": "127.0.40.8:24100"}),
        "u47 TLS to plain text": ("PLAIN_TEXT_SERVER", wish | {"control_server": plain.endpoint}),
        "plain text to TLS": ("TLS_SERVER", wish | {"insecure_plain_text": True} | _PLAIN),
        "certificate missing": ("CERTIFICATE_MISSING", wish | {"server_certificate": "/nowhere.crt"}),
        "certificate of another": ("CERTIFICATE_NOT_TRUSTED", wish | {"server_certificate": str(stranger.certificate)}),
        "certificate for another": (
            "CERTIFICATE_WRONG_NAME",
            wish | reach(local) | {"control_server": "localhost:24120"},
        ),
    }
    tasks = [{"name": name, _SESSION: given, "ignore_errors": True} for name, (_, given) in wrong.items()]
    run = run_play(
        [*tasks, look("left", server), {"name": "left plain", _INFO: plain_reach(plain)}], directory=tmp_path
    )
    found = {name: run.named(name).failure for name in wrong}
    assert found == {name: code for name, (code, _) in wrong.items()}
    for name in wrong:
        assert run.named(name)["msg"].endswith((".", "?")), name
        assert run.named(name)["failure"]["remedy"], name
    assert run.named("left")["sessions"] == run.named("left plain")["sessions"] == []
    assert server.data_servers() == []


def plain_reach(server: Any) -> dict[str, Any]:
    return {"control_server": server.endpoint, "insecure_plain_text": True}


def test_ansible_itself_refuses_what_it_can_tell(tmp_path: Path) -> None:
    wish = {"control_server": "127.0.40.8:24100", "targets": [_NOBODY]}
    tasks = [
        {"name": "direction", _SESSION: wish | {"uid": "beam", "direction": "sideways"}, "ignore_errors": True},
        {"name": "two names", _SESSION: wish | {"uid": "a", "name": "b", "direction": "CONS"}, "ignore_errors": True},
        {"name": "none", _SESSION: wish | {"direction": "CONS"}, "ignore_errors": True},
        {"name": "where to", _SESSION: wish | {"uid": "beam"}, "ignore_errors": True},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert "value of direction must be one of: inbound, outbound, PROD, CONS" in run.named("direction")["msg"]
    assert "mutually exclusive: name|uid" in run.named("two names")["msg"]
    assert "one of the following is required: name, uid, ticket" in run.named("none")["msg"]
    assert "state is present but all of the following are missing: direction" in run.named("where to")["msg"]


def test_a_token_is_in_no_output(tmp_path: Path, control_server: ControlServers) -> None:
    server = control_server()
    given = reach(server) | {"token": "hunter-2-secret"}
    refused = reach(server) | {"token": "hunter-2-secret\n"}
    tasks = [{"name": "given", _INFO: given}, {"name": "refused", _INFO: refused, "ignore_errors": True}]
    run = run_play(tasks, directory=tmp_path, options=["-vvv"])
    assert run.named("given").outcome == "ok", run.output
    assert run.named("refused").failure == "AUTHENTICATION_REFUSED"
    # The play itself, which -vvv may quote, is the user's own; what modules answer must not have it.
    told = json.dumps([one.values for one in run.results])
    assert "hunter-2-secret" not in told
    assert "hunter-2-secret" not in server.words()


def test_a_python_without_the_library_is_named(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = str(bare / "bin/python")
    task = {
        "name": "asks",
        _SERVER_INFO: {"control_server": "127.0.40.8:24100"},
        "vars": {"ansible_python_interpreter": python},
        "ignore_errors": True,
    }
    run = run_play([task], directory=tmp_path)
    assert run.named("asks").failure == "LIBRARY_MISSING"
    assert "Failed to import the required Python library (scistream)" in run.named("asks")["msg"]
    assert python in run.named("asks")["msg"]
