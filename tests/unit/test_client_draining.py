from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from scistream.addresses import Endpoint
from scistream.client.channel import Connection
from scistream.client.draining import await_drained, drain_session
from scistream.client.sessions import Session, Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid

_UID = Uid("abc")
_ACTIVE = Session.untold(_UID, Direction.INBOUND, ("192.0.2.7:5100",), (Endpoint("localhost", 5074),), 1, 0)
_GONE = SciStreamError(Code.UID_UNKNOWN, uid=_UID)


def _draining(left: int) -> Session:
    return replace(_ACTIVE, state="draining", traffic=Traffic(connections_open=left))


@dataclass
class _Server:
    """Stands where a Connection stands: what each look finds, the last one for good."""

    looks: list[Any]
    refusal: SciStreamError | None = None
    now: float = 0.0
    drained: list[Any] = field(default_factory=list)

    def drain(self, *which: Any) -> None:
        self.drained.append(which)
        if self.refusal:
            raise self.refusal

    def describe(self, *_: Any) -> Any:
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, SciStreamError):
            raise found
        return [found]

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def _drain(server: _Server, patience: float = 60.0) -> bool:
    connection = cast("Connection", server)
    return drain_session(connection, _UID, None, patience=patience, clock=server.clock, pause=server.pause)


def test_a_session_is_drained_until_it_is_gone() -> None:
    server = _Server([_draining(2), _draining(1), _GONE])
    assert _drain(server)
    assert server.drained == [(_UID, None)]


def test_patience_ends() -> None:
    server = _Server([_draining(1)])
    assert not _drain(server, 10.0)
    assert 10.0 <= server.now < 11.0


def test_how_many_connections_are_left_is_told_at_each_look() -> None:
    left: list[int] = []

    def go_on(number: int) -> bool:
        left.append(number)
        return True

    server = _Server([_draining(2), _draining(1), _GONE])
    assert await_drained(cast("Connection", server), _UID, None, go_on=go_on, pause=server.pause)
    assert left == [2, 1]


@pytest.mark.parametrize("state", ["failed", "active"])
def test_what_drains_no_longer_is_not_waited_for(state: str) -> None:
    server = _Server([_draining(1), replace(_ACTIVE, state=state)])
    with pytest.raises(SciStreamError) as caught:
        await_drained(cast("Connection", server), _UID, None, go_on=lambda _: True, pause=server.pause)
    assert caught.value.code is Code.SESSION_NOT_ACTIVE
    assert state in caught.value.seen


def test_what_carries_nothing_is_left_to_be_released() -> None:
    refusal = SciStreamError(Code.SESSION_NOT_ACTIVE, uid=_UID, state="failed", what="draining")
    assert not _drain(_Server([_draining(1)], refusal))
    assert _drain(_Server([_draining(1)], _GONE))


def test_an_old_server_that_cannot_drain_says_so() -> None:
    refusal = SciStreamError(Code.OLD_CONTROL_SERVER, server="x", operation="drain a session")
    with pytest.raises(SciStreamError) as caught:
        _drain(_Server([_draining(1)], refusal))
    assert caught.value is refusal
