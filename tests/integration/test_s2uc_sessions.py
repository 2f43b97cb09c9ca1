"""`s2uc list`, `status`, `watch`, `renew`, `drain`, and what opening takes beyond the deployed tool's options."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Tools, listeners_in, uids, wait_for
from old_protocol import OldControlServer
from scistream.errors import ExitCode

_HOST = "127.0.30.11"
_KINDS = ["there", "draining", "released"]
# For bytes that go straight into one end.
_PLAIN = "--encryption=none"
_READABLE = "nothing protects the bytes between the gateways"


@pytest.fixture
def opened(tools: Tools, gateway, echo_target) -> tuple[Any, str, str]:
    """A control server with a session in front of a target: the server, the uid, the entry point."""
    server = gateway()
    target = ["--remote-ip", echo_target.address, "--receiver-ports", str(echo_target.port)]
    words = ["s2uc", "inbound-request", *target, "--s2cs", server.endpoint, "--lease", "8h", "--json", _PLAIN]
    session = json.loads(tools.run(*words)[0])["session"]
    return server, session["uid"], session["entry_points"][0]


@pytest.fixture
def held(opened) -> Iterator[socket.socket]:
    """A connection through the session."""
    _, _, entry_point = opened
    host, _, port = entry_point.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"one")
        assert connection.recv(3) == b"one"
        yield connection


def _wide(command: list[str], tools: Tools, columns: int) -> str:
    """What a command prints on a terminal of so many columns."""
    near, far = pty.openpty()
    subprocess.run(["/usr/bin/env", "stty", "cols", str(columns)], stdin=far, check=True)
    with subprocess.Popen(command, stdin=far, stdout=far, stderr=far, cwd=tools.directory, env=tools.environment) as it:
        os.close(far)
        said = b""
        try:
            while part := os.read(near, 65536):
                said += part
        except OSError:
            pass  # Linux's way to say that nobody holds the other side any more.
        os.close(near)
    assert it.returncode == 0, said
    return said.decode()


def test_what_is_there_is_seen_as_a_table_and_for_machines(tools: Tools, opened) -> None:
    server, uid, entry_point = opened
    channel = ["--s2cs", server.endpoint]
    out, err = tools.run("s2uc", "list", *channel)
    head, line = out.splitlines()
    assert head.startswith("UID ")
    assert err.startswith(f"s2uc: warning: inbound session {uid}: {_READABLE}")
    assert line.split()[:6] == [uid, "inbound", "active", "haproxy", "NOT", "ENCRYPTED"]
    assert f"{entry_point} -> 127.0.20.100:" in line
    assert "  8h00m  " in line or "  7h59m  " in line
    assert "\x1b" not in out
    (session,) = json.loads(tools.run("s2uc", "list", *channel, "--json")[0])["sessions"]
    assert (session["uid"], session["state"], session["restarts"]) == (uid, "active", 0)
    assert session["encryption"] == "none"
    assert session["warnings"][0].startswith(_READABLE)
    assert session["lease_expires"] == pytest.approx(session["opened"] + 8 * 3600, abs=60)
    narrow = _wide([str(Path(sys.executable).with_name("s2uc")), "list", *channel], tools, 80)
    assert uid in narrow
    assert f"{entry_point} -> 127.0.20.100:" in narrow
    tools.run("s2uc", "release", uid, *channel)
    assert tools.run("s2uc", "list", *channel)[0] == f"No sessions of yours on {server.endpoint}.\n"


def test_u13_status_tells_all_of_a_session_and_of_its_server(tools: Tools, opened) -> None:
    server, uid, entry_point = opened
    channel = ["--s2cs", server.endpoint]
    out, _ = tools.run("s2uc", "status", uid, *channel)
    assert f"entry points  {entry_point} -> 127.0.20.100:" in out
    assert "owner         NO_AUTH: this control server authenticates nobody" in out
    assert "encryption    NOT ENCRYPTED" in out
    assert f"warnings      {_READABLE}" in out
    assert f"Next: for a longer lease: s2uc renew {uid} --direction inbound --s2cs {server.endpoint}" in out
    (told,) = json.loads(tools.run("s2uc", "status", uid, *channel, "--json")[0])["sessions"]
    assert told["next"].startswith("for a longer lease: ")
    out, _ = tools.run("s2uc", "status", *channel)
    assert "authentication  NO_AUTH: whoever reaches it may do everything" in out
    assert "encryption      tls, none" in out
    assert "old clients     plain" in out
    facts = json.loads(tools.run("s2uc", "status", *channel, "--json")[0])["control_server"]
    assert (facts["address"], facts["sessions"], facts["authentication"]) == (server.endpoint, 1, "NO_AUTH")
    err = tools.fail(ExitCode.SESSION, "s2uc", "status", "nobody", *channel)
    assert err.endswith("[UID_UNKNOWN]\n")


def test_status_of_a_session_that_failed_is_8_and_tells_the_way_out(tools: Tools, opened) -> None:
    server, uid, entry_point = opened
    server.end(signal.SIGKILL)
    for process in server.data_servers():
        process.kill()
        process.wait(20)
    host, _, port = entry_point.rpartition(":")
    # A stranger has the port: nothing can be started in its place.
    with socket.create_server((host, int(port))):
        server.start()
        words = ["s2uc", "status", uid, "--s2cs", server.endpoint]
        (told,) = json.loads(tools.run(*words, "--json", code=ExitCode.DATA_SERVER)[0])["sessions"]
        out, _ = tools.run(*words, code=ExitCode.DATA_SERVER)
    assert told["state"] == "failed"
    # Between the two commands it may have been tried again.
    failure, again, _moment = told["failure"].partition(" (it is started again at ")
    assert f"failure       {failure}{again}" in out
    assert f"Next: free it, and open it anew: s2uc release {uid}" in out


def test_a_watch_tells_what_happens_until_it_is_told_to_end(tools: Tools, opened) -> None:
    server, uid, _ = opened
    with tools.start("s2uc", "watch", "--s2cs", server.endpoint) as watch:
        assert watch.stdout is not None
        assert f" there      {uid} inbound active NOT ENCRYPTED  127.0.30.11:" in watch.stdout.readline()
        tools.run("s2uc", "renew", uid, "--lease", "1h30m", "--s2cs", server.endpoint)
        assert f" renewed    {uid} inbound active" in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=30)
    assert watch.returncode == 0
    # Once, and not with every event.
    assert err.count(_READABLE) == 1


def test_a_script_waits_for_a_state_and_reads_an_object_a_line(tools: Tools, opened) -> None:
    server, uid, _ = opened
    channel = ["--s2cs", server.endpoint]
    tools.run("s2uc", "watch", uid, "--until", "active", "--timeout", "30", *channel)
    with tools.start("s2uc", "watch", uid, "--until", "released", "--timeout", "60", "--json", *channel) as watch:
        assert watch.stdout is not None
        first = watch.stdout.readline()
        tools.run("s2uc", "drain", uid, *channel)
        rest, _ = watch.communicate(timeout=60)
    events = [json.loads(line) for line in (first + rest).splitlines()]
    assert watch.returncode == 0
    assert [event["kind"] for event in events] == _KINDS
    assert {event["session"]["uid"] for event in events} == {uid}
    # Nothing is left to wait for: both end at once.
    tools.run("s2uc", "watch", uid, "--until", "released", *channel)
    assert tools.fail(ExitCode.SESSION, "s2uc", "watch", uid, "--until", "active", *channel).endswith("[UID_UNKNOWN]\n")


def test_u51_a_watch_that_waits_in_vain_ends_at_its_time(tools: Tools, opened) -> None:
    server, uid, _ = opened
    words = ["s2uc", "watch", uid, "--until", "released", "--timeout", "1", "--s2cs", server.endpoint]
    err = tools.fail(ExitCode.TIMEOUT, *words)
    assert f"waiting for session {uid} to be released took longer than 1 s; last seen: it is active" in err
    tools.run("s2uc", "watch", "--timeout", "1", "--s2cs", server.endpoint)


def test_a_watch_that_was_not_done_is_interrupted(tools: Tools, opened) -> None:
    server, uid, _ = opened
    with tools.start("s2uc", "watch", uid, "--until", "released", "--s2cs", server.endpoint) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=30)
    assert watch.returncode == ExitCode.INTERRUPTED


def test_a_watch_ends_with_its_control_server_and_says_so(tools: Tools, opened) -> None:
    server, _, _ = opened
    with tools.start("s2uc", "watch", "--s2cs", server.endpoint) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        server.end()
        _, err = watch.communicate(timeout=60)
    assert watch.returncode == ExitCode.CONNECTION, err
    assert err.count("error:") == 1


def test_a_lease_is_renewed_and_taken_away(tools: Tools, opened) -> None:
    server, uid, _ = opened
    channel = ["--s2cs", server.endpoint]
    out, _ = tools.run("s2uc", "renew", uid, "--lease", "1h30m", *channel)
    assert f"The inbound session {uid} lasts until " in out
    assert "(1h29m)" in out or "(1h30m)" in out
    (session,) = json.loads(tools.run("s2uc", "renew", uid, "--lease", "unlimited", *channel, "--json")[0])["sessions"]
    assert session["lease_expires"] == 0
    err = tools.fail(ExitCode.BAD_INPUT, "s2uc", "renew", uid, "--lease", "soon", *channel)
    assert err.endswith("[BAD_LEASE]\n")
    assert tools.fail(ExitCode.SESSION, "s2uc", "renew", "nobody", *channel).endswith("[UID_UNKNOWN]\n")


def test_certificates_are_renewed_under_a_running_connection(tools: Tools, gateway, echo_target, round_trip) -> None:
    a, b = gateway(11), gateway(12)
    target = ["--remote-ip", echo_target.address, "--receiver-ports", str(echo_target.port)]
    inbound = json.loads(tools.run("s2uc", "inbound-request", *target, "--s2cs", a.endpoint, "--json")[0])["session"]
    far = ["--s2cs", b.endpoint, "--server-cert", "server-12.crt"]
    uid = inbound["uid"]
    outbound = json.loads(tools.run("s2uc", "outbound-request", uid, *far, "--json")[0])["session"]
    host, _, port = outbound["entry_points"][0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as running:
        running.sendall(b"before")
        assert running.recv(6, socket.MSG_WAITALL) == b"before"
        for channel in (far, ["--s2cs", a.endpoint]):
            out, _ = tools.run("s2uc", "renew-certificates", uid, *channel)
            assert f"session {uid} has a new certificate" in out
        running.sendall(b"after")
        assert running.recv(5, socket.MSG_WAITALL) == b"after"
    assert round_trip(outbound["entry_points"][0], b"anew") == b"anew"


def test_a_session_without_certificates_has_none_to_renew(tools: Tools, opened) -> None:
    server, uid, _ = opened
    err = tools.fail(ExitCode.SESSION, "s2uc", "renew-certificates", uid, "--s2cs", server.endpoint)
    assert err.endswith("[NO_CERTIFICATES]\n")
    words = ["s2uc", "renew-certificates", "nobody", "--s2cs", server.endpoint]
    assert tools.fail(ExitCode.SESSION, *words).endswith("[UID_UNKNOWN]\n")


def test_a_session_ends_with_its_lease(tools: Tools, gateway) -> None:
    server = gateway()
    words = ["s2uc", "inbound-request", "--num-conn=1", "--s2cs", server.endpoint, "--lease", "1", "--json"]
    tools.run(*words)
    wait_for(lambda: uids(server) == [])


def test_a_drain_waits_for_who_is_connected(tools: Tools, opened, held: socket.socket) -> None:
    server, uid, entry_point = opened
    with tools.start("s2uc", "drain", uid, "--wait", "--s2cs", server.endpoint) as drain:
        assert drain.stdout is not None
        assert drain.stderr is not None
        assert drain.stdout.readline() == f"Session {uid} lets no new connections in.\n"
        assert "left" in drain.stderr.readline()
        host, _, port = entry_point.rpartition(":")
        with pytest.raises(OSError, match=r"refused|reset"):
            socket.create_connection((host, int(port)), timeout=20).close()
        held.sendall(b"still")
        assert held.recv(5) == b"still"
        assert drain.poll() is None
        held.close()
        out, _ = drain.communicate(timeout=60)
    assert (drain.returncode, out) == (0, f"Session {uid} is released.\n")
    assert uids(server) == []


def test_u61_nothing_but_the_documented_lines_is_printed(tools: Tools, gateway) -> None:
    server = gateway()
    out, err = tools.run("s2uc", "inbound-request", "--num-conn=1", "--s2cs", server.endpoint)
    begins = [
        "uid; s2cs; ",
        f"{uids(server)[0]} ",
        "Inbound session ",
        "  entry point ",
        "Listeners: ",
        "Ticket: ",
        "At the other end: ",
        "  Another user",
        "  Two words",
    ]
    assert [line.startswith(begin) for line, begin in zip(out.splitlines(), begins, strict=True)] == [True] * 9
    assert err == ""
    assert list(tools.directory.rglob("*.log")) == []


def test_u52_listeners_are_told_when_they_accept(tools: Tools, gateway, echo_target) -> None:
    server = gateway()
    target = ["--remote-ip", echo_target.address, f"--receiver-ports={echo_target.port}", "--num-conn=4", _PLAIN]
    with tools.start("s2uc", "inbound-request", *target, "--s2cs", server.endpoint) as request:
        assert request.stdout is not None
        line = ""
        while not line.startswith("Listeners: "):
            line = request.stdout.readline()
            assert line
        for entry_point in listeners_in(line).split(","):
            host, _, port = entry_point.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(b"at once")
                assert connection.recv(7, socket.MSG_WAITALL) == b"at once"
        request.communicate(timeout=30)
    assert request.returncode == 0


def test_u29_a_named_session_gets_other_targets_and_its_connections_go_on(
    tools: Tools, gateway, echo_target, greeting: str
) -> None:
    server = gateway()

    def inbound(target: str, *words: str) -> tuple[str, str]:
        host, _, port = target.rpartition(":")
        where = ["--remote-ip", host, "--receiver-ports", port, "--s2cs", server.endpoint, _PLAIN]
        return tools.run("s2uc", "inbound-request", *where, "--name", "beam", "--ticket", "beam.ticket", *words)

    opened = json.loads(inbound(echo_target.endpoint, "--json")[0])
    host, _, port = opened["session"]["entry_points"][0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as running:
        running.sendall(b"before")
        assert running.recv(6, socket.MSG_WAITALL) == b"before"
        out, err = inbound(greeting)
        words = (
            f"(targets {echo_target.endpoint}, not {greeting}): new connections go to the new targets, and those that"
        )
        assert words in out
        assert err.count("warning: ") == 1
        running.sendall(b"after")
        assert running.recv(5, socket.MSG_WAITALL) == b"after"
        with socket.create_connection((host, int(port)), timeout=20) as new:
            assert new.recv(3, socket.MSG_WAITALL) == b"220"
    again = json.loads(inbound(greeting, "--json")[0])
    assert (opened["action"], again["action"]) == ("opened", "none")
    assert again["session"]["entry_points"] == opened["session"]["entry_points"]


def _verified(tools: Tools, server, target: str) -> str:
    """What `--verify` says of an outbound session to a target."""
    words = ["s2uc", "outbound-request", "far", target, "--verify", "--s2cs", server.endpoint, "--json", _PLAIN]
    body = json.loads(tools.run(*words)[0])
    (entry_point,) = body["session"]["entry_points"]
    return body["verified"][entry_point]


@pytest.fixture
def greeting() -> Iterator[str]:
    """A target that speaks first."""
    with socket.create_server((_HOST, 0)) as listener:

        def greet() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(b"220 at your service")
                connection.recv(1)

        greeter = threading.Thread(target=greet, daemon=True)
        greeter.start()
        yield f"{_HOST}:{listener.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A target whose queue is full: whoever connects to it now hears nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((_HOST, 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"{_HOST}:{listener.getsockname()[1]}"


def test_u52_a_byte_of_the_target_proves_its_path(tools: Tools, gateway, greeting: str) -> None:
    assert _verified(tools, gateway(), greeting) == "accepted, and a byte came from the target"


def test_u52_a_connection_that_stays_open_proves_nothing(tools: Tools, gateway, silent: str) -> None:
    words = "accepted, and not closed within 5 s; whether the target has it is not known"
    assert _verified(tools, gateway(), silent) == words


def test_u52_a_target_that_waits_for_its_caller_is_told_as_not_known(tools: Tools, opened) -> None:
    server, _, entry_point = opened
    assert "whether the target has it is not known" in _verified(tools, server, entry_point)


def test_u52_a_path_that_leads_nowhere_is_no_session(tools: Tools, gateway) -> None:
    server = gateway()
    words = ["s2uc", "outbound-request", "far", f"{_HOST}:23399", "--verify", "--s2cs", server.endpoint, _PLAIN]
    err = tools.fail(ExitCode.CONNECTION, *words)
    assert "was accepted and closed without a byte: it does not reach the target" in err
    assert "s2uc status on its own control server" in err
    assert err.endswith("[PATH_BROKEN]\n")
    assert uids(server) == []


def test_u52_a_kept_ticket_whose_session_is_gone_leads_to_words_that_name_the_cure(tools: Tools, gateway) -> None:
    server = gateway()
    named = ["--name=shift", "--s2cs", server.endpoint]
    tools.run("s2uc", "inbound-request", "--num-conn=1", "--lease=1", *named)
    wait_for(lambda: uids(server) == [])
    err = tools.fail(ExitCode.CONNECTION, "s2uc", "outbound-request", "--verify", *named)
    assert "where its session is gone, open it anew, and take its new ticket" in err
    assert err.endswith("[PATH_BROKEN]\n")
    # What is kept stands in nobody's way, and goes with the word for it.
    out, _ = tools.run("s2uc", "inbound-request", "--num-conn=1", *named)
    assert "Ticket: " in out
    assert "is removed." in tools.run("s2uc", "release", *named)[0]


def test_u53_an_outbound_session_has_the_ports_that_were_named(tools: Tools, opened, round_trip) -> None:
    server, _, entry_point = opened
    channel = ["--s2cs", server.endpoint, _PLAIN]
    words = ["s2uc", "outbound_request", "far", entry_point, "--receiver_ports", "23315,23312", *channel]
    out, _ = tools.run(*words)
    assert listeners_in(out) == f"{_HOST}:23315,{_HOST}:23312"
    assert round_trip(f"{_HOST}:23312", b"by name") == b"by name"
    other = ["s2uc", "outbound-request", "other", entry_point, *channel]
    assert tools.fail(ExitCode.BAD_INPUT, *other, "--receiver-ports", "80").endswith("[PORT_NOT_OFFERED]\n")
    err = tools.fail(ExitCode.BAD_INPUT, *other, "--receiver-ports", "23316", "--num-conn", "2")
    assert err.endswith("[PORTS_MISCOUNTED]\n")
    with tools.start(*other, "--receiver-ports", "23315") as taken:
        _, err = taken.communicate(timeout=60)
    assert taken.returncode != 0
    assert err.endswith("[ENTRY_POINT_IN_USE]\n")
    assert "session far" in err


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (["--lease", "8h"], "cannot end a session with its lease"),
        (["--receiver-ports", "23395"], "cannot give a session the ports that were named"),
        (["--rate", "7"], "cannot hold a session to a rate"),
        (["--transport", "udp"], "cannot carry UDP"),
        (["--sources", "192.0.2.0/24"], "cannot let only some hosts connect"),
        (["--half-close"], "cannot promise every byte of half-closed connections"),
    ],
)
def test_u53_u57_an_old_server_is_not_asked_for_what_it_would_leave_out(
    wish: list[str], words: str, tools: Tools, certificate_factory
) -> None:
    files = certificate_factory(_HOST)
    with OldControlServer(_HOST, 23390, range(23391, 23399), files.certificate, files.key) as server:
        channel = ["--s2cs", str(server.address), "--server-cert", str(files.certificate), _PLAIN]
        err = tools.fail(ExitCode.UNSUPPORTED, "s2uc", "outbound-request", "abc", "localhost:9", *wish, *channel)
        assert words in err
        assert err.endswith("[OLD_CONTROL_SERVER]\n")
        assert server.calls == []
        tools.run("s2uc", "outbound-request", "abc", "localhost:9", "--lease", "unlimited", *channel)


@pytest.mark.parametrize(
    ("command", "operation"),
    [
        (["list"], "list sessions"),
        (["status"], "tell what it is"),
        (["status", "abc"], "describe a session"),
        (["watch"], "watch sessions"),
        (["watch", "abc", "--until", "released"], "describe a session"),
        (["renew", "abc"], "renew a session's lease"),
        (["renew-certificates", "abc"], "renew the certificates of a session"),
        (["drain", "abc"], "drain a session"),
    ],
)
def test_an_old_server_is_told_by_what_it_cannot_do(
    command: list[str], operation: str, tools: Tools, certificate_factory
) -> None:
    files = certificate_factory(_HOST)
    with OldControlServer(_HOST, 23390, range(23391, 23399), files.certificate, files.key) as server:
        channel = ["--s2cs", str(server.address), "--server-cert", str(files.certificate)]
        err = tools.fail(ExitCode.UNSUPPORTED, "s2uc", *command, *channel)
    assert f"cannot {operation}. It speaks the old protocol only" in err


@pytest.fixture
def udp_echo() -> Iterator[str]:
    """A target that sends each datagram back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind((_HOST, 0))
        target.settimeout(60)

        def echo() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, sender = target.recvfrom(2048)
                    target.sendto(data, sender)

        threading.Thread(target=echo, daemon=True).start()
        yield "{}:{}".format(*target.getsockname())


def test_u63_udp_is_carried_by_an_engine_that_can(tools: Tools, gateway, udp_echo: str) -> None:
    a, b = gateway(11, engine="nginx"), gateway(12, engine="nginx")
    host, _, port = udp_echo.rpartition(":")
    words = ["--remote-ip", host, "--receiver-ports", port, "--transport", "udp", _PLAIN, "--json"]
    inbound = json.loads(tools.run("s2uc", "inbound-request", *words, "--s2cs", a.endpoint)[0])["session"]
    far = ["--s2cs", b.endpoint, "--server-cert", "server-12.crt", "--json"]
    # The ticket tells that it is UDP, and that it is not encrypted.
    outbound = json.loads(tools.run("s2uc", "outbound-request", inbound["uid"], *far)[0])["session"]
    assert (outbound["transport"], outbound["encryption"]) == ("udp", "none")
    host, _, port = outbound["entry_points"][0].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.settimeout(20)
        application.sendto(b"a datagram", (host, int(port)))
        assert application.recv(2048) == b"a datagram"


def test_u03_who_is_not_among_the_sources_is_not_let_in(tools: Tools, gateway, echo_target) -> None:
    server = gateway()
    target = ["--remote-ip", echo_target.address, "--receiver-ports", str(echo_target.port), _PLAIN, "--json"]
    words = ["s2uc", "inbound-request", *target, "--s2cs", server.endpoint, "--sources", "127.0.30.77"]
    session = json.loads(tools.run(*words)[0])["session"]
    assert session["sources"] == ["127.0.30.77/32"]
    host, _, port = session["entry_points"][0].rpartition(":")
    entry_point = (host, int(port))
    with socket.create_connection(entry_point, timeout=20, source_address=("127.0.30.77", 0)) as friend:
        friend.sendall(b"hello")
        assert friend.recv(5, socket.MSG_WAITALL) == b"hello"
    with socket.create_connection(entry_point, timeout=20, source_address=("127.0.30.78", 0)) as stranger:
        heard = b""
        with contextlib.suppress(ConnectionError):
            stranger.sendall(b"hello")
            heard = stranger.recv(5)
        assert heard == b""


@pytest.mark.parametrize(
    "words",
    [
        ["inbound-request", "--remote-ip", "udp://localhost"],
        ["outbound-request", "abc", "udp://192.0.2.7:5100"],
        ["inbound-request", "--s2cs", "udp://localhost:5000"],
    ],
)
def test_u63_udp_is_asked_for_by_its_option(words: list[str], tools: Tools) -> None:
    err = tools.fail(ExitCode.BAD_INPUT, "s2uc", *words)
    assert "a target is HOST:PORT; for a session over UDP say --transport udp" in err
    assert err.endswith("[BAD_ADDRESS]\n")


def test_u64_the_users_defaults_and_a_shells_completion(tools: Tools, opened) -> None:
    server, uid, _ = opened
    directory = tools.directory / ".config" / "scistream"
    directory.mkdir(parents=True)
    # The default of a call's time is no end of a watch.
    (directory / "s2uc.toml").write_text(f's2cs = "{server.endpoint}"\ntimeout = 2\n')
    with tools.start("s2uc", "watch") as watch:
        with pytest.raises(subprocess.TimeoutExpired):
            watch.wait(4)
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=30)
    assert watch.returncode == 0
    assert uid in tools.run("s2uc", "list")[0]
    script, _ = tools.run("s2uc", "completion", "bash")
    asked = f"{script}\nCOMP_WORDS=(s2uc rene); COMP_CWORD=1; _s2uc_completion s2uc rene s2uc; echo ${{COMPREPLY[@]}}"
    path = f"{Path(sys.executable).parent}:{tools.environment['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-c", asked],
        capture_output=True,
        text=True,
        check=True,
        env=tools.environment | {"PATH": path},
        cwd=tools.directory,
    )
    assert done.stdout == "renew renew-certificates\n"
    (directory / "s2uc.toml").write_text('server = "x"\n')
    assert tools.fail(ExitCode.BAD_INPUT, "s2uc", "list").endswith("[BAD_CONFIGURATION]\n")
