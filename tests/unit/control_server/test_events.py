from __future__ import annotations

import asyncio
import dataclasses

import pytest
import structlog

from scistream.control_server import events as module
from scistream.control_server.event_facts import facts_of
from scistream.control_server.events import Event, EventKind, Events
from scistream.engines import find_engine
from scistream.engines.marks import ProcessMark
from scistream.errors import Code, SciStreamError


async def event_of(site, uid: str = "one", kind: EventKind = EventKind.ACTIVE) -> Event:
    session = site.find(uid)[0] if any(each.asked.uid == uid for each in site.registry.sessions()) else None
    return Event(1.0, kind, (session or await site.open(uid)).view())


def run(site_factory, work) -> None:
    async def inside() -> None:
        site = site_factory()
        await work(Events(), await event_of(site))

    asyncio.run(inside())


def test_who_watches_hears_what_is_wanted_and_in_its_order(site_factory):
    async def work(events: Events, event: Event):
        with events.watched(lambda found: found.words != "b") as heard:
            for words in "abc":
                events.publish(dataclasses.replace(event, words=words))
            assert [(await anext(heard)).words for _ in range(2)] == ["a", "c"]
        assert events.watchers == 0

    run(site_factory, work)


def test_a_wait_that_was_cut_off_loses_nothing(site_factory):
    async def work(events: Events, event: Event):
        with events.watched() as heard:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await anext(heard)
            events.publish(event)
            assert await anext(heard) is event

    run(site_factory, work)


def test_who_falls_behind_is_told_all_that_waited_and_then_that_there_is_a_hole(site_factory, monkeypatch):
    async def work(events: Events, event: Event):
        with events.watched() as slow, events.watched() as quick:
            for number in range(3):
                events.publish(dataclasses.replace(event, time=number))
                assert (await anext(quick)).time == number
            assert [(await anext(slow)).time for _ in range(2)] == [0, 1]
            with pytest.raises(SciStreamError) as raised:
                await anext(slow)
            assert (raised.value.code, raised.value.facts) == (Code.WATCH_TOO_SLOW, {"waiting": 2})

    monkeypatch.setattr(module, "_WAITING", 2)
    run(site_factory, work)


def test_the_end_is_told_after_everything_else_to_whoever_watches_and_to_whoever_comes_then(site_factory):
    async def work(events: Events, event: Event):
        with events.watched() as early:
            events.publish(event)
            events.close()
            assert await anext(early) is event
            for_both = [early]
            with events.watched() as late:
                for_both.append(late)
                for heard in for_both:
                    with pytest.raises(SciStreamError) as raised:
                        await anext(heard)
                    assert raised.value.code is Code.CONTROL_SERVER_ENDING

    run(site_factory, work)


def test_listeners_hear_at_once_and_one_that_fails_stops_nobody(site_factory):
    async def work(events: Events, event: Event):
        heard: list[Event] = []

        def broken(event: Event) -> None:
            raise RuntimeError

        events.listen(broken)
        events.listen(heard.append)
        with structlog.testing.capture_logs() as log, events.watched() as watched:
            events.publish(event)
            assert await anext(watched) is event
        assert heard == [event]
        assert [entry["event"] for entry in log] == ["unforeseen error"]

    run(site_factory, work)


def test_a_number_may_watch_and_no_more_until_one_goes(site_factory, monkeypatch):
    async def work(events: Events, event: Event):
        with events.watched():
            with events.watched(), pytest.raises(SciStreamError) as raised, events.watched():
                pass
            assert (raised.value.code, raised.value.facts) == (Code.TOO_MANY_WATCHERS, {"limit": 2, "whose": "clients"})
            with events.watched():
                assert events.watchers == 2

    monkeypatch.setattr(module, "_WATCHERS", 2)
    run(site_factory, work)


def test_one_owner_may_watch_a_few_times_and_takes_nobody_elses_place(site_factory, monkeypatch):
    async def work(events: Events, event: Event):
        with events.watched(owner="alice"):
            with events.watched(owner="alice"), pytest.raises(SciStreamError) as raised, events.watched(owner="alice"):
                pass
            assert raised.value.facts == {"limit": 2, "whose": "clients of yours"}
            assert str(raised.value).startswith("2 clients of yours watch this control server already")
            with events.watched(owner="bob"), events.watched(owner="alice"):
                assert events.watchers == 3
            # Where nobody can be told apart, the total alone counts.
            with events.watched(), events.watched(), events.watched():
                assert events.watchers == 4

    monkeypatch.setattr(module, "_WATCHERS_OF_OWNER", 2)
    run(site_factory, work)


def test_what_is_told_of_a_data_server_is_a_pid_only_where_it_is_a_process(site_factory):
    async def work():
        session = await site_factory().open("one")
        assert facts_of(EventKind.ACTIVE, session) == {"pid": 1000, "targets": "t.example:5074"}
        session.engine, session.mark = find_engine("nftables"), ProcessMark(0x5C00A1B2, 500)
        assert facts_of(EventKind.RESTARTED, session) == {"mark": "0x5c00a1b2", "restarts": 0}
        session.mark = None
        assert facts_of(EventKind.ACTIVE, session) == {"targets": "t.example:5074"}

    asyncio.run(work())
