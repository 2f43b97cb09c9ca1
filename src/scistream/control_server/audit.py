"""The audit file: who did what to which session, from where, and what became of it; one JSON object a line."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
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
# Calls that are refused a second, of each owner and of all who are not recognised: more could push out what the file
# holds.
_REFUSED: Final = 10
# Of a call that did what it was asked to.
_GOOD: Final = "OK"


@dataclass
class _Refused:
    """The refused calls of one owner, or of all who are not recognised, in the second of the last one."""

    second: int = 0
    count: int = 0
    unwritten: int = 0

    def has_room(self, second: int) -> bool:
        """Count one more; whether it is to be recorded."""
        if second != self.second:
            self.second, self.count = second, 0
        self.count += 1
        if self.count > _REFUSED:
            self.unwritten += 1
        return self.count <= _REFUSED


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
        self._refused: dict[str, _Refused] = {}

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._file.lost

    def close(self) -> None:
        """Record no more."""
        self._file.close()

    def note_call(self, call: Call) -> None:
        """Record a call that changes something or tries to, or whose caller was not recognised."""
        if call.owner and call.name not in _CHANGING:
            return
        now = self._clock()
        refused = self._refused.setdefault(call.owner, _Refused())
        if call.outcome != _GOOD and not refused.has_room(int(now)):
            return
        more = {"not_recorded_before": refused.unwritten} if refused.unwritten else {}
        refused.unwritten = 0
        self._record(now, **_facts(call), **more)
        if call.outcome == _GOOD:
            self._forget(int(now))

    def _forget(self, second: int) -> None:
        self._refused = {
            owner: refused for owner, refused in self._refused.items() if refused.unwritten or refused.second == second
        }

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
