from __future__ import annotations

from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.client.abilities import check_wishes
from scistream.client.facts import read_facts
from scistream.client.requests import SessionRequest
from scistream.errors import Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.terms import Direction, Uid


def _check(facts: dict[str, Any], **wishes: Any) -> None:
    engines = [wire.Engine(name="haproxy"), wire.Engine(name="shaper", can_limit_rate=True)]
    told = read_facts(wire.ServerFacts(**{"engine": "haproxy", "port_range": "5100-5109", "engines": engines} | facts))
    check_wishes(SessionRequest(Uid("abc"), Direction.INBOUND, (Endpoint("x", 1),), 1, **wishes), told)


@pytest.mark.parametrize(
    ("facts", "wishes", "code", "words"),
    [
        ({}, {"rate": 7}, Code.ENGINE_CANNOT, "haproxy cannot do what was asked: it does not limit rates, and 7 kb/s"),
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
