"""The audit file: who did what to which session, from where, and what became of it; one JSON object a line."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from scistream.control_server.answering import Call
from scistream.control_server.appending import LineFile
from scistream.control_server.events import Event, EventKind

__all__ = ["Audit"]

# Calls that change something, or try to: of the deployed protocol, of its draft, and ours.
_CHANGING: Final = frozenset(
    {
        "req",
        "hello",
        "update",
        "release",
        "RequestStream",
        "Hello",
        "UpdateTargets",
        "ReleaseStream",
        "RenewSession",
        "DrainSession",
    }
)
# What happens to sessions by itself, and how every one of them ends.
_OWN: Final = frozenset({EventKind.LOST, EventKind.RESTARTED, EventKind.FAILED, EventKind.RELEASED})
_SELF: Final = "control server"
# Callers who are not recognised could write the file full, and push out what it holds.
_STRANGERS: Final = 10


class Audit:
    """Writes the audit file. What it cannot write is counted, and told in the log when that begins and ends.

    Args:
        file: where the lines go.
        log: where it is told that they are lost.
        clock: seconds since the epoch.
    """

    def __init__(self, file: LineFile, log: FilteringBoundLogger, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._log = log
        self._clock = clock
        self._failing = False
        self._second = 0
        self._strangers = 0
        self._unwritten = 0

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._file.lost

    def close(self) -> None:
        """Record no more."""
        self._file.close()

    def note_call(self, call: Call) -> None:
        """Record a call that changes something or tries to, or whose caller was not recognised."""
        if not call.owner:
            self._note_stranger(call)
        elif call.name in _CHANGING:
            self._record(self._clock(), **_facts(call))

    def _note_stranger(self, call: Call) -> None:
        now = self._clock()
        if int(now) != self._second:
            self._second, self._strangers = int(now), 0
        self._strangers += 1
        if self._strangers > _STRANGERS:
            self._unwritten += 1
            return
        more = {"not_recorded_before": self._unwritten} if self._unwritten else {}
        self._unwritten = 0
        self._record(now, **_facts(call), **more)

    def note_event(self, event: Event) -> None:
        """Record what the control server itself does to a session, and every session's end."""
        if event.kind not in _OWN:
            return
        session = event.session
        self._record(
            event.time,
            action=event.kind.value,
            uid=session.uid,
            direction=session.direction.value,
            owner=session.owner,
            who=_SELF,
            peer="",
            outcome="OK",
            why=event.words or session.failure,
            seconds=0.0,
        )

    def _record(self, moment: float, **facts: Any) -> None:
        line = json.dumps({"time": _spelled(moment), **facts})
        written = self._file.add(line + "\n")
        if written is self._failing:
            self._failing = not written
            self._tell()

    def _tell(self) -> None:
        if self._failing:
            self._log.error("audit file cannot be written: lines are lost until it can", lost=self._file.lost)
        else:
            self._log.warning("audit file can be written again", lost=self._file.lost)


def _facts(call: Call) -> dict[str, Any]:
    return {
        "action": call.name,
        "uid": call.uid,
        "direction": call.direction,
        "owner": call.session_owner,
        "who": call.owner,
        "peer": call.peer,
        "outcome": call.outcome,
        "why": "",
        "seconds": round(call.seconds, 6),
    }


def _spelled(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds")
