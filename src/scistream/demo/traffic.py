"""One stream of real bytes from a ZeroMQ PUSH to a ZeroMQ PULL application, hashed on both sides."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scistream.demo.applications import Applications, Ends
from scistream.errors import Code, SciStreamError

__all__ = ["Exchange", "Outcome", "Progress", "stream"]

RECEIVER: Final = "the receiver"
SENDER: Final = "the sender"
_START_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Progress:
    """How far a stream has come: bytes that arrived, bytes that are to come in all, seconds since the first."""

    bytes: int
    total: int
    seconds: float

    @property
    def share(self) -> float:
        """From 0 to 1; a file that grew meanwhile counts as done."""
        return min(1.0, self.bytes / self.total) if self.total else 1.0

    @property
    def gbps(self) -> float:
        """The rate so far, in Gb/s of application bytes."""
        return _gbps(self.bytes, self.seconds)


@dataclass(frozen=True)
class Outcome:
    """What both sides saw of one stream."""

    bytes: int
    bytes_sent: int
    messages: int
    seconds: float
    digest_sent: str
    digest_received: str

    @property
    def gbps(self) -> float:
        """The rate in Gb/s of application bytes, from the first message to the last, at the receiver."""
        return _gbps(self.bytes, self.seconds)

    @property
    def whole(self) -> bool:
        """Whether what arrived is what was sent."""
        return self.digest_sent == self.digest_received and self.bytes_sent == self.bytes

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {
            "bytes": self.bytes,
            "messages": self.messages,
            "seconds": round(self.seconds, 3),
            "gbps": round(self.gbps, 3),
            "digest_sent": self.digest_sent,
            "digest_received": self.digest_received,
            "whole": self.whole,
        }


def _gbps(size: int, seconds: float) -> float:
    return size * 8 / seconds / 1e9 if seconds > 0 else 0.0


class Exchange:
    """What is known of a running stream, from what the two applications report."""

    def __init__(self) -> None:
        self._done: dict[str, dict[str, Any]] = {}
        self._last = Progress(0, 0, 0.0)

    @property
    def last_seen(self) -> str:
        """In words, for an error."""
        if RECEIVER in self._done:
            return "all bytes arrived, and the sender does not end"
        waiting = "the sender is done" if SENDER in self._done else "the sender still sends"
        return f"{self._last.bytes} of {self._last.total or '?'} bytes after {self._last.seconds:.1f} s, {waiting}"

    @property
    def outcome(self) -> Outcome | None:
        """Both sides' view, when both are done."""
        if set(self._done) != {SENDER, RECEIVER}:
            return None
        sent, received = self._done[SENDER], self._done[RECEIVER]
        return Outcome(
            bytes=received["bytes"],
            bytes_sent=sent["bytes"],
            messages=received["messages"],
            seconds=received["seconds"],
            digest_sent=sent["digest"],
            digest_received=received["digest"],
        )

    def hear(self, application: str, report: dict[str, Any]) -> Progress | None:
        """Take in one report; what arrived so far, if this one says it."""
        if report["event"] == "done":
            self._done[application] = report
        if report["event"] == "bytes" and application == RECEIVER:
            self._last = Progress(report["bytes"], report["total"], report["seconds"])
            return self._last
        return None


def stream(ends: Ends, *, source: int | Path, silence: float, tell: Callable[[Progress], None]) -> Outcome:
    """Send frames or a file from an application at the entry point to one at the target.

    Args:
        ends: where the receiver listens, and where the sender connects to.
        source: a number of detector frames (8 MiB each), or a file.
        silence: seconds that may pass without a byte.
        tell: called with the progress, a few times a second.

    Raises:
        SciStreamError: APPLICATION_FAILED, DEADLINE, STREAM_DAMAGED.
    """
    what = ["--file", str(source)] if isinstance(source, Path) else ["--frames", str(source)]
    receiver, sender = ([sys.executable, "-m", f"scistream.demo.{one}"] for one in ("receiver", "sender"))
    with Applications() as applications:
        applications.start(RECEIVER, [*receiver, str(ends.target)], ends.target_namespace)
        applications.next_line(_START_SECONDS, "the start of the receiver", "nothing")
        applications.start(SENDER, [*sender, str(ends.entry_point), *what], ends.entry_point_namespace)
        return _judged(_follow(applications, silence, tell))


def _follow(applications: Applications, silence: float, tell: Callable[[Progress], None]) -> Outcome:
    exchange = Exchange()
    while (outcome := exchange.outcome) is None:
        line = applications.next_line(silence, "the stream", exchange.last_seen)
        if line is None:
            words = f"it ended before it was done ({exchange.last_seen})"
            raise SciStreamError(Code.APPLICATION_FAILED, application="the stream", ending="exit code 0", words=words)
        progress = exchange.hear(line.application, json.loads(line.text))
        if progress is not None:
            tell(progress)
    return outcome


def _judged(outcome: Outcome) -> Outcome:
    if outcome.whole:
        return outcome
    raise SciStreamError(
        Code.STREAM_DAMAGED,
        sent=outcome.bytes_sent,
        digest_sent=outcome.digest_sent,
        received=outcome.bytes,
        digest_received=outcome.digest_received,
    )
