from __future__ import annotations

import asyncio

import pytest
import structlog

from scistream.control_server import sampling
from scistream.control_server.sampling import Sampler
from scistream.engines.base import Traffic
from scistream.engines.lifecycle import ProcessMark
from scistream.terms import SessionState


class Host:
    """What data servers tell, by uid; an error is raised."""

    def __init__(self, site) -> None:
        self.told: dict[str, Traffic | Exception] = {}
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.now = 1000.0
        self.log = structlog.testing.LogCapture()
        log = structlog.wrap_logger(None, processors=[structlog.stdlib.add_log_level, self.log])
        self.sampler = Sampler(site.registry.sessions, self.ask, log, interval=0, clock=lambda: self.now)

    async def ask(self, session, mark) -> Traffic:
        self.asked.append(session.asked.uid)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        found = self.told.get(session.asked.uid, Traffic())
        if isinstance(found, Exception):
            raise found
        return found

    async def sample(self, **told: Traffic | Exception) -> None:
        self.told.update(told)
        self.now += 10
        await self.sampler.sample()


def run(site_factory, work) -> None:
    async def inside() -> None:
        site = site_factory()
        await work(site, Host(site))

    asyncio.run(inside())


def test_u34_a_session_knows_what_it_carried_and_since_when_it_is_idle(site_factory):
    async def work(site, host: Host):
        session = await site.open("one")
        assert session.idle_since is None
        await host.sample(one=Traffic(1, 1, 100, 50))
        assert (session.traffic, session.idle_since) == (Traffic(1, 1, 100, 50), 1010)
        await host.sample()
        assert session.idle_since == 1010
        await host.sample(one=Traffic(1, 1, 100, 51))
        assert session.idle_since == 1030
        # A connection that closes is no traffic.
        await host.sample(one=Traffic(0, 1, 100, 51))
        assert (session.idle_since, session.traffic.connections_open) == (1030, 0)
        await host.sample(one=Traffic(1, 2, 100, 51))
        assert session.idle_since == 1050

    run(site_factory, work)


def test_totals_go_on_where_a_data_server_starts_again_with_nothing(site_factory):
    async def work(site, host: Host):
        session = await site.open("one")
        await host.sample(one=Traffic(2, 5, 1000, 500, 1))
        session.state = SessionState.FAILED
        await host.sample()
        assert session.traffic == Traffic(0, 5, 1000, 500, 1)
        session.state, session.mark = SessionState.ACTIVE, ProcessMark(4711, 7)
        # More than the old one had: only the mark tells that it is another.
        await host.sample(one=Traffic(1, 6, 2000, 600, 2))
        assert session.traffic == Traffic(1, 11, 3000, 1100, 3)
        assert host.sampler.refused_peers == 3
        # Reloaded: the same mark, and counters that start anew.
        await host.sample(one=Traffic(1, 1, 10, 10, 0))
        assert session.traffic == Traffic(1, 12, 3010, 1110, 3)

    run(site_factory, work)


def test_refused_peers_are_remembered_when_their_session_is_gone(site_factory):
    async def work(site, host: Host):
        await site.open("one")
        await host.sample(one=Traffic(refused_peers=4))
        await site.release("one")
        await site.open("one")
        await host.sample(one=Traffic(refused_peers=1))
        assert host.sampler.refused_peers == 5
        told = [(entry["log_level"], entry["uid"], entry["number"]) for entry in host.log.entries]
        assert told == [("warning", "one", 4), ("warning", "one", 1)]

    run(site_factory, work)


def test_only_sessions_that_carry_are_asked_about_and_a_bounded_number_at_once(site_factory):
    async def work(site, host: Host):
        site.pool.ports = range(22100, 22200)
        for number in range(40):
            await site.open(f"active-{number}")
        (await site.open("draining")).state = SessionState.DRAINING
        await site.register("registered")
        await host.sample()
        assert sorted(host.asked) == sorted([*(f"active-{number}" for number in range(40)), "draining"])
        assert host.most_at_once == sampling._AT_ONCE

    run(site_factory, work)


@pytest.mark.parametrize("failure", [OSError("no such socket"), ValueError("not a figure"), TimeoutError()])
def test_a_data_server_that_does_not_answer_is_told_once_and_spoils_nothing(site_factory, failure):
    async def work(site, host: Host):
        silent, other = await site.open("silent"), await site.open("other")
        await host.sample(silent=Traffic(0, 1, 7, 7))
        for _ in range(3):
            await host.sample(silent=failure, other=Traffic(0, 1, 9, 9))
        assert (silent.traffic, other.traffic) == (Traffic(0, 1, 7, 7), Traffic(0, 1, 9, 9))
        (entry,) = host.log.entries
        assert (entry["event"], entry["uid"], entry["log_level"]) == ("traffic not known", "silent", "warning")
        await host.sample(silent=Traffic(0, 1, 8, 8))
        assert silent.traffic == Traffic(0, 1, 8, 8)

    run(site_factory, work)


def test_a_data_server_that_hangs_holds_nobody_up_for_long(site_factory, monkeypatch):
    async def work(site, host: Host):
        await site.open("hangs")
        host.sampler._ask = lambda session, mark: asyncio.Event().wait()
        await host.sample()
        assert [entry["why"] for entry in host.log.entries] == ["no answer"]

    monkeypatch.setattr(sampling, "_PATIENCE", 0)
    run(site_factory, work)


def test_an_answer_about_a_data_server_that_was_replaced_meanwhile_is_not_counted(site_factory):
    async def work(site, host: Host):
        session = await site.open("one")

        async def ask(session, mark) -> Traffic:
            session.mark = ProcessMark(4711, 7)
            return Traffic(9, 9, 9, 9, 9)

        host.sampler._ask = ask
        await host.sample()
        assert session.traffic == Traffic()

    run(site_factory, work)


def test_nothing_is_kept_of_sessions_that_are_gone(site_factory):
    async def work(site, host: Host):
        await site.open("one")
        await host.sample(one=OSError())
        await host.sample(one=Traffic())
        await site.release("one")
        await host.sample()
        assert (host.sampler._counts, host.sampler._silent) == ({}, set())

    run(site_factory, work)


def test_the_sampler_goes_on_after_what_nobody_foresaw(site_factory):
    async def work(site, host: Host):
        await site.open("one")
        asked = asyncio.Event()

        async def ask(session, mark) -> Traffic:
            if not asked.is_set():
                asked.set()
                raise KeyError
            session.failure = "asked again"
            raise asyncio.CancelledError

        host.sampler._ask = ask
        with pytest.raises(asyncio.CancelledError):
            await host.sampler.run()
        assert [entry["event"] for entry in host.log.entries] == ["unforeseen error"]
        assert site.find("one")[0].failure == "asked again"

    run(site_factory, work)
