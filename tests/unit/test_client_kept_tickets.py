"""Tickets that nobody named a place for: one is never lost to another session's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from scistream.addresses import Endpoint, parse_endpoints
from scistream.client import (
    Action,
    Connection,
    ControlServer,
    SessionRequest,
    Ticket,
    ensure_session,
    kept_ticket,
    place_for,
    plan_session,
    tickets,
)
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

_UID = Uid("abc")
_HERE, _THERE = Endpoint("here.example", 5000), Endpoint("there.example", 5000)
_TARGETS = (Endpoint("localhost", 5074),)
_REQUEST = SessionRequest(_UID, Direction.INBOUND, _TARGETS, 1, encryption=Encryption.NONE)
_THERE_ALREADY = dataclasses.replace(
    Session.untold(_UID, Direction.INBOUND, ("192.0.2.7:5100",), _TARGETS, 1, 0), engine="haproxy", encryption="none"
)
_TICKET = Ticket(_UID, "", parse_endpoints(_THERE_ALREADY.entry_points), 1, _THERE, _TARGETS, bytes(32))


@dataclasses.dataclass
class _Server:
    """Stands where a Connection stands; it opens nothing."""

    sessions: list[Session] | None = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.control_server = ControlServer(_HERE)

    def describe(self, uid: Uid, _: Direction) -> list[Session]:
        if self.sessions is None:
            raise SciStreamError(Code.OLD_CONTROL_SERVER, server="x", operation="tell of its sessions")
        if not self.sessions:
            raise SciStreamError(Code.UID_UNKNOWN, uid=uid)
        return self.sessions


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a ticket of a session on another control server is kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = place_for(_UID)
    assert path
    tickets.write(path, _TICKET)
    return path


def _act(act: Callable[..., Any], server: _Server, request: SessionRequest = _REQUEST, **more: Any) -> Any:
    return act(cast("Connection", server), request, **more)


@pytest.mark.parametrize("act", [ensure_session, plan_session])
@pytest.mark.parametrize(
    "sessions", [[], [dataclasses.replace(_THERE_ALREADY, entry_points=("192.0.2.7:5109",))], None]
)
def test_the_kept_ticket_of_another_control_server_is_not_overwritten(
    act: Callable[..., Any], sessions: list[Session] | None, place: Path
) -> None:
    with pytest.raises(SciStreamError) as caught:
        _act(act, _Server(sessions), ticket=place)
    assert caught.value.code is Code.KEPT_TICKET_ELSEWHERE
    assert f"the ticket {place} is of session abc on there.example:5000" in caught.value.seen
    assert "s2uc release abc --s2cs there.example:5000" in caught.value.remedy
    assert "--ticket FILE (module: ticket)" in caught.value.remedy
    assert kept_ticket(_UID) == _TICKET


def test_a_session_that_is_there_is_known_by_whatever_name_its_control_server_was_called(place: Path) -> None:
    assert _act(ensure_session, _Server([_THERE_ALREADY]), ticket=place).action is Action.NOTHING
    assert kept_ticket(_UID) == _TICKET


def test_a_ticket_whose_place_was_named_is_that_users_to_overwrite(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "t.json"
    tickets.write(named, _TICKET)
    monkeypatch.setattr(
        "scistream.client.convergence.open_with_ticket", lambda _, wish, opener: tickets.write(wish.ticket, _NEW)
    )
    assert _act(ensure_session, _Server(), ticket=named).action is Action.OPENED
    assert (tickets.read(named), kept_ticket(_UID)) == (_NEW, _TICKET)


_NEW = dataclasses.replace(_TICKET, control_server=_HERE)
