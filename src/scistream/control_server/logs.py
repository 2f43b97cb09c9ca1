"""The control server's log: lines on stderr or in a file of the operator's choice; never a secret in it."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final, Literal, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from scistream.control_server.appending import LineFile
from scistream.control_server.configuration import Settings
from scistream.control_server.state_directory import log_of

__all__ = ["file_of", "open_log"]

_STDERR: Final = 2

_FOR_PEOPLE: Final[tuple[Processor, ...]] = (
    structlog.dev.ConsoleRenderer(
        colors=False,
        pad_event_to=0,
        pad_level=False,
        sort_keys=False,
        # The default one prints local variables, and a session key may be among them.
        exception_formatter=structlog.dev.plain_traceback,
    ),
)
_FOR_PROGRAMS: Final[tuple[Processor, ...]] = (
    # Plain tracebacks, for the same reason.
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(default=str),
)


def open_log(file: Path | None, *, verbose: bool, form: Literal["plain", "json"] = "plain") -> FilteringBoundLogger:
    """Set the log up.

    Args:
        file: where lines are added, a regular file and no link; None is stderr. It is made with mode 0600, and turned
            when it is large (see `appending`).
        verbose: tell debugging events as well.
        form: lines for people, or one JSON object a line.

    Raises:
        SciStreamError: FILE_UNWRITABLE.
    """
    level = logging.DEBUG if verbose else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_FOR_PROGRAMS if form == "json" else _FOR_PEOPLE),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Stderr() if file is None else _File(file))),
        cache_logger_on_first_use=True,
    )
    return cast("FilteringBoundLogger", structlog.get_logger())


def file_of(settings: Settings) -> Path | None:
    """The file that the log goes to, None for stderr.

    A control server in the background has its stderr in its state directory. It is turned there as any other log; what
    Python and gRPC may say on their own goes on into the file that was renamed.
    """
    own = log_of(settings.state_directory)
    return settings.log_file or (own if _is_stderr(own) else None)


def _is_stderr(path: Path) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(_STDERR))
    except OSError:
        return False


class _Stderr:
    """Standard error. A line that cannot be written is lost: a reader that went away ends no stream."""

    def __init__(self) -> None:
        self._descriptor = _STDERR

    def write(self, text: str) -> None:
        # Without a buffer: what could not be written would be in the way of all that follows.
        data = text.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def flush(self) -> None:
        """Nothing is held back."""


class _File:
    """A file of lines. One that cannot be written is lost: a full disk ends no stream."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFile(path)

    def write(self, text: str) -> None:
        self._lines.add(text)

    def flush(self) -> None:
        """Nothing is held back."""
