"""U09: which targets may be asked for."""

from __future__ import annotations

import pytest
from tests.unit.control_server.test_policy import session

from scistream.addresses import Endpoint
from scistream.control_server.allowed_targets import AllowedTargets
from scistream.control_server.policy import Policy
from scistream.errors import Code, SciStreamError

RULES = (
    "198.51.100.0/24:5000-5999",
    "[2001:db8::/32]:5074",
    "2001:db8:1::7",
    "daq.example:22",
    "alice=192.0.2.7",
)


@pytest.mark.parametrize(
    ("target", "subject", "allowed"),
    [
        ("198.51.100.7:5000", "bob", True),
        ("198.51.100.7:5999", "bob", True),
        ("198.51.100.7:4999", "bob", False),
        ("198.51.101.7:5000", "bob", False),
        ("[2001:db8:ffff::1]:5074", "bob", True),
        ("[2001:db8:ffff::1]:5075", "bob", False),
        ("[2001:db8:1::7]:1", "bob", True),
        # An IPv4 address in IPv6 dress is the same host.
        ("[::ffff:198.51.100.7]:5000", "bob", True),
        ("[::ffff:192.0.2.9]:5000", "bob", False),
        ("daq.example:22", "bob", True),
        ("DAQ.example.:22", "bob", True),
        ("daq.example:23", "bob", False),
        # A name is not resolved: it may lead elsewhere when the data server asks.
        ("localhost:22", "bob", False),
        ("192.0.2.7:22", "alice", True),
        ("192.0.2.7:22", "bob", False),
        ("192.0.2.7:22", "", False),
    ],
)
def test_u09_a_target_is_allowed_by_its_rule_alone(target, subject, allowed):
    assert AllowedTargets(RULES).allow(Endpoint.parse(target), subject) is allowed


def test_without_rules_every_target_may_be_asked_for():
    assert AllowedTargets().allow(Endpoint.parse("192.0.2.7:22"), "anybody")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("192.0.2.7/24", "is no network"),
        ("192.0.2.0/24:x", "it is not of the form FIRST-LAST"),
        ("192.0.2.0/24:9-1", "runs backwards"),
        ("=192.0.2.7", "SUBJECT"),
        ("host name", "neither a name nor an IP address"),
        ("", "neither a name nor an IP address"),
    ],
)
def test_a_rule_that_makes_no_sense_is_named(text, seen):
    with pytest.raises(ValueError, match="SUBJECT") as caught:
        AllowedTargets((text,))
    assert seen in str(caught.value)


def test_u09_a_target_that_is_not_allowed_is_refused_before_any_data_server():
    rules = Policy(allowed=AllowedTargets(("198.51.100.0/24",)), addresses=lambda: (), host_name="gateway")
    changed = session("192.0.2.1", (5100,))
    with pytest.raises(SciStreamError) as caught:
        rules.check_targets(changed, [Endpoint.parse("198.51.100.7:22"), Endpoint.parse("10.0.0.1:22")], ())
    assert caught.value.code is Code.TARGET_REFUSED
    assert caught.value.seen.startswith("the target 10.0.0.1:22 is refused: it is not among")
    assert "allowed_targets" in caught.value.seen
