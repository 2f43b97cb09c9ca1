"""The table of states, and the one function that moves a session through it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scistream.auth import Identity
from scistream.control_server.callers import Caller
from scistream.control_server.events import EventKind
from scistream.control_server.states import TRANSITIONS, drawing, is_allowed
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, SessionState, Uid

ROOT = Path(__file__).parents[3]
FULL = SciStreamError(Code.STATE_DIRECTORY_FULL, directory="/x", reason="No space left on device")
WAYS = {
    "requested": {"registered", "released"},
    "registered": {"active", "failed", "released"},
    "active": {"draining", "failed", "released"},
    "draining": {"active", "failed", "released"},
    "failed": {"active", "registered", "released"},
    "released": set(),
}


def run(work) -> None:
    asyncio.run(work())


class FullDisk:
    """What the journal says to every write, until there is room."""

    def __init__(self, site, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch.context()
        self._site = site

    def __enter__(self) -> None:
        patch = self._patch.__enter__()
        for name in ("put", "put_certainly", "remove"):
            patch.setattr(self._site.journal, name, self._refuse)

    def __exit__(self, *exception: object) -> None:
        self._patch.__exit__(*exception)

    def _refuse(self, *_: object) -> None:
        raise FULL


def test_every_way_is_in_the_table_and_nothing_else_is():
    for before in SessionState:
        for after in SessionState:
            wanted = before is after or after.value in WAYS[before.value]
            assert is_allowed(before, after) is wanted, (before, after)


def test_every_state_can_be_reached_and_all_but_the_last_can_be_released():
    assert [each.after for each in TRANSITIONS if each.before is None] == [SessionState.REQUESTED]
    assert {each.after for each in TRANSITIONS} == set(SessionState)
    released = {each.before for each in TRANSITIONS if each.after is SessionState.RELEASED}
    assert released == set(SessionState) - {SessionState.RELEASED}


def test_the_page_shows_the_table_as_it_is():
    # Where it does not: python tools/sessions_page.py
    assert f"```mermaid\n{drawing()}\n```" in (ROOT / "docs" / "sessions.md").read_text()
    # Mermaid takes a colon or semicolon inside a label for the next statement.
    assert not any(mark in each.cause for each in TRANSITIONS for mark in ":;\n")


def test_a_way_that_is_not_in_the_table_is_not_gone(site_factory):
    async def work():
        site = site_factory()
        session = await site.open("one")
        with pytest.raises(ValueError, match="no session goes from active to requested"):
            site.supervisor.move(session, SessionState.REQUESTED)
        assert session.state is site.journal.records()[0].state is SessionState.ACTIVE

    run(work)


def test_each_change_is_in_the_journal_before_it_takes_effect_and_is_told_after(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        written: list[tuple[str, str]] = []
        put, remove = site.journal.put, site.journal.remove

        def state() -> str:
            return next((session.state.value for session in site.registry.sessions()), "-")

        def note_put(*records):
            written.extend((record.state.value, state()) for record in records)
            put(*records)

        def note_remove(uid, direction):
            written.append(("-", state()))
            remove(uid, direction)

        monkeypatch.setattr(site.journal, "put", note_put)
        monkeypatch.setattr(site.journal, "remove", note_remove)
        told: list[tuple[EventKind, SessionState]] = []
        site.supervisor.events.listen(lambda event: told.append((event.kind, event.session.state)))
        await site.open("one")
        await site.registry.drain(Uid("one"), None, Caller(Identity(NO_AUTH)))
        await site.release(Uid("one"))
        changes = [pair for pair in written if pair[0] != pair[1]]
        assert changes == [
            ("registered", "requested"),
            ("active", "registered"),
            ("draining", "active"),
            ("released", "draining"),
            ("-", "draining"),
        ]
        assert written[0] == ("requested", "requested")
        assert told == [
            (EventKind.REQUESTED, SessionState.REQUESTED),
            (EventKind.REGISTERED, SessionState.REGISTERED),
            (EventKind.ACTIVE, SessionState.ACTIVE),
            (EventKind.DRAINING, SessionState.DRAINING),
            (EventKind.RELEASED, SessionState.RELEASED),
        ]

    run(work)


def test_a_requested_session_is_in_the_journal(site_factory, settle):
    async def work():
        site = site_factory()
        request = site.ask("one")
        await settle()
        assert [(record.uid, record.state) for record in site.journal.records()] == [("one", SessionState.REQUESTED)]
        request.cancel()
        await settle()
        assert site.is_empty

    run(work)


def test_on_a_full_disk_a_new_session_is_refused_with_the_reason_and_leaves_nothing(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        with FullDisk(site, monkeypatch), pytest.raises(SciStreamError, match="No space left on device") as raised:
            await site.ask("one")
        assert raised.value.code is Code.STATE_DIRECTORY_FULL
        assert site.is_empty
        # It was never there, so nothing is told of it.
        assert site.events.entries == []

    run(work)


def test_on_a_full_disk_a_hello_and_an_update_are_refused_and_the_session_stays_as_it_was(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        request = site.ask("one")
        await asyncio.sleep(0)
        with FullDisk(site, monkeypatch), pytest.raises(SciStreamError) as raised:
            await site.say_hello("one")
        assert raised.value.code is Code.STATE_DIRECTORY_FULL
        assert not request.done()
        await site.say_hello("one")
        session = await request
        with FullDisk(site, monkeypatch), pytest.raises(SciStreamError) as raised:
            await site.update("one")
        assert raised.value.code is Code.STATE_DIRECTORY_FULL
        assert session.state is SessionState.REGISTERED
        assert site.data_servers.started == []
        assert (await site.update("one")).state is SessionState.ACTIVE

    run(work)


def test_a_data_server_that_no_journal_could_be_told_of_is_ended(site_factory, monkeypatch, settle):
    async def work():
        site = site_factory()
        session = await site.register("one")
        site.data_servers.gate.clear()
        update = asyncio.ensure_future(site.update("one"))
        await settle()
        with FullDisk(site, monkeypatch):
            site.data_servers.gate.set()
            with pytest.raises(SciStreamError) as raised:
                await update
        assert raised.value.code is Code.STATE_DIRECTORY_FULL
        assert session.state is SessionState.FAILED
        assert site.data_servers.running == {}

    run(work)


def test_on_a_full_disk_sessions_run_on_and_can_be_released(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        session = await site.open("one")
        other = await site.open("two")
        with FullDisk(site, monkeypatch):
            await site.release(Uid("one"))
            assert session.state is SessionState.RELEASED
            assert site.pool.taken == set(other.ports)
            assert len(site.data_servers.running) == 1
        # As soon as there is room, the journal hears of it as well.
        await site.open("three")
        assert [record.uid for record in site.journal.records()] == ["two", "three"]

    run(work)


def test_what_was_released_on_a_full_disk_is_struck_off_at_the_end(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        await site.open("one")
        with FullDisk(site, monkeypatch):
            await site.release(Uid("one"))
        assert [record.uid for record in site.journal.records()] == ["one"]
        await site.registry.close()
        assert site.journal.records() == []

    run(work)


def test_a_uid_that_is_used_again_is_not_struck_off_for_the_one_before_it(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        await site.open("one")
        with FullDisk(site, monkeypatch):
            await site.release(Uid("one"))
        await site.open("one")
        await site.open("two")
        assert [record.uid for record in site.journal.records()] == ["one", "two"]

    run(work)
