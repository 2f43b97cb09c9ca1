"""The gentle end of a session: no new connections, and time for the running ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from scistream.client.channel import Connection
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState, Uid

__all__ = ["await_drained", "drain_session"]

# Seconds between two looks.
_PAUSE: Final = 0.5
_ENDING: Final = frozenset({SessionState.DRAINING.value, SessionState.RELEASED.value})


def drain_session(  # noqa: PLR0913 - the session, and what time is measured with
    connection: Connection,
    uid: Uid,
    direction: Direction | None,
    *,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Drain a session, without a direction both ends, for `patience` seconds; whether it is gone then.

    One that carries nothing, because it is not active, is left as it is.

    Raises:
        SciStreamError: OLD_CONTROL_SERVER, what the control server says, or why it cannot be talked to.
    """
    end = clock() + patience

    def ask(_: int) -> bool:
        return clock() < end

    try:
        connection.drain(uid, direction)
        return await_drained(connection, uid, direction, go_on=ask, pause=pause)
    except SciStreamError as error:
        if error.code not in {Code.SESSION_NOT_ACTIVE, Code.UID_UNKNOWN}:
            raise
        return error.code is Code.UID_UNKNOWN


def await_drained(
    connection: Connection,
    uid: Uid,
    direction: Direction | None,
    *,
    go_on: Callable[[int], bool],
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until a session that drains is gone.

    Args:
        connection: to its control server.
        uid: of the session.
        direction: of the session; None for both.
        go_on: asked at each look, with the number of connections that are left; False ends the waiting.
        pause: waits between two looks.

    Returns:
        Whether it is gone.

    Raises:
        SciStreamError: SESSION_NOT_ACTIVE where it drains no longer, what the control server says, or why it cannot be
            talked to.
    """
    while (left := _connections_left(connection, uid, direction)) is not None:
        if not go_on(left):
            return False
        pause(_PAUSE)
    return True


def _connections_left(connection: Connection, uid: Uid, direction: Direction | None) -> int | None:
    """How many connections a session that drains still has; None where it is gone."""
    try:
        sessions = connection.describe(uid, direction)
    except SciStreamError as error:
        if error.code is not Code.UID_UNKNOWN:
            raise
        return None
    for session in sessions:
        if session.state not in _ENDING:
            what = "waiting for its end"
            raise SciStreamError(Code.SESSION_NOT_ACTIVE, uid=uid, state=session.state, what=what)
    return sum(session.traffic.connections_open for session in sessions)
