"""A session gets other targets, against a control server that is a list of answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from scistream.addresses import Endpoint
from scistream.client import Action, Connection, ControlServer, SessionRequest, ensure_session, plan_session
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

_UID = Uid("abc")
_OLD, _NEW = Endpoint("localhost", 5074), Endpoint("localhost", 5075)
_REQUEST = SessionRequest(_UID, Direction.INBOUND, (_NEW,), 1, encryption=Encryption.NONE)
_RUNNING = dataclasses.replace(
    Session.untold(_UID, Direction.INBOUND, ("192.0.2.7:5100",), (_OLD,), 1, 0), engine="haproxy", encryption="none"
)


@dataclass
class _Server:
    """Stands where a Connection stands."""

    refusal: SciStreamError | None = None
    session: Session = _RUNNING
    calls: list[str] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.control_server = ControlServer(Endpoint("gateway.example", 5000))

    def describe(self, *_: Any) -> list[Session]:
        return [self.session]

    def update(self, uid: Uid, direction: Direction, targets: tuple[Endpoint, ...], *, key: bytes | None) -> None:
        self.calls.append("update")
        self.keys.append(key)
        if self.refusal:
            raise self.refusal
        self.session = dataclasses.replace(self.session, targets=tuple(map(str, targets)))

    def server_facts(self) -> Any:
        raise SciStreamError(Code.OLD_CONTROL_SERVER, server="x", operation="tell what it is")

    def release(self, *_: Any, **__: Any) -> None:
        self.calls.append("release")


def _opener(connection: Connection, request: SessionRequest) -> Session:
    cast("_Server", connection).calls.append("open")
    return dataclasses.replace(_RUNNING, targets=tuple(map(str, request.targets)))


def _ensure(server: _Server, request: SessionRequest = _REQUEST, **more: Any) -> Any:
    return ensure_session(cast("Connection", server), request, **more)


def test_u29_a_plan_tells_that_a_session_would_be_retargeted_and_touches_nothing() -> None:
    server = _Server()
    told = plan_session(cast("Connection", server), _REQUEST)
    assert (told.changed, told.action, server.calls) == (True, Action.RETARGETED, [])
    assert told.after == _RUNNING.as_dict() | {"targets": ["localhost:5075"]}


def test_u29_a_session_is_told_its_new_targets_and_not_released() -> None:
    server = _Server()
    told = _ensure(server)
    assert (told.changed, told.action, told.warnings, server.calls) == (True, Action.RETARGETED, (), ["update"])
    assert _ensure(server).action is Action.NOTHING
    assert server.calls == ["update"]


def test_u29_the_key_of_the_other_end_goes_along() -> None:
    key = bytes(range(32))
    for encryption in (Encryption.TLS, Encryption.NONE):
        running = dataclasses.replace(_RUNNING, direction=Direction.OUTBOUND, encryption=encryption.value)
        server = _Server(session=running)
        request = dataclasses.replace(_REQUEST, direction=Direction.OUTBOUND, key=key, encryption=encryption)
        _ensure(server, request)
        # Where nothing is encrypted, the gateway has no business with it.
        assert server.keys == [key if encryption is Encryption.TLS else None]


@pytest.mark.parametrize(
    "refusal",
    [
        SciStreamError(Code.ENGINE_CANNOT, engine="Nginx", reason="it has ended"),
        SciStreamError(Code.TARGET_IN_USE, uid=_UID, differences="the session key"),
    ],
)
def test_u29_what_cannot_be_retargeted_is_opened_anew_with_a_warning(
    refusal: SciStreamError, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = _Server(refusal)
    monkeypatch.setattr("scistream.client.convergence.open_session", _opener)
    told = _ensure(server, opener=_opener)
    assert (told.changed, told.action, server.calls) == (True, Action.REOPENED, ["update", "release", "open"])
    (warning,) = told.warnings
    assert warning.startswith(f"The targets of session abc could not be changed while it ran ({refusal.seen}): ")
    assert warning.endswith("it was released and opened anew, which cut its connections.")


def test_any_other_failure_leaves_the_session_alone() -> None:
    refusal = SciStreamError(Code.CONFIGURATION_REJECTED, engine="Nginx", uid=_UID, output="no such host")
    server = _Server(refusal)
    with pytest.raises(SciStreamError) as caught:
        _ensure(server)
    assert caught.value is refusal
    assert server.calls == ["update"]
