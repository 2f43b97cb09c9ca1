"""A session that runs is told other targets: its running connections go on."""

from __future__ import annotations

import dataclasses
from typing import Final

from scistream.client.channel import Connection
from scistream.client.comparison import Decision, Wish
from scistream.client.opening import write_ticket
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError

__all__ = ["reopening", "retarget"]

_CANNOT: Final = frozenset({Code.ENGINE_CANNOT, Code.TARGET_IN_USE})
_CUT: Final = (
    "The targets of session {uid} could not be changed while it ran ({reason}): it was released and opened anew, which "
    "cut its connections."
)


def retarget(connection: Connection, wish: Wish) -> Session:
    """Have the new connections of a session go where it is wished for, and write its ticket, where it has one.

    Raises:
        SciStreamError: ENGINE_CANNOT, TARGET_IN_USE (another key), FILE_UNWRITABLE, what else the control server says,
            or why it cannot be talked to.
    """
    request = wish.request
    key = request.key or (wish.held.key if wish.held else None)
    sent = key if request.encryption.needs_key else None
    connection.update(request.uid, request.direction, request.targets, key=sent)
    session = connection.describe(request.uid, request.direction)[0]
    write_ticket(connection, wish, session, key)
    return session


def reopening(wish: Wish, decision: Decision, error: SciStreamError) -> Decision:
    """What is done instead where a session cannot be retargeted; any other error is raised again."""
    if error.code not in _CANNOT:
        raise error
    warning = _CUT.format(uid=wish.request.uid, reason=error.seen)
    return dataclasses.replace(decision, opens=True, retargets=False, warnings=(*decision.warnings, warning))
