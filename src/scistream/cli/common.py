"""What the command line tools share: spelling, truth values, and the one place where an error becomes an exit code.

An option takes one of the library's parsers as its `type` (`type=Endpoint.parse`, with a text as default): what the
parser raises passes through click unchanged and is told by `run`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TextIO, TypeVar

import click

from scistream import __version__
from scistream.errors import Code, ExitCode, SciStreamError

__all__ = ["CONTEXT", "compat_option", "options_of", "run", "switch", "tell", "version_option"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Set: an unforeseen error shows where it came from.
_DEBUG: Final = "SCISTREAM_DEBUG"
_JSON: Final = "--json"


def _spelling(word: str) -> str:
    return word.replace("_", "-")


CONTEXT: Final[dict[str, Any]] = {
    "token_normalize_func": _spelling,
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}
"""`context_settings` of the outermost command: `_` and `-` are one letter in commands and options (U54)."""


def options_of(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Several options as one decorator, in the order of the help."""
    return lambda function: functools.reduce(lambda inner, option: option(inner), reversed(options), function)


def switch(*names: str, default: bool, **attributes: Any) -> Callable[[_Function], _Function]:
    """An option that takes a truth value, as in `--ssl=False` and `--mock True`; bare, it means True."""
    return click.option(
        *names,
        type=bool,
        default=default,
        is_flag=False,
        flag_value=True,
        metavar="BOOL",
        show_default=True,
        **attributes,
    )


def compat_option(function: _Function) -> _Function:
    """`--compat`: the words and defaults of the deployed tools."""
    return click.option(
        "--compat",
        is_flag=True,
        envvar="SCISTREAM_COMPAT",
        show_envvar=True,
        help="Use the words and defaults of the deployed tools.",
    )(function)


def version_option(function: _Function) -> _Function:
    """`--version`: program and version, with nothing heavy imported."""
    return click.version_option(__version__, message="%(prog)s %(version)s")(function)


def tell(words: str, *, err: bool = False) -> None:
    """Print a line; what stderr does not take is lost, as the exit code tells too.

    Raises:
        SciStreamError: OUTPUT_UNWRITABLE, of stdout.
    """
    try:
        click.echo(words, err=err)
    except OSError as error:
        _give_up(sys.stderr if err else sys.stdout)
        if not err:
            raise SciStreamError(Code.OUTPUT_UNWRITABLE, reason=error.strerror or str(error)) from None


def _open_closed() -> None:
    """Open the standard streams that the tool was started without.

    Their numbers would go to the next files and sockets. What is told on a stdout like that fails, as a full disk does:
    a descriptor that is only for reading takes no words.
    """
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free: its own.
            descriptor = os.open(os.devnull, flags)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - for as long as it runs


def _give_up(stream: TextIO) -> None:
    """Let go what a stream still holds: the interpreter writes it at its end, and would fail once more."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a tool to its end; every failure leaves as one sentence with its code on stderr, and as an exit code.

    With `--json` among the arguments, it leaves on stdout as `{"failure": {...}}` as well.

    Args:
        command: the outermost command.
        program: what the tool is called in its messages.
        arguments: without the program's name; None takes those of the process.
    """
    _open_closed()
    words = list(sys.argv[1:] if arguments is None else arguments)
    fail = functools.partial(_fail, program, as_json=_JSON in words)
    try:
        # What a command returns in click's non-standalone mode: its value, or the code of an early exit.
        code = command.main(args=words, prog_name=program, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except SciStreamError as error:
        fail(error)
    except click.exceptions.NoArgsIsHelpError as error:
        tell(error.format_message(), err=True)
        sys.exit(ExitCode.BAD_INPUT)
    except click.ClickException as error:
        fail(_bad_usage(program, error))
    except (click.Abort, KeyboardInterrupt):
        tell(f"{program}: interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        if os.environ.get(_DEBUG):
            tell(traceback.format_exc(), err=True)
        fail(SciStreamError(Code.INTERNAL, words=f"{type(error).__name__}: {error}"))


def _bad_usage(program: str, error: click.ClickException) -> SciStreamError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else program
    return SciStreamError(Code.BAD_USAGE, words=error.format_message().rstrip("."), command=command)


def _fail(program: str, error: SciStreamError, *, as_json: bool) -> NoReturn:
    if as_json:
        # Where stdout is what failed, stderr and the exit code tell.
        with contextlib.suppress(SciStreamError):
            tell(json.dumps({"failure": error.failure()}))
    tell(f"{program}: error: {error} [{error.code}]", err=True)
    for note in getattr(error, "__notes__", ()):
        tell(f"{program}: {note}", err=True)
    try:
        click.echo(nl=False)
    except OSError:
        # What failed may have been click's own writing: a help that a full disk does not take.
        _give_up(sys.stdout)
    sys.exit(error.exit_code)
