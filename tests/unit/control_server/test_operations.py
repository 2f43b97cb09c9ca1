from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest
import structlog

from scistream.auth import Identity
from scistream.control_server import operations as module
from scistream.control_server.answering import Calls
from scistream.control_server.configuration import Settings
from scistream.control_server.operations import Operations, ServerIdentity
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA
from scistream.protocol import operations_pb2 as wire
from scistream.terms import NO_AUTH, Direction


class AbortedError(Exception):
    """What gRPC raises in `abort`."""


async def abort(status, words, trailing_metadata) -> None:
    raise AbortedError(SciStreamError.from_wire(dict(trailing_metadata)[ERROR_METADATA]).code)


class ByToken:
    """Whose token it is: the token's own word. `refused` are no longer good."""

    name, scope = "by token", "scope"

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.unanswered: set[str] = set()
        self.expires = 5000.0

    async def verify(self, token: str | None, host: str = "") -> Identity:
        if token in self.unanswered:
            raise SciStreamError(Code.PROVIDER_UNAVAILABLE, provider="idp.example", reason="no connection")
        if token in self.refused:
            raise SciStreamError(Code.AUTHENTICATION_REQUIRED, scope="scope")
        return Identity(token or NO_AUTH, ("scope", "another"), self.expires)


class Call(SimpleNamespace):
    """What gRPC gives to a method. `told` is what a watch has written, `begun` whether its client knows of it."""

    def __init__(self, token: str = "") -> None:
        self.told: list[wire.Event] = []
        self.written: list[bytes] = []
        self.begun = False
        self._metadata = (("authorization", token),)

    def done(self) -> bool:
        return False

    cancelled = done

    def peer(self) -> str:
        return "ipv4:127.0.20.1:41000"

    def invocation_metadata(self):
        return self._metadata

    async def send_initial_metadata(self, metadata) -> None:
        self.begun = True

    async def write(self, event: bytes) -> None:
        self.written.append(event)
        self.told.append(wire.Event.FromString(event))

    abort = staticmethod(abort)

    def words(self) -> list[tuple[str, str, str]]:
        return [(event.session.uid, event.kind, event.session.state) for event in self.told]


class Watch:
    """A watch that goes on in a task of its own."""

    def __init__(self, service: Operations, token: str = "", **request: str) -> None:
        self.call = Call(token)
        work = service.WatchSessions(wire.WatchSessionsRequest(**request), self.call)
        self.task = asyncio.get_running_loop().create_task(work)

    async def refused(self) -> Code:
        with pytest.raises(AbortedError) as raised:
            await self.task
        return raised.value.args[0]


def service_of(site, *operators: str, warnings=tuple) -> Operations:
    site.verifier = ByToken()
    calls = Calls(structlog.get_logger(), site.verifier, operators=operators)
    identity = ServerIdentity(Settings(), None, 0.0)
    return Operations(site.registry, identity, calls, site.supervisor.events, warnings=warnings)


async def refusal(method, message, token: str = "") -> Code:
    with pytest.raises(AbortedError) as raised:
        await method(message, Call(token))
    return raised.value.args[0]


def test_u12_both_reads_show_the_callers_sessions_only(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.open("one")
        listed = await service.ListSessions(wire.ListSessionsRequest(), Call())
        described = await service.DescribeSession(wire.DescribeSessionRequest(uid="one"), Call())
        assert [session.uid for session in listed.sessions] == ["one"]
        assert listed == described
        assert not (await service.ListSessions(wire.ListSessionsRequest(), Call("another"))).sessions
        message = wire.DescribeSessionRequest(uid="one")
        assert await refusal(service.DescribeSession, message, "another") is Code.NOT_OWNER

    asyncio.run(work())


def test_u34_a_watch_tells_what_is_there_and_then_what_happens(site_factory, settle):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.open("one")
        watch = Watch(service)
        await settle()
        assert watch.call.words() == [("one", "there", "active")]
        await site.open("two")
        await site.release("one")
        await settle()
        assert watch.call.words()[1:] == [
            ("two", "requested", "requested"),
            ("two", "registered", "registered"),
            ("two", "active", "active"),
            ("one", "released", "released"),
        ]
        assert site.supervisor.events.watchers == 1
        watch.task.cancel()
        await settle()
        assert site.supervisor.events.watchers == 0

    asyncio.run(work())


@pytest.mark.parametrize(
    ("request_", "uids"),
    [
        ({}, ["both", "both", "other"]),
        ({"uid": "both"}, ["both", "both"]),
        ({"uid": "both", "direction": "outbound"}, ["both"]),
        ({"direction": "outbound"}, ["both"]),
        ({"uid": "not-yet"}, []),
    ],
)
def test_a_watch_is_of_a_uid_or_a_direction_where_that_is_asked_for(site_factory, settle, request_, uids):
    async def work():
        site = site_factory()
        service = service_of(site)
        early = Watch(service, **request_)
        await settle()
        for uid, direction in (("both", Direction.INBOUND), ("both", Direction.OUTBOUND), ("other", Direction.INBOUND)):
            await site.open(uid, direction)
        late = Watch(service, **request_)
        await settle()
        assert [event.session.uid for event in late.call.told] == uids
        active = [event.session.uid for event in early.call.told if event.kind == "active"]
        assert active == uids
        for watch in (early, late):
            watch.task.cancel()

    asyncio.run(work())


def test_u12_a_watch_tells_of_nobody_elses_sessions_except_to_operators(site_factory, settle):
    async def work():
        site = site_factory()
        service = service_of(site, "operator")
        await site.open("one")
        stranger, operator = Watch(service, "stranger", uid="one"), Watch(service, "operator")
        await settle()
        await site.release("one")
        await settle()
        assert (stranger.call.told, stranger.call.begun) == ([], True)
        assert operator.call.words() == [("one", "there", "active"), ("one", "released", "released")]
        for watch in (stranger, operator):
            watch.task.cancel()

    asyncio.run(work())


def test_a_watch_of_what_makes_no_sense_is_refused(site_factory):
    async def work():
        service = service_of(site_factory())
        assert await Watch(service, uid="../x").refused() is Code.BAD_UID
        assert await Watch(service, direction="up").refused() is Code.BAD_ROLE

    asyncio.run(work())


def test_a_watch_ends_with_words_when_the_server_does(site_factory, settle):
    async def work():
        site = site_factory()
        service = service_of(site)
        watch = Watch(service)
        await settle()
        await site.open("one")
        site.supervisor.events.close()
        assert await watch.refused() is Code.CONTROL_SERVER_ENDING
        assert [kind for _, kind, _ in watch.call.words()] == ["requested", "registered", "active"]
        assert site.supervisor.events.watchers == 0

    asyncio.run(work())


def test_a_watch_ends_when_its_token_does(site_factory, settle, monkeypatch):
    async def work():
        site = site_factory()
        service = service_of(site)
        watch = Watch(service, "somebody")
        await settle()
        assert not watch.task.done()
        site.verifier.refused.add("somebody")
        assert await watch.refused() is Code.AUTHENTICATION_REQUIRED

    monkeypatch.setattr(module, "_ASK_AGAIN", 0.001)
    asyncio.run(work())


@pytest.mark.parametrize("ends", ["never", "by a refusal", "with its token", "after a long silence"])
def test_u20_a_watch_goes_on_while_its_provider_cannot_be_asked(site_factory, settle, monkeypatch, ends):
    async def work():
        site = site_factory()
        service = service_of(site)
        site.verifier.expires = math.inf
        watch = Watch(service, "somebody")
        await settle()
        site.verifier.unanswered.add("somebody")
        if ends == "with its token":
            site.verifier.expires = 5000.0
            watch = Watch(service, "else")
            await settle()
            site.verifier.unanswered.add("else")
        if ends == "after a long silence":
            monkeypatch.setattr(module, "_UNANSWERED", 0.0)
        if ends in {"with its token", "after a long silence"}:
            assert await watch.refused() is Code.PROVIDER_UNAVAILABLE
            return
        assert await refusal(service.ListSessions, wire.ListSessionsRequest(), "somebody") is Code.PROVIDER_UNAVAILABLE
        for _ in range(3):
            await asyncio.sleep(0.002)
        assert not watch.task.done()
        site.verifier.unanswered.clear()
        if ends == "by a refusal":
            site.verifier.refused.add("somebody")
            assert await watch.refused() is Code.AUTHENTICATION_REQUIRED
        watch.task.cancel()

    monkeypatch.setattr(module, "_ASK_AGAIN", 0.001)
    asyncio.run(work())


def test_an_event_is_spelled_once_for_all_who_watch(site_factory, settle):
    async def work():
        site = site_factory()
        service = service_of(site)
        watches = [Watch(service) for _ in range(3)]
        await settle()
        await site.open("one")
        await settle()
        first, *others = (watch.call.written for watch in watches)
        assert len(first) == 3
        for other in others:
            assert all(mine is theirs for mine, theirs in zip(first, other, strict=True))
        for watch in watches:
            watch.task.cancel()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("token", "authentication", "shown"),
    [("", "by token", []), ("operator", "by token", ["stray"]), ("", NO_AUTH, ["stray"])],
)
def test_u12_warnings_are_for_operators_where_users_are_told_apart(
    site_factory, monkeypatch, token, authentication, shown
):
    async def work():
        site = site_factory()
        service = service_of(site, "operator", warnings=lambda: ["stray"])
        site.verifier.name = authentication
        found = await service.GetServerFacts(wire.GetServerFactsRequest(), Call(token))
        assert list(found.warnings) == shown

    monkeypatch.setattr(module, "engines", list)
    asyncio.run(work())


def test_u11_a_token_that_is_not_good_learns_nothing_of_any_session(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.open("one")
        site.verifier.refused.add("bad")
        messages = {
            service.ListSessions: wire.ListSessionsRequest(),
            service.DescribeSession: wire.DescribeSessionRequest(uid="one"),
            service.WatchSessions: wire.WatchSessionsRequest(uid="../x"),
            service.RenewSession: wire.RenewSessionRequest(uid="../x"),
            service.DrainSession: wire.DrainSessionRequest(uid="../x"),
            service.GetServerFacts: wire.GetServerFactsRequest(),
            service.CheckAuthentication: wire.CheckAuthenticationRequest(),
        }
        codes = [await refusal(method, message, "bad") for method, message in messages.items()]
        assert codes == [Code.AUTHENTICATION_REQUIRED] * 7

    asyncio.run(work())


@pytest.mark.parametrize("is_operator", [False, True])
def test_who_asks_is_told_who_they_are_taken_for(site_factory, is_operator):
    async def work():
        service = service_of(site_factory(), *(["somebody"] if is_operator else []))
        found = await service.CheckAuthentication(wire.CheckAuthenticationRequest(), Call("Bearer somebody"))
        assert found == wire.AuthenticationFacts(
            owner="somebody",
            authentication="by token",
            scope="scope",
            scopes=["scope", "another"],
            expires=5000,
            is_operator=is_operator,
        )

    asyncio.run(work())


def test_u34_a_lease_is_renewed_by_its_owner_alone_and_within_bounds(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.open("one")
        reply = await service.RenewSession(wire.RenewSessionRequest(uid="one", lease=60), Call())
        (session,) = reply.sessions
        assert (session.uid, session.lease_expires) == ("one", site.find("one")[0].lease_expires)
        assert session.lease_expires > 0
        assert await refusal(service.RenewSession, wire.RenewSessionRequest(uid="two", lease=60)) is Code.UID_UNKNOWN
        message = wire.RenewSessionRequest(uid="one", lease=60)
        assert await refusal(service.RenewSession, message, "stranger") is Code.NOT_OWNER
        for lease in (-1, 1e30, float("nan"), float("-inf"), 0.5):
            message = wire.RenewSessionRequest(uid="one", lease=lease)
            assert await refusal(service.RenewSession, message) is Code.BAD_LEASE
        assert site.find("one")[0].lease_expires == session.lease_expires

    asyncio.run(work())


def test_a_drain_is_answered_when_it_has_begun(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.open("one")
        message = wire.DrainSessionRequest(uid="one", direction="inbound")
        assert await refusal(service.DrainSession, message, "stranger") is Code.NOT_OWNER
        reply = await service.DrainSession(message, Call())
        assert [(session.uid, session.state) for session in reply.sessions] == [("one", "draining")]
        message = wire.DrainSessionRequest(uid="one", direction="outbound")
        assert await refusal(service.DrainSession, message) is Code.UID_UNKNOWN
        await site.register("two")
        assert await refusal(service.DrainSession, wire.DrainSessionRequest(uid="two")) is Code.SESSION_NOT_ACTIVE

    asyncio.run(work())
