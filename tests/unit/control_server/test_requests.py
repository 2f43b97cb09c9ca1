"""What a `req` is granted and refused, and what many of them cost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from scistream.addresses import Endpoint, PortRange, parse_networks
from scistream.auth import Identity
from scistream.control_server.callers import Caller
from scistream.control_server.rules import check_sources
from scistream.control_server.sessions import Session, SessionRequest
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, Encryption, SessionState, Uid

ANYBODY = Caller(Identity(NO_AUTH))
_ANYWHERE = "0.0.0.0"  # noqa: S104 - what is asked about


def run(work) -> None:
    asyncio.run(work())


def request(site, uid: str = "one", connections: int = 1, owner: str = NO_AUTH, **asked) -> asyncio.Task[Session]:
    rate = asked.pop("rate", 0)
    asked |= {"encryption": Encryption.NONE}
    wanted = SessionRequest(Uid(uid), Direction.OUTBOUND, connections, rate, owner, "127.0.20.1", **asked)
    return asyncio.ensure_future(site.registry.request(wanted))


async def refused(site, **asked) -> SciStreamError:
    before = set(site.pool.taken)
    with pytest.raises(SciStreamError) as raised:
        await request(site, **asked)
    assert site.pool.taken == before
    return raised.value


def test_u57_a_rate_that_the_engine_cannot_hold_is_refused_before_anything_is_reserved(site_factory):
    async def work():
        site = site_factory()
        error = await refused(site, rate=500)
        assert error.code is Code.ENGINE_CANNOT
        assert error.seen == ("Memory cannot do what was asked: it limits no rate")
        assert site.is_empty
        assert site.events.entries == []

    run(work)


@pytest.mark.parametrize(
    ("address", "sources", "is_met"),
    [
        (_ANYWHERE, "2001:db8::/32,2001:db9::7/128", False),
        ("198.51.100.1", "2001:db8::/32", False),
        ("2001:db8::1", "192.0.2.0/24", False),
        (_ANYWHERE, "192.0.2.0/24,2001:db8::/32", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("::", "192.0.2.0/24", True),
        (_ANYWHERE, "", True),
    ],
)
def test_sources_that_nobody_can_come_from_are_refused(address, sources, is_met):
    networks = parse_networks(sources) if sources else ()
    asked = SessionRequest(
        Uid("one"), Direction.OUTBOUND, 1, 0, NO_AUTH, address, encryption=Encryption.NONE, sources=networks
    )
    if is_met:
        check_sources(asked, address)
        return
    with pytest.raises(SciStreamError) as raised:
        check_sources(asked, address)
    assert raised.value.code is Code.SOURCES_UNREACHABLE
    assert f"session one would let nobody in: {sources} are no IPv{6 if ':' in address else 4} networks" in str(
        raised.value
    )


def test_sources_that_nobody_can_come_from_are_refused_before_anything_is_reserved(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        monkeypatch.setattr(type(site.engine), "sources_shortfall", lambda _: "", raising=False)
        error = await refused(site, sources=parse_networks("2001:db8::/32"))
        assert error.code is Code.SOURCES_UNREACHABLE
        assert site.is_empty

    run(work)


def test_u57_an_engine_that_can_is_given_the_rate(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        asked_by = []

        def shortfall(_):
            asked_by.append(threading.get_ident())
            return ""

        monkeypatch.setattr(type(site.engine), "rate_shortfall", shortfall)
        waiting = request(site, rate=500)
        while not site.registry.sessions():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        assert site.registry.sessions()[0].view().rate == 500
        # Programs that may have to be asked for it hold nobody else up.
        assert asked_by[0] != threading.get_ident()
        waiting.cancel()

    run(work)


def test_u53_named_ports_are_the_entry_points_in_their_order(site_factory):
    async def work():
        site = site_factory()
        waiting = request(site, connections=2, named_ports=(22107, 22103))
        await asyncio.sleep(0)
        await site.say_hello("one", Direction.OUTBOUND)
        session = await waiting
        assert [point.port for point in session.entry_points] == [22107, 22103]
        await site.update("one", "a.example:1", "b.example:2", direction=Direction.OUTBOUND)
        routes = site.data_servers.started[0].routes
        assert [(route.entry_point.port, str(route.target)) for route in routes] == [
            (22107, "a.example:1"),
            (22103, "b.example:2"),
        ]
        assert site.journal.records()[0].ports == (22107, 22103)

    run(work)


@pytest.mark.parametrize("connections", [1, 3])
def test_u53_each_connection_has_one_named_port(site_factory, connections):
    async def work():
        error = await refused(site_factory(), connections=connections, named_ports=(22100, 22101))
        assert error.code is Code.PORTS_MISCOUNTED
        assert error.seen == f"2 ports were named for {connections} connections (num_conn)"

    run(work)


@pytest.mark.parametrize(("owner", "holder"), [("ann", "session one"), ("bob", "another user's session")])
def test_u53_a_named_port_of_a_session_is_refused_and_only_its_owner_learns_which(site_factory, owner, holder):
    async def work():
        site = site_factory()
        waiting = request(site, owner="ann")
        await asyncio.sleep(0)
        error = await refused(site, uid="two", owner=owner, connections=2, named_ports=(22105, 22100))
        assert error.code is Code.ENTRY_POINT_IN_USE
        assert error.seen == f"entry point 127.0.20.1:22100 is in use by {holder}"
        waiting.cancel()

    run(work)


def test_u21_a_thousand_requests_cost_no_thread_and_delay_nobody(site_factory, settle):
    async def work():
        site = site_factory()
        site.pool.ports = PortRange(22000, 23999)
        threads = threading.active_count()
        waiting = [request(site, f"waiting-{number}") for number in range(1000)]
        await settle()
        assert len(site.registry.sessions()) == 1000
        assert threading.active_count() == threads
        assert (await site.open("one")).state is SessionState.ACTIVE
        await site.release(Uid("one"))
        assert not any(each.done() for each in waiting)
        for each in waiting:
            each.cancel()
        await settle()
        assert site.is_empty
        assert site.pool.taken == set()

    run(work)


def test_a_thousand_hellos_that_came_first_find_their_own_request(site_factory, settle):
    async def work():
        site = site_factory()
        site.pool.ports = PortRange(22000, 23999)
        uids = [f"early-{number}" for number in range(1000)]
        hellos = [asyncio.ensure_future(site.say_hello(uid, targets=(f"{uid}.example:1",))) for uid in uids]
        await settle()
        sessions = await asyncio.gather(*(site.ask(uid) for uid in reversed(uids)))
        assert [session.targets for session in reversed(sessions)] == [(Endpoint(f"{uid}.example", 1),) for uid in uids]
        assert await asyncio.gather(*hellos) == list(reversed(sessions))
        # Nothing is kept of those who waited.
        assert len(site.registry._opening._arrivals) == 0

    run(work)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda site, waiting: waiting.cancel(), "its client went away"),
        (lambda site, waiting: site.registry._table.close(), "the control server is ending and takes no more sessions"),
    ],
)
def test_a_request_that_ends_says_why(site_factory, settle, end, words):
    async def work():
        site = site_factory()
        waiting = site.ask("one")
        await settle()
        end(site, waiting)
        await asyncio.gather(waiting, return_exceptions=True)
        assert site.is_empty
        released = [entry for entry in site.events.entries if entry["event"] == "session released"]
        assert [entry["why"] for entry in released] == [words]

    run(work)


def test_u31_a_client_that_goes_away_between_hello_and_update_leaves_nothing(site_factory, settle):
    async def work():
        site = site_factory()
        waiting = site.ask("one")
        await settle()
        await site.say_hello("one")
        update = asyncio.ensure_future(site.update("one"))
        waiting.cancel()
        with pytest.raises(SciStreamError) as raised:
            await update
        assert raised.value.code is Code.UID_UNKNOWN
        assert site.is_empty

    run(work)
