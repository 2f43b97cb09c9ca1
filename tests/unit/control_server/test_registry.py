from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from scistream.addresses import Endpoint
from scistream.auth import Identity
from scistream.control_server.callers import Caller
from scistream.control_server.registry import Patience
from scistream.control_server.sessions import Update
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, SessionState, Uid

ANYBODY = Caller(Identity(NO_AUTH))

INBOUND, OUTBOUND = Direction.INBOUND, Direction.OUTBOUND
KEY = bytes(range(32))


def run(work: Callable[[], Coroutine]) -> None:
    asyncio.run(work())


def code_of(raised: pytest.ExceptionInfo[SciStreamError]) -> Code:
    return raised.value.code


def test_a_request_answers_when_the_hello_has_come(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one", connections=2)
        await settle()
        assert not request.done()
        assert site.find(Uid("one"))[0].state is SessionState.REQUESTED
        await site.say_hello("one", targets=("t.example:5074", "t.example:5075"))
        session = await request
        assert session.entry_points == (Endpoint("127.0.20.1", 22100), Endpoint("127.0.20.1", 22101))
        assert session.targets == (Endpoint("t.example", 5074), Endpoint("t.example", 5075))
        assert session.state is SessionState.REGISTERED

    run(work)


def test_u30_a_hello_that_comes_first_is_held(site_factory, settle):
    async def work():
        site = site_factory()
        hello = asyncio.ensure_future(site.say_hello("one"))
        await settle()
        assert not hello.done()
        request = site.ask("one")
        assert (await request) is (await hello)

    run(work)


def test_two_hellos_that_came_first_are_both_answered_by_their_own_request(site_factory, settle):
    async def work():
        site = site_factory()
        hellos = {uid: asyncio.ensure_future(site.say_hello(uid)) for uid in ("one", "two")}
        await settle()
        second = await site.ask("two")
        assert (await hellos["two"]) is second
        assert not hellos["one"].done()
        assert (await site.ask("one")) is (await hellos["one"])

    run(work)


def test_a_hello_that_nobody_waits_for_is_refused(site_factory):
    async def work():
        with pytest.raises(SciStreamError, match="no session with uid one") as raised:
            await site_factory(request=0).say_hello("one")
        assert code_of(raised) is Code.UID_UNKNOWN

    run(work)


def test_a_hello_again_changes_nothing(site_factory):
    async def work():
        site = site_factory(request=0)
        session = await site.register("one")
        assert (await site.say_hello("one", targets=("other.example:1",))) is session
        assert (await site.say_hello("one", only=INBOUND)) is session
        assert session.targets == (Endpoint("t.example", 5074),)

    run(work)


def test_u35_the_request_decides_the_direction_not_the_hello(site_factory):
    async def work():
        site = site_factory()
        request = site.ask("one", OUTBOUND)
        # As the deployed client does it, with targets that mean nothing.
        await site.say_hello("one", INBOUND, targets=("not an address",))
        session = await request
        assert session.asked.direction is OUTBOUND
        assert session.targets == ()

    run(work)


def test_u36_both_directions_of_a_uid_live_side_by_side(site_factory):
    async def work():
        site = site_factory()
        requests = [site.ask("one", INBOUND), site.ask("one", OUTBOUND)]
        await asyncio.sleep(0)
        first, second = [await site.say_hello("one", direction) for direction in (OUTBOUND, INBOUND)]
        assert (first.asked.direction, second.asked.direction) == (OUTBOUND, INBOUND)
        assert {session.stem for session in await asyncio.gather(*requests)} == {"one", "one.outbound"}
        for direction in Direction:
            await site.update("one", f"{direction.value}.example:1", direction=direction)
        assert [str(plan.routes[0].target) for plan in site.data_servers.started] == [
            "inbound.example:1",
            "outbound.example:1",
        ]
        await site.release(Uid("one"), OUTBOUND)
        assert [session.asked.direction for session in site.registry.sessions()] == [INBOUND]
        await site.release(Uid("one"))
        assert site.is_empty

    run(work)


def test_a_direction_named_by_the_hello_is_the_one_that_is_meant(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one", INBOUND)
        hello = asyncio.ensure_future(site.say_hello("one", INBOUND, only=OUTBOUND))
        await settle()
        assert not request.done()
        assert not hello.done()
        assert (await site.ask("one", OUTBOUND)) is (await hello)
        request.cancel()

    run(work)


@pytest.mark.parametrize("uid", ["s2cs", "journal"])
def test_a_uid_never_has_the_file_names_of_the_control_server(site_factory, uid):
    async def work():
        assert (await site_factory().register(uid)).stem == f"{uid}.inbound"

    run(work)


def test_u31_a_request_without_a_hello_leaves_nothing(site_factory):
    async def work():
        site = site_factory(hello=0)
        with pytest.raises(SciStreamError, match="no hello came for session one within 0 s") as raised:
            await site.ask("one")
        assert code_of(raised) is Code.HELLO_TIMEOUT
        assert site.is_empty

    run(work)


def test_u21_a_client_that_goes_away_frees_its_reservation_at_once(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one", connections=10)
        await settle()
        assert site.pool.free == 0
        request.cancel()
        await settle()
        assert site.is_empty

    run(work)


def test_a_client_that_goes_away_as_its_hello_comes_leaves_nothing(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one")
        await settle()
        await site.say_hello("one")
        request.cancel()
        await settle()
        assert site.is_empty

    run(work)


def test_a_request_that_is_released_fails(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one")
        await settle()
        await site.release(Uid("one"))
        with pytest.raises(SciStreamError) as raised:
            await request
        assert code_of(raised) is Code.UID_UNKNOWN
        assert site.is_empty

    run(work)


def test_a_second_request_with_a_uid_is_refused_and_the_first_goes_on(site_factory):
    async def work():
        site = site_factory()
        request = site.ask("one")
        with pytest.raises(SciStreamError, match=r"uid one exists already \(requested\)") as raised:
            await site.ask("one")
        assert code_of(raised) is Code.UID_EXISTS
        await site.say_hello("one")
        assert (await request).ports == (22100,)

    run(work)


def test_bad_targets_fail_the_hello_and_a_better_one_may_follow(site_factory):
    async def work():
        site = site_factory()
        request = site.ask("one")
        with pytest.raises(SciStreamError) as raised:
            await site.say_hello("one", targets=("nonsense",))
        assert code_of(raised) is Code.BAD_ADDRESS
        await site.say_hello("one")
        assert (await request).targets == (Endpoint("t.example", 5074),)

    run(work)


def test_more_targets_than_entry_points_fail_the_hello_and_the_req_waits_on(site_factory):
    async def work():
        site = site_factory()
        request = site.ask("one")
        with pytest.raises(SciStreamError, match="more targets were named") as raised:
            await site.say_hello("one", targets=("t.example:5074", "t.example:5075"))
        assert code_of(raised) is Code.TOO_MANY_TARGETS
        assert not request.done()
        await site.say_hello("one")
        assert (await request).targets == (Endpoint("t.example", 5074),)

    run(work)


def test_a_journal_that_fails_fails_the_hello_and_not_the_session(site_factory):
    async def work():
        site = site_factory()
        request = site.ask("one")
        await asyncio.sleep(0)
        site.journal.close()
        with pytest.raises(SciStreamError, match="closed database") as raised:
            await site.say_hello("one")
        assert code_of(raised) is Code.JOURNAL_DAMAGED
        assert site.find(Uid("one"))[0].state is SessionState.REQUESTED
        request.cancel()

    run(work)


def test_u25_too_few_ports_is_an_error_and_takes_none(site_factory):
    async def work():
        site = site_factory()
        with pytest.raises(SciStreamError, match="11 ports were asked for, 10 of 10") as raised:
            await site.ask("one", connections=11)
        assert code_of(raised) is Code.PORTS_EXHAUSTED
        assert site.is_empty

    run(work)


def test_targets_are_used_in_turn_where_they_are_fewer(site_factory):
    async def work():
        site = site_factory()
        await site.register("one", connections=3)
        await site.update("one", "a.example:1", "b.example:2")
        routes = site.data_servers.started[0].routes
        assert [str(route.target) for route in routes] == ["a.example:1", "b.example:2", "a.example:1"]

    run(work)


def test_an_update_before_the_hello_is_refused(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one")
        await settle()
        with pytest.raises(SciStreamError, match="waits for its hello") as raised:
            await site.update("one")
        assert code_of(raised) is Code.SESSION_NOT_REGISTERED
        request.cancel()

    run(work)


def test_u32_an_update_without_targets_is_refused(site_factory):
    async def work():
        site = site_factory()
        session = await site.register("one")
        with pytest.raises(SciStreamError, match="no targets") as raised:
            await site.registry.update(Update(Uid("one"), INBOUND, ()), ANYBODY)
        assert code_of(raised) is Code.NO_TARGETS
        assert session.state is site.journal.records()[0].state is SessionState.REGISTERED
        assert session.targets == (Endpoint("t.example", 5074),)

    run(work)


def test_u37_more_targets_than_entry_points_are_refused(site_factory):
    async def work():
        site = site_factory()
        await site.register("one")
        with pytest.raises(
            SciStreamError, match=r"more targets were named \(2\) than there are entry points \(1\)"
        ) as raised:
            await site.update("one", "a.example:1", "b.example:2")
        assert code_of(raised) is Code.TOO_MANY_TARGETS
        assert site.data_servers.started == []

    run(work)


def test_an_update_again_starts_nothing(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        assert (await site.update("one")) is session
        assert len(site.data_servers.started) == 1

    run(work)


def test_two_updates_at_once_start_one_data_server(site_factory):
    async def work():
        site = site_factory()
        await site.register("one")
        await asyncio.gather(site.update("one"), site.update("one"))
        assert len(site.data_servers.started) == 1

    run(work)


def test_the_key_reaches_the_data_server_and_another_one_is_refused(site_factory):
    async def work():
        site = site_factory()
        await site.register("one")
        session = await site.update("one", key=KEY)
        assert site.data_servers.started[0].key == KEY
        assert (await site.update("one", key=KEY)) is session
        with pytest.raises(SciStreamError, match="other parameters: the session key") as raised:
            await site.update("one", key=bytes(32))
        assert code_of(raised) is Code.TARGET_IN_USE

    run(work)


def test_u05_the_key_is_in_no_journal_log_or_text_and_is_wiped_at_release(site_factory):
    async def work():
        site = site_factory()
        await site.register("one")
        session = await site.update("one", key=KEY)
        written = (site.directory / "journal.sqlite3").read_bytes() + (
            site.directory / "journal.sqlite3-wal"
        ).read_bytes()
        seen = f"{session!r}{session.record()!r}{site.events.entries!r}{session.plan(site.directory)!r}"
        assert KEY not in written
        assert KEY.hex() not in written.decode("latin-1")
        assert repr(KEY)[2:-1] not in seen
        assert KEY.hex() not in seen
        await site.release(Uid("one"))
        assert session.key is None

    run(work)


def test_u28_an_update_fails_with_the_data_servers_words_and_may_be_tried_anew(site_factory):
    async def work():
        site = site_factory()
        session = await site.register("one")
        words = {"engine": "Memory", "uid": "one", "ending": "exit status 1", "output": "cannot bind"}
        site.data_servers.refusal = SciStreamError(Code.DATA_SERVER_FAILED, **words)
        with pytest.raises(SciStreamError, match="cannot bind"):
            await site.update("one")
        assert session.state is SessionState.FAILED
        assert "cannot bind" in session.failure
        assert site.journal.records()[0].state is SessionState.FAILED
        site.data_servers.refusal = None
        await site.update("one")
        assert (session.state, session.failure) == (SessionState.ACTIVE, "")

    run(work)


def test_a_session_is_in_the_journal_before_its_data_server_starts(site_factory, settle):
    async def work():
        site = site_factory()
        await site.register("one")
        site.data_servers.gate.clear()
        update = asyncio.ensure_future(site.update("one"))
        await settle()
        assert [(record.uid, record.pid) for record in site.journal.records()] == [("one", None)]
        site.data_servers.gate.set()
        await update
        assert [(record.state, record.pid) for record in site.journal.records()] == [(SessionState.ACTIVE, 1000)]

    run(work)


def test_a_release_while_an_update_starts_waits_for_it_and_leaves_nothing(site_factory, settle):
    async def work():
        site = site_factory()
        await site.register("one")
        site.data_servers.gate.clear()
        update = asyncio.ensure_future(site.update("one"))
        await settle()
        release = asyncio.ensure_future(site.release(Uid("one")))
        await settle()
        site.data_servers.gate.set()
        await asyncio.gather(update, release)
        assert site.is_empty

    run(work)


def test_an_update_that_waits_for_a_release_finds_no_session(site_factory):
    async def work():
        site = site_factory()
        await site.register("one")
        release = asyncio.ensure_future(site.release(Uid("one")))
        await asyncio.sleep(0)
        update = asyncio.ensure_future(site.update("one"))
        await release
        with pytest.raises(SciStreamError) as raised:
            await update
        assert code_of(raised) is Code.UID_UNKNOWN
        assert site.is_empty

    run(work)


def test_an_update_whose_client_went_away_leaves_nothing_half_made(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        site.data_servers.gate.clear()
        update = asyncio.ensure_future(site.update("one"))
        await settle()
        update.cancel()
        site.data_servers.gate.set()
        await settle()
        assert session.state is SessionState.RELEASED
        assert site.is_empty

    run(work)


def test_a_session_whose_update_another_caller_relies_on_stays(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        site.data_servers.gate.clear()
        first, second = (asyncio.ensure_future(site.update("one")) for _ in range(2))
        await settle()
        first.cancel()
        site.data_servers.gate.set()
        await settle()
        assert (await second).state is SessionState.ACTIVE
        assert site.registry.sessions() == [session]

    run(work)


def test_a_registered_session_whose_update_does_not_come_is_released(site_factory, settle):
    async def work():
        site = site_factory()
        await site.open("active")
        session = await site.register("one")
        site.registry._opening._patience = Patience(hello=0)
        site.registry._opening.expect_update(session)
        site.registry._opening.expect_update(site.find(Uid("active"))[0])
        await settle()
        assert session.state is SessionState.RELEASED
        assert [each.asked.uid for each in site.registry.sessions()] == ["active"]

    run(work)


def test_after_a_restart_too_a_registered_session_is_not_kept_for_ever(site_factory, settle):
    async def work():
        before = site_factory()
        await before.register("one")
        await before.registry.close()
        after = site_factory(hello=0)
        await after.recover()
        await settle()
        assert after.is_empty

    run(work)


def failing(site) -> None:
    words = {"engine": "Memory", "uid": "one", "ending": "exit status 1", "output": "cannot bind"}
    site.data_servers.refusal = SciStreamError(Code.DATA_SERVER_FAILED, **words)


def test_a_session_that_did_not_start_is_released_where_nobody_tries_it_anew(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        failing(site)
        for _ in range(2):
            with pytest.raises(SciStreamError, match="cannot bind"):
                await site.update("one")
        await settle()
        assert (session.state, site.pool.taken) == (SessionState.FAILED, {22100})
        site.registry._opening._patience = Patience(hello=0)
        with pytest.raises(SciStreamError, match="cannot bind"):
            await site.update("one")
        await settle()
        assert session.state is SessionState.RELEASED
        assert site.is_empty
        released = [entry for entry in site.events.entries if entry["event"] == "session released"]
        assert [entry["why"] for entry in released] == ["no update came"]

    run(work)


def test_each_failure_leaves_the_whole_time_for_another_try(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        from_hello = session.watch
        failing(site)
        with pytest.raises(SciStreamError):
            await site.update("one")
        await settle()
        assert from_hello.cancelled()
        assert not session.watch.done()
        site.data_servers.refusal = None
        await site.update("one")
        assert session.state is SessionState.ACTIVE

    run(work)


def test_after_a_restart_too_a_session_that_did_not_start_is_not_kept_for_ever(site_factory, settle):
    async def work():
        before = site_factory()
        await before.register("one")
        failing(before)
        with pytest.raises(SciStreamError):
            await before.update("one")
        await before.registry.close()
        after = site_factory(hello=0)
        await after.recover()
        assert [session.state for session in after.registry.sessions()] == [SessionState.FAILED]
        await settle()
        assert after.is_empty

    run(work)


def test_a_session_that_could_not_be_ended_is_tried_again_later(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.stuck = SciStreamError(
            Code.DATA_SERVER_STUCK, engine="Memory", uid="one", pid=1000, left="process 1000"
        )
        with pytest.raises(SciStreamError, match="process 1000"):
            await site.release(Uid("one"))
        assert session.state is SessionState.FAILED
        assert not session.watch.done()
        site.data_servers.stuck = None
        site.registry._opening._patience = Patience(hello=0)
        site.registry._opening.expect_update(session)
        await settle()
        assert site.is_empty

    run(work)


def test_one_that_is_to_be_started_again_is_not_given_up(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        failing(site)
        site.data_servers.kill(1000)
        await settle()
        site.registry._opening._patience = Patience(hello=0)
        await asyncio.sleep(0)
        assert (session.state, session.awaits_update) == (SessionState.FAILED, False)
        await site.registry._release(session, "no update came", lambda: not session.awaits_update)
        assert site.registry.sessions() == [session]

    run(work)


class Unwritable:
    """A log that raises."""

    def info(self, event, **facts):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_log_that_raises_keeps_no_port_and_no_record(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.supervisor._log = Unwritable()
        with pytest.raises(BrokenPipeError):
            await site.ask("two")
        assert site.registry.sessions() == [session]
        assert site.pool.taken == set(session.ports)
        with pytest.raises(BrokenPipeError):
            await site.release(Uid("one"))
        assert site.is_empty

    run(work)


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (IsADirectoryError(21, "Is a directory", "/x/one.psk"), Code.FILE_UNWRITABLE, "/x/one.psk cannot be written"),
        (ValueError("of some kind"), Code.INTERNAL, "ValueError: of some kind"),
    ],
)
def test_u28_a_release_that_meets_an_unforeseen_error_leaves_no_false_success(site_factory, failure, code, words):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.stuck = failure
        with pytest.raises(SciStreamError, match=words) as raised:
            await site.release(Uid("one"))
        assert code_of(raised) is code
        assert session.state is SessionState.FAILED
        assert words in session.failure
        with pytest.raises(SciStreamError, match=words):
            await site.update("one")
        assert session.state is SessionState.FAILED
        site.data_servers.stuck = None
        assert (await site.update("one")).state is SessionState.ACTIVE
        await site.release(Uid("one"))
        assert site.is_empty

    run(work)


def test_a_failure_is_told_also_where_the_journal_cannot_be_written(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        site.data_servers.stuck = ValueError("of some kind")
        site.journal.close()
        with pytest.raises(SciStreamError, match="of some kind"):
            await site.release(Uid("one"))
        assert session.state is SessionState.FAILED

    run(work)


def test_a_session_without_targets_is_released_without_a_data_server(site_factory):
    async def work():
        site = site_factory()
        await site.register("one", OUTBOUND)
        await site.release(Uid("one"))
        assert site.is_empty
        assert site.data_servers.stopped == []

    run(work)


def test_u33_releasing_twice_is_a_clear_error(site_factory):
    async def work():
        site = site_factory()
        await site.open("one")
        await site.release(Uid("one"))
        assert site.is_empty
        with pytest.raises(SciStreamError, match="no session with uid one") as raised:
            await site.release(Uid("one"))
        assert code_of(raised) is Code.UID_UNKNOWN

    run(work)


def test_a_data_server_that_cannot_be_ended_keeps_its_session_and_the_others_go(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        facts = {"engine": "Memory", "uid": "one", "pid": 1000, "left": "process 1000"}
        site.data_servers.stuck = SciStreamError(Code.DATA_SERVER_STUCK, **facts)
        with pytest.raises(SciStreamError, match="process 1000 is still there"):
            await site.registry.release_all()
        assert session.state is SessionState.FAILED
        site.data_servers.stuck = None
        assert await site.registry.release_all() == 1
        assert site.is_empty

    run(work)


def test_a_data_server_that_dies_fails_its_session_with_its_last_words(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        await site.open("two")
        # It cannot be started again.
        site.data_servers.refusal = SciStreamError(Code.DATA_SERVER_LOST, engine="M", uid="one", ending="x", output="y")
        site.data_servers.kill(1000)
        await settle()
        assert session.state is SessionState.FAILED
        events = [entry for entry in site.events.entries if entry["uid"] == "one"][-2:]
        assert [entry["event"] for entry in events] == ["session lost", "session failed"]
        assert "ended while it served the stream (signal SIGKILL): its last words" in events[0]["why"]
        assert [record.state for record in site.journal.records()] == [SessionState.FAILED, SessionState.ACTIVE]
        await site.release(Uid("one"))
        assert [session.asked.uid for session in site.registry.sessions()] == ["two"]

    run(work)


def test_a_data_server_that_is_released_is_not_reported_as_lost(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        await site.release(Uid("one"))
        site.data_servers._ends.setdefault(1000, asyncio.Event()).set()
        await settle()
        assert session.state is SessionState.RELEASED
        assert "session failed" not in [entry["event"] for entry in site.events.entries]

    run(work)


def test_at_the_end_requests_fail_updates_finish_and_data_servers_go_on(site_factory, settle):
    async def work():
        site = site_factory()
        await site.register("one")
        site.data_servers.gate.clear()
        update, request = asyncio.ensure_future(site.update("one")), site.ask("two")
        await settle()
        close = asyncio.ensure_future(site.registry.close())
        await settle()
        with pytest.raises(SciStreamError) as raised:
            await request
        assert code_of(raised) is Code.CONTROL_SERVER_ENDING
        assert not close.done()
        site.data_servers.gate.set()
        await close
        assert (await update).state is SessionState.ACTIVE
        assert len(site.data_servers.running) == 1
        with pytest.raises(SciStreamError) as raised:
            await site.ask("three")
        assert code_of(raised) is Code.CONTROL_SERVER_ENDING

    run(work)


def test_u24_ports_are_used_again_after_release(site_factory):
    async def work():
        site = site_factory()
        for number in range(30):
            session = await site.open(f"session-{number}", connections=10)
            assert session.ports == tuple(range(22100, 22110))
            await site.release(session.asked.uid)
        assert site.is_empty

    run(work)


def test_u22_answers_of_many_concurrent_sessions_are_never_mixed(site_factory):
    async def work():
        site = site_factory()
        site.pool.ports = type(site.pool.ports)(22100, 22999)
        requests = {f"session-{number}": site.ask(f"session-{number}", connections=3) for number in range(240)}
        hellos = [site.say_hello(uid, targets=(f"{uid}.example:1",)) for uid in reversed(requests)]
        await asyncio.gather(*hellos)
        sessions = {uid: await request for uid, request in requests.items()}
        assert all(str(session.targets[0]) == f"{uid}.example:1" for uid, session in sessions.items())
        assert len({port for session in sessions.values() for port in session.ports}) == 720

    run(work)
