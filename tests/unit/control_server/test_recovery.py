from __future__ import annotations

import asyncio

import pytest

from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState, Uid


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
        assert found.state is SessionState.FAILED

    asyncio.run(work())


def test_a_session_whose_data_server_died_meanwhile_is_failed_and_cleared(site_factory):
    async def work():
        before = site_factory()
        await before.open("one")
        await before.registry.close()
        before.data_servers.kill(1000)
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        (found,) = after.registry.sessions()
        assert found.state is SessionState.FAILED
        assert "while no control server ran" in found.failure
        assert "its last words" in found.failure
        assert [stem for stem, _ in after.data_servers.stopped] == ["one", "one"]
        await after.release(Uid("one"))
        assert after.is_empty

    asyncio.run(work())


def test_after_a_reboot_no_process_is_taken_for_a_data_server(site_factory):
    async def work():
        before = site_factory()
        await before.open("one")
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        # The pid is there, and belongs to another boot's process.
        after.journal._boot = "boot-2"
        await after.recover()
        assert after.registry.sessions()[0].state is SessionState.FAILED
        assert after.data_servers.stopped == [("one", None)]
        assert list(after.data_servers.running) == [1000]

    asyncio.run(work())


def test_a_session_that_was_registered_waits_for_its_update_with_the_same_ports(site_factory):
    async def work():
        before = site_factory()
        await before.register("one", Direction.INBOUND, connections=2)
        await before.registry.close()
        after = site_factory()
        await after.recover()
        # A crash in the middle of the start may have left a process: everything of the session's log is ended.
        assert after.data_servers.stopped == [("one", None)]
        session = await after.update("one")
        assert (session.state, session.ports) == (SessionState.ACTIVE, (22100, 22101))

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
        before.supervisor.write(session)
        await before.registry.close()
        after = site_factory(data_servers=before.data_servers)
        await after.recover()
        assert after.registry.sessions()[0].state is SessionState.ACTIVE

    asyncio.run(work())
