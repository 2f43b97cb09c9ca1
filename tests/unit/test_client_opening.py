from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from scistream.addresses import Endpoint
from scistream.client.channel import Connection
from scistream.client.comparison import Wish
from scistream.client.opening import open_with_ticket
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid

_REQUEST = SessionRequest(Uid("abc"), Direction.OUTBOUND, (Endpoint("x", 1),), 1)
_SESSION = Session.untold(Uid("abc"), Direction.OUTBOUND, ("y:1",), (Endpoint("x", 1),), 1, 0)
_CONNECTION = cast("Connection", SimpleNamespace(control_server=SimpleNamespace(timeout=30.0)))


def _exhausted(**facts: Any) -> SciStreamError:
    return SciStreamError(Code.PORTS_EXHAUSTED, wanted=2, free=1, size=2, range="1-2", others="", **facts)


def _open(*outcomes: Any) -> tuple[Session, list[float]]:
    left, pauses = list(outcomes), list[float]()

    def opened(*_: Any) -> Session:
        outcome = left.pop(0)
        if isinstance(outcome, SciStreamError):
            raise outcome
        return cast("Session", outcome)

    session = open_with_ticket(_CONNECTION, Wish(_REQUEST), opened, pause=pauses.append)
    return session, pauses


def test_ports_that_rest_for_a_moment_are_waited_for() -> None:
    session, pauses = _open(_exhausted(retry_after=0.75), _exhausted(retry_after=0.25), _SESSION)
    assert session is _SESSION
    assert pauses == pytest.approx([0.8, 0.3])


@pytest.mark.parametrize("facts", [{}, {"retry_after": 60.0}, {"retry_after": -1.0}, {"retry_after": "soon"}])
def test_nobody_waits_for_ports_that_are_not_about_to_be_free(facts: dict[str, Any]) -> None:
    error = _exhausted(**facts)
    with pytest.raises(SciStreamError) as caught:
        _open(error, _SESSION)
    assert caught.value is error
