"""Streams as they are wished for: what is asked of each end, and where their entry points are reached."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scistream.addresses import Endpoint, parse_networks
from scistream.client import ControlServer, Session, Ticket
from scistream.client.comparison import Action, Outcome
from scistream.client.streams import StreamEnd, StreamEnds, StreamOutcome, StreamWish
from scistream.errors import Code, SciStreamError
from scistream.hops import parse_via
from scistream.terms import Direction, Encryption, Transport, Uid

_UID = Uid("beam")
_TARGETS = (Endpoint("10.0.0.5", 5074), Endpoint("10.0.0.5", 5075))
_GATEWAY = ControlServer(Endpoint("192.0.2.7", 5000))


def session(*entry_points: str, encryption: str = "tls", engine: str = "haproxy") -> Session:
    untold = Session.untold(_UID, Direction.INBOUND, entry_points, _TARGETS, 2, 0, encryption)
    return dataclasses.replace(untold, engine=engine)


def test_entry_points_are_told_as_others_reach_them() -> None:
    end = StreamEnd(_GATEWAY, "198.51.100.7")
    assert end.reached(session("192.0.2.7:5100", "192.0.2.7:5101")).entry_points == (
        "198.51.100.7:5100",
        "198.51.100.7:5101",
    )


def test_entry_points_that_the_control_server_names_stay() -> None:
    assert StreamEnd(_GATEWAY, "198.51.100.7").reached(session("10.1.0.1:5100")).entry_points == ("10.1.0.1:5100",)
    assert StreamEnd(_GATEWAY).reached(session("192.0.2.7:5100")).entry_points == ("192.0.2.7:5100",)


def test_an_address_that_belongs_to_the_name_that_was_called_is_the_one_that_is_called() -> None:
    named = ControlServer(Endpoint("localhost", 5000))
    assert StreamEnd(named, "198.51.100.7").reached(session("127.0.0.1:5100")).entry_points == ("198.51.100.7:5100",)
    assert StreamEnd(named, "198.51.100.7").reached(session("10.1.0.1:5100")).entry_points == ("10.1.0.1:5100",)


@pytest.mark.parametrize("told", ["127.0.0.1:5100", "gateway.example:5100"])
def test_behind_ssh_the_loopback_and_the_gateways_name_are_both_the_one_that_is_called(told: str) -> None:
    hidden = ControlServer(Endpoint("127.0.0.1", 5000), via=parse_via("ssh://operator@gateway.example"))
    assert StreamEnd(hidden, "198.51.100.7").reached(session(told)).entry_points == ("198.51.100.7:5100",)


def test_an_ipv6_address_gets_its_brackets() -> None:
    end = StreamEnd(_GATEWAY, "2001:db8::7")
    assert end.reached(session("192.0.2.7:5100")).entry_points == ("[2001:db8::7]:5100",)


def test_the_outbound_end_is_closed_first() -> None:
    end = StreamEnd(_GATEWAY)
    assert [direction for direction, _ in StreamEnds(end, end)] == [Direction.OUTBOUND, Direction.INBOUND]
    assert [direction for direction, _ in StreamEnds(inbound=end)] == [Direction.INBOUND]


def test_each_end_has_the_sources_of_its_own() -> None:
    wish = StreamWish(_UID, _TARGETS, rate=100, lease=60.0, half_close=True)
    near = StreamEnd(_GATEWAY, sources=parse_networks("198.51.100.0/24"))
    far = StreamEnd(_GATEWAY, sources=parse_networks("10.0.0.0/8"))
    ticket = Ticket(_UID, "", (Endpoint("192.0.2.7", 5100),), 1, Endpoint("192.0.2.7", 5000), _TARGETS, key=bytes(32))
    inbound, outbound = wish.inbound_request(near), wish.outbound_request(far, ticket)
    assert (inbound.sources, outbound.sources) == (near.sources, far.sources)
    assert (inbound.connections, outbound.connections) == (2, 1)
    assert inbound.rate == outbound.rate == 100
    assert inbound.lease == outbound.lease == 60.0
    assert inbound.half_close
    assert outbound.half_close
    assert outbound.targets == ticket.entry_points


def test_what_is_foreseen_asks_for_exactly_what_the_inbound_end_will_have() -> None:
    foreseen = StreamWish(_UID, _TARGETS).foreseen_request(StreamEnd(_GATEWAY), session(encryption="tls-psk"))
    assert foreseen.direction is Direction.OUTBOUND
    assert foreseen.takes("tls-psk")
    assert not foreseen.takes("tls")
    assert foreseen.other_is_ours


def test_of_an_end_that_does_not_tell_the_wish_is_foreseen() -> None:
    wish = StreamWish(_UID, _TARGETS, encryption=Encryption.NONE, transport=Transport.UDP)
    foreseen = wish.foreseen_request(StreamEnd(_GATEWAY), session(encryption="", engine=""))
    assert (foreseen.encryption, foreseen.transport) == (Encryption.NONE, Transport.UDP)
    assert foreseen.key is None
    assert not foreseen.other_is_ours


def test_a_ticket_of_another_encryption_is_refused() -> None:
    plain = Ticket(_UID, "", _TARGETS[:1], 1, Endpoint("192.0.2.7", 5000), _TARGETS, encryption=Encryption.NONE)
    wish = StreamWish(_UID, ticket=Path("beam.ticket"), encryption=Encryption.TLS)
    with pytest.raises(SciStreamError) as refused:
        wish.outbound_request(StreamEnd(_GATEWAY), plain)
    assert refused.value.code is Code.ENCRYPTION_MISMATCH


def test_either_end_changes_the_stream() -> None:
    same = Outcome(None, changed=False, before=None, after=None, warnings=("one",))
    other = Outcome(None, changed=True, before=None, after=None, warnings=("two",), action=Action.OPENED)
    assert not StreamOutcome(same, None).changed
    assert StreamOutcome(same, other).changed
    assert StreamOutcome(same, other).warnings == ("one", "two")
