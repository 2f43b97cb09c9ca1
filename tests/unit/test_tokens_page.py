"""The page on authentication says what is: its commands are understood, its messages and figures are the program's."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from scistream.auth.introspection import DEADLINE
from scistream.auth.verdicts import NEGATIVE_SECONDS, POSITIVE_SECONDS
from scistream.cli import s2cs, s2uc
from scistream.control_server.configuration import Settings
from scistream.errors import Code

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "authentication.md").read_text()
_BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
_SPANS = re.findall(r"`((?:s2uc|s2cs) [^`]*)`", PAGE)
COMMANDS = [line for text in (*_BLOCKS, *_SPANS) for line in text.splitlines() if line.startswith(("s2uc ", "s2cs "))]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_understood(line):
    program, *words = shlex.split(line.partition(" <")[0].replace("...", "HOST"))
    command: click.Command = {"s2cs": s2cs.command, "s2uc": s2uc.command}[program]
    if words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    context = click.Context(command)
    command.make_parser(context).parse_args(words)


def test_there_are_commands_for_operators_and_users():
    assert {line.split()[1] for line in COMMANDS} >= {"check", "start", "status", "login", "check-auth", "logout"}


def test_the_keys_of_its_files_are_settings():
    for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        assert set(tomllib.loads(text)) <= Settings.model_fields.keys()


def test_its_codes_are_the_catalogues():
    assert {
        word for word in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGE) if not word.startswith(("SCISTREAM", "SSL"))
    } <= {
        *Code,
        "NO_AUTH",
    }


def test_its_figures_are_the_programs():
    assert f"| a token is good | {POSITIVE_SECONDS:g} s" in PAGE
    assert f"| a token is refused | {NEGATIVE_SECONDS:g} s |" in PAGE
    assert f"One question has {DEADLINE:g} s." in PAGE
