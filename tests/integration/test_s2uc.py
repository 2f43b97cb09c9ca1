"""`s2uc` and `appctrl` as people run them: processes, against real control servers with real proxies."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from command_line import Tools, connection_to, listeners_in, uids, wait_for
from old_protocol import OldControlServer
from scistream.errors import ExitCode

_HOST = "127.0.30.11"
_MOCK = "4f8583bc-a4d3-11ee-9fd6-034d1fcbd7c3"
_HEADING = "uid; s2cs; access_token; role"
# For bytes that a test sends straight into an inbound end, and for the mock uid, which has no key.
_PLAIN = "--encryption=none"


@pytest.mark.parametrize("spelling", ["-", "_"])
def test_u54_a_stream_is_opened_used_and_released_in_both_spellings(
    *, spelling, tools: Tools, gateway, echo_target, round_trip, is_free
) -> None:
    a, b = gateway(11), gateway(12)

    def spelled(word: str) -> str:
        return word.replace("-", spelling) if not word.startswith("--") else "--" + word[2:].replace("-", spelling)

    words = [spelled("inbound-request"), spelled("--remote-ip"), echo_target.address]
    words += [spelled("--receiver-ports"), str(echo_target.port), spelled("--num-conn"), "1", "--s2cs", a.endpoint]
    out, err = tools.run("s2uc", *words)
    lines = out.splitlines()
    assert lines[0] == _HEADING
    uid, address, token, role = lines[1].split(" ")
    assert (address, token, role, err) == (a.endpoint, "NO_AUTH", "PROD", "")
    listeners = listeners_in(out)
    assert listeners.startswith("127.0.30.11:233")
    assert f"s2uc outbound-request {uid} {listeners} --s2cs " in out

    certificate = [spelled("--server-cert"), "server-12.crt", f"--s2cs={b.endpoint}"]
    out, _ = tools.run("s2uc", spelled("outbound-request"), uid, listeners, *certificate)
    assert out.splitlines()[:2] == [_HEADING, f"{uid} {b.endpoint} NO_AUTH CONS"]
    entry_point = listeners_in(out)
    assert round_trip(entry_point, b"through both") == b"through both"

    tools.run("s2uc", "release", uid, *certificate)
    tools.run("s2uc", "release", uid, "--s2cs", a.endpoint)
    assert is_free(entry_point)
    assert is_free(listeners)
    assert _kept(tools) == []
    assert tools.fail(ExitCode.SESSION, "s2uc", "release", uid, "--s2cs", a.endpoint).endswith("[UID_UNKNOWN]\n")


def _kept(tools: Tools) -> list[Path]:
    """The tickets that nobody named a place for."""
    return sorted(tools.directory.glob(".local/state/scistream/tickets/*"))


def test_a_ticket_hands_an_encrypted_stream_to_the_other_end(
    *, tools: Tools, gateway, echo_target, round_trip, tmp_path: Path
) -> None:
    a, b = gateway(11, engine="stunnel"), gateway(12, engine="stunnel")
    target = ["--remote_ip", echo_target.address, "--receiver_ports", str(echo_target.port)]
    words = ["--s2cs", a.endpoint, "--ticket", "t.json", "--name", "beamline 7"]
    out, _ = tools.run("s2uc", "inbound-request", *target, *words)
    ticket = tools.directory / "t.json"
    assert stat.S_IMODE(ticket.stat().st_mode) == 0o600
    assert "At the other end: s2uc outbound-request --ticket t.json --s2cs" in out
    key = json.loads(ticket.read_text())["key"]
    assert len(key) == 64
    assert key not in out

    far = ["--s2cs", b.endpoint, "--server_cert", "server-12.crt"]
    out, err = tools.run("s2uc", "outbound-request", "--ticket", "t.json", *far, "--json")
    session = json.loads(out)["session"]
    assert round_trip(session["entry_points"][0], b"encrypted") == b"encrypted"
    assert session["encryption"] == "tls-psk"
    assert key not in out + err
    tools.run("s2uc", "release", "--ticket", "t.json", *far)
    assert ticket.exists()
    tools.run("s2uc", "release", "--ticket", "t.json", "--s2cs", a.endpoint)
    assert uids(a) == uids(b) == []
    # Gone with its session: the same words open the next one.
    assert not ticket.exists()
    tools.run("s2uc", "inbound-request", *target, "--s2cs", a.endpoint, "--ticket", "t.json")
    tools.run("s2uc", "release", "--ticket", "t.json", "--s2cs", a.endpoint, "--direction", "inbound")
    assert not ticket.exists()


def test_a_ticket_leads_to_the_address_that_the_other_facility_reaches(
    *, tools: Tools, gateway, echo_target, round_trip
) -> None:
    inside, outside = "127.0.30.41", "127.0.30.42"
    everywhere = "0.0.0.0"  # noqa: S104 - what is tested
    gateway(11, address=everywhere, port=23450, port_range="23460-23469", names=[everywhere, inside])
    words = ["--receiver-ports", str(echo_target.port), "--remote-ip", echo_target.address, "--s2cs", f"{inside}:23450"]
    words += ["--name", "beam", "--ticket", "t.json", "--json"]

    def opened(*address: str) -> tuple[str, str]:
        told = json.loads(tools.run("s2uc", "inbound-request", *words, *address)[0])
        ticket = json.loads((tools.directory / "t.json").read_text())
        assert told["session"]["entry_points"] == ticket["entry_points"]
        return told["action"], ticket["entry_points"][0].partition(":")[0]

    assert opened() == ("opened", inside)
    key = json.loads((tools.directory / "t.json").read_text())["key"]
    assert opened("--address", outside) == ("ticket_written", outside)
    assert json.loads((tools.directory / "t.json").read_text())["key"] == key
    assert opened("--address", outside) == ("none", outside)
    b = gateway(12)
    far = ["--ticket", "t.json", "--s2cs", b.endpoint, "--server-cert", "server-12.crt", "--json"]
    session = json.loads(tools.run("s2uc", "outbound-request", *far)[0])["session"]
    assert round_trip(session["entry_points"][0], b"from outside") == b"from outside"


def test_without_a_ticket_the_two_commands_of_the_guide_are_encrypted(
    *, tools: Tools, gateway, echo_target, round_trip
) -> None:
    a, b = gateway(11, engine="stunnel"), gateway(12, engine="stunnel")
    target = ["--remote_ip", echo_target.address, "--receiver_ports", str(echo_target.port)]
    inbound = json.loads(tools.run("s2uc", "inbound-request", *target, "--s2cs", a.endpoint, "--json")[0])
    uid = inbound["session"]["uid"]
    (ticket,) = _kept(tools)
    assert (ticket.name, inbound["ticket"], stat.S_IMODE(ticket.stat().st_mode)) == (uid, str(ticket), 0o600)
    far = ["--s2cs", b.endpoint, "--server_cert", "server-12.crt"]
    words = ["s2uc", "outbound-request", uid, inbound["session"]["entry_points"][0], *far]
    # Somebody else has no key, and is told what to type.
    strangers = Tools(tools.directory, tools.environment | {"XDG_STATE_HOME": str(tools.directory / "strangers")})
    err = strangers.fail(ExitCode.SESSION, *words)
    assert f"Take the ticket from whoever opened the inbound end (~/.local/state/scistream/tickets/{uid}" in err
    assert err.endswith("[SESSION_KEY_MISSING]\n")
    assert "session requested" not in b.words()
    outbound = json.loads(tools.run(*words, "--json")[0])["session"]
    assert round_trip(outbound["entry_points"][0], b"encrypted") == b"encrypted"
    assert outbound["encryption"] == "tls-psk"
    tools.run("s2uc", "release", uid, *far)
    # There, it is the other end's.
    assert _kept(tools) == [ticket]
    # The inbound session is gone; whoever says so to its ticket as well leaves nothing behind.
    with connection_to(a) as connection:
        connection.release(uid)
    tools.fail(ExitCode.SESSION, "s2uc", "release", uid, "--s2cs", a.endpoint)
    assert _kept(tools) == []


def test_listeners_that_are_said_win_over_the_tickets(*, tools: Tools, gateway, echo_target, round_trip) -> None:
    a, relay, b = gateway(11), gateway(13), gateway(12)
    target = ["--remote_ip", echo_target.address, "--receiver_ports", str(echo_target.port)]
    inbound = json.loads(tools.run("s2uc", "inbound-request", *target, "--s2cs", a.endpoint, "--json")[0])["session"]
    channel = ["--server-cert", "server-13.crt", "--s2cs", relay.endpoint, "--json", _PLAIN]
    words = ["s2uc", "outbound-request", "a-relay", *inbound["entry_points"], *channel]
    (relayed,) = json.loads(tools.run(*words)[0])["session"]["entry_points"]
    far = ["--server-cert", "server-12.crt", "--s2cs", b.endpoint, "--json"]
    outbound = json.loads(tools.run("s2uc", "outbound-request", inbound["uid"], relayed, *far)[0])["session"]
    assert (outbound["targets"], outbound["encryption"]) == ([relayed], "tls")
    assert round_trip(outbound["entry_points"][0], b"by a relay") == b"by a relay"


@pytest.mark.parametrize("command", ["inbound-request", "prod-req"])
@pytest.mark.parametrize("wish", ["--encryption=tls", "--legacy-psk"])
def test_u06_the_mock_uid_is_refused_with_encryption_before_anything_is_called(
    command: str, wish: str, tools: Tools
) -> None:
    err = tools.fail(ExitCode.BAD_INPUT, "s2uc", command, "--mock", "True", wish, "--s2cs", f"{_HOST}:23399")
    assert f"session {_MOCK} cannot have encryption" in err
    assert "Leave --mock out for a uid of its own, or say --encryption none" in err
    assert err.endswith("[UID_PUBLISHED]\n")
    assert _kept(tools) == []


def test_the_ticket_of_another_session_is_not_written_over(tools: Tools, gateway) -> None:
    server = gateway(11, engine="stunnel")
    words = ["inbound-request", "--num_conn", "1", "--s2cs", server.endpoint, "--ticket", "t.json", "--name"]
    tools.run("s2uc", *words, "y")
    before = (tools.directory / "t.json").read_bytes()
    err = tools.fail(ExitCode.BAD_INPUT, "s2uc", *words, "z")
    assert err.endswith("[BAD_TICKET]\n")
    assert (tools.directory / "t.json").read_bytes() == before
    assert len(uids(server)) == 1


@pytest.mark.parametrize(
    ("inner", "outer", "encryption"), [("stunnel", "haproxy", "tls"), ("haproxy", "stunnel", "none")]
)
def test_gateways_that_cannot_understand_each_other_are_refused(
    inner: str, outer: str, encryption: str, tools: Tools, gateway
) -> None:
    a, b = gateway(11, engine=inner), gateway(12, engine=outer)
    words = ["--num_conn=1", "--s2cs", a.endpoint, "--ticket", "t.json", "--encryption", encryption]
    tools.run("s2uc", "inbound-request", *words)
    far = ["--s2cs", b.endpoint, "--server-crt", "server-12.crt"]
    err = tools.fail(ExitCode.UNSUPPORTED, "s2uc", "outbound-request", "--ticket", "t.json", *far)
    assert err.endswith("[ENCRYPTION_MISMATCH]\n")
    assert outer in err
    assert uids(b) == []


def test_a_name_again_changes_nothing(tools: Tools, gateway) -> None:
    server = gateway(11, engine="stunnel")
    words = ["inbound-request", "--num_conn=1", "--s2cs", server.endpoint, "--name", "beam", "--ticket", "t.json"]
    first, _ = tools.run("s2uc", *words)
    before = (tools.directory / "t.json").read_bytes()
    again, err = tools.run("s2uc", *words)
    assert "error" not in err
    assert "nothing was changed" in again
    assert [line for line in again.splitlines() if "nothing was changed" not in line] == first.splitlines()
    assert (tools.directory / "t.json").read_bytes() == before
    changed, _ = tools.run("s2uc", *words, "--receiver-ports=9")
    assert "targets localhost:5074, not localhost:9" in changed


def test_a_name_again_waits_for_no_application_controller(tools: Tools, gateway, echo_target) -> None:
    server = gateway()
    words = ["prod-req", "--num_conn=1", "--s2cs", server.endpoint, "--name", "beam", "--json"]
    with tools.start("s2uc", *words) as request:
        wait_for(lambda: bool(uids(server)))
        (uid,) = uids(server)
        target = [echo_target.address, f"--receiver-ports={echo_target.port}"]
        tools.run("appctrl", "create-appctrl", uid, server.endpoint, "-", "PROD", *target)
        said, _ = request.communicate(timeout=60)
    again, err = tools.run("s2uc", *words, "--wait", "5")
    assert "nothing was changed" in err
    assert json.loads(again) == json.loads(said) | {"action": "none"}


def test_a_mistyped_site_secret_is_told_and_not_made_where_nothing_is_opened_by_it(tools: Tools) -> None:
    mistyped = tools.directory / "sites.ecret"
    named = ["--name", "beam", "--site-secret", str(mistyped)]
    for words in (["status"], ["release"], ["outbound-request"]):
        listeners = ["127.0.20.9:5100"] if words == ["outbound-request"] else []
        err = tools.fail(ExitCode.BAD_INPUT, "s2uc", *words, *listeners, *named)
        assert f"the site secret {mistyped} cannot be used: No such file or directory" in err
        assert "name the right one with --site-secret" in err.lower()
        assert not mistyped.exists()
    # The first that is opened by a name makes it, and says so; here it comes no further.
    err = tools.fail(ExitCode.CERTIFICATE, "s2uc", "inbound-request", *named)
    assert f"s2uc: made the site secret {mistyped}: names become uids with it, so keep it" in err
    assert mistyped.exists()
    assert "made the site secret" not in tools.fail(ExitCode.CERTIFICATE, "s2uc", "inbound-request", *named)


def test_a_name_that_is_none_makes_no_site_secret(tools: Tools) -> None:
    assert tools.fail(ExitCode.BAD_INPUT, "s2uc", "inbound-request", "--name", "").endswith("[BAD_NAME]\n")
    assert list(tools.directory.rglob("site.secret")) == []


def test_a_taken_uid_is_freed_by_the_command_that_is_told(tools: Tools, gateway) -> None:
    server = gateway()
    words = ["inbound-request", "--mock", _PLAIN, "--num_conn=1", "--s2cs", server.endpoint]
    tools.run("s2uc", *words)
    _, err = tools.run("s2uc", *words, code=ExitCode.SESSION)
    (command,) = [line.partition("to release it: ")[2] for line in err.splitlines() if "to release it: " in line]
    tools.run(*shlex.split(command))
    assert uids(server) == []


def test_u55_u56_the_defaults_are_the_documented_ones(tools: Tools, gateway) -> None:
    server = gateway()
    out, _ = tools.run("s2uc", "inbound-request", "--s2cs", server.endpoint, "--json")
    session = json.loads(out)["session"]
    assert session["targets"] == [f"localhost:{port}" for port in (5074, 5075, 5076, 37000, 47000)]
    assert (session["connections"], len(session["entry_points"]), session["rate"]) == (5, 5, 0)
    with tools.start("s2uc", "prod-req", "--s2cs", server.endpoint, "--json", "--mock", _PLAIN) as request:
        wait_for(lambda: len(uids(server)) == 2)
        tools.run("appctrl", "create-appctrl", _MOCK, server.endpoint, "-", "PROD")
        said, _ = request.communicate(timeout=60)
    other = json.loads(said)["session"]
    assert [other[key] for key in ("targets", "connections")] == [session[key] for key in ("targets", "connections")]


def test_u56_one_target_has_one_listener_in_every_command(tools: Tools, gateway) -> None:
    server = gateway()
    channel = ["--s2cs", server.endpoint, "--json", _PLAIN]
    inbound = ["s2uc", "inbound-request", "--receiver-ports", "5074", "--ticket", "t.json", *channel]
    session = json.loads(tools.run(*inbound)[0])["session"]
    assert (session["connections"], len(session["entry_points"])) == (1, 1)
    by_ticket = ["s2uc", "outbound-request", "--ticket", "t.json", *channel]
    by_words = ["s2uc", "outbound-request", "other", session["entry_points"][0], *channel]
    for words in (by_ticket, by_words):
        assert len(json.loads(tools.run(*words)[0])["session"]["entry_points"]) == 1


def test_compat_and_mock_say_the_deployed_tools_words(tools: Tools, gateway) -> None:
    server = gateway()
    words = ["--mock", "True", "--compat", "--s2cs", server.endpoint, "--num_conn=2", _PLAIN]
    out, err = tools.run("s2uc", "inbound_request", *words)
    assert out.splitlines()[1] == f"{_MOCK} {server.endpoint} INVALID_TOKEN PROD"
    assert err.startswith("s2uc: warning: nothing protects the bytes between the gateways")
    with connection_to(server) as connection:
        (session,) = connection.list_sessions()
    assert (session.rate, session.connections) == (0, 2)


def test_u57_a_rate_that_nothing_would_keep_is_refused_and_costs_no_session(tools: Tools, gateway) -> None:
    server = gateway(start=False)
    if os.geteuid() == 0:
        # What an ordinary control server may not do.
        server.command[:0] = ["setpriv", "--bounding-set=-net_admin"]
    server.start()
    words = ["inbound-request", "--num_conn=1", "--s2cs", server.endpoint, "--name", "beam"]
    err = tools.fail(ExitCode.UNSUPPORTED, "s2uc", *words, "--rate=500")
    assert "haproxy cannot do what was asked: " in err
    assert "CAP_NET_ADMIN" in err
    assert err.endswith("[ENGINE_CANNOT]\n")
    assert uids(server) == []
    tools.run("s2uc", *words)
    before = uids(server)
    tools.fail(ExitCode.UNSUPPORTED, "s2uc", *words, "--rate=500")
    assert uids(server) == before


def test_u15_a_token_is_taken_from_the_environment_and_never_shown(tools: Tools, gateway) -> None:
    server = gateway()
    tools.environment.update(SCISTREAM_TOKEN="very-secret-token")
    out, err = tools.run("s2uc", "inbound-request", "--num_conn", "1", "--s2cs", server.endpoint)
    assert out.splitlines()[1].split(" ")[2] == "***"
    assert "very-secret-token" not in out + err + server.words()


def test_u50_server_down(tools: Tools, gateway) -> None:
    server = gateway()
    server.end()
    err = tools.fail(ExitCode.CONNECTION, "s2uc", "inbound-request", "--s2cs", server.endpoint)
    assert "nothing listens there (connection refused)" in err
    assert err.endswith("[CONTROL_SERVER_UNREACHABLE]\n")


def test_u50_certificate_missing(tools: Tools) -> None:
    err = tools.fail(ExitCode.CERTIFICATE, "s2uc", "inbound-request", "--s2cs", f"{_HOST}:23399")
    assert "there is no certificate server.crt" in err
    assert "--server-cert (module: server_certificate)" in err
    assert err.endswith("[CERTIFICATE_MISSING]\n")


def test_u50_port_taken(tools: Tools, gateway) -> None:
    server = gateway(port_range="23301-23301")
    with socket.create_server((_HOST, 23301)):
        err = tools.fail(ExitCode.RESOURCE, "s2uc", "inbound-request", "--num_conn=1", "--s2cs", server.endpoint)
    assert err.endswith("[PORTS_EXHAUSTED]\n")
    assert uids(server) == []


def test_u50_proxy_not_installed(tools: Tools, gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Of the proxies, only stunnel is found by the PATH alone.
    monkeypatch.setenv("PATH", str(tmp_path))
    server = gateway(engine="stunnel")
    words = ["inbound-request", "--num_conn=1", "--s2cs", server.endpoint, "--ticket", "t.json"]
    err = tools.fail(ExitCode.DATA_SERVER, "s2uc", *words)
    assert "not installed" in err
    assert "apt-get install stunnel4" in err
    assert err.endswith("[ENGINE_MISSING]\n")
    assert uids(server) == []


def test_u50_unknown_uid_at_release(tools: Tools, gateway) -> None:
    server = gateway()
    err = tools.fail(ExitCode.SESSION, "s2uc", "release", "nobody", "--s2cs", server.endpoint)
    assert "there is no session with uid nobody" in err
    assert err.endswith("[UID_UNKNOWN]\n")


def test_u50_duplicate_uid(tools: Tools, gateway) -> None:
    server = gateway()
    words = ["inbound-request", "--mock=True", _PLAIN, "--num_conn=1", "--s2cs", server.endpoint]
    tools.run("s2uc", *words)
    err = tools.fail(ExitCode.SESSION, "s2uc", *words)
    assert f"a session with uid {_MOCK} exists already (active)" in err
    assert "[UID_EXISTS]\n" in err
    assert uids(server) == [_MOCK]


def test_u50_update_that_fails_on_an_old_server(tools: Tools, certificate_factory) -> None:
    files = certificate_factory(_HOST)
    broken = "[Errno 2] No such file or directory: 'haproxy'"
    pool = range(23391, 23399)
    with OldControlServer(_HOST, 23390, pool, files.certificate, files.key, broken_update=broken) as server:
        words = ["--s2cs", str(server.address), "--server_cert", str(files.certificate), _PLAIN]
        err = tools.fail(ExitCode.DATA_SERVER, "s2uc", "inbound-request", *words)
        assert err.endswith("[ENGINE_MISSING]\n")
        assert server.uids == set()


def test_an_old_server_is_used_as_ours_is(tools: Tools, certificate_factory, echo_target, round_trip) -> None:
    files = certificate_factory(_HOST)
    with OldControlServer(_HOST, 23390, range(23391, 23399), files.certificate, files.key) as server:
        channel = ["--s2cs", str(server.address), "--server_cert", str(files.certificate)]
        target = ["--remote_ip", echo_target.address, "--receiver_ports", str(echo_target.port)]
        out, err = tools.run("s2uc", "inbound-request", "--mock", "True", _PLAIN, *target, *channel)
        assert "(NOT encrypted between the gateways, as was asked for: it does not tell)." in out
        assert err.startswith("s2uc: warning: nothing protects the bytes between the gateways: encryption none was")
        assert err.endswith("it speaks the old protocol only, and does not tell what it has\n")
        assert f"s2uc outbound-request {_MOCK} {listeners_in(out)} --encryption none --s2cs" in out
        assert round_trip(listeners_in(out), b"by the old protocol") == b"by the old protocol"
        tools.run("s2uc", "release", _MOCK, *channel)
        assert tools.fail(ExitCode.SESSION, "s2uc", "release", _MOCK, *channel).endswith("[UID_UNKNOWN]\n")


@pytest.mark.parametrize(
    "wish", [["--encryption=tls"], ["--encryption=none", "--lease=1h"], ["--legacy-psk", "--rate=7"]]
)
def test_u02_a_deployed_server_is_not_asked_for_what_it_cannot_protect(
    wish: list[str], tools: Tools, certificate_factory
) -> None:
    files = certificate_factory(_HOST)
    with OldControlServer(_HOST, 23390, range(23391, 23399), files.certificate, files.key) as server:
        words = ["--num-conn=1", "--s2cs", str(server.address), "--server_cert", str(files.certificate)]
        err = tools.fail(ExitCode.UNSUPPORTED, "s2uc", "inbound-request", *words, *wish)
        code = "ENCRYPTION_UNAVAILABLE" if "tls" in wish[0] else "OLD_CONTROL_SERVER"
        assert err.endswith(f"[{code}]\n")
        assert ("say --encryption none" in err) == ("tls" in wish[0])
        assert server.calls == []
        out, err = tools.run("s2uc", "inbound-request", *words, "--legacy-psk", "--ticket=t.json")
        assert "is no secret: legacy-psk was asked for; of its control server that is all that is known" in err
        assert "s2uc outbound-request --ticket t.json --legacy-psk --s2cs" in out
        # Its ticket tells the other end, which may be one of ours.
        assert json.loads((tools.directory / "t.json").read_text())["encryption"] == "legacy-psk"


def test_a_plain_text_channel_is_an_option_on_both_sides(tools: Tools, gateway) -> None:
    server = gateway(ssl=False)
    words = ["inbound-request", "--num_conn=1", "--s2cs", server.endpoint]
    assert tools.fail(ExitCode.CERTIFICATE, "s2uc", *words, _PLAIN).endswith("[PLAIN_TEXT_SERVER]\n")
    # A key does not travel over it.
    err = tools.fail(ExitCode.SESSION, "s2uc", *words, "--ssl=False")
    assert "encryption tls over a control channel in plain text carries nothing without one" in err
    assert err.endswith("[SESSION_KEY_MISSING]\n")
    out, _ = tools.run("s2uc", *words, "--ssl=False", _PLAIN)
    assert listeners_in(out).startswith("127.0.30.11:233")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["inbound-request", "--num_conn", "0"], "BAD_CONNECTIONS"),
        (["inbound-request", "--num_conn", "1000000"], "BAD_CONNECTIONS"),
        (["inbound-request", "--rate", "0"], "BAD_RATE"),
        (["inbound-request", "--receiver_ports", "1,2", "--num_conn", "1"], "TOO_MANY_TARGETS"),
        (["inbound-request", "--receiver_ports", "http"], "BAD_ADDRESS"),
        (["inbound-request", "--remote_ip", "a b"], "BAD_ADDRESS"),
        (["inbound-request", "--s2cs", "localhost:"], "BAD_ADDRESS"),
        (["inbound-request", "--name", ""], "BAD_NAME"),
        (["outbound-request", "../x", "localhost:1"], "BAD_UID"),
        (["outbound-request", "abc", "localhost:1\nserver x"], "BAD_ADDRESS"),
        (["outbound-request", "--ticket", "none.json"], "BAD_TICKET"),
        (["release", "../x"], "BAD_UID"),
        (["release", "abc", "--direction", "up"], "BAD_ROLE"),
    ],
)
def test_u07_u08_bad_input_is_told_before_anything_is_called(words: list[str], code: str, tools: Tools) -> None:
    assert tools.fail(ExitCode.BAD_INPUT, "s2uc", *words).endswith(f"[{code}]\n")


def test_an_error_is_an_object_for_machines(tools: Tools) -> None:
    out, err = tools.run("s2uc", "release", "../x", "--json", code=ExitCode.BAD_INPUT)
    failure = json.loads(out)["failure"]
    assert (failure["code"], failure["details"]) == ("BAD_UID", {"uid": "../x"})
    assert err.endswith("[BAD_UID]\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_request_leaves_nothing(number: signal.Signals, code: int, tools: Tools, gateway) -> None:
    server = gateway()
    with tools.start("s2uc", "prod-req", "--num_conn", "2", "--s2cs", server.endpoint) as process:
        wait_for(lambda: bool(uids(server)))
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert uids(server) == []


def test_the_second_of_two_signals_does_not_end_the_way_back(tools: Tools, gateway) -> None:
    server = gateway()
    with tools.start("s2uc", "prod-req", "--num_conn", "2", "--s2cs", server.endpoint) as process:
        wait_for(lambda: bool(uids(server)))
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
            time.sleep(0.01)
        process.communicate(timeout=30)
    assert process.returncode == 129
    assert uids(server) == []


def test_nohup_keeps_a_request_when_its_terminal_goes(tools: Tools, gateway) -> None:
    server = gateway()
    tool = Path(sys.executable).with_name("s2uc")
    words = ["nohup", str(tool), "prod-req", "--num_conn=1", "--s2cs", server.endpoint]
    with subprocess.Popen(words, stdout=-1, stderr=-1, cwd=tools.directory, env=tools.environment) as process:
        wait_for(lambda: bool(uids(server)))
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert uids(server) == []


@pytest.mark.parametrize(
    ("engine", "options", "after"),
    [
        ("haproxy", "", "| head -1"),
        ("haproxy", "--json", "| true"),
        ("haproxy", "--json --name beam", ">/dev/full"),
        ("stunnel", "--json --ticket t.json", ">/dev/full"),
        ("haproxy", "", ">&-"),
        ("haproxy", "--json --name beam", ">&- <&-"),
    ],
)
def test_a_session_that_cannot_be_told_is_released(
    *, engine: str, options: str, after: str, tools: Tools, gateway, is_free
) -> None:
    server = gateway(engine=engine)
    tool = shlex.quote(str(Path(sys.executable).with_name("s2uc")))
    line = f"set -o pipefail; {tool} inbound-request --num_conn=1 --s2cs {server.endpoint} {options} {after}"
    done = subprocess.run(
        ["/bin/bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        cwd=tools.directory,
        env=tools.environment,
    )
    assert done.returncode == ExitCode.SESSION, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "s2uc: error: the output cannot be written: " in done.stderr
    assert done.stderr.endswith("[OUTPUT_UNWRITABLE]\n")
    assert uids(server) == []
    assert is_free("127.0.30.11:23301")
    assert not (tools.directory / "t.json").exists()
    assert _kept(tools) == []


def test_a_session_that_was_there_stays_when_it_cannot_be_told(tools: Tools, gateway) -> None:
    server = gateway(engine="stunnel")
    words = ["inbound-request", "--num_conn=1", "--s2cs", server.endpoint, "--name=beam", "--ticket=t.json", "--json"]
    tools.run("s2uc", *words)
    before = uids(server)
    tool = Path(sys.executable).with_name("s2uc")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([tool, *words], stdout=full, check=False, cwd=tools.directory, env=tools.environment)
    assert done.returncode == ExitCode.SESSION
    assert uids(server) == before
    assert len(before) == 1
    assert (tools.directory / "t.json").exists()


def _closed(tools: Tools, words: str) -> subprocess.CompletedProcess[str]:
    line = ["/bin/sh", "-c", f"{Path(sys.executable).parent}/{words} >&-"]
    return subprocess.run(
        line, stderr=subprocess.PIPE, text=True, check=False, cwd=tools.directory, env=tools.environment, timeout=90
    )


@pytest.mark.parametrize("words", ["list", "list --json", "status", "status --json"])
def test_what_a_closed_stdout_does_not_take_is_told(words: str, tools: Tools, gateway) -> None:
    done = _closed(tools, f"s2uc {words} --s2cs {gateway().endpoint}")
    assert done.returncode == ExitCode.SESSION, done.stderr
    assert done.stderr.endswith("[OUTPUT_UNWRITABLE]\n")


def test_a_watch_whose_stdout_is_closed_ends_with_its_first_event(tools: Tools, gateway) -> None:
    server = gateway()

    def has_ended() -> bool:
        # It may not listen yet when the first one is opened.
        tools.run("s2uc", "inbound-request", "--num-conn=1", "--mock", _PLAIN, "--s2cs", server.endpoint)
        tools.run("s2uc", "release", _MOCK, "--s2cs", server.endpoint)
        return future.done()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(_closed, tools, f"s2uc watch --s2cs {server.endpoint} --timeout 60")
        wait_for(has_ended)
    done = future.result()
    assert done.returncode == ExitCode.SESSION, done.stderr
    assert done.stderr.endswith("[OUTPUT_UNWRITABLE]\n")


def test_a_control_servers_tool_tells_a_closed_stdout_as_well(tools: Tools) -> None:
    done = _closed(tools, "s2cs stop --state-directory=none")
    assert done.returncode == ExitCode.SESSION, done.stderr
    assert done.stderr.endswith("[OUTPUT_UNWRITABLE]\n")


def test_a_help_that_a_full_disk_does_not_take_is_a_sentence(tools: Tools) -> None:
    tool = Path(sys.executable).with_name("s2uc")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [tool, "--help"], stdout=full, stderr=-1, text=True, check=False, cwd=tools.directory, env=tools.environment
        )
    assert done.returncode == ExitCode.INTERNAL
    assert "Exception ignored" not in done.stderr
    assert done.stderr.endswith("[INTERNAL]\n")


def test_a_name_that_is_waited_for_already_is_not_taken_from_who_waits(tools: Tools, gateway, echo_target) -> None:
    server = gateway()
    words = ["prod-req", "--num_conn=1", "--s2cs", server.endpoint, "--name", "beam"]
    with tools.start("s2uc", *words) as first:
        wait_for(lambda: bool(uids(server)))
        (uid,) = uids(server)
        _, err = tools.run("s2uc", *words, code=ExitCode.SESSION)
        assert f"uid {uid} exists already (another request waits for it already: it is requested)" in err
        assert "[UID_EXISTS]" in err
        assert f"to release it: s2uc release {uid}" in err
        target = [echo_target.address, f"--receiver-ports={echo_target.port}"]
        tools.run("appctrl", "create-appctrl", uid, server.endpoint, "-", "PROD", *target)
        out, _ = first.communicate(timeout=60)
    assert first.returncode == 0
    assert listeners_in(out).startswith("127.0.30.11:233")


def test_u59_an_application_controller_registers_names_and_ipv6_and_touches_nothing(
    *, tools: Tools, gateway, echo_target, round_trip
) -> None:
    server = gateway()
    # U59: the deployed one ends any Python on port 7000.
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import socket, time; s = socket.create_server(('127.0.30.11', 7000)); time.sleep(60)"]
    )
    try:
        waiting = ["s2uc", "prod-req", "--mock", "True", _PLAIN, "--num_conn", "1", "--s2cs", server.endpoint]
        with tools.start(*waiting) as request:
            words = [_MOCK, server.endpoint, "INVALID_TOKEN", "PROD"]
            ports = ["--receiver_ports", str(echo_target.port)]
            out, _ = tools.run("appctrl", "create-appctrl", *words, echo_target.address, *ports)
            assert f"target {echo_target.endpoint}" in out
            said, _ = request.communicate(timeout=60)
        assert request.returncode == 0
        assert said.splitlines()[1] == f"{_MOCK} {server.endpoint} NO_AUTH PROD"
        assert round_trip(listeners_in(said), b"registered") == b"registered"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(("ip", "told"), [("localhost", "localhost:9"), ("::1", "[::1]:9"), ("[::1]", "[::1]:9")])
def test_u58_u59_targets_are_names_or_ipv6_too(ip: str, told: str, tools: Tools, gateway) -> None:
    server = gateway()
    with tools.start("s2uc", "prod-req", "--mock=True", _PLAIN, "--num_conn=1", "--s2cs", server.endpoint) as request:
        words = [_MOCK, server.endpoint, "-", "PROD", ip, "--receiver_ports=9"]
        out, _ = tools.run("appctrl", "mock", *words)
        assert f"target {told}" in out
        request.communicate(timeout=60)
    assert request.returncode == 0
    with connection_to(server) as connection:
        assert connection.list_sessions()[0].targets == (told,)


def test_u15_a_token_on_the_command_line_is_refused_and_not_repeated(tools: Tools) -> None:
    words = ["create-appctrl", "abc", f"{_HOST}:23399"]
    err = tools.fail(ExitCode.BAD_INPUT, "appctrl", *words, "very-secret-token", "PROD")
    assert err.endswith("[TOKEN_EXPOSED]\n")
    assert "very-secret-token" not in err
    err = tools.fail(ExitCode.BAD_INPUT, "appctrl", *words, "PROD", "very-secret-token")
    assert "the fourth argument, ROLE, is not a direction" in err
    assert err.endswith("[BAD_ROLE]\n")
    assert "very-secret-token" not in err
    err = tools.fail(ExitCode.CERTIFICATE, "appctrl", *words, "very-secret-token", "PROD", "--compat")
    assert "very-secret-token" not in err


def test_appctrl_without_a_session_gives_up_at_its_deadline(tools: Tools, gateway) -> None:
    server = gateway()
    words = ["create-appctrl", "nobody", server.endpoint, "NO_AUTH", "PROD", "--timeout", "1"]
    err = tools.fail(ExitCode.TIMEOUT, "appctrl", *words)
    assert "took longer than 1 s" in err
    assert err.endswith("[DEADLINE]\n")


def test_appctrl_for_a_session_that_is_gone_says_so(tools: Tools, gateway) -> None:
    server = gateway()
    # Held for 5 s by the control server, and then answered: not for the 30 s that a call may take.
    err = tools.fail(ExitCode.SESSION, "appctrl", "create-appctrl", "gone", server.endpoint, "NO_AUTH", "PROD")
    assert err.endswith("[UID_UNKNOWN]\n")
    assert server.words().count("gone") <= 2


def test_appctrl_for_a_session_that_an_old_server_does_not_know(tools: Tools, certificate_factory) -> None:
    files = certificate_factory(_HOST)
    with OldControlServer(_HOST, 23390, range(23391, 23399), files.certificate, files.key) as server:
        words = [str(server.address), "NO_AUTH", "PROD", "--server-cert", str(files.certificate), "--timeout=2"]
        err = tools.fail(ExitCode.SESSION, "appctrl", "create-appctrl", "gone", *words)
    assert err.endswith("[UID_UNKNOWN]\n")


def test_appctrl_is_told_of_more_targets_than_entry_points(tools: Tools, gateway) -> None:
    server = gateway()
    with tools.start("s2uc", "prod-req", "--mock", _PLAIN, "--num_conn=1", "--s2cs", server.endpoint) as request:
        wait_for(lambda: bool(uids(server)))
        words = ["create-appctrl", _MOCK, server.endpoint, "-", "PROD"]
        assert tools.fail(ExitCode.BAD_INPUT, "appctrl", *words).endswith("[TOO_MANY_TARGETS]\n")
        tools.run("appctrl", *words, "--receiver-ports", "9")
        said, _ = request.communicate(timeout=60)
    assert request.returncode == 0
    assert "-> localhost:9" in said


def test_a_reader_that_goes_away_is_no_traceback(tools: Tools) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(Path(sys.executable).with_name("s2uc")), "inbound-request", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_u63_verify_is_refused_for_udp_which_has_no_connections_to_try(tools: Tools):
    words = ("outbound-request", "one", "127.0.20.9:5100", "--transport=udp", "--encryption=none", "--verify")
    told = tools.fail(ExitCode.BAD_INPUT, "s2uc", *words)
    assert "--verify tries connections, and UDP has none" in told
