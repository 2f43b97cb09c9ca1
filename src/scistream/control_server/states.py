"""The states of a session, and every way from one to another: one table, from which the drawing in the docs is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scistream.terms import SessionState

__all__ = ["TRANSITIONS", "Transition", "drawing", "is_allowed"]


@dataclass(frozen=True)
class Transition:
    """A way from one state to another, and what makes a session go it. A session without a state before is new."""

    before: SessionState | None
    after: SessionState
    cause: str


_REQUESTED: Final = SessionState.REQUESTED
_REGISTERED: Final = SessionState.REGISTERED
_ACTIVE: Final = SessionState.ACTIVE
_DRAINING: Final = SessionState.DRAINING
_RELEASED: Final = SessionState.RELEASED
_FAILED: Final = SessionState.FAILED

TRANSITIONS: Final = (
    Transition(None, _REQUESTED, "req"),
    Transition(_REQUESTED, _REGISTERED, "hello"),
    Transition(_REQUESTED, _RELEASED, "no hello, client gone, release, lease, restart"),
    Transition(_REGISTERED, _ACTIVE, "update (the entry points accept)"),
    Transition(_REGISTERED, _FAILED, "update (they do not)"),
    Transition(_REGISTERED, _RELEASED, "no update, release, lease"),
    Transition(_ACTIVE, _DRAINING, "drain"),
    Transition(_ACTIVE, _FAILED, "the data server ended, or cannot be ended"),
    Transition(_ACTIVE, _RELEASED, "release, lease"),
    Transition(_DRAINING, _RELEASED, "the last connection ended, release, lease"),
    Transition(_DRAINING, _ACTIVE, "the engine cannot drain"),
    Transition(_DRAINING, _FAILED, "the data server cannot be ended"),
    Transition(_FAILED, _ACTIVE, "the data server is back"),
    Transition(_FAILED, _REGISTERED, "update (a new try)"),
    Transition(_FAILED, _RELEASED, "no update, release, lease"),
)
"""Everything that can happen to a session's state."""

_ALLOWED: Final = frozenset((each.before, each.after) for each in TRANSITIONS)


def is_allowed(before: SessionState, after: SessionState) -> bool:
    """Whether a session may go from one state to the other; where it is, it may stay."""
    return before is after or (before, after) in _ALLOWED


def drawing() -> str:
    """The table as a Mermaid state diagram."""
    lines = [f"    {_name(each.before)} --> {each.after.value}: {each.cause}" for each in TRANSITIONS]
    return "\n".join(["stateDiagram-v2", *lines, f"    {_RELEASED.value} --> [*]"])


def _name(state: SessionState | None) -> str:
    return state.value if state else "[*]"
