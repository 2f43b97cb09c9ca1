from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from scistream.control_server.events import EventKind
from scistream.control_server.restarts import Backoff, announce
from scistream.errors import Code, SciStreamError
from scistream.terms import SessionState

KEY = bytes(range(32))
REFUSAL = SciStreamError(Code.DATA_SERVER_FAILED, engine="Memory", uid="one", ending="exit status 1", output="no room")


def test_the_first_start_comes_at_once_and_the_pauses_double_up_to_a_minute():
    backoff = Backoff()
    pauses = []
    for _ in range(10):
        backoff.count(0.0)
        pauses.append(backoff.pause)
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("lived", "pause"), [(59.9, 2), (60, 0)])
def test_who_lived_a_minute_is_sound_again(lived, pause):
    backoff = Backoff()
    backoff.count(0.0)
    backoff.count(5.0)
    backoff.count(lived)
    assert backoff.pause == pause


def test_a_thousand_deaths_are_no_overflow():
    backoff = Backoff()
    for _ in range(5000):
        backoff.count(0.0)
    assert backoff.pause == 60


def test_the_next_start_is_named():
    at = datetime(2026, 5, 1, 12, 30, 4, tzinfo=UTC).timestamp()
    assert announce("it died", at) == "it died (it is started again at 12:30:04 UTC)"


def test_u40_a_data_server_that_dies_is_back_on_the_same_ports_with_the_same_targets_and_key(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one", connections=2)
        await site.update("one", "t.example:5074", "t.example:5075", key=KEY)
        site.events.entries.clear()
        with site.supervisor.events.watched() as events:
            site.data_servers.kill(1000)
            await settle()
            lost, back = [await anext(events) for _ in range(2)]
        assert (session.state, session.failure, session.restarts) == (SessionState.ACTIVE, "", 1)
        first, second = site.data_servers.started
        assert (second.routes, second.key, second.stem) == (first.routes, KEY, first.stem)
        assert (lost.kind, lost.session.state, lost.session.restarts) == (EventKind.LOST, SessionState.FAILED, 0)
        assert "(signal SIGKILL): its last words" in lost.words
        assert "it is started again at " in lost.session.failure
        assert (back.kind, back.session.state, back.session.restarts) == (EventKind.RESTARTED, SessionState.ACTIVE, 1)
        told = [(entry["event"], entry.get("restarts")) for entry in site.events.entries]
        assert told == [("session lost", None), ("session restarted", 1)]
        assert site.journal.records() == [session.record()]
        assert site.naps.pauses == []
        assert list(site.directory.glob("one*")) == []

    asyncio.run(work())


def test_one_that_keeps_dying_is_started_ever_more_rarely_and_given_up_never(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.refusal = REFUSAL
        site.data_servers.kill(1000)
        await settle()
        for _ in range(8):
            assert session.state is SessionState.FAILED
            assert "exit status 1" in session.failure
            assert "it is started again at " in session.failure
            site.naps.wake()
            await settle()
        assert site.naps.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        site.data_servers.refusal = None
        site.naps.wake()
        await settle()
        assert (session.state, session.failure, session.restarts) == (SessionState.ACTIVE, "", 1)
        # It died at once, so that nothing is forgotten; after a minute it is.
        site.data_servers.kill(max(site.data_servers.running))
        await settle()
        assert site.naps.pauses[-1] == 60
        site.naps.wake()
        await settle()
        site.naps.now += 60
        site.data_servers.kill(max(site.data_servers.running))
        await settle()
        assert (session.state, session.restarts, len(site.naps.pauses)) == (SessionState.ACTIVE, 3, 10)

    asyncio.run(work())


def test_one_that_is_not_there_at_the_control_servers_start_has_one_start_at_once(site_factory, settle):
    async def work():
        before = site_factory()
        await before.open("one")
        await before.registry.close()
        before.data_servers.kill(1000)
        before.data_servers.refusal = REFUSAL
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert (len(after.data_servers.started), after.naps.pauses) == (2, [1])

    asyncio.run(work())


def test_a_release_during_a_pause_takes_over(site_factory, settle):
    async def work():
        site = site_factory()
        await site.register("one")
        await site.update("one", key=KEY)
        site.data_servers.refusal = REFUSAL
        site.data_servers.kill(1000)
        await settle()
        starts = len(site.data_servers.started)
        await site.release("one")
        assert site.is_empty
        assert list(site.directory.glob("one*")) == []
        site.naps.wake()
        await settle()
        assert len(site.data_servers.started) == starts

    asyncio.run(work())


def test_a_release_during_a_restart_comes_after_it(site_factory, settle):
    async def work():
        site = site_factory()
        await site.open("one")
        site.data_servers.gate.clear()
        site.data_servers.kill(1000)
        await settle()
        release = asyncio.ensure_future(site.release("one"))
        await settle()
        assert not release.done()
        site.data_servers.gate.set()
        await release
        assert site.is_empty

    asyncio.run(work())


def test_an_update_during_a_pause_takes_over_and_its_failure_ends_the_tries(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.refusal = REFUSAL
        site.data_servers.kill(1000)
        await settle()
        with pytest.raises(SciStreamError) as raised:
            await site.update("one", "u.example:1")
        assert raised.value is REFUSAL
        # Who asked was told, and asks again.
        assert (session.state, session.failure) == (SessionState.FAILED, str(REFUSAL))
        starts = len(site.data_servers.started)
        site.naps.wake()
        await settle()
        assert len(site.data_servers.started) == starts
        site.data_servers.refusal = None
        await site.update("one", "u.example:1")
        assert (session.state, session.restarts) == (SessionState.ACTIVE, 0)
        assert site.data_servers.started[-1].routes[0].target.host == "u.example"

    asyncio.run(work())


def test_a_session_that_could_not_be_released_is_not_started_again(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.stuck = SciStreamError(Code.DATA_SERVER_STUCK, engine="M", uid="one", pid=1000, left="it")
        with pytest.raises(SciStreamError):
            await site.release("one")
        site.data_servers.kill(1000)
        await settle()
        assert session.state is SessionState.FAILED
        assert len(site.data_servers.started) == 1

    asyncio.run(work())


def test_many_that_died_at_once_are_started_a_few_at_a_time(site_factory, settle):
    async def work():
        site = site_factory()
        for number in range(10):
            await site.open(f"s{number}")
        site.data_servers.gate.clear()
        for pid in range(1000, 1010):
            site.data_servers.kill(pid)
        await settle()
        assert len(site.data_servers.started) == 10 + 4
        site.data_servers.gate.set()
        await settle()
        await settle()
        assert {session.state for session in site.registry.sessions()} == {SessionState.ACTIVE}

    asyncio.run(work())


def test_an_end_of_the_control_server_during_a_pause_leaves_the_session_to_the_next_one(site_factory, settle):
    async def work():
        before = site_factory()
        await before.open("one")
        before.data_servers.refusal = REFUSAL
        before.data_servers.kill(1000)
        await settle()
        await before.registry.close()
        (record,) = before.journal.records()
        assert (record.state, record.wanted) == (SessionState.FAILED, True)
        before.data_servers.refusal = None
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert after.registry.sessions()[0].state is SessionState.ACTIVE

    asyncio.run(work())
