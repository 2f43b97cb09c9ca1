"""A user's own defaults: read, checked, and overruled by what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from scistream.addresses import Endpoint
from scistream.cli import preferences, s2uc
from scistream.cli.common import CONTEXT, run
from scistream.durations import parse_duration
from scistream.errors import Code, SciStreamError


def _group() -> click.Group:
    @click.group(context_settings=CONTEXT)
    @click.option("--config", type=click.Path(path_type=Path))
    @click.pass_context
    def group(context: click.Context, config: Path | None) -> None:
        context.default_map = preferences.load(group, config, context.invoked_subcommand)

    @group.command("one-thing")
    @click.option("--s2cs", type=Endpoint.parse, default="localhost:5000")
    @click.option("--lease", type=parse_duration)
    @click.option("--json", "as_json", is_flag=True)
    def _one(**options: Any) -> None:
        click.echo(json.dumps({key: str(value) for key, value in options.items()}))

    @group.command("another")
    @click.option("--s2cs", type=Endpoint.parse, default="localhost:5000")
    def _another(**options: Any) -> None:
        click.echo(str(options["s2cs"]))

    return group


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s2uc.toml"
    path.write_text(text)
    return path


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit):
        run(_group(), "tool", words)
    return capsys.readouterr().out


def test_u64_a_file_has_the_defaults_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, 's2cs = "gateway.example:5001"\n[one_thing]\nlease = "8h"\njson = true\n')
    told = json.loads(_said(capsys, "--config", str(path), "one-thing"))
    assert told == {"s2cs": "gateway.example:5001", "lease": "28800.0", "as_json": "True"}
    assert _said(capsys, "--config", str(path), "another") == "gateway.example:5001\n"
    told = json.loads(_said(capsys, "--config", str(path), "one-thing", "--s2cs", "other:1"))
    assert told["s2cs"] == "other:1"


def test_u64_the_users_own_file_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert _said(capsys, "another") == "localhost:5000\n"
    (tmp_path / "scistream").mkdir()
    _file(tmp_path / "scistream", 's2cs = "mine:5"\n')
    assert _said(capsys, "another") == "mine:5\n"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ('server = "x"', "server", "no command of s2uc and no option is called so"),
        ("[a-command]", "a-command", "no command of s2uc and no option is called so"),
        ('[another]\nlease = "8h"', "lease", "the command has no such option"),
        ('s2cs = "a:b:c"', "s2cs", "an IPv6 address needs brackets"),
        ('lease = "soon"', "lease", "a lease of 'soon' cannot be had"),
        ('[one-thing]\njson = "perhaps"', "json", "perhaps"),
    ],
)
def test_u64_what_the_file_has_wrong_is_named(text: str, key: str, reason: str, tmp_path: Path) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(SciStreamError) as caught:
        preferences.load(_group(), path)
    assert caught.value.code is Code.BAD_CONFIGURATION
    assert (caught.value.facts["key"], caught.value.facts["source"]) == (key, str(path))
    assert reason in caught.value.seen


@pytest.mark.parametrize("text", [None, "s2cs ="])
def test_u64_a_file_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "none.toml" if text is None else _file(tmp_path, text)
    with pytest.raises(SciStreamError) as caught:
        preferences.load(_group(), path)
    assert caught.value.code is Code.CONFIGURATION_UNREADABLE
    assert str(path) in caught.value.seen


def test_u64_every_option_of_s2uc_can_stand_in_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, 'server-crt = "a.crt"\ntimeout = 60\nssl = false\n[prod-req]\nnum_conn = 1\nwait = 5\n')
    loaded = preferences.load(s2uc.command, path)
    assert loaded["prod-req"] == {"server_cert": "a.crt", "timeout": "60", "ssl": "False", "num_conn": "1", "wait": "5"}
    assert loaded["list"] == {"server_cert": "a.crt", "timeout": "60", "ssl": "False"}


def test_a_wrong_value_of_one_command_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, 's2cs = "gateway.example:5001"\n[one-thing]\nlease = "8 hours"\n')
    assert _said(capsys, "--config", str(path), "another") == "gateway.example:5001\n"
    with pytest.raises(SystemExit) as ended:
        run(_group(), "tool", ["--config", str(path), "one-thing"])
    assert ended.value.code == 2
    assert "BAD_CONFIGURATION" in capsys.readouterr().err


def test_the_hosts_defaults_count_where_a_user_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path / 'nothing'}:{tmp_path / 'host'}")
    assert preferences.load(_group(), None) == {}
    for place, server in (("host", "site.example:5000"), ("mine", "own.example:5000")):
        directory = tmp_path / place / "scistream"
        directory.mkdir(parents=True)
        (directory / "s2uc.toml").write_text(f's2cs = "{server}"\n')
        assert preferences.load(_group(), None)["another"] == {"s2cs": server}
