from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from scistream.addresses import Endpoint, parse_networks
from scistream.client.abilities import _FEATURES, _features, check_facts, granted
from scistream.client.channel import Connection
from scistream.client.control_servers import ControlServer
from scistream.client.facts import read_facts
from scistream.client.requests import SessionRequest
from scistream.engines.base import Feature
from scistream.errors import Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.terms import Direction, Encryption, Transport, Uid


def _check(facts: dict[str, Any], **wishes: Any) -> None:
    engines = [
        _engine("haproxy", ["tls", "none"], {"UDP": "it carries TCP only", "rate": "it does not limit rates"}),
        _engine("shaper", ["tls", "none"]),
        _engine("kernel", ["none"], {"TLS": "it carries plain bytes only"}),
        _engine("stunnel", ["tls-psk"], {"plain": "it carries nothing unencrypted", "half-close": "bytes may be lost"}),
        wire.Engine(name="earlier", installed=True, encryption="none"),
        wire.Engine(name="missing", encryption="tls"),
    ]
    told = read_facts(wire.ServerFacts(**{"engine": "haproxy", "port_range": "5100-5109", "engines": engines} | facts))
    usual = {"uid": Uid("abc"), "direction": Direction.INBOUND, "targets": (Endpoint("x", 1),), "connections": 1}
    check_facts(cast("Connection", _Connection()), SessionRequest(**usual | wishes), told)


class _Connection:
    control_server = ControlServer(Endpoint("gateway.example", 5000))


def _engine(name: str, encryptions: list[str], cannot: dict[str, str] | None = None) -> wire.Engine:
    lacks = cannot or {}
    table = [
        wire.Ability(feature=each.value, can=each.value not in lacks, words=lacks.get(each.value, ""))
        for each in Feature
    ]
    return wire.Engine(
        name=name,
        installed=True,
        encryption=encryptions[0],
        encryptions=encryptions,
        abilities=table,
        can_limit_rate="rate" not in lacks,
    )


_NONE = {"encryption": Encryption.NONE}


@pytest.mark.parametrize(
    ("facts", "wishes", "code", "words"),
    [
        ({}, {"rate": 7}, Code.ENGINE_CANNOT, "haproxy cannot do what was asked: it does not limit rates"),
        ({}, {"transport": Transport.UDP, **_NONE}, Code.ENGINE_CANNOT, "it carries TCP only"),
        ({"engine": "kernel"}, {}, Code.ENGINE_CANNOT, "kernel cannot do what was asked: it carries plain bytes only"),
        ({"engine": "stunnel"}, _NONE, Code.ENGINE_CANNOT, "it carries nothing unencrypted"),
        ({"engine": "stunnel"}, {"half_close": True}, Code.ENGINE_CANNOT, "bytes may be lost"),
        ({"engine": "earlier"}, {}, Code.ENGINE_CANNOT, "its sessions have encryption none"),
        (
            {"engine": "earlier"},
            {"rate": 7, **_NONE},
            Code.ENGINE_CANNOT,
            "it does not limit rates, and 7 kb/s was asked",
        ),
        ({"engine": "earlier"}, {"half_close": True, **_NONE}, Code.OLD_CONTROL_SERVER, "cannot promise every byte of"),
        ({"engine": "earlier"}, {"sources": parse_networks("::1"), **_NONE}, Code.OLD_CONTROL_SERVER, "some hosts"),
        ({"longest_lease": 60}, {"lease": 61.0}, Code.BAD_LEASE, "a lease of 61 s cannot be had: the longest is 60 s"),
        ({"longest_lease": 60}, {"lease": 0.0}, Code.BAD_LEASE, "a lease of no end cannot be had"),
        (
            {},
            {"ports": (5110,)},
            Code.PORT_NOT_OFFERED,
            "port 5110 was asked for, and this control server offers",
        ),
    ],
)
def test_u53_u57_what_would_be_refused_is_refused_before_a_session_makes_way(
    facts: dict[str, Any], wishes: dict[str, Any], code: Code, words: str
) -> None:
    with pytest.raises(SciStreamError) as caught:
        _check(facts, **wishes)
    assert caught.value.code is code
    assert words in caught.value.seen


def test_what_can_be_had_is_not_refused() -> None:
    _check({"longest_lease": 60}, lease=60.0, ports=(5109,))
    _check({"longest_lease": 60})
    _check({}, lease=0.0)
    _check({"engine": "shaper"}, rate=7)
    _check({"engine": "shaper"}, transport=Transport.UDP, half_close=True, sources=parse_networks("::1"), **_NONE)
    _check({"engine": "earlier"}, **_NONE)
    # What to do about an engine that is missing is the control server's to say.
    _check({"engine": "missing"}, half_close=True)


def test_the_encryption_that_a_session_will_have_is_known_before() -> None:
    def foreseen(engine: wire.Engine, request: SessionRequest) -> str:
        facts = read_facts(wire.ServerFacts(engine=engine.name, engines=[engine]))
        return granted(cast("Connection", _Connection()), request, facts)

    inbound = SessionRequest(Uid("abc"), Direction.INBOUND, (Endpoint("x", 1),), 1)
    assert foreseen(_engine("a", ["tls", "none"]), inbound) == "tls"
    assert foreseen(_engine("a", ["tls-psk", "legacy-psk"]), inbound) == "tls-psk"
    assert foreseen(_engine("a", ["tls", "none"]), replace(inbound, encryption=Encryption.NONE)) == "none"
    # A plan may be made before the ticket is there that says which of the two it is.
    assert foreseen(_engine("a", ["tls-psk"]), replace(inbound, direction=Direction.OUTBOUND)) == "tls-psk"


def test_the_truth_tables_words_are_those_that_the_client_looks_for() -> None:
    wish = SessionRequest(
        Uid("abc"),
        Direction.INBOUND,
        (),
        1,
        7,
        encryption=Encryption.NONE,
        transport=Transport.UDP,
        sources=parse_networks("::1"),
        half_close=True,
    )
    assert {feature for feature, _ in _features(wish)} | set(_FEATURES.values()) <= {each.value for each in Feature}
