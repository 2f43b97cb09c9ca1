"""Bounds of running sessions are put back when somebody lifted them."""

from __future__ import annotations

import asyncio

import pytest

from scistream.addresses import parse_networks
from scistream.control_server.rates import keep_bounds
from scistream.control_server.sessions import SessionRequest
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Direction, Encryption, Uid


async def opened(site, uid: str, rate: int, sources: str = ""):
    own = {"encryption": Encryption.NONE, "sources": parse_networks(sources) if sources else ()}
    asked = SessionRequest(Uid(uid), Direction.INBOUND, 1, rate, NO_AUTH, "127.0.20.1", **own)
    request = asyncio.ensure_future(site.registry.request(asked))
    await asyncio.sleep(0)
    await site.say_hello(uid)
    await request
    return await site.update(uid)


def test_u03_u57_running_sessions_with_a_rate_or_sources_are_looked_after_once_a_minute(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        kept, looks = [], []

        async def keep_bounds_of_one(self, plan):
            kept.append((plan.uid, plan.rate))
            if len(kept) == 1:
                raise SciStreamError(Code.ENGINE_CANNOT, engine="Memory", reason="no nft here")

        async def sleep(seconds):
            looks.append(seconds)
            if len(looks) == 2:
                raise asyncio.CancelledError

        monkeypatch.setattr(type(site.engine), "cannot", {})
        monkeypatch.setattr(type(site.engine), "keep_bounds", keep_bounds_of_one)
        await opened(site, "limited", 500)
        await opened(site, "free", 0)
        await opened(site, "listed", 0, "192.0.2.0/24")
        with pytest.raises(asyncio.CancelledError):
            await keep_bounds(site.registry.sessions, site.supervisor, sleep=sleep)
        assert kept == [("limited", 500), ("listed", 0)] * 2
        assert looks == [60.0] * 2
        told = [entry for entry in site.events.entries if entry["event"] == "bounds not kept"]
        assert len(told) == 1
        assert "no nft here" in told[0]["why"]

    asyncio.run(work())
