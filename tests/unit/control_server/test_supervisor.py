from __future__ import annotations

import asyncio

import pytest

from scistream.errors import Code, SciStreamError
from scistream.terms import SessionState

FULL = SciStreamError(Code.STATE_DIRECTORY_FULL, directory="d", reason="database or disk is full")


def fill(site) -> None:
    """From now on nothing can be written to the journal, by no means."""

    def refuse(*_):
        raise FULL

    site.journal.put = site.journal.put_certainly = site.journal.remove = refuse


def empty(site) -> None:
    for name in ("put", "put_certainly", "remove"):
        delattr(site.journal, name)


def test_on_a_full_disk_a_new_session_is_refused_and_leaves_nothing(site_factory):
    async def work():
        site = site_factory()
        fill(site)
        with pytest.raises(SciStreamError) as raised:
            await site.ask("one")
        assert raised.value is FULL
        assert site.registry.sessions() == []
        assert site.pool.taken == set()
        empty(site)
        await site.open("one")

    asyncio.run(work())


def test_on_a_full_disk_an_update_is_refused_and_no_process_stays_that_no_journal_knows(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        site.data_servers.gate.clear()
        update = asyncio.ensure_future(site.update("one"))
        await settle()
        fill(site)
        site.data_servers.gate.set()
        with pytest.raises(SciStreamError) as raised:
            await update
        assert raised.value is FULL
        assert site.data_servers.running == {}
        assert session.state is SessionState.FAILED

    asyncio.run(work())


def test_on_a_full_disk_what_runs_goes_on_comes_back_and_is_released(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        fill(site)
        site.data_servers.kill(1000)
        await settle()
        assert (session.state, session.restarts) == (SessionState.ACTIVE, 1)
        told = [entry["event"] for entry in site.events.entries]
        assert told.count("session not written") == 2
        await site.release("one")
        assert site.registry.sessions() == []
        assert site.data_servers.running == {}
        # The journal has it still; with the next write it is struck off.
        empty(site)
        assert [record.uid for record in site.journal.records()] == ["one"]
        await site.open("two")
        assert [record.uid for record in site.journal.records()] == ["two"]

    asyncio.run(work())


def test_a_restart_that_meets_an_unforeseen_error_is_told_and_tried_again(site_factory, settle):
    async def work():
        site = site_factory()
        session = await site.open("one")
        start, errors = site.data_servers.start, [KeyError("what nobody foresaw")]

        async def fail_once(*words):
            if errors:
                raise errors.pop()
            return await start(*words)

        site.data_servers.start = fail_once
        site.data_servers.kill(1000)
        await settle()
        assert "what nobody foresaw" in session.failure
        assert "unforeseen error" in [entry["event"] for entry in site.events.entries]
        site.naps.wake()
        await settle()
        assert (session.state, session.restarts) == (SessionState.ACTIVE, 1)

    asyncio.run(work())


def test_a_failed_session_that_is_started_anew_holds_its_ports_again(site_factory, settle):
    async def work():
        before = site_factory()
        await before.register("one")
        await before.registry.close()
        site = site_factory()
        site.pool.foreign = {22100}
        await site.recover()
        (session,) = site.registry.sessions()
        assert (session.state, session.reservation.retaken) == (SessionState.FAILED, False)
        await site.update("one")
        assert (session.state, session.reservation.retaken) == (SessionState.ACTIVE, True)

    asyncio.run(work())


def test_a_hello_that_is_held_is_told_when_the_control_server_ends(site_factory, settle):
    async def work():
        site = site_factory()
        hello = asyncio.ensure_future(site.say_hello("one"))
        await settle()
        assert not hello.done()
        await site.registry.close()
        with pytest.raises(SciStreamError) as raised:
            await hello
        assert raised.value.code is Code.CONTROL_SERVER_ENDING

    asyncio.run(work())
