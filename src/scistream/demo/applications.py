"""Applications as their users run them, each a process of its own, heard line by line; none outlives its runner."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from scistream.addresses import Endpoint
from scistream.demo.leash import leashed
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["Applications", "Ends", "Line"]

_READ: Final = 65536
_LAST_WORDS: Final = 10


@dataclass(frozen=True)
class Ends:
    """Where the two applications of a stream are.

    Attributes:
        target: where the one listens.
        entry_point: where the other connects to.
        target_namespace: the network namespace of the one, as `nsenter --net=` takes it; None for the caller's own.
        entry_point_namespace: that of the other.
    """

    target: Endpoint
    entry_point: Endpoint
    target_namespace: Path | None = None
    entry_point_namespace: Path | None = None


@dataclass(frozen=True)
class Line:
    """What an application said."""

    application: str
    text: str


@dataclass
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    last_words: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_WORDS))
    open_streams: int = 2


@dataclass
class _Stream:
    owner: _Running
    is_error: bool
    rest: bytes = b""


class Applications:
    """The applications of one run. Leaving the context ends those that still run."""

    def __init__(self) -> None:
        self._running: list[_Running] = []
        self._selector = selectors.DefaultSelector()
        self._heard: deque[Line] = deque()

    def start(self, name: str, command: Sequence[str], namespace: Path | None = None) -> None:
        """Start one.

        Args:
            name: what it is called in errors.
            command: the program and its arguments.
            namespace: the kernel's file for the network namespace that it runs in; None for the caller's own.
        """
        way = ["nsenter", f"--net={namespace}", "--"] if namespace else []
        process = subprocess.Popen(
            leashed([*way, *command]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        running = _Running(name, process)
        self._running.append(running)
        self._listen(process.stdout, running, is_error=False)
        self._listen(process.stderr, running, is_error=True)

    def next_line(self, seconds: float, doing: str, last: str) -> Line | None:
        """The next line that one of them writes to standard output; None when all have ended well.

        Args:
            seconds: how long it may be silent.
            doing: what takes so long, for the error.
            last: what was seen last, for the error.

        Raises:
            SciStreamError: DEADLINE; APPLICATION_FAILED when one ended with an exit code that is not 0.
        """
        deadline = time.monotonic() + seconds
        while not self._heard:
            if not self._selector.get_map():
                return None
            self._turn(deadline, seconds, doing, last)
        return self._heard.popleft()

    def all_of(self, name: str, seconds: float, doing: str) -> list[str]:
        """All lines that one of them writes to standard output, until it ends; what the others say is dropped.

        Raises:
            SciStreamError: as `next_line`; `seconds` is for all of it.
        """
        deadline = time.monotonic() + seconds
        while any(running.open_streams for running in self._running if running.name == name):
            self._turn(deadline, seconds, doing, "it still runs")
        lines = [line.text for line in self._heard if line.application == name]
        self._heard.clear()
        return lines

    def _turn(self, deadline: float, seconds: float, doing: str, last: str) -> None:
        ready = self._selector.select(max(0.0, deadline - time.monotonic()))
        if not ready:
            raise SciStreamError(Code.DEADLINE, what=doing, seconds=seconds, last=last)
        for key, _events in ready:
            self._hear(key.fileobj, key.data)  # type: ignore[arg-type]

    def _listen(self, pipe: IO[bytes] | None, owner: _Running, *, is_error: bool) -> None:
        if pipe is None:
            raise AssertionError("the process was started with pipes")
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, _Stream(owner, is_error))

    def _hear(self, pipe: IO[bytes], stream: _Stream) -> None:
        data = os.read(pipe.fileno(), _READ)
        *lines, stream.rest = (stream.rest + data).split(b"\n")
        if not data and stream.rest:
            lines, stream.rest = [stream.rest], b""
        for line in lines:
            text = line.decode(errors="replace")
            if stream.is_error:
                stream.owner.last_words.append(text)
            else:
                self._heard.append(Line(stream.owner.name, text))
        if not data:
            self._close(pipe, stream.owner)

    def _close(self, pipe: IO[bytes], owner: _Running) -> None:
        self._selector.unregister(pipe)
        owner.open_streams -= 1
        if owner.open_streams or not (ending := owner.process.wait()):
            return
        words = one_line("; ".join(owner.last_words)) or "it said nothing"
        raise SciStreamError(Code.APPLICATION_FAILED, application=owner.name, ending=_ending(ending), words=words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for running in self._running:
            running.process.kill()
        for running in self._running:
            running.process.wait()
            for pipe in (running.process.stdout, running.process.stderr):
                if pipe is not None:
                    pipe.close()
        self._selector.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
