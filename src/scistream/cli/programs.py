"""Where the installed tools begin: nothing heavy is imported here, so that Ctrl-C is quiet from the first moment on."""

from __future__ import annotations

import os

__all__ = ["appctrl", "s2cs", "s2uc"]

# `ExitCode.INTERRUPTED`, whose module is not there yet.
_INTERRUPTED = 130


def appctrl() -> None:
    """The application controller."""
    _begin("appctrl")


def s2cs() -> None:
    """The control server."""
    _begin("s2cs")


def s2uc() -> None:
    """The user client."""
    _begin("s2uc")


def _begin(program: str) -> None:
    try:
        _run(program)
    except KeyboardInterrupt:
        _leave()


def _run(program: str) -> None:
    import importlib
    import signal

    # Who ignores it (nohup, a job in the background) goes on doing so.
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        # Not as an exception: inside of an import it can be swallowed, or told with a traceback.
        signal.signal(signal.SIGINT, _leave)
    main = importlib.import_module(f"scistream.cli.{program}").main
    if is_heard:
        # From now on, what was begun is undone on the way out.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def _leave(*_: object) -> None:
    # Nothing is begun yet that would have to be ended.
    os._exit(_INTERRUPTED)
