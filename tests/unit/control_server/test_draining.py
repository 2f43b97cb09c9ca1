"""What can be done with a session that runs: drained, retargeted."""

from __future__ import annotations

import asyncio

import pytest

from scistream.addresses import Endpoint
from scistream.auth import Identity
from scistream.control_server.callers import Caller
from scistream.control_server.events import EventKind
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, SessionState, Uid

ANYBODY = Caller(Identity(NO_AUTH))
CANNOT = SciStreamError(Code.ENGINE_CANNOT, engine="Memory", reason="it never drains")
OTHER = (Endpoint("other.example", 1),)


def run(work) -> None:
    asyncio.run(work())


async def drain(site, uid: str = "one"):
    return await site.registry.drain(Uid(uid), None, ANYBODY)


def finish(site, pid: int = 1000) -> None:
    """The last connection ends, and the data server with it."""
    site.data_servers.running.pop(pid)
    site.data_servers._ends[pid].set()


def test_a_drained_session_is_released_when_its_last_connection_has_ended(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        with site.supervisor.events.watched() as events:
            assert await drain(site) == [session]
            assert session.state is SessionState.DRAINING
            assert site.journal.records()[0].state is SessionState.DRAINING
            assert site.data_servers.running
            finish(site)
            await settle()
            assert site.is_empty
            told = [await anext(events) for _ in range(2)]
        assert [event.kind for event in told] == [EventKind.DRAINING, EventKind.RELEASED]
        assert told[1].words

    run(work)


def test_draining_again_is_answered_alike_and_changes_nothing(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        assert await drain(site) == await drain(site) == [session]
        assert session.state is SessionState.DRAINING
        told = [entry["event"] for entry in site.events.entries]
        assert told.count("session draining") == 1

    run(work)


def test_both_directions_of_a_uid_are_drained(site_factory):
    async def work():
        site = site_factory()
        for direction in Direction:
            await site.open("one", direction)
        assert {session.state for session in await drain(site)} == {SessionState.DRAINING}
        assert len(site.registry.sessions()) == 2

    run(work)


def test_a_release_ends_a_drain_at_once(site_factory):
    async def work():
        site = site_factory()
        await site.open("one")
        await drain(site)
        await site.release(Uid("one"))
        assert site.is_empty

    run(work)


def test_an_update_of_a_draining_session_is_refused(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        await drain(site)
        for targets in (session.targets, OTHER):
            with pytest.raises(SciStreamError, match="session one is draining, and the update is for active") as raised:
                await site.update("one", *map(str, targets))
            assert raised.value.code is Code.SESSION_NOT_ACTIVE
        assert session.state is SessionState.DRAINING

    run(work)


def test_only_active_sessions_are_drained(site_factory, settle):
    async def work():
        site = site_factory()
        await site.register("one")
        request = site.ask("two")
        await settle()
        for uid, state in [("one", "registered"), ("two", "requested")]:
            with pytest.raises(SciStreamError, match=f"session {uid} is {state}, and draining is for active") as raised:
                await drain(site, uid)
            assert raised.value.code is Code.SESSION_NOT_ACTIVE
        with pytest.raises(SciStreamError) as raised:
            await drain(site, "three")
        assert raised.value.code is Code.UID_UNKNOWN
        request.cancel()

    run(work)


def test_a_data_server_that_dies_while_it_drains_is_released(site_factory, settle):
    async def work():
        site = site_factory()
        await site.open("one")
        site.data_servers.drain = lambda *_: asyncio.Event().wait()
        await drain(site)
        await settle()
        site.data_servers.kill(1000)
        await settle()
        assert site.is_empty
        # Nothing was started in its place.
        assert len(site.data_servers.started) == 1
        released = [entry for entry in site.events.entries if entry["event"] == "session released"]
        assert released[0]["why"] == "its data server ended: signal SIGKILL"

    run(work)


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (CANNOT, Code.ENGINE_CANNOT, "it never drains"),
        (TimeoutError("no answer"), Code.INTERNAL, "TimeoutError: no answer"),
    ],
)
def test_an_engine_that_cannot_drain_says_so_and_its_session_goes_on(site_factory, settle, refusal, code, words):
    async def work():
        site = site_factory()
        session = await site.open("one")

        async def refuse(engine, plan, mark):
            raise refusal

        site.data_servers.drain = refuse
        with pytest.raises(SciStreamError, match=words) as raised:
            await drain(site)
        assert raised.value.code is code
        assert session.state is site.journal.records()[0].state is SessionState.ACTIVE
        # It is watched as before.
        site.data_servers.gate.clear()
        site.data_servers.kill(1000)
        await settle()
        assert session.state is SessionState.FAILED

    run(work)


def test_a_data_server_that_is_gone_when_it_is_asked_is_no_engine_that_cannot(site_factory, settle):
    async def work():
        site = site_factory()
        await site.open("one")

        async def die(engine, plan, mark):
            site.data_servers.kill(mark.pid)
            raise ConnectionRefusedError(111, "Connection refused")

        site.data_servers.drain = die
        await drain(site)
        await settle()
        assert site.is_empty

    run(work)


def test_after_a_restart_a_draining_session_goes_on_draining(site_factory, settle):
    async def work():
        before = site_factory()
        await before.open("one")
        await drain(before)
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert [session.state for session in after.registry.sessions()] == [SessionState.DRAINING]
        finish(after)
        await settle()
        assert after.is_empty

    run(work)


def test_the_end_of_the_control_server_waits_for_no_drain(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        await drain(site)
        await site.registry.close()
        assert session.state is SessionState.DRAINING
        assert len(site.data_servers.running) == 1

    run(work)


def test_u29_other_targets_retarget_a_session_that_runs(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        with site.supervisor.events.watched() as events:
            assert (await site.update("one", "other.example:1")) is session
            event = await anext(events)
        assert (event.kind, event.session.targets) == (EventKind.RETARGETED, OTHER)
        assert [str(route.target) for route in site.data_servers.running[1000].routes] == ["other.example:1"]
        assert site.journal.records()[0].targets == ("other.example:1",)
        # The process is the same, and nothing was cut.
        assert (len(site.data_servers.started), site.data_servers.stopped) == (1, [])

    run(work)


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (CANNOT, Code.ENGINE_CANNOT, "it never drains"),
        (ValueError("of some kind"), Code.INTERNAL, "ValueError: of some kind"),
    ],
)
def test_u29_a_retarget_that_fails_says_why_and_keeps_the_targets(site_factory, refusal, code, words):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.refusal = refusal
        with pytest.raises(SciStreamError, match=words) as raised:
            await site.update("one", "other.example:1")
        assert raised.value.code is code
        assert (session.state, session.targets) == (SessionState.ACTIVE, (Endpoint("t.example", 5074),))
        assert site.journal.records()[0].targets == ("t.example:5074",)
        assert "session retargeted" not in [entry["event"] for entry in site.events.entries]

    run(work)


def test_new_targets_are_in_the_journal_before_the_data_server_hears_of_them(site_factory):
    async def work():
        site = site_factory()
        await site.open("one")
        written = []

        async def retarget(engine, plan, mark):
            written.extend(site.journal.records()[0].targets)

        site.data_servers.retarget = retarget
        await site.update("one", "other.example:1")
        assert written == ["other.example:1"]

    run(work)


def test_more_targets_than_entry_points_retarget_nothing(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        with pytest.raises(SciStreamError) as raised:
            await site.update("one", "a.example:1", "b.example:2")
        assert raised.value.code is Code.TOO_MANY_TARGETS
        assert session.targets == (Endpoint("t.example", 5074),)

    run(work)


@pytest.mark.parametrize("target", ["t.example:5074", "other.example:1"])
def test_a_caller_who_goes_away_takes_no_session_along_that_ran_before(site_factory, settle, target):
    async def work():
        site = site_factory()
        session = await site.open("one")
        async with session.lock:
            update = asyncio.ensure_future(site.update("one", target))
            await settle()
            update.cancel()
        await settle()
        assert session.state is SessionState.ACTIVE
        assert str(session.targets[0]) == target

    run(work)


def test_the_second_of_two_callers_who_goes_away_leaves_the_first_its_session(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        site.data_servers.gate.clear()
        first, second = (asyncio.ensure_future(site.update("one")) for _ in range(2))
        await settle()
        second.cancel()
        site.data_servers.gate.set()
        await settle()
        assert (await first).state is SessionState.ACTIVE
        assert site.registry.sessions() == [session]

    run(work)
