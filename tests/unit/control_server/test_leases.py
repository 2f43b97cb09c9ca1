"""Leases, on clocks that the tests set: no test waits for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from scistream.auth import Identity
from scistream.clocks import Clocks
from scistream.control_server.callers import Caller
from scistream.control_server.events import EventKind
from scistream.control_server.leases import Leases, LeaseTerms
from scistream.control_server.sessions import Session, SessionRequest
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, Encryption, SessionState, Uid

ANYBODY = Caller(Identity(NO_AUTH))
EPOCH, UPTIME = 1_700_000_000.0, 5_000.0


class Hands:
    """The hands of two clocks."""

    def __init__(self) -> None:
        self.wall, self.boot = EPOCH, UPTIME

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def leases(self, default: float = 0, longest: float = 0) -> Leases:
        return Leases(LeaseTerms(default, longest), Clocks(lambda: self.wall, lambda: self.boot))


def run(work) -> None:
    asyncio.run(work())


async def open_for(site, uid: str, lease: float | None) -> Session:
    asked = SessionRequest(Uid(uid), Direction.INBOUND, 1, 0, NO_AUTH, "127.0.20.1", lease, encryption=Encryption.NONE)
    request = asyncio.ensure_future(site.registry.request(asked))
    await asyncio.sleep(0)
    if not request.done():
        await site.say_hello(uid)
    await request
    return await site.update(uid)


def uids(site) -> Sequence[Uid]:
    return [session.asked.uid for session in site.registry.sessions()]


@pytest.mark.parametrize(
    ("default", "longest", "asked", "granted"),
    [
        (0, 0, None, 0),
        (0, 0, 60, 60),
        (0, 0, 0, 0),
        (60, 0, None, 60),
        (60, 0, 0, 0),
        (60, 3600, None, 60),
        (60, 3600, 3600, 3600),
        (0, 3600, None, 3600),
        (7200, 3600, None, 3600),
    ],
)
def test_what_is_granted(default, longest, asked, granted):
    assert LeaseTerms(default, longest).granted(asked) == granted


@pytest.mark.parametrize(("asked", "wanted"), [(3601, "3601 s"), (0, "no end")])
def test_more_than_the_operator_grants_is_refused(asked, wanted):
    with pytest.raises(
        SciStreamError, match=f"a lease of {wanted} cannot be had: the longest is 3600 s here"
    ) as raised:
        LeaseTerms(60, 3600).granted(asked)
    assert raised.value.code is Code.BAD_LEASE


def test_a_req_with_a_lease_too_long_reserves_nothing(site_factory):
    async def work():
        site = site_factory(leases=Hands().leases(longest=60))
        with pytest.raises(SciStreamError) as raised:
            await open_for(site, "one", 61)
        assert raised.value.code is Code.BAD_LEASE
        assert site.is_empty

    run(work)


def test_a_session_ends_when_its_lease_does_and_no_other(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        with site.supervisor.events.watched(lambda event: event.kind is EventKind.RELEASED) as events:
            short, *_ = [await open_for(site, uid, lease) for uid, lease in [("a", 10), ("b", 20), ("c", None)]]
            assert (short.lease_expires, short.view().lease_expires) == (EPOCH + 10, EPOCH + 10)
            hands.pass_time(9.9)
            site.registry._lease_watch.look()
            await settle()
            assert uids(site) == ["a", "b", "c"]
            hands.pass_time(0.1)
            site.registry._lease_watch.look()
            await settle()
            assert uids(site) == ["b", "c"]
            assert short.state is SessionState.RELEASED
            assert len(site.data_servers.running) == 2
            event = await anext(events)
            assert (event.session.uid, event.words) == ("a", "the lease ended")
        released = [entry for entry in site.events.entries if entry["event"] == "session released"]
        assert [(entry["uid"], entry["why"]) for entry in released] == [("a", "the lease ended")]

    run(work)


def test_one_timer_is_set_to_the_next_end_of_all(site_factory):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        loop, watch = asyncio.get_running_loop(), site.registry._lease_watch
        await open_for(site, "none", None)
        assert watch._timer is None
        before = loop.time()
        # A minute at most: a host may sleep, and the time of day may be set.
        for uid, lease, due in [("day", 86400, 60), ("short", 30, 30), ("long", 50, 30)]:
            await open_for(site, uid, lease)
            assert before + due <= watch._timer.when() <= loop.time() + due
        await site.registry.close()
        assert watch._timer is None

    run(work)


def test_a_timer_that_rings_releases(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        await open_for(site, "one", 10)
        hands.pass_time(10)
        # What the loop does when the time has come.
        timer = site.registry._lease_watch._timer
        timer._run()
        await settle()
        assert site.is_empty

    run(work)


@pytest.mark.parametrize("jump", [-40_000_000.0, 40_000_000.0])
def test_a_wall_clock_that_jumps_ends_no_lease_and_lengthens_none(site_factory, settle, jump):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        session = await open_for(site, "one", 100)
        hands.wall += jump
        hands.pass_time(60)
        site.registry._lease_watch.look()
        await settle()
        assert session.state is SessionState.ACTIVE
        # People are told the end as the clock shows it now, and so is the journal.
        assert session.lease_expires == EPOCH + jump + 100
        assert site.journal.records()[0].lease_expires == EPOCH + jump + 100
        hands.pass_time(40)
        site.registry._lease_watch.look()
        await settle()
        assert site.is_empty

    run(work)


def test_a_lease_is_renewed_before_it_ends(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases(default=10))
        session = await open_for(site, "one", 10)
        with site.supervisor.events.watched() as events:
            hands.pass_time(9)
            for lease, expires in [(100, EPOCH + 109), (None, EPOCH + 19), (0, None)]:
                assert await site.registry.renew(Uid("one"), None, lease, ANYBODY) == [session]
                assert session.lease_expires == expires
                assert site.journal.records()[0].lease_expires == expires
                event = await anext(events)
                assert (event.kind, event.session.lease_expires) == (EventKind.RENEWED, expires)
        hands.pass_time(1_000_000)
        site.registry._lease_watch.look()
        await settle()
        assert session.state is SessionState.ACTIVE

    run(work)


def test_a_renewal_that_is_not_granted_changes_nothing(site_factory):
    async def work():
        site = site_factory(leases=Hands().leases(longest=60))
        session = await open_for(site, "one", 10)
        with pytest.raises(SciStreamError) as raised:
            await site.registry.renew(Uid("one"), None, 61, ANYBODY)
        assert raised.value.code is Code.BAD_LEASE
        assert session.lease_expires == EPOCH + 10
        with pytest.raises(SciStreamError) as raised:
            await site.registry.renew(Uid("two"), None, 10, ANYBODY)
        assert raised.value.code is Code.UID_UNKNOWN

    run(work)


def test_a_renewal_that_comes_before_the_release_has_its_turn_saves_the_session(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        session = await open_for(site, "one", 10)
        hands.pass_time(10)
        async with session.lock:
            renewal = asyncio.ensure_future(site.registry.renew(Uid("one"), None, 10, ANYBODY))
            await settle()
            site.registry._lease_watch.look()
            await settle()
        await renewal
        await settle()
        assert session.state is SessionState.ACTIVE

    run(work)


def test_a_renewal_that_comes_while_the_session_is_being_released_finds_none(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        await open_for(site, "one", 10)
        gone, stop = asyncio.Event(), site.data_servers.stop

        async def stop_late(*what):
            await gone.wait()
            await stop(*what)

        site.data_servers.stop = stop_late
        release = asyncio.ensure_future(site.release(Uid("one")))
        await settle()
        renewal = asyncio.ensure_future(site.registry.renew(Uid("one"), None, 10, ANYBODY))
        await settle()
        gone.set()
        await release
        with pytest.raises(SciStreamError) as raised:
            await renewal
        assert raised.value.code is Code.UID_UNKNOWN
        assert site.is_empty

    run(work)


def test_a_release_that_fails_is_tried_again_at_the_next_look(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases())
        session = await open_for(site, "one", 10)
        facts = {"engine": "Memory", "uid": "one", "pid": 1000, "left": "process 1000"}
        site.data_servers.stuck = SciStreamError(Code.DATA_SERVER_STUCK, **facts)
        hands.pass_time(10)
        site.registry._lease_watch.look()
        await settle()
        assert session.state is SessionState.FAILED
        assert site.registry._lease_watch._timer is not None
        site.data_servers.stuck = None
        site.registry._lease_watch.look()
        await settle()
        assert site.is_empty

    run(work)


def test_a_session_that_waits_for_its_hello_has_a_lease_too(site_factory, settle):
    async def work():
        hands = Hands()
        site = site_factory(leases=hands.leases(default=10))
        request = site.ask("one")
        await settle()
        hands.pass_time(10)
        site.registry._lease_watch.look()
        await settle()
        with pytest.raises(SciStreamError, match="no hello came for session one within 10 s") as raised:
            await request
        assert raised.value.code is Code.HELLO_TIMEOUT
        assert site.is_empty
        assert site.events.entries[-1]["why"] == "the lease ended"

    run(work)


def test_after_a_restart_leases_go_on_and_those_that_ended_meanwhile_are_released(site_factory, settle):
    async def work():
        hands = Hands()
        before = site_factory(leases=hands.leases())
        for uid, lease in [("a", 10), ("b", 100), ("c", 0)]:
            await open_for(before, uid, lease)
        await before.registry.close()
        hands.pass_time(20)
        # A jump while no server ran: within one boot it does not count.
        hands.wall -= 1_000_000
        after = site_factory(leases=hands.leases(), data_servers=before.data_servers)
        await after.recover()
        assert uids(after) == ["a", "b", "c"]
        await settle()
        assert uids(after) == ["b", "c"]
        assert len(after.data_servers.running) == 2
        assert after.find("b")[0].lease_expires == EPOCH + 100 - 1_000_000
        hands.pass_time(80)
        after.registry._lease_watch.look()
        await settle()
        assert uids(after) == ["c"]

    run(work)


@pytest.mark.parametrize(("away", "left"), [(99, ["a"]), (100, [])])
def test_across_a_reboot_the_time_of_day_counts(site_factory, settle, away, left):
    async def work():
        hands = Hands()
        before = site_factory(leases=hands.leases())
        await open_for(before, "a", 100)
        record = before.journal.records()[0]
        await before.registry.close()
        hands.wall, hands.boot = EPOCH + away, 3.0
        after = site_factory(leases=hands.leases(), data_servers=before.data_servers)
        session = before.registry.sessions()[0]
        assert (record.lease_expires, record.lease_boottime) == (EPOCH + 100, UPTIME + 100)
        # What the journal tells after another boot.
        session.lease_boottime = None
        after.registry.take_over([session])
        await settle()
        assert uids(after) == left
        assert session.lease_boottime == 103.0 - away

    run(work)
