"""Control servers behind SSH: calls over a real sshd on loopback, and each way in which SSH fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ansible_runs import run_play
from command_line import Tools, uids, wait_for
from scistream.addresses import Endpoint
from scistream.client import ControlServer, Via, connect
from scistream.errors import Code, ExitCode, SciStreamError
from scistream.hops.configuration import Configuration
from scistream.hops.connecting import connect as hops_connect
from ssh_daemon import Ssh, SshDaemon, make_key, me

_GATEWAY, _SSH_PORT = "127.0.50.1", 2250
_JUMP, _SECOND = "127.0.50.2", "127.0.50.3"
_NOBODY = "127.0.50.9"
_PORT, _PORTS = 23700, "23701-23720"
_CONTROL = f"127.0.0.1:{_PORT}"
_PLAIN = "--encryption=none"

Failing = Callable[..., SciStreamError]


@pytest.fixture
def control_server(control_server_factory, tools: Tools) -> Callable[..., Any]:
    """Starts a control server on the gateway's loopback; its certificate is the tools' `server.crt`."""

    def start(*names: str, **more: Any) -> Any:
        usual = {"address": "127.0.0.1", "port": _PORT, "port_range": _PORTS}
        server = control_server_factory(**usual | {"names": ("127.0.0.1", *(names or (_GATEWAY,)))} | more)
        (tools.directory / "server.crt").write_bytes(server.certificate.read_bytes())
        return server

    return start


@pytest.fixture
def failure(tools: Tools) -> Failing:
    """The error of a call over a via that leads nowhere, or to what is not expected."""

    def call(via: str, *, control: str = _CONTROL, timeout: float = 10.0, plain: bool = True) -> SciStreamError:
        certificate = None if plain else tools.directory / "server.crt"
        server = ControlServer(Endpoint.parse(control), certificate, plain, timeout=timeout, via=Via.parse(via))
        with pytest.raises(SciStreamError) as caught, connect(server) as connection:
            connection.list_sessions()
        return caught.value

    return call


def _says(error: SciStreamError, code: Code, exit_code: ExitCode, *words: str) -> None:
    assert (error.code, error.exit_code) == (code, exit_code), str(error)
    assert [each for each in words if each not in str(error)] == [], str(error)


def _fingerprint(daemon: SshDaemon) -> str:
    command = ["ssh-keygen", "-l", "-f", f"{daemon.host_key}.pub"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return shown.stdout.split()[1]


# What works


def test_calls_go_over_one_ssh_connection_and_the_next_command_finds_it(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    server, daemon = control_server(), ssh.daemon()
    ssh.trust(daemon)
    way = ["--s2cs", _CONTROL, "--via", daemon.via]
    out, _ = tools.run("s2uc", "inbound-request", *way, "--num-conn=1", _PLAIN, "--name", "beam", "--json")
    session = json.loads(out)["session"]
    uid = session["uid"]
    assert uids(server) == [uid]
    # Its control server says 127.0.0.1, where nobody else comes.
    assert [entry_point.partition(":")[0] for entry_point in session["entry_points"]] == [_GATEWAY]
    out, _ = tools.run("s2uc", "status", *way, uid)
    assert f"--via {daemon.via}" in out
    out, _ = tools.run("s2uc", "release", *way, "--name", "beam")
    # Its ticket was kept by the name that the control server is known as.
    assert "Its ticket" in out
    assert daemon.logins() == 1
    assert len(ssh.keepers()) == 1


def test_the_deployed_pair_of_tools_goes_over_it_too(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    way = ["--via", daemon.via]
    words = ["s2uc", "prod-req", "--s2cs", _CONTROL, *way, "--num-conn=1", _PLAIN]
    with tools.start(*words) as request:
        assert request.stdout is not None
        registration = next(line for line in request.stdout if line.startswith("Waiting "))
        uid = re.search(r"create-appctrl (\S+) ", registration)
        assert uid is not None
        assert f"--via {daemon.via}" in registration
        target = ["localhost", "--receiver-ports", "5074"]
        tools.run("appctrl", "create-appctrl", uid[1], _CONTROL, "NO_AUTH", "PROD", *target, *way)
        out, err = request.communicate(timeout=60)
    assert request.returncode == 0, err
    assert "Listeners: " in out
    assert daemon.logins() == 1


def test_commands_that_start_at_once_share_one(ssh: Ssh, tools: Tools, control_server: Callable[..., Any]) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    running = [tools.start("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via) for _ in range(5)]
    ended = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * 5, ended
    assert daemon.logins() == 1
    assert len(ssh.keepers()) == 1


def test_the_tasks_of_a_play_share_one(ssh: Ssh, tmp_path: Path, control_server: Callable[..., Any]) -> None:
    server, daemon = control_server(), ssh.daemon()
    ssh.trust(daemon)
    reach = {"control_server": _CONTROL, "server_certificate": str(server.certificate), "via": daemon.via}
    beam = {"name": "beam", "direction": "inbound"}
    session = beam | {"targets": ["127.0.0.1:5074"], "encryption": "none"}
    tasks = [
        {"name": "facts", "scistream.core.control_server_info": reach},
        {"name": "open", "scistream.core.session": reach | session},
        {"name": "again", "scistream.core.session": reach | session},
        {"name": "look", "scistream.core.session_info": reach},
        {"name": "close", "scistream.core.session": reach | beam | {"state": "absent"}},
    ]
    environment = {key: ssh.environment[key] for key in ("HOME", "XDG_RUNTIME_DIR")}
    run = run_play(tasks, directory=tmp_path, environment=environment)
    assert run.code == 0, run.output
    assert [one.changed for one in run.results] == [False, True, False, False, True]
    assert run.named("look")["sessions"][0]["targets"] == ["127.0.0.1:5074"]
    assert run.named("look")["sessions"][0]["entry_points"][0].startswith(f"{_GATEWAY}:")
    assert daemon.logins() == 1


def test_a_failure_in_a_play_has_its_code(ssh: Ssh, tmp_path: Path) -> None:
    daemon = ssh.daemon()
    reach = {"control_server": _CONTROL, "insecure_plain_text": True}
    tasks = [
        {"name": "unknown", "scistream.core.session_info": reach | {"via": daemon.via}, "ignore_errors": True},
        {"name": "malformed", "scistream.core.session_info": reach | {"via": _GATEWAY}, "ignore_errors": True},
        {"name": "none", "scistream.core.session_info": reach | {"via": ""}, "ignore_errors": True},
    ]
    environment = {key: ssh.environment[key] for key in ("HOME", "XDG_RUNTIME_DIR")}
    run = run_play(tasks, directory=tmp_path, environment=environment)
    assert [one.failure for one in run.results] == [
        "SSH_HOST_KEY_UNKNOWN",
        "BAD_VIA",
        "CONTROL_SERVER_UNREACHABLE",
    ], run.output


def test_nothing_is_left_after_a_while(ssh: Ssh, tools: Tools, control_server: Callable[..., Any]) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    tools.environment["SCISTREAM_SSH_IDLE"] = "0.5"
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    wait_for(lambda: not ssh.keepers())
    assert ssh.sockets() == []
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    assert daemon.logins() == 2


def test_a_connection_that_is_used_is_not_idle(
    ssh: Ssh, control_server: Callable[..., Any], tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    monkeypatch.setenv("SCISTREAM_SSH_IDLE", "0.3")
    address, certificate = Endpoint.parse(_CONTROL), tools.directory / "server.crt"
    with connect(ControlServer(address, certificate, via=Via.parse(daemon.via))) as connection:
        connection.list_sessions()
        time.sleep(1.5)
        connection.list_sessions()
    assert daemon.logins() == 1


def test_u15_the_keeper_knows_no_secret_and_nobody_else_gets_at_it(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    tools.environment["SCISTREAM_TOKEN"] = "s3cret-token"
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    (keeper,) = ssh.keepers()
    assert keeper.cmdline()[1:] == ["-P", "-m", "scistream.hops.keeper"]
    assert "s3cret-token" not in keeper.environ().values()
    assert stat.S_IMODE((ssh.runtime / "scistream").stat().st_mode) == 0o700
    sockets = ssh.sockets()
    assert len(sockets) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    assert [each for each in keeper.net_connections("inet") if each.status == psutil.CONN_LISTEN] == []
    assert os.getsid(keeper.pid) != os.getsid(0)


def test_ctrl_c_ends_one_call_and_not_the_others(ssh: Ssh, tools: Tools, control_server: Callable[..., Any]) -> None:
    server, daemon = control_server(), ssh.daemon()
    ssh.trust(daemon)
    way = ["--s2cs", _CONTROL, "--via", daemon.via]
    # The one that is interrupted has started the keeper.
    first = tools.start("s2uc", "watch", *way)
    wait_for(lambda: len(ssh.sockets()) == 2)
    with tools.start("s2uc", "watch", *way, "--json") as second:
        wait_for(lambda: _has_begun(server, 2))
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 0
        first.communicate()
        tools.run("s2uc", "inbound-request", *way, "--num-conn=1", _PLAIN)
        assert second.stdout is not None
        assert json.loads(second.stdout.readline())["kind"]
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=30)
    assert daemon.logins() == 1


def _has_begun(server: Any, watches: int) -> bool:
    """Whether so many connections reach the control server: the SSH host's, one for each call."""
    there = psutil.Process(server.pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED for each in there) >= watches


def test_ctrl_c_ends_a_call_that_waits_for_ssh(ssh: Ssh, tools: Tools) -> None:
    with _listening(None):
        words = ["--s2cs", _CONTROL, "--ssl=False", "--via", f"ssh://{_NOBODY}:{_SSH_PORT}", "--timeout", "3"]
        with tools.start("s2uc", "list", *words) as process:
            wait_for(lambda: len(ssh.sockets()) == 1 and len(ssh.keepers()) == 1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, err.strip()) == (ExitCode.INTERRUPTED, "s2uc: interrupted")
        # Others may wait for the same connection: it has its time.
        wait_for(lambda: not ssh.keepers())
    assert ssh.sockets() == []


def test_another_configuration_is_another_connection(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    ssh.configure(f"Host *\n  User {me()}\n")
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via.replace("//", f"//{me()}@"))
    assert daemon.logins() == 3
    assert len(ssh.keepers()) == 3


def test_two_control_servers_behind_one_host_share_it(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    control_server(port=_PORT + 30, port_range="23731-23740", ssl=False)
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    via = Via.parse(daemon.via)
    one = ControlServer(Endpoint.parse(_CONTROL), tools.directory / "server.crt", via=via)
    other = ControlServer(Endpoint("127.0.0.1", _PORT + 30), plain_text=True, via=via)
    with connect(one) as first, connect(other) as second:
        assert [each.server_facts().tls for each in (first, second)] == [True, False]
    assert daemon.logins() == 1


def test_ipv6_hosts_are_reached(ssh: Ssh, tools: Tools, control_server: Callable[..., Any]) -> None:
    control_server("::1")
    daemon = ssh.daemon("::1")
    ssh.trust(daemon)
    assert daemon.via == "ssh://[::1]:2250"
    out, _ = tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    assert "No sessions of yours" in out


def test_another_configuration_file_can_be_named(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any], tmp_path: Path
) -> None:
    control_server("gateway_a")
    daemon = ssh.daemon()
    key, known = tmp_path / "its own key", tmp_path / "known_hosts"
    ssh.key.rename(key)
    known.write_text(daemon.known("the-gateway"))
    (tmp_path / "ssh_config").write_text(
        f"Host gateway_a\n  HostName {_GATEWAY}\n  Port {_SSH_PORT}\n  User {me()}\n  HostKeyAlias the-gateway\n"
        f'  IdentityFile "{key}"\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n'
    )
    tools.environment["SCISTREAM_SSH_CONFIG"] = str(tmp_path / "ssh_config")
    out, _ = tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", "ssh://gateway_a")
    assert "No sessions of yours" in out


def test_a_play_wants_its_whole_path(ssh: Ssh, tmp_path: Path) -> None:
    reach = {"control_server": _CONTROL, "insecure_plain_text": True, "via": f"ssh://{_NOBODY}:{_SSH_PORT}"}
    environment = {key: ssh.environment[key] for key in ("HOME", "XDG_RUNTIME_DIR")}
    environment["SCISTREAM_SSH_CONFIG"] = "ssh_config"
    run = run_play(
        [{"name": "look", "scistream.core.session_info": reach, "ignore_errors": True}],
        directory=tmp_path,
        environment=environment,
    )
    assert run.named("look").failure == "BAD_CONFIGURATION"
    assert run.named("look")["msg"].startswith(
        "SCISTREAM_SSH_CONFIG = 'ssh_config' in the environment cannot be used: tasks run in the playbook's directory, "
        "and not where the command was typed; a whole path is wanted."
    )


# Whose certificate it is


@pytest.mark.parametrize("name", [_GATEWAY, "gw"])
def test_the_certificate_of_a_loopback_is_the_ssh_hosts(
    ssh: Ssh, control_server: Callable[..., Any], tools: Tools, name: str
) -> None:
    control_server(name)
    daemon = ssh.daemon()
    ssh.trust(daemon)
    ssh.configure(f"Host gw\n  HostName {_GATEWAY}\n  Port {_SSH_PORT}\n")
    server = ControlServer(Endpoint.parse(_CONTROL), tools.directory / "server.crt", via=Via.parse("ssh://gw"))
    with connect(server) as connection:
        assert connection.list_sessions() == ()


def test_the_certificate_of_another_host_is_refused(
    ssh: Ssh, control_server: Callable[..., Any], failure: Failing
) -> None:
    # It has 127.0.0.1 among its names, as every gateway's may: that proves nothing.
    control_server("other.example")
    daemon = ssh.daemon()
    ssh.trust(daemon)
    error = failure(daemon.via, plain=False)
    words = f"is for 127.0.0.1, other.example, and the control server was called {_GATEWAY}"
    _says(error, Code.CERTIFICATE_WRONG_NAME, ExitCode.CERTIFICATE, words)


def test_plain_text_and_tls_are_told_apart_behind_ssh(
    ssh: Ssh, control_server: Callable[..., Any], failure: Failing
) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    _says(failure(daemon.via), Code.TLS_SERVER, ExitCode.CERTIFICATE, "speaks TLS, and plain text was wanted")


# Each way in which SSH fails


def test_a_name_that_does_not_resolve(failure: Failing, ssh: Ssh) -> None:
    error = failure("ssh://no-such-host.invalid")
    words = "the name no-such-host.invalid of the SSH host does not resolve: "
    _says(error, Code.SSH_NAME_UNKNOWN, ExitCode.CONNECTION, words, "SCISTREAM_SSH_CONFIG")


def test_a_port_where_no_sshd_is(failure: Failing, ssh: Ssh) -> None:
    error = failure(f"ssh://{_NOBODY}:{_SSH_PORT}")
    words = f"nothing listens for SSH at {_NOBODY}:{_SSH_PORT} (connection refused)"
    _says(error, Code.SSH_REFUSED, ExitCode.CONNECTION, words, f"by hand: ssh ssh://{_NOBODY}:{_SSH_PORT}")


@contextlib.contextmanager
def _listening(answer: bytes | None) -> Iterator[None]:
    """A service of another kind: it says `answer` to everybody and hangs up, or says nothing."""
    with socket.create_server((_NOBODY, _SSH_PORT)) as listener:
        held = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


def test_a_host_that_does_not_answer(failure: Failing, ssh: Ssh) -> None:
    # Its queue is full: what more comes is swallowed, as by a firewall.
    with socket.create_server((_NOBODY, _SSH_PORT), backlog=0), contextlib.ExitStack() as stack:
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((_NOBODY, _SSH_PORT))
        time.sleep(0.1)
        error = failure(f"ssh://{_NOBODY}:{_SSH_PORT}", timeout=1.5)
    words = f"no SSH connection to {_NOBODY} port {_SSH_PORT} within 1.5 s: nothing answers at all"
    _says(error, Code.SSH_TIMEOUT, ExitCode.CONNECTION, words, "--timeout")


def test_a_host_that_answers_and_says_nothing(failure: Failing, ssh: Ssh) -> None:
    with _listening(None):
        error = failure(f"ssh://{_NOBODY}:{_SSH_PORT}", timeout=1.5)
    words = "something accepts, and the SSH handshake does not end"
    _says(error, Code.SSH_TIMEOUT, ExitCode.CONNECTION, words, "within 1.5 s")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_port_where_something_else_is(failure: Failing, ssh: Ssh, answer: bytes) -> None:
    with _listening(answer):
        error = failure(f"ssh://{_NOBODY}:{_SSH_PORT}")
    words = f"the SSH host {_NOBODY} port {_SSH_PORT} cannot be talked to: what answers there does not speak SSH"
    _says(error, Code.SSH_UNREACHABLE, ExitCode.CONNECTION, words)


def test_a_host_that_shares_no_algorithm(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon(_GATEWAY, _SSH_PORT, "KexAlgorithms diffie-hellman-group18-sha512")
    ssh.trust(daemon)
    error = failure(daemon.via)
    _says(error, Code.SSH_UNREACHABLE, ExitCode.CONNECTION, "it shares no algorithm with this client")


def test_a_host_key_that_nobody_knows_is_not_taken(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    error = failure(daemon.via)
    words = f"the SSH host {_GATEWAY} port {_SSH_PORT} shows the ssh-ed25519 key {_fingerprint(daemon)}, and no file"
    _says(error, Code.SSH_HOST_KEY_UNKNOWN, ExitCode.CERTIFICATE, words, f"ssh keeps it: ssh {daemon.via}")
    assert not (ssh.directory / "known_hosts").exists()
    # Nor where the configuration would have ssh take it.
    ssh.configure("Host *\n  StrictHostKeyChecking no\n")
    assert failure(daemon.via).code is Code.SSH_HOST_KEY_UNKNOWN
    assert daemon.logins() == 0
    # As soon as it is known, the next call goes through: nothing remembers the failure.
    ssh.trust(daemon)
    assert failure(daemon.via).code is Code.CONTROL_PORT_CLOSED


def test_a_host_key_that_changed(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    other = make_key(ssh.home / "other")
    known = ssh.directory / "known_hosts"
    known.write_text("# first line\n" + daemon.known(key=other))
    error = failure(daemon.via)
    words = [f"{_fingerprint(daemon)}, and {known} line 2 has another one", f"ssh-keygen -R '[{_GATEWAY}]:{_SSH_PORT}'"]
    _says(error, Code.SSH_HOST_KEY_CHANGED, ExitCode.CERTIFICATE, *words, "somebody stands between")
    assert daemon.logins() == 0


def test_a_host_key_that_is_revoked(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    (ssh.directory / "known_hosts").write_text(daemon.known() + f"@revoked {daemon.known('*')}")
    error = failure(daemon.via)
    _says(error, Code.SSH_HOST_KEY_CHANGED, ExitCode.CERTIFICATE, "known_hosts line 2 revokes it")


def test_of_several_host_keys_the_known_one_is_asked_for(failure: Failing, ssh: Ssh) -> None:
    second = make_key(ssh.home / "second", kind="ecdsa")
    daemon = ssh.daemon(_GATEWAY, _SSH_PORT, f"HostKey {second}")
    (ssh.directory / "known_hosts").write_text(daemon.known(key=second))
    assert failure(daemon.via).code is Code.CONTROL_PORT_CLOSED


def test_a_key_that_is_not_accepted(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    other = make_key(ssh.home / "other")
    ssh.configure(f"Host *\n  IdentityFile {other}\n")
    error = failure(daemon.via)
    words = f"the SSH host {_GATEWAY} port {_SSH_PORT} does not let user {me()} in: the key was not accepted"
    _says(error, Code.SSH_LOGIN_REFUSED, ExitCode.AUTHENTICATION, words, "authorized_keys", f"hand: ssh {daemon.via}")


def test_several_keys_none_of_which_is_accepted(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    keys = [make_key(ssh.home / "a"), make_key(ssh.home / "b", kind="rsa")]
    ssh.configure("Host *\n" + "".join(f"  IdentityFile {key}\n" for key in keys) + "  IdentityFile ~/none\n")
    error = failure(daemon.via)
    words = f"none of 2 keys was accepted; there is no {ssh.home}/none"
    _says(error, Code.SSH_LOGIN_REFUSED, ExitCode.AUTHENTICATION, words)


def test_more_keys_than_the_host_bears(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon(_GATEWAY, _SSH_PORT, "MaxAuthTries 2")
    ssh.trust(daemon)
    keys = [make_key(ssh.home / name) for name in "abc"]
    ssh.configure("Host *\n" + "".join(f"  IdentityFile {key}\n" for key in keys))
    error = failure(daemon.via)
    _says(error, Code.SSH_LOGIN_REFUSED, ExitCode.AUTHENTICATION, "it hung up after", "IdentitiesOnly yes")


def test_a_user_who_is_not_there(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    error = failure(daemon.via.replace("//", "//nobody-of-that-name@"))
    _says(error, Code.SSH_LOGIN_REFUSED, ExitCode.AUTHENTICATION, "does not let user nobody-of-that-name in")


def test_a_host_that_takes_no_keys(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon(_GATEWAY, _SSH_PORT, "PubkeyAuthentication no", "PasswordAuthentication yes")
    ssh.trust(daemon)
    error = failure(daemon.via)
    _says(error, Code.SSH_LOGIN_REFUSED, ExitCode.AUTHENTICATION, "it takes no keys, only password")


def test_there_is_no_key_at_all(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    ssh.key.unlink()
    error = failure(daemon.via)
    words = f"there is no key for user {me()} to show to the SSH host {_GATEWAY} port {_SSH_PORT}: there is no agent"
    _says(error, Code.SSH_KEY_UNREADABLE, ExitCode.AUTHENTICATION, words, str(ssh.key), "ssh-add FILE")


def test_a_key_file_that_is_missing(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    ssh.configure("Host *\n  IdentityFile ~/none\n  IdentitiesOnly yes\n")
    _says(failure(daemon.via), Code.SSH_KEY_UNREADABLE, ExitCode.AUTHENTICATION, f"there is no {ssh.home}/none")


def test_a_key_file_that_is_damaged(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    ssh.key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nno\n-----END OPENSSH PRIVATE KEY-----\n")
    words = f"{ssh.key} is not a private key that can be used"
    _says(failure(daemon.via), Code.SSH_KEY_UNREADABLE, ExitCode.AUTHENTICATION, words)


def test_a_key_file_that_others_can_read(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    ssh.key.chmod(0o644)
    words = f"{ssh.key} is not for its owner alone (mode 0644; chmod 600 closes it)"
    _says(failure(daemon.via), Code.SSH_KEY_UNREADABLE, ExitCode.AUTHENTICATION, words)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_an_encrypted_key_is_for_an_agent(failure: Failing, ssh: Ssh, agent: Callable[[Path], None], kind: str) -> None:
    make_key(ssh.key, kind=kind)
    daemon = ssh.daemon()
    ssh.trust(daemon)
    bare = ssh.home / "bare"
    bare.write_bytes(ssh.key.read_bytes())
    bare.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "passphrase", "-f", str(ssh.key)]
    subprocess.run(change, check=True, capture_output=True, timeout=60)
    words = f"{ssh.key} is encrypted, and no agent holds its key"
    _says(failure(daemon.via), Code.SSH_KEY_UNREADABLE, ExitCode.AUTHENTICATION, words, "passphrase")
    agent(bare)
    ssh.configure(f"Host *\n  IdentityFile {ssh.key}\n  IdentitiesOnly yes\n")
    assert failure(daemon.via).code is Code.CONTROL_PORT_CLOSED


@pytest.fixture
def agent(ssh: Ssh, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Start a real agent, and give it a key."""
    place = ssh.runtime / "agent"
    with contextlib.ExitStack() as stack:

        def hold(key: Path) -> None:
            command = ["ssh-agent", "-D", "-a", str(place)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            wait_for(place.exists)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
            command = ["ssh-add", "-q", str(key)]
            subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)

        yield hold


def test_a_key_of_the_agent_opens_without_a_file(failure: Failing, ssh: Ssh, agent: Callable[[Path], None]) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    agent(ssh.key)
    ssh.key.unlink()
    assert failure(daemon.via).code is Code.CONTROL_PORT_CLOSED
    ssh.configure("Host *\n  IdentityAgent none\n")
    assert failure(daemon.via).code is Code.SSH_KEY_UNREADABLE


def test_forwarding_that_the_host_forbids(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon(_GATEWAY, _SSH_PORT, "AllowTcpForwarding no")
    ssh.trust(daemon)
    error = failure(daemon.via)
    words = f"the SSH host {_GATEWAY} port {_SSH_PORT} does not forward to {_CONTROL}: "
    _says(error, Code.SSH_FORWARDING_REFUSED, ExitCode.CONNECTION, words, f"PermitOpen {_CONTROL}")


def test_forwarding_to_another_port_only(
    failure: Failing, ssh: Ssh, control_server: Callable[..., Any], tools: Tools
) -> None:
    control_server()
    # No command is ever run there.
    daemon = ssh.daemon(_GATEWAY, _SSH_PORT, f"PermitOpen {_CONTROL}", "ForceCommand /bin/false", "PermitTTY no")
    ssh.trust(daemon)
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", daemon.via)
    error = failure(daemon.via, control="127.0.0.1:23799")
    _says(error, Code.SSH_FORWARDING_REFUSED, ExitCode.CONNECTION, "does not forward to 127.0.0.1:23799")


def test_a_control_port_that_is_closed_behind_ssh(failure: Failing, ssh: Ssh) -> None:
    daemon = ssh.daemon()
    ssh.trust(daemon)
    error = failure(daemon.via)
    words = f"SSH to {_GATEWAY} port {_SSH_PORT} works, and from there no control server is reached at {_CONTROL}"
    _says(error, Code.CONTROL_PORT_CLOSED, ExitCode.CONNECTION, words, "s2cs status", "(module: control_server)")


def test_a_control_server_that_comes_back_is_found(ssh: Ssh, control_server: Callable[..., Any], tools: Tools) -> None:
    server, daemon = control_server(), ssh.daemon()
    ssh.trust(daemon)
    called = ControlServer(Endpoint.parse(_CONTROL), tools.directory / "server.crt", via=Via.parse(daemon.via))
    with connect(called) as connection:
        connection.list_sessions()
        server.end()
        with pytest.raises(SciStreamError) as caught:
            connection.list_sessions()
        assert caught.value.code is Code.CONTROL_PORT_CLOSED
        server.start()
        wait_for(lambda: _answers(connection))
    assert daemon.logins() == 1


def _answers(connection: Any) -> bool:
    try:
        connection.list_sessions()
    except SciStreamError:
        return False
    return True


# Jump hosts and commands


def _way(ssh: Ssh, *jumps: SshDaemon, **more: str) -> str:
    lines = [f"Host gw\n  HostName {_GATEWAY}\n  Port {_SSH_PORT}\n"]
    lines += [f"  {key} {value}\n" for key, value in more.items()]
    lines += [
        f"Host jump{number}\n  HostName {jump.address}\n  Port {jump.port}\n" for number, jump in enumerate(jumps)
    ]
    return "".join(lines)


def test_jump_hosts_lead_to_it(ssh: Ssh, control_server: Callable[..., Any], tools: Tools) -> None:
    control_server()
    daemon, first, second = ssh.daemon(), ssh.daemon(_JUMP), ssh.daemon(_SECOND)
    ssh.trust(daemon, first, second)
    ssh.configure(_way(ssh, first, second, ProxyJump="jump0,jump1"))
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", "ssh://gw")
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", "ssh://gw")
    assert [each.logins() for each in (daemon, first, second)] == [1, 1, 1]


def test_a_jump_host_of_a_jump_host_is_found_in_the_configuration(
    ssh: Ssh, control_server: Callable[..., Any], tools: Tools
) -> None:
    control_server()
    daemon, first, second = ssh.daemon(), ssh.daemon(_JUMP), ssh.daemon(_SECOND)
    ssh.trust(daemon, first, second)
    ssh.configure(_way(ssh, first, second, ProxyJump="jump1") + "  ProxyJump jump0\n")
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", "ssh://gw")
    assert [each.logins() for each in (daemon, first, second)] == [1, 1, 1]


def test_a_jump_host_that_is_down(failure: Failing, ssh: Ssh) -> None:
    daemon, jump = ssh.daemon(), ssh.daemon(_JUMP, start=False)
    ssh.trust(daemon)
    ssh.configure(_way(ssh, jump, ProxyJump="jump0"))
    error = failure("ssh://gw")
    host, reason = f"gw ({_GATEWAY}) port {_SSH_PORT}", f"nothing listens for SSH at {_JUMP}:{_SSH_PORT}"
    words = f"the SSH host {host} is not reached over the jump host jump0 ({_JUMP}) port {_SSH_PORT}: {reason}"
    _says(error, Code.SSH_JUMP_FAILED, ExitCode.CONNECTION, words, "by hand first: ssh ssh://jump0")


def test_a_jump_host_that_does_not_reach_the_next(failure: Failing, ssh: Ssh) -> None:
    jump = ssh.daemon(_JUMP)
    ssh.trust(jump)
    ssh.configure(_way(ssh, jump, ProxyJump="jump0"))
    error = failure("ssh://gw")
    words = f"from there, {_GATEWAY} port {_SSH_PORT} is not reached"
    _says(error, Code.SSH_JUMP_FAILED, ExitCode.CONNECTION, words, "over the jump host jump0")


def test_jump_hosts_in_a_circle(failure: Failing, ssh: Ssh) -> None:
    ssh.configure("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    error = failure("ssh://a")
    _says(error, Code.SSH_JUMP_FAILED, ExitCode.CONNECTION, "its jump hosts lead in a circle")


def test_the_host_behind_a_jump_host_proves_itself_too(failure: Failing, ssh: Ssh) -> None:
    ssh.daemon()
    jump = ssh.daemon(_JUMP)
    ssh.trust(jump)
    ssh.configure(_way(ssh, jump, ProxyJump="jump0"))
    assert failure("ssh://gw").code is Code.SSH_HOST_KEY_UNKNOWN


def test_a_command_leads_to_it(ssh: Ssh, control_server: Callable[..., Any], tools: Tools) -> None:
    control_server()
    daemon, jump = ssh.daemon(), ssh.daemon(_JUMP)
    ssh.trust(daemon, jump)
    by_hand = f"ssh -o BatchMode=yes -o UserKnownHostsFile={ssh.directory}/known_hosts -i {ssh.key}"
    ssh.configure(_way(ssh, ProxyCommand=f"{by_hand} -p {_SSH_PORT} -W %h:%p {_JUMP}"))
    tools.run("s2uc", "list", "--s2cs", _CONTROL, "--via", "ssh://gw")
    assert (daemon.logins(), jump.logins()) == (1, 1)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"{sys.executable} -c 'import sys; sys.exit(\"the bridge is up\")'", "exit code 1): the bridge is up"),
        ("no-such-program %h", "its ProxyCommand cannot be started: No such file or directory"),
    ],
)
def test_a_command_that_fails(failure: Failing, ssh: Ssh, command: str, words: str) -> None:
    ssh.configure(_way(ssh, ProxyCommand=command))
    _says(failure("ssh://gw"), Code.SSH_UNREACHABLE, ExitCode.CONNECTION, words)


# The connection is lost


def test_a_watch_hears_that_the_connection_is_lost(ssh: Ssh, tools: Tools, control_server: Callable[..., Any]) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    way = ["--s2cs", _CONTROL, "--via", daemon.via]
    tools.run("s2uc", "inbound-request", *way, "--num-conn=1", _PLAIN)
    with tools.start("s2uc", "watch", *way) as watch:
        # Before it has begun, it would go on by another connection.
        assert watch.stdout is not None
        assert watch.stdout.readline()
        daemon.cut()
        _, err = watch.communicate(timeout=30)
    assert watch.returncode == ExitCode.CONNECTION
    assert f"the SSH connection to {_GATEWAY} port {_SSH_PORT} was lost: " in err
    assert "[SSH_LOST]" in err
    wait_for(lambda: not ssh.keepers())
    assert ssh.sockets() == []
    # The next one makes another.
    tools.run("s2uc", "list", *way)
    assert daemon.logins() == 2


def test_a_host_that_gives_no_sign_of_life_is_given_up(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    server, daemon = control_server(), ssh.daemon()
    ssh.trust(daemon)
    ssh.configure("Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 1\n")
    with tools.start("s2uc", "watch", "--s2cs", _CONTROL, "--via", daemon.via) as watch:
        wait_for(lambda: _has_begun(server, 1))
        daemon.freeze()
        _, err = watch.communicate(timeout=30)
    assert f"the SSH connection to {_GATEWAY} port {_SSH_PORT} was lost: no sign of life for 1 s" in err
    assert watch.returncode == ExitCode.CONNECTION


def test_a_host_that_died_unseen_is_no_closed_control_port(
    ssh: Ssh, tools: Tools, control_server: Callable[..., Any]
) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    way = ["--s2cs", _CONTROL, "--via", daemon.via]
    tools.run("s2uc", "list", *way)
    link = hops_connect(Via.parse(daemon.via), Configuration(None), 10)
    wait_for(lambda: daemon.logins() == 2)
    daemon.freeze()
    with pytest.raises(SciStreamError) as caught:
        link.open(Endpoint.parse(_CONTROL), 0.5)
    words = f"the SSH connection to {_GATEWAY} port {_SSH_PORT} was lost: no sign of life for 4 s"
    _says(caught.value, Code.SSH_LOST, ExitCode.CONNECTION, words)
    # Its sshd lets others in: the next command has a connection that is alive.
    tools.run("s2uc", "list", *way)
    assert daemon.logins() == 3


def test_a_keeper_that_was_killed_is_replaced(ssh: Ssh, tools: Tools, control_server: Callable[..., Any]) -> None:
    control_server()
    daemon = ssh.daemon()
    ssh.trust(daemon)
    called = ControlServer(Endpoint.parse(_CONTROL), tools.directory / "server.crt", via=Via.parse(daemon.via))
    with connect(called) as connection:
        connection.list_sessions()
        (keeper,) = ssh.keepers()
        keeper.kill()
        keeper.wait(10)
        with pytest.raises(SciStreamError) as caught:
            connection.list_sessions()
        _says(caught.value, Code.SSH_LOST, ExitCode.CONNECTION, "the process that kept it has ended")
    assert ssh.sockets() != []
    with connect(called) as connection:
        connection.list_sessions()


def test_the_command_line_has_the_words_and_the_code(ssh: Ssh, tools: Tools) -> None:
    words = ["--s2cs", _CONTROL, "--ssl=False", "--via", f"ssh://{_NOBODY}:{_SSH_PORT}"]
    err = tools.fail(ExitCode.CONNECTION, "s2uc", "list", *words)
    assert f"nothing listens for SSH at {_NOBODY}:{_SSH_PORT} (connection refused)" in err
    assert "[SSH_REFUSED]" in err
