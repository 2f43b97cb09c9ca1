"""The control server's log: plain lines on stderr or in a file of the operator's choice; never a secret in it."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger

from scistream.control_server.private_files import open_private
from scistream.errors import Code, SciStreamError

__all__ = ["open_log"]

_STDERR: Final = 2


def open_log(file: Path | None, *, verbose: bool) -> FilteringBoundLogger:
    """Set the log up.

    Args:
        file: where lines are added, a regular file and no link; None is stderr. It is made with mode 0600.
        verbose: tell debugging events as well.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    level = logging.DEBUG if verbose else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=False,
                pad_event_to=0,
                pad_level=False,
                sort_keys=False,
                # The default one prints local variables, and a session key may be among them.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(
            file=cast("TextIO", _Sink(_STDERR if file is None else _append(file)))
        ),
        cache_logger_on_first_use=True,
    )
    return cast("FilteringBoundLogger", structlog.get_logger())


class _Sink:
    """Where lines go. One that cannot be written is lost: a full disk or a reader that went away ends no stream."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        # Without a buffer: what could not be written would be in the way of all that follows.
        data = text.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def flush(self) -> None:
        """Nothing is held back."""


def _append(file: Path) -> int:
    try:
        return open_private(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(file), reason=error.strerror or str(error)) from None
