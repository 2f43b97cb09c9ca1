from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.client import SessionRequest, kept_ticket, own_place, tickets
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, Transport, Uid

_KEY = bytes(range(32))
# What the first tickets did not have.
_NEW = {"encryption", "transport", "deployed", "half_close", "engine"}
_TICKET = Ticket(
    uid=Uid("abc-1"),
    name="beamline 7",
    entry_points=(Endpoint("192.0.2.7", 5100), Endpoint("2001:db8::7", 5101)),
    connections=2,
    control_server=Endpoint("gateway.example", 5000),
    targets=(Endpoint("localhost", 5074),),
    key=_KEY,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ticket.json"


def _refusal(path: Path) -> SciStreamError:
    with pytest.raises(SciStreamError) as caught:
        tickets.read(path)
    assert caught.value.code is Code.BAD_TICKET
    assert str(path) in str(caught.value)
    assert _KEY.hex() not in str(caught.value)
    return caught.value


def _forge(path: Path, **fields: Any) -> None:
    tickets.write(path, _TICKET)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_was_written_is_read(path: Path) -> None:
    flags = {"deployed": True, "half_close": True}
    other = replace(_TICKET, transport=Transport.UDP, encryption=Encryption.NONE, engine="nginx", **flags)
    for ticket in (_TICKET, other):
        tickets.write(path, ticket)
        assert tickets.read(path) == ticket
    assert json.loads(path.read_text())["version"] == 1


def test_u72_what_one_ends_application_needs_the_other_end_keeps_too() -> None:
    asked = SessionRequest.of_ticket(replace(_TICKET, encryption=Encryption.TLS, half_close=True))
    assert asked.half_close
    assert not SessionRequest.of_ticket(replace(_TICKET, encryption=Encryption.TLS)).half_close
    assert SessionRequest.of_ticket(replace(_TICKET, encryption=Encryption.TLS), half_close=True).half_close


def test_u72_the_outbound_end_is_told_the_inbound_ends_engine() -> None:
    asked = SessionRequest.of_ticket(replace(_TICKET, encryption=Encryption.TLS, engine="nginx"))
    assert asked.peer == "nginx"


@pytest.mark.parametrize("engine", ["two words", "ngin\u00fc", "a\nb", "x" * 65, 7, None])
def test_an_engine_that_is_no_word_is_refused(path: Path, engine: object) -> None:
    _forge(path, engine=engine)
    assert "engine" in str(_refusal(path))


def test_a_ticket_without_a_place_is_kept_by_its_uid_for_its_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    uid, server = _TICKET.uid, _TICKET.control_server
    assert (kept_ticket(uid), own_place(uid, server)) == (None, None)
    place = tickets.place_of(uid)
    assert place == tmp_path / "state/scistream/tickets/abc-1"
    tickets.write(place, _TICKET)
    assert kept_ticket(uid) == _TICKET
    assert own_place(uid, server) == place
    # The outbound end has the same uid, on another control server.
    assert own_place(uid, Endpoint("elsewhere.example", 5000)) is None
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.parent, place)] == [0o700, 0o600]
    place.write_text("no ticket any more")
    assert own_place(uid, server) is None
    with pytest.raises(SciStreamError) as caught:
        kept_ticket(uid)
    assert caught.value.code is Code.BAD_TICKET


def test_a_state_directory_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(SciStreamError) as caught:
        tickets.write(tickets.place_of(_TICKET.uid), _TICKET)
    assert caught.value.code is Code.FILE_UNWRITABLE


def test_a_ticket_tells_the_encryption_and_an_earlier_one_by_its_key(path: Path) -> None:
    for encryption in Encryption:
        _forge(path, encryption=encryption.value)
        assert tickets.read(path).encryption is encryption
    _forge(path, encryption="")
    assert tickets.read(path).encryption is None
    for key, known in ((_KEY.hex(), Encryption.TLS_PSK), (None, None)):
        _forge(path, key=key)
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in _NEW}))
        held = tickets.read(path)
        assert (held.encryption, held.transport, held.deployed) == (known, Transport.TCP, False)
    for wrong in ("rot13", ["none"], None, 1):
        _forge(path, encryption=wrong)
        assert "'encryption'" in str(_refusal(path))


def test_u05_a_ticket_is_its_owners_and_its_key_is_not_shown(path: Path) -> None:
    path.write_text("an older one that others could read")
    path.chmod(0o644)
    tickets.write(path, _TICKET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _KEY.hex() not in repr(_TICKET)
    assert repr(_KEY) not in repr(_TICKET)
    assert len(tickets.new_key()) == 32
    assert tickets.new_key() != tickets.new_key()


def test_a_ticket_is_written_whole_or_not_at_all(path: Path) -> None:
    with pytest.raises(SciStreamError) as caught:
        tickets.write(path.parent / "none" / "ticket.json", _TICKET)
    assert caught.value.code is Code.FILE_UNWRITABLE
    path.mkdir()
    with pytest.raises(SciStreamError):
        tickets.write(path, _TICKET)
    assert [entry.name for entry in path.parent.iterdir()] == ["ticket.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_ticket_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    tickets.write(path, _TICKET)
    path.chmod(mode)
    assert f"chmod 600 {path}" in str(_refusal(path))


def test_a_missing_ticket_is_told(path: Path) -> None:
    assert "No such file" in str(_refusal(path))


def test_a_pipe_in_its_place_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path, 0o600)
    assert "it is not a file" in str(_refusal(path))


def test_a_ticket_is_no_place_for_much(path: Path) -> None:
    path.touch(0o600)
    path.write_text(" " * 70_000)
    assert "larger than 65536 bytes" in str(_refusal(path))


@pytest.mark.parametrize("content", ["", "{", "\x00", "[" * 40_000, f'{{"key": "{_KEY.hex()}"', '{"version": 1e999}'])
def test_what_is_no_json_object_is_refused(path: Path, content: str) -> None:
    path.touch(0o600)
    path.write_text(content)
    _refusal(path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("version", 2, "'version'"),
        ("version", True, "'version'"),
        ("version", 1.0, "'version'"),
        ("uid", "../etc/passwd", "is not a uid"),
        ("uid", 7, "'uid'"),
        ("name", "two\nlines", "is not a session name"),
        ("entry_points", [], "'entry_points'"),
        ("entry_points", "192.0.2.7:5100", "'entry_points'"),
        ("entry_points", ["192.0.2.7:5100\nserver x"], "is not a port"),
        ("entry_points", [5100], "'entry_points'"),
        ("connections", True, "'connections'"),
        ("connections", 10**9, "1 to 1024"),
        ("connections", 1.5, "'connections'"),
        ("control_server", None, "'control_server'"),
        ("targets", ["nowhere"], "the port is missing"),
        ("key", "f" * 62, "'key'"),
        ("key", "no key", "'key'"),
        ("key", 7, "'key'"),
        ("transport", "sctp", "'transport'"),
        ("transport", None, "'transport'"),
        ("deployed", "no", "'deployed'"),
    ],
)
def test_u07_u08_every_field_of_another_facility_is_checked(path: Path, field: str, value: Any, words: str) -> None:
    _forge(path, **{field: value})
    assert words in str(_refusal(path))
