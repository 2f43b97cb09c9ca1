from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint, parse_endpoints, parse_networks
from scistream.client import tickets
from scistream.client.comparison import Action, Wish, decide, differences, displaced, make_wish, outcome
from scistream.client.facts import read_facts
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session, reachable, read_event, read_session
from scistream.client.tickets import Ticket
from scistream.errors import Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.terms import MOCK_UID, Direction, Encryption, Transport, Uid

_UID = Uid("abc")
_KEY = bytes(range(32))
_ENTRY_POINTS = ("192.0.2.7:5100", "192.0.2.7:5101")
_TARGETS = (Endpoint("localhost", 5074), Endpoint("::1", 5075))
_ENCRYPTED = SessionRequest(_UID, Direction.INBOUND, _TARGETS, 2)
_REQUEST = dataclasses.replace(_ENCRYPTED, encryption=Encryption.NONE)
_SESSION = dataclasses.replace(
    Session.untold(_UID, Direction.INBOUND, _ENTRY_POINTS, _TARGETS, 2, 10000), engine="haproxy", encryption="none"
)
_KEYED = dataclasses.replace(_SESSION, engine="stunnel", encryption="tls-psk")


def _ticket(**changes: Any) -> Ticket:
    whole = Ticket(_UID, "", parse_endpoints(_ENTRY_POINTS), 2, Endpoint("192.0.2.7", 5000), _TARGETS, _KEY)
    return dataclasses.replace(whole, **changes)


def test_what_is_as_wished_is_left_alone() -> None:
    decision = decide(Wish(_REQUEST), _SESSION)
    told = outcome(Wish(_REQUEST), decision, _SESSION)
    assert (decision.opens, told.changed, told.differences, told.warnings) == (False, False, (), ())
    assert told.before == told.after == _SESSION.as_dict()


def test_what_is_absent_is_opened() -> None:
    told = outcome(Wish(_REQUEST), decide(Wish(_REQUEST), None), _SESSION)
    assert (told.changed, told.before, told.after) == (True, None, _SESSION.as_dict())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "failed", "failure": "haproxy died"}, "state failed (haproxy died)"),
        ({"state": "requested"}, "state requested"),
        ({"connections": 5}, "connections 5, not 2"),
        ({"connections": 5, "targets": ()}, "connections 5, not 2 targets , not"),
        ({"state": "draining", "targets": ("localhost:5074",)}, "state draining targets"),
    ],
)
def test_what_differs_is_opened_anew_and_named(changes: dict[str, Any], words: str) -> None:
    decision = decide(Wish(_REQUEST), dataclasses.replace(_SESSION, **changes))
    assert (decision.opens, decision.retargets, decision.action) == (True, False, Action.REOPENED)
    assert words in " ".join(decision.differences)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("localhost:5074",), "targets localhost:5074, not localhost:5074, [::1]:5075"),
        (("[::1]:5075", "localhost:5074"), "targets [::1]:5075, localhost:5074, not"),
        ((), "targets , not"),
    ],
)
def test_where_nothing_but_the_targets_differs_the_session_runs_on(targets: tuple[str, ...], words: str) -> None:
    decision = decide(Wish(_REQUEST), dataclasses.replace(_SESSION, targets=targets))
    assert (decision.opens, decision.retargets, decision.writes_ticket) == (False, True, False)
    assert words in " ".join(decision.differences)
    told = outcome(Wish(_REQUEST), decision, _SESSION)
    assert (told.changed, told.action) == (True, Action.RETARGETED)


def test_the_ticket_of_a_retargeted_session_tells_its_new_targets(tmp_path: Path) -> None:
    wish = Wish(_ENCRYPTED, tmp_path / "ticket.json", "", _ticket())
    decision = decide(wish, dataclasses.replace(_KEYED, targets=("localhost:1",)))
    assert (decision.opens, decision.retargets, decision.writes_ticket) == (False, True, True)


def test_other_targets_do_not_bring_a_lost_key_back(tmp_path: Path) -> None:
    wish = Wish(_ENCRYPTED, tmp_path / "ticket.json")
    decision = decide(wish, dataclasses.replace(_KEYED, targets=("localhost:1",)))
    assert (decision.opens, decision.retargets) == (True, False)
    assert decision.differences[-1] == "its key is lost"


def test_addresses_are_compared_by_value_and_used_in_turn() -> None:
    spelled = dataclasses.replace(_SESSION, targets=("LOCALHOST:5074", "[0:0::1]:5075"))
    assert differences(spelled, _REQUEST) == ()
    spread = dataclasses.replace(_SESSION, targets=("localhost:5074", "localhost:5074"))
    assert differences(spread, dataclasses.replace(_REQUEST, targets=_TARGETS[:1])) == ()


def test_a_session_whose_key_is_lost_is_opened_anew_with_a_warning(tmp_path: Path) -> None:
    for held in (None, _ticket(key=None), _ticket(entry_points=parse_endpoints(["192.0.2.7:5109"]))):
        wish = Wish(_ENCRYPTED, tmp_path / "ticket.json", "", held)
        decision = decide(wish, _KEYED)
        assert decision.opens
        assert "The key of session abc is lost" in decision.warnings[0]
        assert str(tmp_path / "ticket.json") in decision.warnings[0]


def test_a_session_with_its_ticket_is_left_alone_whatever_the_server_is_called(tmp_path: Path) -> None:
    held = _ticket(entry_points=parse_endpoints(["gateway:5100", "gateway:5101"]))
    decision = decide(Wish(_ENCRYPTED, tmp_path / "ticket.json", "", held), _KEYED)
    assert not decision.opens


def test_a_ticket_is_written_again_where_it_has_other_entry_points_than_were_said(tmp_path: Path) -> None:
    held = _ticket(entry_points=parse_endpoints(["10.1.0.1:5100", "10.1.0.1:5101"]))
    wish = Wish(_ENCRYPTED, tmp_path / "ticket.json", "", held)
    decision = decide(wish, _KEYED, reached_by="192.0.2.7")
    assert (decision.action, decision.opens) == (Action.TICKET_WRITTEN, False)
    assert decision.differences == (f"other entry points in the ticket {wish.ticket}",)
    assert displaced(wish, decision) is None
    as_wished = Wish(_ENCRYPTED, tmp_path / "ticket.json", "", _ticket())
    assert decide(as_wished, _KEYED, reached_by="192.0.2.7").action is Action.NOTHING


def test_a_ticket_without_a_key_is_simply_written_again(tmp_path: Path) -> None:
    wish = Wish(_REQUEST, tmp_path / "ticket.json")
    decision = decide(wish, _SESSION)
    told = outcome(wish, decision, _SESSION)
    assert (decision.opens, decision.writes_ticket, told.changed) == (False, True, True)
    assert told.before
    assert told.after
    assert (told.before["ticket"], told.after["ticket"]) == (None, str(tmp_path / "ticket.json"))


def test_a_session_with_a_key_and_without_a_ticket_draws_a_warning() -> None:
    told = outcome(Wish(_ENCRYPTED), decide(Wish(_ENCRYPTED), None), _KEYED)
    assert "no ticket was asked for" in told.warnings[0]


def test_the_key_is_the_tickets_or_new() -> None:
    assert Wish(_REQUEST, None, "", _ticket()).keyed_request.key == _KEY
    assert len(Wish(_REQUEST).keyed_request.key or b"") == 32
    assert Wish(_REQUEST).keyed_request.key != Wish(_REQUEST).keyed_request.key
    outbound = dataclasses.replace(_REQUEST, direction=Direction.OUTBOUND)
    assert Wish(outbound).keyed_request.key is None


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("encryption", [each for each in Encryption if each is not Encryption.NONE])
def test_u06_the_mock_uid_never_carries_a_key(direction: Direction, encryption: Encryption) -> None:
    with pytest.raises(SciStreamError) as caught:
        dataclasses.replace(_REQUEST, uid=Uid(MOCK_UID), key=_KEY, direction=direction, encryption=encryption)
    assert caught.value.code is Code.UID_PUBLISHED
    assert "say --encryption none" in caught.value.remedy
    plain = dataclasses.replace(_REQUEST, uid=Uid(MOCK_UID), direction=direction)
    assert Wish(plain).keyed_request.sent_key is None


def test_a_key_is_sent_where_the_encryption_needs_it_and_nowhere_else() -> None:
    for encryption, sent in (("tls", _KEY), ("tls-psk", _KEY), ("none", None), ("legacy-psk", None)):
        request = dataclasses.replace(_REQUEST, key=_KEY, encryption=Encryption(encryption))
        assert request.sent_key == sent


def test_the_ticket_of_another_session_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ticket.json"
    tickets.write(path, _ticket(uid=Uid("other")))
    with pytest.raises(SciStreamError) as caught:
        make_wish(_REQUEST, path, "")
    assert caught.value.code is Code.BAD_TICKET
    assert "it is of session other, and abc is wished for" in str(caught.value)


def test_the_key_goes_into_a_ticket_only_where_it_is_used() -> None:
    server = Endpoint("192.0.2.7", 5000)
    assert tickets.of_session(_KEYED, control_server=server, key=_KEY) == _ticket(
        encryption=Encryption.TLS_PSK, engine="stunnel"
    )
    plain = tickets.of_session(_SESSION, control_server=server, key=_KEY)
    assert plain == _ticket(key=None, encryption=Encryption.NONE, engine=_SESSION.engine)
    udp = tickets.of_session(dataclasses.replace(_SESSION, transport="udp"), control_server=server)
    assert udp == dataclasses.replace(plain, transport=Transport.UDP)


def test_the_ticket_of_a_deployed_end_tells_what_was_asked_for() -> None:
    untold = dataclasses.replace(_SESSION, encryption="", engine="")
    ticket = tickets.of_session(untold, control_server=Endpoint("192.0.2.7", 5000), key=_KEY, asked=Encryption.NONE)
    assert (ticket.encryption, ticket.deployed, ticket.key) == (Encryption.NONE, True, None)


def test_a_wildcard_entry_point_is_where_its_server_was_called() -> None:
    server = Endpoint("gateway.example", 5000)
    told = ("0.0.0.0:5100", "[::]:5101", "192.0.2.7:5102")
    assert reachable(told, server) == ("gateway.example:5100", "gateway.example:5101", "192.0.2.7:5102")
    assert reachable(["0.0.0.0:5100"], Endpoint("::1", 5000)) == ("[::1]:5100",)


def test_entry_points_on_the_loopback_of_an_ssh_host_are_reached_by_that_host() -> None:
    told, server = ["127.0.0.1:5100", "[::1]:5101", "0.0.0.0:5102", "192.0.2.7:5103"], Endpoint("gateway.example", 5000)
    names = ("gateway.example:5100", "gateway.example:5101", "gateway.example:5102", "192.0.2.7:5103")
    assert reachable(told, server, is_hidden=True) == names
    assert reachable(told[:1], server) == ("127.0.0.1:5100",)


def test_what_was_called_is_told_as_others_reach_it() -> None:
    told, others = ["10.1.0.1:5100", "0.0.0.0:5101", "10.1.0.9:5102"], Endpoint("gateway.example", 5000)
    names = ("gateway.example:5100", "gateway.example:5101", "10.1.0.9:5102")
    assert reachable(told, others, called={"10.1.0.1", "gateway.lan"}) == names


def test_a_session_is_read_from_the_wire_by_parsing() -> None:
    message = wire.Session(uid="abc", direction="inbound", state="active", entry_points=["[::1]:5100"])
    message.failure = "two\nlines\x1b[2J"
    session = read_session(message, Endpoint("localhost", 5000))
    assert session.entry_points == ("[::1]:5100",)
    assert session.as_dict()["direction"] == "inbound"
    assert session.failure == "two lines [2J"
    for field, value in (("uid", "../x"), ("direction", "up")):
        bad = wire.Session(**({"uid": "abc", "direction": "inbound"} | {field: value}))
        with pytest.raises(SciStreamError):
            read_session(bad, Endpoint("localhost", 5000))


def test_facts_are_plain_data_and_tell_the_encryption_in_use() -> None:
    udp = wire.Ability(feature="UDP", can=False, words="it carries\nTCP only")
    engines = [
        wire.Engine(name="haproxy", encryption="tls", encryptions=["tls", "none"], abilities=[udp], privileges="none"),
        wire.Engine(name="stunnel", encryption="tls-psk"),
    ]
    facts = read_facts(wire.ServerFacts(version="0.1.0", engine="stunnel", engines=engines, certificate_names=["a"]))
    assert facts.in_use
    # One from before encryption was asked for tells one word.
    assert facts.in_use.offered == ("tls-psk",)
    told = facts.as_dict()
    assert told["engines"][0] == {
        "name": "haproxy",
        "installed": False,
        "version": "",
        "program": "",
        "encryption": "tls",
        "can_limit_rate": False,
        "encryptions": ["tls", "none"],
        "abilities": [{"feature": "UDP", "can": False, "words": "it carries TCP only"}],
        "privileges": "none",
    }
    assert told["certificate_names"] == ["a"]


def test_targets_that_an_application_controller_names_are_good_as_they_are() -> None:
    request = dataclasses.replace(_REQUEST, targets=())
    assert decide(Wish(request), _SESSION).retargets
    assert decide(Wish(request, any_targets=True), _SESSION).action is Action.NOTHING


def test_an_outbound_session_of_another_encryption_is_not_as_wished() -> None:
    request = dataclasses.replace(
        _REQUEST, encryption=Encryption.TLS_PSK, direction=Direction.OUTBOUND, key=bytes(range(32))
    )
    assert differences(_SESSION, request) == ("encryption none, not tls-psk",)
    assert differences(_KEYED, request) == ()
    assert differences(dataclasses.replace(_SESSION, encryption="tls"), request) == ("encryption tls, not tls-psk",)
    assert differences(dataclasses.replace(_SESSION, encryption=""), request) == ()


def test_an_inbound_session_that_is_encrypted_is_as_wished_in_whatever_way() -> None:
    for encryption in ("tls", "tls-psk"):
        assert differences(dataclasses.replace(_SESSION, encryption=encryption), _ENCRYPTED) == ()
    for encryption in ("none", "legacy-psk"):
        readable = dataclasses.replace(_SESSION, encryption=encryption)
        assert differences(readable, _ENCRYPTED) == (f"encryption {encryption}, not tls",)
    assert differences(_KEYED, _REQUEST) == ("encryption tls-psk, not none",)


@pytest.mark.parametrize(
    ("there", "wished", "words"),
    [
        ({"transport": "udp"}, {}, "transport udp, not tcp"),
        ({}, {"transport": Transport.UDP}, "transport tcp, not udp"),
        ({}, {"sources": parse_networks("192.0.2.0/24,::1")}, "sources all, not 192.0.2.0/24, ::1/128"),
        ({"sources": ("192.0.2.0/24",)}, {}, "sources 192.0.2.0/24, not all"),
        ({}, {"half_close": True}, "half-close False, not True"),
    ],
)
def test_how_bytes_are_carried_is_a_difference_that_opens_anew(
    there: dict[str, Any], wished: dict[str, Any], words: str
) -> None:
    decision = decide(Wish(dataclasses.replace(_REQUEST, **wished)), dataclasses.replace(_SESSION, **there))
    assert (decision.action, decision.differences) == (Action.REOPENED, (words,))


def test_a_session_that_keeps_more_than_was_wished_for_is_left_alone() -> None:
    there = dataclasses.replace(_SESSION, half_close=True)
    assert decide(Wish(_REQUEST), there).action is Action.NOTHING
    assert decide(Wish(dataclasses.replace(_REQUEST, half_close=True)), there).action is Action.NOTHING


def test_u57_a_rate_that_nobody_asked_for_is_no_difference() -> None:
    # What an old client sends with every request, and a rate that somebody else asked for.
    for rate in (0, 10000, 7):
        assert differences(dataclasses.replace(_SESSION, rate=rate), _REQUEST) == ()
    asked = dataclasses.replace(_REQUEST, rate=7)
    assert differences(dataclasses.replace(_SESSION, rate=7), asked) == ()
    assert differences(dataclasses.replace(_SESSION, rate=0), asked) == ("rate none, not 7",)
    assert differences(dataclasses.replace(_SESSION, rate=9), asked) == ("rate 9, not 7",)


def test_u53_ports_are_as_wished_where_they_were_named() -> None:
    asked = dataclasses.replace(_REQUEST, ports=(5100, 5101))
    assert differences(_SESSION, asked) == ()
    other = dataclasses.replace(_REQUEST, ports=(5111, 5112))
    assert differences(_SESSION, other) == ("ports 5100, 5101, not 5111, 5112",)


def test_a_lease_of_another_length_is_no_reason_to_open_anew() -> None:
    request = dataclasses.replace(_REQUEST, lease=60.0)
    assert not decide(Wish(request), dataclasses.replace(_SESSION, lease_expires=1.0)).opens


def test_an_event_is_read_with_its_session() -> None:
    message = wire.Event(time=5.0, kind="failed", words="the lease\nended")
    message.session.CopyFrom(
        wire.Session(uid="abc", direction="outbound", state="failed", entry_points=["0.0.0.0:5100"])
    )
    event = read_event(message, Endpoint("gateway.example", 5000))
    assert (event.kind, event.words, event.session.entry_points) == (
        "failed",
        "the lease ended",
        ("gateway.example:5100",),
    )
    assert event.as_dict()["session"] == event.session.as_dict()
    assert event.as_dict()["time"] == 5.0


def test_what_has_been_carried_is_plain_data() -> None:
    message = wire.Session(uid="abc", direction="inbound", lease_expires=7.5, idle_since=3.5, restarts=2)
    message.traffic.CopyFrom(wire.Traffic(connections_open=1, connections_total=4, bytes_from_targets=2**40))
    told = read_session(message, Endpoint("localhost", 5000)).as_dict()
    assert (told["lease_expires"], told["idle_since"], told["restarts"]) == (7.5, 3.5, 2)
    assert told["traffic"] == {
        "connections_open": 1,
        "connections_total": 4,
        "bytes_to_targets": 0,
        "bytes_from_targets": 2**40,
        "refused_peers": 0,
    }
