"""Control servers behind SSH, as far as that needs no SSH: how they are named, and what they are known as."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from scistream.addresses import Endpoint
from scistream.cli import s2uc
from scistream.cli.calling import spell_channel
from scistream.client import ControlServer, Via, connect, parse_via
from scistream.errors import Code, ExitCode, SciStreamError
from scistream.hops import messages
from scistream.hops.places import is_own_peer, locked, socket_directory
from scistream.hops.reaching import reach

_VIA = Via("gateway.example", "operator")


@pytest.mark.parametrize(
    ("text", "via", "spelled"),
    [
        ("ssh://gateway.example", Via("gateway.example"), None),
        ("ssh://operator@gateway.example", _VIA, None),
        ("ssh://operator@gateway_a:2222", Via("gateway_a", "operator", 2222), None),
        ("ssh://192.0.2.7:2222", Via("192.0.2.7", None, 2222), None),
        ("ssh://[2001:db8::7]", Via("2001:db8::7"), None),
        ("ssh://operator@[2001:db8::7]:2222", Via("2001:db8::7", "operator", 2222), None),
        ("SSH://Gateway.Example/", Via("gateway.example"), "ssh://gateway.example"),
        ("ssh://jane@site.example@gateway", Via("gateway", "jane@site.example"), None),
    ],
)
def test_via_is_read_and_spelled(text: str, via: Via, spelled: str | None) -> None:
    assert Via.parse(text) == via
    assert str(via) == (spelled or text)
    assert Via.parse(str(via)) == via


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gateway.example", "it does not begin with ssh://"),
        ("operator@gateway.example", "it does not begin with ssh://"),
        ("http://gateway.example", "it does not begin with ssh://"),
        ("ssh://", "the host is neither a name nor an IP address"),
        ("ssh://operator@", "the host is neither a name nor an IP address"),
        ("ssh://@gateway.example", "the user is missing before @"),
        ("ssh://-oProxyCommand=x@gateway.example", "'-oProxyCommand=x' is not a user's name"),
        ("ssh://a b@gateway.example", "'a b' is not a user's name"),
        ("ssh://-gateway", "the host is neither a name nor an IP address"),
        ("ssh://2001:db8::7", "an IPv6 address needs brackets"),
        ("ssh://[gateway]", "'gateway' in brackets is not an IPv6 address"),
        ("ssh://gateway.example:0", "'0' is not a port from 1 to 65535"),
        ("ssh://gateway.example:99999", "'99999' is not a port from 1 to 65535"),
        ("ssh://gateway.example:ssh", "'ssh' is not a port from 1 to 65535"),
        ("ssh://gateway.example:22/tmp", "nothing comes after the port"),
        ("ssh://gateway.example?x", "nothing comes after the port"),
    ],
)
def test_a_malformed_via_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        Via.parse(text)
    error = caught.value
    assert (error.code, error.exit_code) == (Code.BAD_VIA, ExitCode.BAD_INPUT)
    assert error.seen == f"{text!r} cannot be used as via: {reason}"
    assert error.remedy.startswith("correct it, for example ssh://operator@gateway.example")


@pytest.mark.parametrize("text", ["ssh://operator:s3cret@gateway.example", "ssh://operator:s3cret@x@gateway.example"])
def test_u15_a_password_in_via_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        Via.parse(text)
    assert "s3cret" not in str(caught.value)
    assert "a password stands in it, and none is ever taken: use a key" in str(caught.value)
    assert "'ssh://operator:***@gateway.example'" in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "none", "None"])
def test_nothing_and_none_are_no_via(text: str) -> None:
    assert parse_via(text) is None


@pytest.mark.parametrize(
    ("address", "via", "known_as"),
    [
        ("127.0.0.1:5000", _VIA, "gateway.example:5000"),
        ("127.0.3.1:5001", _VIA, "gateway.example:5001"),
        ("localhost:5000", _VIA, "gateway.example:5000"),
        ("[::1]:5000", Via("2001:db8::7"), "[2001:db8::7]:5000"),
        ("192.0.2.7:5000", _VIA, "192.0.2.7:5000"),
        ("inner.example:5000", _VIA, "inner.example:5000"),
        ("127.0.0.1:5000", None, "127.0.0.1:5000"),
        ("localhost:5000", None, "localhost:5000"),
    ],
)
def test_a_loopback_behind_ssh_is_known_by_the_ssh_host(address: str, via: Via | None, known_as: str) -> None:
    assert str(ControlServer(Endpoint.parse(address), via=via).known_as) == known_as


def test_commands_that_are_printed_have_the_way() -> None:
    server = ControlServer(Endpoint("127.0.0.1", 5000), Path("a.crt"), via=_VIA)
    spelled = ["--s2cs", "127.0.0.1:5000", "--server-cert", "a.crt", "--via", "ssh://operator@gateway.example"]
    assert spell_channel(server) == spelled


@pytest.mark.parametrize("name", ["list", "status", "watch", "renew", "renew-certificates", "drain", "release"])
def test_every_command_that_calls_a_control_server_has_the_option(name: str) -> None:
    done = CliRunner().invoke(s2uc.command, [name, "--via", "gateway.example", *(["u"] if name != "list" else [])])
    assert isinstance(done.exception, SciStreamError)
    assert done.exception.code is Code.BAD_VIA


def test_the_environment_and_the_defaults_name_it_too(tmp_path: Path) -> None:
    done = CliRunner().invoke(s2uc.command, ["list"], env={"SCISTREAM_VIA": "gateway.example"})
    assert isinstance(done.exception, SciStreamError)
    assert done.exception.code is Code.BAD_VIA
    path = tmp_path / "s2uc.toml"
    path.write_text('via = "gateway.example"\n')
    done = CliRunner().invoke(s2uc.command, ["--config", str(path), "list"])
    assert isinstance(done.exception, SciStreamError)
    assert (done.exception.code, done.exception.facts["key"]) == (Code.BAD_CONFIGURATION, "via")


def test_what_is_wrong_here_is_found_before_ssh_is_tried(tmp_path: Path) -> None:
    server = ControlServer(Endpoint("127.0.0.1", 5000), tmp_path / "none.crt", via=_VIA)
    with pytest.raises(SciStreamError) as caught:
        connect(server)
    assert caught.value.code is Code.CERTIFICATE_MISSING


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory whose name is short enough; pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="hop-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_the_sockets_lie_in_a_directory_of_the_users_own(runtime: Path) -> None:
    assert socket_directory() == runtime / "scistream"
    assert stat.S_IMODE((runtime / "scistream").stat().st_mode) == 0o700
    assert socket_directory() == runtime / "scistream"


def test_without_a_runtime_directory_they_lie_with_the_temporary_files(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert socket_directory() == runtime / f"scistream-{os.geteuid()}"


def test_a_runtime_directory_with_a_long_name_is_passed_over(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = runtime / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert socket_directory() == runtime / f"scistream-{os.geteuid()}"
    assert len(str(socket_directory() / "0123456789abcdef.0123456789ab")) <= 107


def _open_to_others(directory: Path) -> str:
    directory.mkdir()
    directory.chmod(0o755)
    return "is not for its owner alone (mode 0755)"


def _a_link(directory: Path) -> str:
    directory.symlink_to("/")
    return "is not a directory"


def _a_file(directory: Path) -> str:
    directory.touch()
    return "is not a directory"


@pytest.mark.parametrize("put", [_open_to_others, _a_link, _a_file])
def test_a_directory_that_is_not_ones_own_is_not_used(runtime: Path, put) -> None:
    reason = put(runtime / "scistream")
    put(runtime / f"scistream-{os.geteuid()}")
    with pytest.raises(SciStreamError) as caught:
        socket_directory()
    error = caught.value
    assert (error.code, error.exit_code) == (Code.SSH_DIRECTORY_UNSAFE, ExitCode.SESSION)
    assert f"no SSH connection can be kept here: {runtime}/scistream {reason}; " in error.seen
    assert "XDG_RUNTIME_DIR" in error.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_a_directory_of_another_user_is_not_used(runtime: Path) -> None:
    for name in ("scistream", "scistream-0"):
        (runtime / name).mkdir(mode=0o700)
        os.chown(runtime / name, 12345, 12345)
    with pytest.raises(SciStreamError) as caught:
        socket_directory()
    assert "belongs to the user with id 12345, and this is 0" in caught.value.seen


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1e9"])
def test_a_time_to_keep_the_connection_that_is_none_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SCISTREAM_SSH_IDLE", text)
    with pytest.raises(SciStreamError) as caught:
        reach(_VIA, Endpoint("127.0.0.1", 5000), timeout=1)
    error = caught.value
    assert (error.code, error.exit_code) == (Code.BAD_CONFIGURATION, ExitCode.BAD_INPUT)
    assert f"SCISTREAM_SSH_IDLE = '{text}' in the environment cannot be used" in error.seen


def test_the_peer_of_a_socket_is_known(runtime: Path) -> None:
    ours, others = socket.socketpair()
    with ours, others:
        assert is_own_peer(ours)


def test_the_lock_can_be_taken_again(runtime: Path) -> None:
    for _ in range(2):
        with locked(socket_directory()):
            assert (runtime / "scistream" / "lock").exists()


def test_messages_come_as_they_were_said() -> None:
    ours, others = socket.socketpair()
    with others:
        with ours:
            messages.say(ours, {"a": 1})
            messages.say(ours, {"b": "ü\n"})
        assert list(messages.receive(others)) == [{"a": 1}, {"b": "ü\n"}]


@pytest.mark.parametrize("noise", [b"no json\n", b"x" * 70_000])
def test_what_is_no_message_ends_the_conversation(noise: bytes) -> None:
    ours, others = socket.socketpair()
    with others:
        with ours:
            ours.sendall(noise)
        assert list(messages.receive(others)) == []


def test_an_error_crosses_and_is_no_control_servers() -> None:
    error = messages.failure_in(messages.told(SciStreamError(Code.SSH_LOST, host="h", reason="r")))
    assert error is not None
    assert (error.code, error.was_sent, error.seen) == (Code.SSH_LOST, False, "the SSH connection to h was lost: r")
    assert messages.failure_in({"path": "/x"}) is None
