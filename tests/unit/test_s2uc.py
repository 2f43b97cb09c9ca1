from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from scistream import __version__
from scistream.addresses import Endpoint
from scistream.cli import appctrl, s2uc
from scistream.cli.calling import parse_control_server, parse_remote_host, spell_channel, targets_at
from scistream.cli.common import run
from scistream.cli.telling import Teller, next_step
from scistream.client import Action, ControlServer, Outcome, Session, place_for
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid

_SERVER = ControlServer(Endpoint("gateway.example", 5000))
_SESSION = Session.untold(
    Uid("abc"), Direction.INBOUND, ("192.0.2.7:5100", "192.0.2.7:5101"), (Endpoint("localhost", 5074),), 2, 0
)
_FAR = "--s2cs ITS_CONTROL_SERVER --server-cert ITS_CERTIFICATE"
_FAR_WORDS = (
    "  Two words of it are the other facility's to fill in: ITS_CONTROL_SERVER is the address of its own control "
    "server, ITS_CERTIFICATE the file with that control server's certificate (or its facility's CA)."
)
_UNTOLD = "it does not tell what protects the bytes between the gateways"
_HEAVY = {
    "ansible",
    "asyncio",
    "cryptography",
    "google",
    "grpc",
    "jinja2",
    "paramiko",
    "pydantic",
    "structlog",
    "tenacity",
}


def test_the_file_of_defaults_is_named_in_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    done = CliRunner().invoke(s2uc.command, ["list"], env={"SCISTREAM_S2UC_CONFIG": str(path)})
    assert isinstance(done.exception, SciStreamError)
    assert (done.exception.code, done.exception.facts["path"]) == (Code.CONFIGURATION_UNREADABLE, str(path))


@pytest.mark.parametrize("tool", ["s2uc", "appctrl"])
def test_the_version_is_said_without_loading_anything_heavy(tool: str) -> None:
    program = (
        "import sys\n"
        f"from scistream.cli.{tool} import command\n"
        f"command.main(['--version'], prog_name={tool!r}, standalone_mode=False)\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    version, modules = done.stdout.splitlines()
    assert version == f"{tool} {__version__}"
    assert _HEAVY.isdisjoint(name.split(".")[0] for name in modules.split())


def _spellings(group: click.Group) -> list[tuple[str, str]]:
    words = []
    for name, command in group.commands.items():
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        words += [(name, option) for option in options]
    return words


@pytest.mark.parametrize(
    ("group", "command", "option"),
    [
        pytest.param(group, command, option, id=f"{command}{option}")
        for group in (s2uc.command, appctrl.command)
        for command, option in _spellings(group)
    ],
)
def test_u54_every_command_and_option_is_known_in_both_spellings(group: click.Group, command: str, option: str) -> None:
    for word in (command, command.replace("-", "_")):
        for flag in (option, "--" + option[2:].replace("-", "_")):
            # The help is asked for after the option: an option that nobody knows ends it first.
            value = [] if flag in {"--json", "--compat"} else ["9:9" if flag == "--s2cs" else "1"]
            done = CliRunner().invoke(group, [word, flag, *value, "--help"])
            assert done.exit_code == 0, done.output


def test_the_documented_commands_are_there() -> None:
    assert set(s2uc.command.commands) >= {
        "inbound-request",
        "outbound-request",
        "prod-req",
        "release",
        "list",
        "status",
        "watch",
        "renew",
        "renew-certificates",
        "drain",
        "completion",
        "login",
        "check-auth",
        "logout",
    }
    assert set(appctrl.command.commands) == {"create-appctrl", "mock"}


@pytest.mark.parametrize(
    "words",
    [
        ["outbound-request"],
        ["outbound-request", "abc"],
        ["outbound-request", "abc", "a:1", "b:2"],
        ["outbound-request", "abc", "a:1", "--name", "n"],
        ["outbound-request", "a:1"],
        ["inbound-request", "--name", "n", "--mock"],
        ["inbound-request", "--legacy-psk", "--encryption", "tls"],
        ["inbound-request", "--encryption", "legacy-psk"],
        ["inbound-request", "--encryption", "tls-psk"],
        ["inbound-request", "--transport", "sctp"],
        ["release"],
        ["release", "abc", "--name", "n"],
        ["renew"],
        ["drain", "--wait"],
        ["status", "abc", "--name", "n"],
        ["watch", "--until", "active"],
    ],
)
def test_what_does_not_name_one_session_is_refused(words: list[str]) -> None:
    done = CliRunner().invoke(s2uc.command, words)
    assert done.exit_code == 2
    assert "Usage: " in done.output


def test_the_first_lines_are_the_deployed_tools(capsys: pytest.CaptureFixture[str]) -> None:
    for teller, server, word in (
        (Teller("s2uc"), _SERVER, "NO_AUTH"),
        (Teller("s2uc", compat=True), _SERVER, "INVALID_TOKEN"),
        (Teller("s2uc", compat=True), replace(_SERVER, token="secret"), "***"),
    ):
        teller.heading("abc", server, Direction.INBOUND)
        assert capsys.readouterr().out == f"uid; s2cs; access_token; role\nabc gateway.example:5000 {word} PROD\n"


def test_a_session_is_told_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    Teller("s2uc").session(_SESSION, _SERVER)
    assert capsys.readouterr().out.splitlines() == [
        f"Inbound session abc runs on gateway.example:5000 ({_UNTOLD}).",
        "  entry point 192.0.2.7:5100 -> localhost:5074",
        "  entry point 192.0.2.7:5101 -> localhost:5074",
        "Listeners: ['192.0.2.7:5100', '192.0.2.7:5101']",
        f"At the other end: s2uc outbound-request abc 192.0.2.7:5100,192.0.2.7:5101 {_FAR}",
        _FAR_WORDS,
    ]


def _told(capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    Teller("s2uc").session(replace(_SESSION, engine="haproxy", **changes), _SERVER)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encryption": "none"}, "(haproxy, NOT encrypted between the gateways)."),
        ({"encryption": "tls"}, "(haproxy, TLS 1.3 with certificates of its own between the gateways)."),
        ({"encryption": "tls-psk"}, "(haproxy, TLS 1.3 with a key of its own between the gateways)."),
        ({"encryption": "legacy-psk"}, "(haproxy, NOT encrypted between the gateways, and authenticated by a key that"),
        ({"encryption": "none", "transport": "udp"}, "(haproxy, UDP, NOT encrypted between the gateways)."),
    ],
)
def test_u02_the_first_line_says_how_the_bytes_are_protected(
    changes: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in _told(capsys, **changes).splitlines()[0]


def test_u02_the_first_line_says_where_protection_is_only_known_as_it_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Teller("s2uc").session(replace(_SESSION, encryption="none"), _SERVER)
    assert "(NOT encrypted between the gateways, as was asked for: it does not tell)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "ticket", "words"),
    [
        ({"encryption": "legacy-psk"}, "t.json", "outbound-request --ticket t.json --legacy-psk --s2cs"),
        ({"encryption": "none"}, "t.json", "outbound-request --ticket t.json --s2cs"),
        ({"encryption": "none"}, "", "5101 --encryption none --s2cs"),
        ({"encryption": "none", "transport": "udp"}, "", "5101 --encryption none --transport udp --s2cs"),
        ({"encryption": "tls"}, "t.json", "outbound-request --ticket t.json --s2cs"),
    ],
)
def test_u01_the_other_ends_command_says_by_its_name_what_has_to_be_asked_for(
    changes: dict[str, str], ticket: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session = replace(_SESSION, engine="stunnel", **changes)
    Teller("s2uc").session(session, _SERVER, ticket=Path(ticket) if ticket else None)
    assert words in capsys.readouterr().out


def test_every_warning_of_a_session_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Teller("s2uc").session(replace(_SESSION, warnings=("one is", "two are")), _SERVER)
    assert capsys.readouterr().err == "s2uc: warning: one is\ns2uc: warning: two are\n"


def test_a_ticket_that_was_kept_is_found_by_the_uid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Teller("s2uc").session(_SESSION, _SERVER, ticket=place_for(_SESSION.uid))
    out = capsys.readouterr().out
    assert f"Ticket: {tmp_path}/scistream/tickets/abc\n" in out
    assert f"s2uc outbound-request abc 192.0.2.7:5100,192.0.2.7:5101 {_FAR}\n" in out
    assert "Another user, or another machine, needs the ticket" in out


def test_an_outbound_session_says_where_to_connect(capsys: pytest.CaptureFixture[str]) -> None:
    Teller("s2uc").session(replace(_SESSION, direction=Direction.OUTBOUND), _SERVER)
    out = capsys.readouterr().out
    assert "The application connects to an entry point above." in out
    assert "At the other end" not in out


def test_for_machines_stdout_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    keyed = replace(_SESSION, engine="stunnel", encryption="tls-psk")
    teller = Teller("s2uc", as_json=True)
    teller.heading("abc", _SERVER, Direction.INBOUND)
    teller.session(keyed, _SERVER, ticket=Path("a ticket.json"))
    out, err = capsys.readouterr()
    body = json.loads(out)
    assert body["session"] == keyed.as_dict()
    assert body["next"] == f"s2uc outbound-request --ticket 'a ticket.json' {_FAR}"
    assert err.startswith("uid; s2cs; access_token; role\n")
    assert "(stunnel, TLS 1.3 with a key of its own between the gateways)" in err


def test_u58_targets_are_at_names_and_addresses_of_both_kinds() -> None:
    assert targets_at(parse_remote_host("[::1]"), "1, 2") == (Endpoint("::1", 1), Endpoint("::1", 2))
    assert targets_at(parse_remote_host("::1"), "1") == (Endpoint("::1", 1),)
    assert targets_at(parse_remote_host("Gateway.Example"), "1") == (Endpoint("gateway.example", 1),)


@pytest.mark.parametrize("ports", ["", "1,", "0", "65536", "1;2", "1\nserver x", "1-5"])
def test_u07_bad_ports_are_no_targets(ports: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        targets_at("localhost", ports)
    assert caught.value.code is Code.BAD_ADDRESS


def test_a_control_server_without_a_port_is_at_5000() -> None:
    assert parse_control_server("gateway.example") == Endpoint("gateway.example", 5000)
    assert parse_control_server("[::1]") == Endpoint("::1", 5000)
    assert parse_control_server("gateway.example:5001") == Endpoint("gateway.example", 5001)


def test_a_printed_command_reaches_the_control_server_again() -> None:
    with_tls = ControlServer(Endpoint("gateway.example", 5001), Path("a.crt"))
    assert spell_channel(with_tls) == ["--s2cs", "gateway.example:5001", "--server-cert", "a.crt"]
    plain = ControlServer(Endpoint("gateway.example", 5001), plain_text=True)
    assert spell_channel(plain) == ["--s2cs", "gateway.example:5001", "--ssl=False"]


@pytest.mark.parametrize(("tool", "word"), [(s2uc, "--timeout"), (s2uc, "--wait"), (appctrl, "--timeout")])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_a_time_that_is_none_is_refused_with_the_wanted_range(
    tool: ModuleType, word: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prod-req"] if tool is s2uc else ["mock", "abc", "localhost", "-", "PROD"]
    with pytest.raises(SystemExit) as caught:
        run(tool.command, "tool", [*words, word, value])
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"'{word}': '{value}' is not a number of seconds from 0.1 to 604800. " in err
    assert err.endswith("[BAD_USAGE]\n")


_COMMANDS = [(tool, name) for tool in (s2uc, appctrl) for name in tool.command.commands]


def _examples(command: click.Command) -> list[str]:
    lines = [line.strip() for line in (command.epilog or "").splitlines()]
    return [line for line in lines if line.startswith(("s2uc ", "appctrl "))]


@pytest.mark.parametrize(("tool", "name"), _COMMANDS)
def test_every_command_shows_examples_that_it_understands(tool: ModuleType, name: str) -> None:
    command = tool.command.commands[name]
    assert _examples(command)
    for example in _examples(command):
        program, word, *rest = shlex.split(example)
        assert (program, word) == (tool.__name__.rsplit(".", 1)[1], name)
        # It takes its words in, and gets nowhere: what they name is at no site.
        command.make_context(name, rest)


@pytest.mark.parametrize(("tool", "name"), _COMMANDS)
def test_every_option_says_what_it_is_for(tool: ModuleType, name: str) -> None:
    options = [one for one in tool.command.commands[name].params if isinstance(one, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "end it: s2uc drain abc --direction inbound --s2cs x"),
        ({"lease_expires": 1.0}, "for a longer lease: s2uc renew abc --direction inbound --s2cs x --lease TIME"),
        ({"state": "draining"}, "see when it is released: s2uc watch --until released abc"),
        ({"state": "failed"}, "free it, and open it anew: s2uc release abc"),
        ({"state": "requested"}, "it waits for its hello"),
        ({"state": "registered"}, "it waits for its targets"),
    ],
)
def test_every_state_has_a_next_step(changes: dict[str, str], words: str) -> None:
    step = next_step(replace(_SESSION, **changes), ["--s2cs", "x"])
    assert words in step
    program, word, *rest = shlex.split(step.partition(": ")[2].rpartition("s2uc ")[2].join(["s2uc ", ""]))
    assert program == "s2uc"
    s2uc.command.commands[word].make_context(word, [one.replace("TIME", "8h") for one in rest])


def test_a_session_with_a_lease_says_how_it_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Teller("s2uc").session(replace(_SESSION, lease_expires=1.8e9), _SERVER)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("It lasts until ")]
    assert "for longer: s2uc renew abc --s2cs gateway.example:5000 --lease TIME" in line


def test_u52_what_was_verified_is_told_beside_each_entry_point(capsys: pytest.CaptureFixture[str]) -> None:
    verified = dict.fromkeys(_SESSION.entry_points, "accepted and not closed")
    Teller("s2uc").session(_SESSION, _SERVER, verified=verified)
    assert "  entry point 192.0.2.7:5100 -> localhost:5074: accepted and not closed\n" in capsys.readouterr().out
    Teller("s2uc", as_json=True).session(_SESSION, _SERVER, verified=verified)
    assert json.loads(capsys.readouterr().out)["verified"] == verified


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("reopened", "released and opened anew, which cut its connections."),
        ("retargeted", "new connections go to the new targets, and those that ran go on."),
        ("ticket_written", "its ticket was written again."),
    ],
)
def test_u29_what_was_done_about_a_session_that_was_there_is_told(
    action: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = _SESSION.as_dict()
    outcome = Outcome(_SESSION, True, facts, facts, ("targets a:1, not b:2",), action=Action(action))
    Teller("s2uc").found(outcome)
    told = capsys.readouterr().out
    assert told.startswith("It was there and not as wished for (targets a:1, not b:2): ")
    assert told.endswith(f"{words}\n")
    Teller("s2uc", as_json=True).session(_SESSION, _SERVER, action=action)
    assert json.loads(capsys.readouterr().out)["action"] == action
