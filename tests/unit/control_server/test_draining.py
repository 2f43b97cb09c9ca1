"""What can be done with a session that runs: drained, retargeted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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

        async def hang(engine, plan, mark, deaf):
            deaf()
            await asyncio.Event().wait()

        site.data_servers.drain = hang
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

        async def refuse(engine, plan, mark, deaf):
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


def test_a_drain_is_answered_when_nothing_new_is_accepted_and_not_before(site_factory, settle):
    async def work():
        site = site_factory()
        await site.open("one")
        told: list[Callable[[], None]] = []

        async def slowly(engine, plan, mark, deaf):
            told.append(deaf)
            await asyncio.Event().wait()

        site.data_servers.drain = slowly
        answer = asyncio.ensure_future(drain(site))
        await settle()
        assert not answer.done()
        told[0]()
        await settle()
        assert [session.state for session in answer.result()] == [SessionState.DRAINING]

    run(work)


def test_a_refusal_that_comes_late_reaches_the_caller(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        late = asyncio.Event()

        async def refuse(engine, plan, mark, deaf):
            await late.wait()
            raise CANNOT

        site.data_servers.drain = refuse
        answer = asyncio.ensure_future(drain(site))
        await settle()
        assert session.state is SessionState.DRAINING
        late.set()
        with pytest.raises(SciStreamError, match="it never drains"):
            await answer
        assert session.state is SessionState.ACTIVE

    run(work)


def test_where_one_direction_cannot_drain_the_answer_says_that_the_other_does(site_factory):
    async def work():
        site = site_factory()
        inbound, outbound = [await site.open("one", direction) for direction in Direction]
        both = site.data_servers.drain

        async def refuse(engine, plan, mark, deaf):
            if mark == inbound.mark:
                raise CANNOT
            await both(engine, plan, mark, deaf)

        site.data_servers.drain = refuse
        words = f"{outbound.asked.direction.value} direction drains, and the other goes on: .*it never drains"
        with pytest.raises(SciStreamError, match=words) as raised:
            await drain(site)
        assert raised.value.code is Code.PARTLY_DRAINED
        assert (inbound.state, outbound.state) == (SessionState.ACTIVE, SessionState.DRAINING)

    run(work)


def test_nothing_is_drained_where_one_direction_is_not_active(site_factory):
    async def work():
        site = site_factory()
        outbound = await site.open("one", Direction.OUTBOUND)
        inbound = await site.register("one", Direction.INBOUND)
        with pytest.raises(SciStreamError, match="session one is registered, and draining is for active"):
            await drain(site)
        assert (inbound.state, outbound.state) == (SessionState.REGISTERED, SessionState.ACTIVE)

    run(work)


def test_a_drain_that_waits_for_a_release_finds_no_session(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        async with session.lock:
            release = asyncio.ensure_future(site.release("one"))
            await settle()
            answer = asyncio.ensure_future(drain(site))
            await settle()
        await release
        with pytest.raises(SciStreamError) as raised:
            await answer
        assert raised.value.code is Code.UID_UNKNOWN

    run(work)


def test_a_data_server_that_is_gone_when_it_is_asked_is_no_engine_that_cannot(site_factory, settle):
    async def work():
        site = site_factory()
        await site.open("one")

        async def die(engine, plan, mark, deaf):
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


async def cut_off_in_a_retarget(site_factory, *, taken: bool):
    """A control server's end while its data server was told of other targets, and what comes after."""
    before = site_factory()
    await before.open("one")
    retarget = before.data_servers.retarget

    async def die(*words):
        if taken:
            await retarget(*words)
        raise asyncio.CancelledError

    before.data_servers.retarget = die
    with pytest.raises(asyncio.CancelledError):
        await before.update("one", "other.example:1")
    before.data_servers.retarget = retarget
    await before.registry.close()
    return site_factory(data_servers=before.data_servers)


def target_of(site, pid: int = 1000) -> str:
    return str(site.data_servers.running[pid].routes[0].target)


@pytest.mark.parametrize("taken", [False, True])
def test_u29_a_retarget_that_a_crash_cut_off_is_finished_at_the_next_start(site_factory, settle, taken):
    async def work():
        after = await cut_off_in_a_retarget(site_factory, taken=taken)
        await after.recover()
        await settle()
        (session,) = after.registry.sessions()
        assert (target_of(after), session.targets) == ("other.example:1", OTHER)
        assert session.in_step
        assert after.journal.records() == [session.record()]
        assert len(after.data_servers.started) == 1

    run(work)


def test_u29_where_it_cannot_be_finished_the_next_update_with_the_same_targets_does_it(site_factory, settle):
    async def work():
        after = await cut_off_in_a_retarget(site_factory, taken=False)
        after.data_servers.refusal = CANNOT
        await after.recover()
        await settle()
        told = [entry for entry in after.events.entries if entry["event"] == "session not in step"]
        assert ["it never drains" in entry["why"] for entry in told] == [True]
        assert target_of(after) == "t.example:5074"
        with pytest.raises(SciStreamError, match="it never drains"):
            await after.update("one", "other.example:1")
        after.data_servers.refusal = None
        await after.update("one", "other.example:1")
        assert target_of(after) == "other.example:1"
        # From now on the same targets change nothing.
        after.data_servers.refusal = CANNOT
        await after.update("one", "other.example:1")

    run(work)


def test_a_data_server_that_took_its_targets_is_told_of_also_on_a_full_disk(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        full = SciStreamError(Code.STATE_DIRECTORY_FULL, directory="d", reason="full")
        retarget, put_certainly = site.data_servers.retarget, site.journal.put_certainly

        def refuse(*_):
            raise full

        async def fill(*words):
            await retarget(*words)
            site.journal.put = refuse

        site.data_servers.retarget = fill
        site.journal.put_certainly = lambda record: (vars(site.journal).pop("put", None), put_certainly(record))
        await site.update("one", "other.example:1")
        assert (session.targets, session.in_step) == (OTHER, True)

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
