from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from scistream.addresses import Endpoint
from scistream.cli.common import CONTEXT, compat_option, run, switch, tell, version_option
from scistream.errors import Code, SciStreamError

_ERROR = SciStreamError(Code.UID_UNKNOWN, uid="abc")


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a tool whose one command does `act` with its options: exit code, stdout, stderr."""

    def run_it(act: Callable[..., Any], *words: str) -> tuple[int, str, str]:
        @click.group(context_settings=CONTEXT)
        @version_option
        def tool() -> None:
            pass

        @tool.command("do-it")
        @click.option("--server_cert", default="server.crt")
        @click.option("--s2cs", type=Endpoint.parse, default="localhost:5000")
        @click.option("--json", "as_json", is_flag=True)
        @switch("--ssl", default=True)
        @switch("--mock", default=False)
        @compat_option
        def do_it(**options: Any) -> None:
            act(**options)

        with pytest.raises(SystemExit) as caught:
            run(tool, "tool", words)
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run_it


def _raise(error: BaseException) -> Callable[..., None]:
    def act(**_: Any) -> None:
        raise error

    return act


def _tell(**options: Any) -> None:
    click.echo(json.dumps({key: str(value) for key, value in options.items()}))


def test_u54_words_are_spelled_with_hyphens_or_underscores(ended: Callable[..., Any]) -> None:
    told = []
    for words in (("do_it", "--server-cert", "x"), ("do-it", "--server_cert=x")):
        code, out, _ = ended(_tell, *words)
        assert code == 0
        told.append(json.loads(out))
    assert told[0] == told[1]
    assert told[0]["server_cert"] == "x"


@pytest.mark.parametrize(
    ("words", "ssl", "mock"),
    [
        ((), "True", "False"),
        (("--ssl=False",), "False", "False"),
        (("--ssl", "false", "--mock", "True"), "False", "True"),
        (("--mock", "--ssl", "0"), "False", "True"),
        (("--mock",), "True", "True"),
    ],
)
def test_truth_is_said_as_the_deployed_tools_say_it(
    words: tuple[str, ...], ssl: str, mock: str, ended: Callable[..., Any]
) -> None:
    told = json.loads(ended(_tell, "do-it", *words)[1])
    assert (told["ssl"], told["mock"]) == (ssl, mock)


def test_compat_comes_from_the_environment_too(ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCISTREAM_COMPAT", "1")
    assert json.loads(ended(_tell, "do-it")[1])["compat"] == "True"


def test_an_error_is_one_sentence_with_its_code_and_exit_code(ended: Callable[..., Any]) -> None:
    code, out, err = ended(_raise(_ERROR), "do-it")
    assert (code, out) == (4, "")
    assert err == f"tool: error: {_ERROR} [UID_UNKNOWN]\n"


def test_what_is_left_over_is_said_after_the_error(ended: Callable[..., Any]) -> None:
    error = SciStreamError(Code.UID_UNKNOWN, uid="abc")
    error.add_note("Session abc may be left over there.")
    assert ended(_raise(error), "do-it")[2].endswith("\ntool: Session abc may be left over there.\n")


def test_with_json_an_error_is_an_object_too(ended: Callable[..., Any]) -> None:
    code, out, err = ended(_raise(_ERROR), "do-it", "--json")
    assert code == 4
    assert json.loads(out) == {"failure": _ERROR.failure()}
    assert err.startswith("tool: error: ")


def test_an_option_that_a_parser_refuses_is_an_error_of_the_catalogue(ended: Callable[..., Any]) -> None:
    code, _, err = ended(_tell, "do-it", "--s2cs", "nowhere")
    assert code == 2
    assert err.endswith("[BAD_ADDRESS]\n")


@pytest.mark.parametrize("words", [("bogus",), ("do-it", "--bogus"), ("do-it", "--ssl", "maybe")])
def test_a_mistyped_command_line_is_bad_input(words: tuple[str, ...], ended: Callable[..., Any]) -> None:
    code, out, err = ended(_tell, *words, "--json")
    assert code == 2
    assert err.startswith("tool: error: ")
    assert " --help. [BAD_USAGE]\n" in err
    failure = json.loads(out)["failure"]
    assert failure["code"] == "BAD_USAGE"
    assert any(word.strip("-") in failure["seen"] for word in words[-2:])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_ends_with_130(error: BaseException, ended: Callable[..., Any]) -> None:
    code, _, err = ended(_raise(error), "do-it")
    assert code == 130
    assert "Traceback" not in err


def test_what_nobody_foresaw_is_a_sentence_and_on_demand_a_traceback(
    ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCISTREAM_DEBUG", raising=False)
    code, _, err = ended(_raise(RuntimeError("out of cheese")), "do-it")
    assert code == 1
    assert "RuntimeError: out of cheese" in err
    assert err.endswith("[INTERNAL]\n")
    assert "Traceback" not in err
    monkeypatch.setenv("SCISTREAM_DEBUG", "1")
    assert "Traceback" in ended(_raise(RuntimeError("out of cheese")), "do-it")[2]


def test_a_program_says_its_version(ended: Callable[..., Any]) -> None:
    code, out, _ = ended(_tell, "--version")
    assert code == 0
    assert out.startswith("tool ")


class _Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_stdout_does_not_take_is_an_error(ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Full())
    code, _, err = ended(lambda **_: tell("words"), "do-it", "--json")
    assert code == 4
    assert err.startswith("tool: error: the output cannot be written: No space left on device. ")
    assert err.endswith("[OUTPUT_UNWRITABLE]\n")


@pytest.mark.parametrize("words", [("do-it",), ("do-it", "--json")])
def test_a_stdout_that_is_closed_is_an_error(
    words: tuple[str, ...], ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the descriptor is closed when it starts, that is what Python makes of it.
    monkeypatch.setattr(sys, "stdout", None)
    seen: list[bool] = []

    def act(**_: Any) -> None:
        seen.append(sys.stdout.isatty())
        tell("words")

    code, _, err = ended(act, *words)
    os.close(sys.stdout.fileno())
    assert (code, seen) == (4, [False])
    assert err.startswith("tool: error: the output cannot be written: Bad file descriptor. ")
    assert err.endswith("[OUTPUT_UNWRITABLE]\n")


def test_a_stdin_and_a_stderr_that_are_closed_are_empty_and_lose_what_they_get(
    ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", None)
    seen: list[Any] = []

    def act(**_: Any) -> None:
        seen.extend((sys.stdin.read(), sys.stderr.isatty()))
        tell("lost", err=True)
        tell("words")

    assert ended(act, "do-it")[:2] == (0, "words\n")
    assert seen == ["", False]
    for stream in (sys.stdin, sys.stderr):
        os.close(stream.fileno())


def test_what_stderr_does_not_take_is_lost_and_the_exit_code_stays(
    ended: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", _Full())
    assert ended(_raise(_ERROR), "do-it")[0] == 4
    assert ended(_raise(click.Abort()), "do-it")[0] == 130
