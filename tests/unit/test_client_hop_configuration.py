"""What the SSH configuration says of a host, as ssh(1) reads it, and which host keys are known."""

from __future__ import annotations

import base64
import getpass
import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from scistream.errors import Code, ExitCode, SciStreamError
from scistream.hops import Via
from scistream.hops.configuration import Configuration, Settings
from scistream.hops.known_hosts import known_keys

_KEY, _OTHER = (base64.b64encode(word).decode() for word in (b"\0\0\0\x0bone key", b"\0\0\0\x0banother"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, with an `.ssh`."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


def _written(home: Path, text: str) -> Path:
    path = home / ".ssh" / "config"
    path.write_text(text)
    path.chmod(0o600)
    return path


def _look_up(via: str, named: Path | None = None) -> Settings:
    return Configuration(named).look_up(Via.parse(via))


def test_without_a_configuration_there_are_sshs_own_defaults(home: Path) -> None:
    found = _look_up("ssh://gateway.example")
    assert (found.host, found.port, found.user) == ("gateway.example", 22, getpass.getuser())
    assert found.keys == tuple(home / ".ssh" / name for name in ("id_ed25519", "id_ecdsa", "id_rsa"))
    assert not found.are_keys_named
    assert home / ".ssh" / "known_hosts" in found.known_hosts
    assert Path("/etc/ssh/ssh_known_hosts") in found.known_hosts
    assert (found.jumps, found.command, found.agent) == ((), "", None)


def test_a_host_is_what_its_block_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    _written(
        home,
        "Host gw\n  HostName Gateway.Example\n  User operator\n  Port 2222\n  IdentityFile ~/.ssh/gw\n"
        "  IdentityFile %d/second\n  IdentitiesOnly yes\n  HostKeyAlias the-gateway\n  ConnectTimeout 1m7\n"
        "  ServerAliveInterval 5s\n  ServerAliveCountMax 2\n"
        '  UserKnownHostsFile "~/.ssh/known gateways" %d/more\n  GlobalKnownHostsFile none\n'
        "Host *\n  User nobody\n",
    )
    found = _look_up("ssh://gw")
    assert (found.host, found.port, found.user, found.name) == ("gateway.example", 2222, "operator", "the-gateway")
    assert found.keys == (home / ".ssh" / "gw", home / "second")
    assert (found.are_keys_named, found.only_named_keys, found.patience) == (True, True, 67.0)
    assert (found.alive_interval, found.alive_count) == (5.0, 2)
    assert found.known_hosts == (home / ".ssh" / "known gateways", home / "more")
    assert found.agent == "/run/agent"
    assert str(found) == "gw (gateway.example) port 2222"
    assert found.by_hand == "ssh ssh://gw"


def test_via_goes_before_the_configuration(home: Path) -> None:
    _written(home, "Host *\n  User nobody\n  Port 2222\nMatch user jane\n  IdentityFile ~/jane\n")
    found = _look_up("ssh://jane@gw:2200")
    assert (found.user, found.port, found.keys) == ("jane", 2200, (home / "jane",))


def test_a_named_configuration_stands_alone(home: Path) -> None:
    _written(home, "Host *\n  User nobody\n")
    path = home / "other config"
    path.write_text("Host gw\n  Port 2222\n")
    found = _look_up("ssh://gw", path)
    assert (found.user, found.port) == (getpass.getuser(), 2222)
    assert found.by_hand == f"ssh -F '{path}' ssh://gw"


def test_what_is_included_counts_where_it_stands(home: Path) -> None:
    (home / ".ssh" / "config.d").mkdir()
    (home / ".ssh" / "config.d" / "a.conf").write_text("Host gw\n  User operator\nHost other\n  User nobody\n")
    (home / ".ssh" / "config.d" / "b.conf").write_text("Port 2222\n")
    (home / ".ssh" / "only").write_text("HostName 192.0.2.9\n")
    _written(home, "Include config.d/*.conf\nIdentityFile ~/first\nHost inner*\n  Include only\n  User jane\n")
    gateway, inner = _look_up("ssh://gw"), _look_up("ssh://inner1")
    assert (gateway.user, gateway.port, gateway.host, gateway.keys) == ("operator", 2222, "gw", (home / "first",))
    assert (inner.user, inner.port, inner.host) == ("jane", 2222, "192.0.2.9")


def test_a_file_that_includes_itself_is_found_out(home: Path) -> None:
    path = _written(home, "Include config\n")
    _assert_refused("ssh://gw", None, f"{path} includes itself")


@pytest.mark.parametrize(
    ("text", "jumps", "command"),
    [
        ("ProxyJump jane@jump:2200,[2001:db8::7]", (Via("jump", "jane", 2200), Via("2001:db8::7")), ""),
        ("ProxyJump ssh://jump", (Via("jump"),), ""),
        ("ProxyJump none\nProxyCommand nc %h %p", (), ""),
        ("ProxyCommand nc %h %p\nProxyJump jump", (), "nc gw 22"),
        ("ProxyCommand none\nProxyJump jump", (), ""),
        ("ProxyJump jump\nProxyCommand nc %h %p", (Via("jump"),), ""),
    ],
)
def test_of_jump_hosts_and_a_command_the_first_counts(
    home: Path, text: str, jumps: tuple[Via, ...], command: str
) -> None:
    _written(home, f"{text}\n")
    found = _look_up("ssh://gw")
    assert (found.jumps, found.command) == (jumps, command)


@pytest.mark.parametrize(
    ("said", "agent"),
    [("none", None), ("SSH_AUTH_SOCK", "/run/agent"), ("$OTHER", "/run/other"), ("/run/third", "/run/third")],
)
def test_the_agent_can_be_another(home: Path, monkeypatch: pytest.MonkeyPatch, said: str, agent: str | None) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OTHER", "/run/other")
    _written(home, f"IdentityAgent {said}\n")
    assert _look_up("ssh://gw").agent == agent


def _assert_refused(via: str, named: Path | None, reason: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        _look_up(via, named)
    error = caught.value
    assert (error.code, error.exit_code) == (Code.SSH_CONFIGURATION_BAD, ExitCode.BAD_INPUT)
    assert reason in error.seen
    assert "ssh -G HOST" in error.remedy
    assert "SCISTREAM_SSH_CONFIG" in error.remedy


def test_a_named_configuration_has_to_be_there(home: Path) -> None:
    path = home / "none"
    _assert_refused("ssh://gw", path, f"the SSH configuration {path} cannot be used: No such file or directory")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Port 0\n", "Port 0 is not from 1 to 65535"),
        ("Port ssh\n", "invalid literal"),
        ("ConnectTimeout soon\n", "'soon' is not a time"),
        ("ProxyJump a b\n", "ProxyJump a b: the host is neither a name nor an IP address"),
        ("Hostname\n", "Unparsable line Hostname"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(home: Path, text: str, reason: str) -> None:
    _written(home, text)
    _assert_refused("ssh://gw", None, reason)


def test_a_configuration_that_others_can_write_is_not_read(home: Path) -> None:
    path = _written(home, "ProxyCommand evil\n")
    path.chmod(path.stat().st_mode | stat.S_IWGRP)
    _assert_refused("ssh://gw", None, "others can write it")


def _known(tmp_path: Path, text: str, host: str = "gateway.example", port: int = 22, alias: str = "") -> list[bytes]:
    path = tmp_path / "known_hosts"
    path.write_text(text)
    keys = known_keys([tmp_path / "none", path], host, port, alias)
    return [key.content for key in keys if not key.is_revoked]


def _hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


@pytest.mark.parametrize(
    ("names", "port", "found"),
    [
        ("gateway.example", 22, True),
        ("GATEWAY.example,192.0.2.7", 22, True),
        ("other.example", 22, False),
        ("*.example", 22, True),
        ("gatewa?.example", 22, True),
        ("*.example,!gateway.example", 22, False),
        ("[gateway.example]:2222", 2222, True),
        ("[gateway.example]:2222", 22, False),
        ("[*.example]:2222", 2222, True),
        # As ssh: a host that is known is known at each of its ports.
        ("gateway.example", 2222, True),
        (_hashed("gateway.example"), 22, True),
        (_hashed("[gateway.example]:2222"), 2222, True),
        (_hashed("other.example"), 22, False),
        ("|1|damaged", 22, False),
    ],
)
def test_a_host_is_known_by_its_names(tmp_path: Path, names: str, port: int, found: bool) -> None:
    content = [base64.b64decode(_KEY)] if found else []
    assert _known(tmp_path, f"# comment\n\n{names} ssh-ed25519 {_KEY} a comment\n", port=port) == content


def test_the_port_of_its_own_goes_before_the_host(tmp_path: Path) -> None:
    text = f"gateway.example ssh-ed25519 {_KEY}\n[gateway.example]:2222 ssh-ed25519 {_OTHER}\n"
    assert _known(tmp_path, text, port=2222) == [base64.b64decode(_OTHER)]


def test_an_alias_stands_for_host_and_port(tmp_path: Path) -> None:
    text = f"the-gateway ssh-ed25519 {_KEY}\ngateway.example ssh-ed25519 {_OTHER}\n"
    assert _known(tmp_path, text, port=2222, alias="the-gateway") == [base64.b64decode(_KEY)]
    assert _known(tmp_path, text, port=2222, alias="unknown") == []


def test_a_revoked_key_is_found_as_such_and_authorities_are_none(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(
        f"@revoked * ssh-ed25519 {_KEY}\n@cert-authority * ssh-ed25519 {_OTHER}\ngateway.example ssh-rsa no-base64\n"
    )
    (key,) = known_keys([path], "gateway.example", 22)
    assert (key.is_revoked, key.place) == (True, f"{path} line 1")
