"""What sessions may be: targets that are the gateway itself, loops, and one user's share of the ports."""

# ruff: noqa: S104 - nothing listens here
from __future__ import annotations

import asyncio
import ipaddress
from types import SimpleNamespace

import pytest

from scistream.addresses import Endpoint
from scistream.control_server.policy import Policy, host_addresses
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction

HOST = [ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", "192.0.2.7", "2001:db8::7")]


def session(bound: str, ports: tuple[int, ...], *targets: str, about: tuple[str, ...] = ()) -> SimpleNamespace:
    """As much of a session as the policy looks at; `about`: the targets that it is about to get."""
    change = SimpleNamespace(targets=points(*about)) if about else None
    asked = SimpleNamespace(uid="one", owner="alice")
    return SimpleNamespace(asked=asked, bound_host=bound, ports=ports, targets=points(*targets), change=change)


def points(*texts: str) -> tuple[Endpoint, ...]:
    return tuple(map(Endpoint.parse, texts))


def policy(listener: str = "0.0.0.0", metrics: str = "127.0.0.1") -> Policy:
    own = {Endpoint(listener, 5000): "the control port", Endpoint(metrics, 9464): "the metrics port"}
    return Policy(own, addresses=lambda: HOST, host_name="gateway")


def reason(rules: Policy, changed: SimpleNamespace, *targets: str, others: tuple[SimpleNamespace, ...] = ()) -> str:
    try:
        rules.check_targets(changed, points(*targets), others)
    except SciStreamError as error:
        return words_of(error)
    return ""


def words_of(error: SciStreamError) -> str:
    assert (error.code, error.entry.status) == (Code.TARGET_REFUSED, "INVALID_ARGUMENT")
    assert str(error).startswith(f"the target {error.facts['target']} is refused: {error.facts['reason']}")
    return str(error.facts["reason"])


@pytest.mark.parametrize(
    ("listener", "target", "is_refused"),
    [
        ("0.0.0.0", "127.0.0.1:5000", True),
        ("0.0.0.0", "127.0.9.9:5000", True),
        ("0.0.0.0", "192.0.2.7:5000", True),
        ("0.0.0.0", "[::ffff:192.0.2.7]:5000", True),
        ("0.0.0.0", "0.0.0.0:5000", True),
        ("0.0.0.0", "localhost:5000", True),
        ("0.0.0.0", "LOCALHOST.:5000", True),
        ("0.0.0.0", "gateway:5000", True),
        ("0.0.0.0", "192.0.2.8:5000", False),
        ("0.0.0.0", "192.0.2.7:5001", False),
        ("0.0.0.0", "[::1]:5000", False),
        ("0.0.0.0", "other.example:5000", False),
        ("192.0.2.7", "192.0.2.7:5000", True),
        ("192.0.2.7", "gateway:5000", True),
        ("192.0.2.7", "127.0.0.1:5000", False),
        ("192.0.2.7", "localhost:5000", False),
        ("127.0.0.1", "0.0.0.0:5000", True),
        ("::", "[::1]:5000", True),
        ("::", "[::]:5000", True),
        ("::", "[2001:db8:0:0::7]:5000", True),
        ("::", "127.0.0.1:5000", False),
        ("0.0.0.0", "localhost:9464", True),
        ("0.0.0.0", "192.0.2.7:9464", False),
    ],
)
def test_a_target_that_is_the_control_server_itself_is_refused_whatever_it_is_called(listener, target, is_refused):
    found = reason(policy(listener), session("192.0.2.7", (5100,)), "t.example:1", target)
    what = "metrics" if target.endswith("9464") else "control"
    assert found == (f"it is the {what} port" if is_refused else "")


def comes_back(bound: str, *targets: str, others: tuple[SimpleNamespace, ...] = (), ports=(5100, 5101)) -> bool:
    return bool(reason(policy(), session(bound, ports), *targets, others=others))


@pytest.mark.parametrize("target", ["192.0.2.7:5100", "localhost:5100", "gateway:5100", "0.0.0.0:5100"])
def test_a_session_whose_target_is_its_own_entry_point_is_a_loop(target):
    assert comes_back("0.0.0.0", target)
    words = reason(policy(), session("0.0.0.0", (5100,)), target)
    assert words == "a connection to it would come back to port 5100 of session one for ever"


def test_a_loop_is_found_through_other_sessions_of_this_gateway_and_through_what_they_are_about_to_get():
    way = (session("192.0.2.7", (5102,), "192.0.2.7:5103"), session("192.0.2.7", (5103,), "192.0.2.7:5100"))
    assert comes_back("192.0.2.7", "192.0.2.7:5102", others=way)
    later = (session("192.0.2.7", (5102,), "app.example:1", about=("192.0.2.7:5100",)),)
    assert comes_back("192.0.2.7", "192.0.2.7:5102", others=later)
    # A loop that others make is theirs, and ends the search.
    theirs = (session("192.0.2.7", (5102,), "192.0.2.7:5102"),)
    assert not comes_back("192.0.2.7", "192.0.2.7:5102", others=theirs)


def test_relays_hairpins_and_several_ways_to_one_place_are_no_loops():
    inbound = session("192.0.2.7", (5102, 5103), "app.example:5074")
    assert not comes_back("192.0.2.7", "192.0.2.7:5102", "192.0.2.7:5103", others=(inbound,))
    assert not comes_back("192.0.2.7", "192.0.2.7:5102", "192.0.2.7:5102", others=(inbound,))
    # From one of its entry points to the other, and from there out.
    assert not comes_back("192.0.2.7", "192.0.2.7:5101", "app.example:5074")
    assert comes_back("192.0.2.7", "192.0.2.7:5101", "192.0.2.7:5100")
    # The same port elsewhere is somebody else's.
    assert not comes_back("192.0.2.7", "198.51.100.9:5100")
    assert not comes_back("192.0.2.7", "127.0.0.1:5100")


def test_targets_that_are_fewer_than_entry_points_are_used_in_turn():
    assert comes_back("192.0.2.7", "app.example:1", "192.0.2.7:5102", ports=(5100, 5101, 5102, 5103)) is False
    assert comes_back("192.0.2.7", "app.example:1", "192.0.2.7:5103", ports=(5100, 5101, 5102, 5103))


def test_the_addresses_of_this_host_are_read_from_it():
    assert ipaddress.ip_address("127.0.0.1") in host_addresses()


def test_what_is_refused_at_hello_update_and_retarget_leaves_the_session_as_it_was(site_factory):
    async def work():
        site = site_factory(policy=Policy({Endpoint("127.0.20.1", 5000): "the control port"}))
        request = site.ask("one")
        with pytest.raises(SciStreamError) as raised:
            await site.say_hello("one", targets=("127.0.20.1:5000",))
        assert raised.value.code is Code.TARGET_REFUSED
        assert not request.done()
        await site.say_hello("one")
        await request
        for targets in (("127.0.20.1:5000",), ("127.0.20.1:22100",)):
            with pytest.raises(SciStreamError) as raised:
                await site.update("one", *targets)
            assert raised.value.code is Code.TARGET_REFUSED
            assert site.find("one")[0].state.value == "registered"
        await site.update("one")
        with pytest.raises(SciStreamError) as raised:
            await site.update("one", "127.0.20.1:22100")
        assert raised.value.code is Code.TARGET_REFUSED
        assert [str(target) for target in site.find("one")[0].targets] == ["t.example:5074"]
        # A relay on one gateway, whose inbound session then may not be led back.
        await site.register("one", Direction.OUTBOUND)
        await site.update("one", "127.0.20.1:22100", direction=Direction.OUTBOUND)
        with pytest.raises(SciStreamError) as raised:
            await site.update("one", "127.0.20.1:22101")
        assert raised.value.code is Code.TARGET_REFUSED
        await site.release("one")
        assert site.is_empty

    asyncio.run(work())


def test_one_owner_has_so_many_ports_and_others_have_theirs(site_factory):
    async def work():
        site = site_factory(policy=Policy(ports_per_owner=3))
        await site.open("one", connections=2)
        with pytest.raises(SciStreamError) as raised:
            await site.ask("two", connections=2)
        assert (raised.value.code, raised.value.entry.status) == (Code.OWNER_PORTS_EXHAUSTED, "RESOURCE_EXHAUSTED")
        words = "2 ports were asked for, and your sessions hold 2 of the 3 that each user may have"
        assert str(raised.value).startswith(words)
        await site.open("three")
        stranger = SimpleNamespace(owner="bob", connections=3)
        Policy(ports_per_owner=3).check_ports(stranger, site.registry.sessions())
        await site.release("one")
        await site.open("two", connections=2)

    asyncio.run(work())
