from __future__ import annotations

import asyncio
import dataclasses

import pytest

from scistream.addresses import parse_networks
from scistream.control_server import registry
from scistream.control_server.events import EventKind
from scistream.control_server.recovery import Recovery
from scistream.control_server.sessions import SessionRequest
from scistream.engines import find_engine
from scistream.engines.lifecycle import ProcessMark
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, Encryption, SessionState, Transport, Uid, parse_uid

KEY = bytes(range(32))


def test_u40_a_session_whose_data_server_lives_goes_on(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.open("one", connections=2)
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        (found,) = after.registry.sessions()
        assert found.record() == session.record()
        assert after.data_servers.stopped == []
        # It is watched, and it keeps its ports.
        assert (await after.register("two")).ports == (22102,)
        after.data_servers.kill(1000)
        await settle()
        assert (found.state, found.restarts, found.ports) == (SessionState.ACTIVE, 1, session.ports)

    asyncio.run(work())


def test_a_session_whose_data_server_died_meanwhile_comes_back_on_its_ports_with_its_key(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.register("one")
        await before.update("one", key=KEY)
        plan = before.data_servers.running[1000]
        plan.path("psk").write_text(f"one:{KEY.hex()}\n")
        await before.registry.close()
        before.data_servers.kill(1000)
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        (found,) = after.registry.sessions()
        # Served before it is started: the start of a control server waits for none of its data servers.
        assert found.state is SessionState.FAILED
        assert "while no control server ran): its last words" in found.failure
        await settle()
        assert (found.state, found.failure, found.restarts) == (SessionState.ACTIVE, "", 1)
        again = after.data_servers.started[-1]
        assert (again.routes, again.key) == (plan.routes, KEY)
        assert found.reservation.retaken
        assert after.journal.records() == [found.record()]
        await after.release("one")
        assert after.is_empty
        assert session.asked.owner == found.asked.owner

    asyncio.run(work())


def test_a_key_outlives_a_control_server_that_ends_between_two_starts(site_factory, settle):
    async def work():
        before = site_factory()
        await before.register("one")
        await before.update("one", key=KEY)
        before.data_servers.refusal = SciStreamError(
            Code.DATA_SERVER_FAILED, engine="M", uid="one", ending="x", output="y"
        )
        before.data_servers.kill(1000)
        await settle()
        kept = before.directory / "one.key"
        assert (kept.read_text(), kept.stat().st_mode & 0o777) == (f"one:{KEY.hex()}\n", 0o600)
        await before.registry.close()
        before.data_servers.refusal = None
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert after.data_servers.started[-1].key == KEY
        assert after.registry.sessions()[0].state is SessionState.ACTIVE
        assert not kept.exists()

    asyncio.run(work())


def test_after_a_reboot_no_process_is_taken_for_a_data_server_and_the_session_comes_back(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.open("one")
        await before.registry.close()
        # The pid is there, and belongs to another boot's process.
        before.data_servers.running[1000] = before.data_servers.running.pop(1000)
        after = site_factory(data_servers=before.data_servers)
        after.data_servers.survey = lambda directory: {}
        after.journal._boot = "boot-2"
        await after.recover()
        assert after.data_servers.stopped == []
        await settle()
        (found,) = after.registry.sessions()
        assert (found.state, found.mark.pid, found.ports) == (SessionState.ACTIVE, 1001, session.ports)

    asyncio.run(work())


def test_a_session_that_drained_and_whose_data_server_is_gone_is_released(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.open("one")
        before.supervisor.move(session, SessionState.DRAINING)
        await before.registry.close()
        before.data_servers.kill(1000)
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert after.is_empty
        told = [entry["why"] for entry in after.events.entries if entry["event"] == "session released"]
        assert told == ["it was about to end when the control server did"]
        assert after.data_servers.wiped == ["one"]

    asyncio.run(work())


def test_a_session_that_drains_goes_on_draining(site_factory):
    async def work():
        before = site_factory()
        session = await before.open("one")
        before.supervisor.move(session, SessionState.DRAINING)
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        (found,) = after.registry.sessions()
        assert (found.state, found.mark) == (SessionState.DRAINING, session.mark)
        assert list(after.data_servers.running) == [1000]

    asyncio.run(work())


def test_a_release_that_a_crash_cut_off_is_finished_and_never_undone(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.open("one")
        record = dataclasses.replace(session.record(), state=SessionState.RELEASED, wanted=False)
        before.journal.put(record)
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert [stem for stem, _ in after.data_servers.stopped] == ["one"]
        assert after.is_empty

    asyncio.run(work())


def test_a_release_stands_in_the_journal_before_the_data_server_ends(site_factory):
    async def work():
        site = site_factory()
        await site.open("one")
        seen = []
        stop = site.data_servers.stop

        async def look(*words):
            seen.extend((record.state, record.wanted) for record in site.journal.records())
            await stop(*words)

        site.data_servers.stop = look
        await site.release("one")
        assert seen == [(SessionState.RELEASED, False)]
        assert site.is_empty

    asyncio.run(work())


def test_a_start_of_the_control_server_that_changes_nothing_writes_nothing_of_its_own(site_factory):
    async def work():
        before = site_factory()
        session = await before.open("one")
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        put = []
        after.journal.put = lambda *records: put.extend(records)
        recovery = Recovery(
            after.journal, after.directory, after.pool, after.data_servers, after.supervisor, after.engine
        )
        assert [found.record() for found in recovery.sessions({})] == [session.record()]
        assert put == []

    asyncio.run(work())


def test_a_session_that_was_registered_waits_for_its_update_with_the_same_ports(site_factory):
    async def work():
        before = site_factory()
        await before.register("one", Direction.INBOUND, connections=2)
        await before.registry.close()
        after = site_factory()
        await after.recover()
        # What an update that a crash cut off left of files.
        assert after.data_servers.wiped == ["one"]
        session = await after.update("one")
        assert (session.state, session.ports) == (SessionState.ACTIVE, (22100, 22101))

    asyncio.run(work())


def test_a_process_that_a_crash_kept_out_of_the_journal_is_ended(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.open("one")
        cut_off = dataclasses.replace(session.record(), state=SessionState.REGISTERED, pid=None, started=None)
        before.journal.put(dataclasses.replace(cut_off, wanted=False))
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        await settle()
        assert after.data_servers.stopped == [("one", ProcessMark(1000, 7))]
        assert after.data_servers.running == {}
        (session,) = after.registry.sessions()
        assert (session.state, session.mark, session.reservation.retaken) == (SessionState.REGISTERED, None, True)
        assert after.journal.records() == [session.record()]
        await after.update("one")
        assert session.state is SessionState.ACTIVE
        assert len(after.data_servers.stopped) == 1

    asyncio.run(work())


@pytest.mark.parametrize("state", [SessionState.REGISTERED, SessionState.DRAINING, SessionState.RELEASED])
def test_a_start_waits_for_no_frozen_stray_and_gives_its_ports_to_nobody(site_factory, settle, state):
    async def work():
        before = site_factory()
        frozen, thaw = before.data_servers, asyncio.Event()
        stop = frozen.stop

        async def stop_when_thawed(*words):
            await thaw.wait()
            await stop(*words)

        session = await before.open("one")
        cut_off = dataclasses.replace(session.record(), state=state, pid=None, started=None, wanted=False)
        before.journal.put(cut_off)
        await before.registry.close()
        frozen.stop = stop_when_thawed
        after = site_factory(data_servers=frozen)
        await after.recover()
        await settle()
        assert list(frozen.running) == [1000]
        assert (await after.register("two")).ports == (22101,)
        late = asyncio.ensure_future(after.update("one"))
        await settle()
        assert not (late.done() and late.exception() is None)
        thaw.set()
        await settle()
        assert 1000 not in frozen.running
        if state is SessionState.REGISTERED:
            assert (await late).state is SessionState.ACTIVE
        else:
            with pytest.raises(SciStreamError):
                await late
            assert [each.asked.uid for each in after.registry.sessions()] == ["two"]
            assert after.pool.taken == {22101}

    asyncio.run(work())


def test_a_stray_that_cannot_be_ended_fails_its_session_and_keeps_its_ports(site_factory, settle):
    async def work():
        before = site_factory()
        session = await before.open("one")
        cut_off = dataclasses.replace(session.record(), state=SessionState.REGISTERED, pid=None, started=None)
        before.journal.put(dataclasses.replace(cut_off, wanted=False))
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        words = {"engine": "Memory", "uid": "one", "pid": 1000, "left": "process 1000"}
        after.data_servers.stuck = SciStreamError(Code.DATA_SERVER_STUCK, **words)
        await after.recover()
        await settle()
        (found,) = after.registry.sessions()
        assert found.state is SessionState.FAILED
        assert "process 1000" in found.failure
        assert after.pool.taken == {22100}
        after.data_servers.stuck = None
        await after.update("one")
        assert (found.state, list(after.data_servers.running)) == (SessionState.ACTIVE, [1001])

    asyncio.run(work())


def test_what_a_start_finds_dead_is_told_as_lost(site_factory, settle):
    async def work():
        before = site_factory()
        await before.open("one")
        await before.registry.close()
        before.data_servers.kill(1000)
        after = site_factory(data_servers=before.data_servers)
        told: list[tuple[EventKind, SessionState]] = []
        after.supervisor.events.listen(lambda event: told.append((event.kind, event.session.state)))
        await after.recover()
        await settle()
        assert told == [(EventKind.LOST, SessionState.FAILED), (EventKind.RESTARTED, SessionState.ACTIVE)]

    asyncio.run(work())


def test_the_release_of_a_session_that_never_started_looks_for_no_process(site_factory):
    async def work():
        site = site_factory()
        await site.register("one")
        await site.release(Uid("one"))
        assert site.data_servers.stopped == []
        assert site.is_empty

    asyncio.run(work())


def test_a_session_whose_ports_somebody_took_is_failed_and_names_them(site_factory):
    async def work():
        before = site_factory()
        await before.register("one")
        await before.registry.close()
        after = site_factory()
        after.pool.foreign = {22100}
        await after.recover()
        (found,) = after.registry.sessions()
        assert found.state is SessionState.FAILED
        assert "22100 is in use by python3 (pid 1)" in found.failure
        await after.release(Uid("one"))
        assert after.is_empty

    asyncio.run(work())


def test_a_request_that_waited_is_forgotten(site_factory, settle):
    async def work():
        before = site_factory()
        request = before.ask("one")
        await settle()
        await before.registry.close()
        with pytest.raises(SciStreamError) as raised:
            await request
        assert raised.value.code is Code.CONTROL_SERVER_ENDING
        after = site_factory()
        await after.recover()
        assert after.is_empty

    asyncio.run(work())


def test_an_engine_that_is_not_known_any_more_does_not_keep_the_server_from_starting(site_factory):
    async def work():
        before = site_factory()
        session = await before.open("one")
        session.engine = type("Later", (type(session.engine),), {"name": "later"})()
        before.journal.put(session.record())
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        assert after.registry.sessions()[0].state is SessionState.ACTIVE

    asyncio.run(work())


def test_a_thousand_sessions_are_taken_over_with_one_look_at_the_processes(site_factory):
    async def work():
        before = site_factory()
        record = (await before.open("one")).record()
        for number in range(999):
            uid, pid = parse_uid(f"s{number}"), 2000 + number
            others = {"uid": uid, "stem": uid, "ports": (23000 + number,), "pid": pid}
            before.journal.put(dataclasses.replace(record, **others))
            before.data_servers.running[pid] = before.data_servers.running[1000]
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        looks = []
        survey = after.data_servers.survey
        after.data_servers.survey = lambda directory: looks.append(directory) or survey(directory)
        await after.recover()
        assert len(after.registry.sessions()) == 1000
        assert {session.state for session in after.registry.sessions()} == {SessionState.ACTIVE}
        assert looks == [after.directory]
        assert after.data_servers.stopped == after.data_servers.wiped == []

    asyncio.run(work())


@pytest.mark.parametrize(("name", "title", "retaken"), [("nftables", "nftables", True), ("tomorrow", "HAProxy", False)])
def test_a_session_of_the_kernel_holds_its_ports_again_and_an_unknown_engine_is_taken_for_one_with_processes(
    site_factory, name, title, retaken
):
    async def work():
        before = site_factory()
        session = await before.open("one")
        before.journal.put(dataclasses.replace(session.record(), engine=name))
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        # What ends rules in the kernel ends no process.
        after.engine = find_engine("nftables")
        await after.recover()
        (found,) = after.registry.sessions()
        assert (found.state, found.engine.title, found.reservation.retaken) == (SessionState.ACTIVE, title, retaken)

    asyncio.run(work())


def test_u03_u57_u63_what_was_asked_for_holds_after_a_restart_too(site_factory, monkeypatch, settle):
    """Source list, rate, transport: of the session, and of the data server that is started in its place."""

    async def work():
        before = site_factory()
        monkeypatch.setattr(type(before.engine), "cannot", {})
        own = {
            "encryption": Encryption.NONE,
            "transport": Transport.UDP,
            "sources": parse_networks("198.51.100.0/24,2001:db8::/32"),
            "half_close": True,
        }
        asked = SessionRequest(Uid("one"), Direction.INBOUND, 1, 500, NO_AUTH, "127.0.20.1", **own)
        request = asyncio.ensure_future(before.registry.request(asked))
        await asyncio.sleep(0)
        await before.say_hello("one")
        await request
        await before.update("one")
        plan = before.data_servers.started[-1]
        assert (plan.transport, plan.sources, plan.rate) == (Transport.UDP, own["sources"], 500)
        await before.registry.close()
        before.data_servers.kill(1000)
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        (found,) = after.registry.sessions()
        assert found.asked == asked
        await settle()
        assert after.data_servers.started[-1] == plan
        await after.release("one")

    asyncio.run(work())


def test_u57_bounds_and_certificates_are_looked_after_as_long_as_the_registry_lives(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        looked = []

        async def look(name, *arguments):
            looked.append(name)

        monkeypatch.setattr(registry, "keep_bounds", lambda *arguments: look("bounds"))
        monkeypatch.setattr(registry, "keep_renewing", lambda *arguments: look("certificates"))
        await site.registry.keep_promises()
        assert sorted(looked) == ["bounds", "certificates"]

    asyncio.run(work())
