"""Certificates of running sessions are replaced: when somebody asks, and by themselves before they end."""

from __future__ import annotations

import asyncio

import pytest

from scistream.auth import Identity
from scistream.certificates.sessions import LIFETIME, RENEWAL
from scistream.control_server.callers import Caller
from scistream.control_server.events import EventKind
from scistream.control_server.renewing import keep_renewing
from scistream.engines.base import Handshake
from scistream.errors import Code, SciStreamError
from scistream.terms import NO_AUTH, Encryption, SessionState, Uid

ANYBODY = Caller(Identity(NO_AUTH))
UID = Uid("one")
NOW = 1_700_000_000.0
DUE_IN = (LIFETIME - RENEWAL).total_seconds()
FULL = LIFETIME.total_seconds()


@pytest.fixture
def site_of(site_factory, monkeypatch):
    """A site whose engine speaks TLS, and whose certificates end when `ends` says."""

    def make(ends: float | None = None):
        site = site_factory()
        monkeypatch.setattr(type(site.engine), "encryptions", (Encryption.TLS, Encryption.NONE))
        monkeypatch.setattr(type(site.engine), "certificate_expires", lambda self, plan: ends)
        site.encryption = Encryption.TLS
        return site

    return make


def test_a_renewal_is_carried_out_logged_and_told_to_those_who_watch(site_of):
    async def work():
        site = site_of()
        session = await site.open("one")
        with site.supervisor.events.watched(lambda event: True) as events:
            assert await site.registry.renew_certificates(UID, None, ANYBODY) == [session]
            assert (await anext(events)).kind is EventKind.CERTIFICATES_RENEWED
        assert [plan.uid for plan in site.data_servers.renewed] == ["one"]
        assert session.state is SessionState.ACTIVE

    asyncio.run(work())


def test_what_an_engine_says_against_it_is_told_and_the_session_goes_on(site_of):
    async def work():
        site = site_of()
        session = await site.open("one")
        site.data_servers.refusal = SciStreamError(Code.ENGINE_CANNOT, engine="Memory", reason="it is busy")
        with pytest.raises(SciStreamError) as caught:
            await site.registry.renew_certificates(UID, None, ANYBODY)
        assert (caught.value.code, caught.value.facts["reason"]) == (Code.ENGINE_CANNOT, "it is busy")
        assert session.state is SessionState.ACTIVE

    asyncio.run(work())


def test_a_session_without_certificates_and_one_that_does_not_run_are_refused_by_name(site_of):
    async def work():
        site = site_of()
        site.encryption = Encryption.NONE
        await site.open("one")
        with pytest.raises(SciStreamError) as caught:
            await site.registry.renew_certificates(UID, None, ANYBODY)
        assert (caught.value.code, caught.value.facts["encryption"]) == (Code.NO_CERTIFICATES, "none")
        await site.register("two")
        with pytest.raises(SciStreamError) as caught:
            await site.registry.renew_certificates(Uid("two"), None, ANYBODY)
        assert caught.value.code is Code.SESSION_NOT_ACTIVE

    asyncio.run(work())


@pytest.mark.parametrize(
    ("ends", "renewed"),
    [(NOW + DUE_IN - 1, 1), (NOW + DUE_IN + 1, 0), (NOW - 1, 1), (None, 0), (NOW + FULL, 0), (NOW + FULL + 90_000, 1)],
)
def test_what_is_due_is_renewed_by_itself(site_of, ends, renewed):
    async def work():
        site = site_of(ends)
        await site.open("one")
        pauses = []

        async def sleep(seconds):
            pauses.append(seconds)
            if len(pauses) > 1:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await keep_renewing(site.registry.sessions, site.supervisor, clock=lambda: NOW, sleep=sleep)
        assert len(site.data_servers.renewed) == renewed
        assert pauses == [60.0, 60.0]

    asyncio.run(work())


def test_a_renewal_that_fails_by_itself_is_logged_and_tried_again(site_of):
    async def work():
        site = site_of(NOW)
        await site.open("one")
        site.data_servers.refusal = SciStreamError(Code.ENGINE_CANNOT, engine="Memory", reason="it is busy")
        looks = []

        async def sleep(seconds):
            looks.append(seconds)
            if len(looks) == 2:
                site.data_servers.refusal = None
            if len(looks) == 3:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await keep_renewing(site.registry.sessions, site.supervisor, clock=lambda: NOW, sleep=sleep)
        assert len(site.data_servers.renewed) == 1
        told = [entry for entry in site.events.entries if entry["event"] == "certificate not renewed"]
        assert len(told) == 1
        assert "it is busy" in told[0]["why"]

    asyncio.run(work())


def test_a_status_tells_what_was_negotiated_and_when_the_certificate_ends(site_of):
    async def work():
        site = site_of(NOW)
        session = await site.open("one")
        await site.registry.observe([session])
        assert (session.view().handshake, session.view().certificate_expires) == (Handshake(), NOW)
        site.data_servers.agreed = Handshake("TLS_AES_128_GCM_SHA256", "CN=outbound.one")
        await site.registry.observe([session])
        assert session.view().handshake.peer == "CN=outbound.one"
        # Who does not tell now, told before.
        site.data_servers.agreed = None
        await site.registry.observe([session])
        assert session.view().handshake.cipher == "TLS_AES_128_GCM_SHA256"

    asyncio.run(work())
