from __future__ import annotations

import asyncio

import grpc
import pytest
import structlog

from scistream.auth import NoAuthentication
from scistream.control_server.answering import Calls
from scistream.control_server.draft import DraftService
from scistream.control_server.service import ControlService
from scistream.errors import Code, SciStreamError
from scistream.protocol import (
    DIRECTION_METADATA,
    ERROR_METADATA,
    LEASE_METADATA,
    RATE_METADATA,
    SESSION_KEY_METADATA,
)
from scistream.protocol import control_pb2 as wire
from scistream.terms import NO_AUTH, Direction, OldClients, SessionState, Uid

KEY = bytes(range(32))


class AbortedError(Exception):
    """What gRPC raises in `abort`, so that nothing after it runs."""


class Call:
    """What gRPC gives to a method."""

    def __init__(self, **metadata) -> None:
        self._metadata = tuple(metadata.items())
        self.status: grpc.StatusCode | None = None
        self.gone = False
        self.words = ""
        self.error: SciStreamError | None = None

    def done(self) -> bool:
        return self.gone

    cancelled = done

    def peer(self) -> str:
        return "ipv6:%5B::1%5D:41000"

    def invocation_metadata(self):
        return self._metadata

    async def abort(self, status, words, trailing_metadata) -> None:
        self.status, self.words = status, words
        self.error = SciStreamError.from_wire(dict(trailing_metadata)[ERROR_METADATA])
        raise AbortedError


def service_of(site, *, tls: bool = True) -> ControlService:
    site.calls = structlog.testing.LogCapture()
    processors = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, site.calls]
    log = structlog.wrap_logger(None, processors=processors)
    return ControlService(
        site.registry,
        Calls(log, NoAuthentication()),
        log,
        tls=tls,
        told_host=lambda peer: "192.0.2.7",
        old_clients=OldClients.PLAIN,
    )


async def refusal(method, message, **metadata) -> Call:
    call = Call(**metadata)
    with pytest.raises(AbortedError):
        await method(message, call)
    return call


@pytest.mark.parametrize("text", ["1_0", " 10", "+10", "1e3", "9" * 5000, ""])
def test_a_rate_or_a_lease_is_a_number_as_people_write_it(site_factory, text):
    async def work():
        site = site_factory()
        asked = wire.Request(uid="one", role="PROD", num_conn=1)
        call = await refusal(service_of(site).req, asked, **{RATE_METADATA: text})
        assert call.error.code is Code.BAD_RATE
        lease = text.replace("1e3", "1e")
        call = await refusal(service_of(site).req, asked, **{LEASE_METADATA: lease})
        assert call.error.code is Code.BAD_LEASE
        assert site.is_empty

    asyncio.run(work())


def test_the_four_calls_in_their_order(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        asked = wire.Request(uid="one", role="PROD", num_conn=2, rate=10000)
        request = asyncio.ensure_future(service.req(asked, Call()))
        hello = wire.Hello(uid="one", role="PROD", prod_listeners=["t.example:5074", "[::1]:5075"])
        said = await service.hello(hello, Call())
        reply = await request
        points = ["192.0.2.7:22100", "192.0.2.7:22101"]
        assert list(said.listeners) == list(reply.listeners) == points
        assert list(reply.prod_listeners) == ["t.example:5074", "[::1]:5075"]
        change = wire.UpdateTargets(uid="one", role="PROD", remote_listeners=reply.prod_listeners)
        again = await service.update(change, Call())
        assert (list(again.listeners), list(again.prod_listeners)) == (points, list(reply.prod_listeners))
        assert site.find(Uid("one"))[0].asked.rate == 0
        await service.release(wire.Release(uid="one"), Call())
        assert site.is_empty

    asyncio.run(work())


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (wire.Request(uid="../x", role="PROD", num_conn=1, rate=1), Code.BAD_UID, "INVALID_ARGUMENT"),
        (wire.Request(uid="", role="PROD", num_conn=1, rate=1), Code.BAD_UID, "INVALID_ARGUMENT"),
        (wire.Request(uid="x" * 65, role="PROD", num_conn=1, rate=1), Code.BAD_UID, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="BOTH", num_conn=1, rate=1), Code.BAD_ROLE, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="", num_conn=1, rate=1), Code.BAD_ROLE, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="CONS", num_conn=0, rate=1), Code.BAD_CONNECTIONS, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="CONS", num_conn=-1, rate=1), Code.BAD_CONNECTIONS, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="CONS", num_conn=10**6, rate=1), Code.BAD_CONNECTIONS, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="CONS", num_conn=1, rate=-1), Code.BAD_RATE, "INVALID_ARGUMENT"),
        (wire.Request(uid="one", role="CONS", num_conn=11), Code.PORTS_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_its_code(site_factory, message, code, status):
    async def work():
        site = site_factory()
        call = await refusal(service_of(site).req, message)
        assert (call.status, call.error.code) == (grpc.StatusCode[status], code)
        assert call.words.startswith(str(call.error))
        assert site.is_empty

    asyncio.run(work())


def test_u08_every_call_checks_the_uid_before_anything_else(site_factory):
    async def work():
        service = service_of(site_factory())
        messages = {
            service.req: wire.Request(uid="a/b", role="nonsense"),
            service.hello: wire.Hello(uid="a/b", role="nonsense"),
            service.update: wire.UpdateTargets(uid="a/b", role="nonsense"),
            service.release: wire.Release(uid="a/b"),
        }
        codes = [(await refusal(method, message)).error.code for method, message in messages.items()]
        assert codes == [Code.BAD_UID] * 4

    asyncio.run(work())


def test_u07_a_target_with_a_newline_is_no_address(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.register("one")
        change = wire.UpdateTargets(uid="one", role="PROD", remote_listeners=["t.example:1\nstats socket /x"])
        call = await refusal(service.update, change)
        assert call.error.code is Code.BAD_ADDRESS
        assert site.find(Uid("one"))[0].state is SessionState.REGISTERED

    asyncio.run(work())


def test_the_deployed_words_stand_behind_ours(site_factory):
    async def work():
        site = site_factory(hello=0)
        service = service_of(site)
        waited = await refusal(service.req, wire.Request(uid="one", role="PROD", num_conn=1))
        assert waited.status is grpc.StatusCode.DEADLINE_EXCEEDED
        assert waited.words.endswith("(Hello not received within the timeout period)")
        unknown = await refusal(service.release, wire.Release(uid="one"))
        assert unknown.words.endswith("(entry not found for uid 'one')")

    asyncio.run(work())


def test_the_direction_of_the_metadata_picks_one_of_two(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        for direction in Direction:
            await site.register("one", direction)
        await service.release(wire.Release(uid="one"), Call(**{DIRECTION_METADATA: "outbound"}))
        assert [session.asked.direction for session in site.registry.sessions()] == [Direction.INBOUND]

    asyncio.run(work())


def test_the_key_of_an_update_is_taken_from_the_metadata(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.register("one")
        change = wire.UpdateTargets(uid="one", role="PROD", remote_listeners=["t.example:1"])
        short = await refusal(service.update, change, **{SESSION_KEY_METADATA: KEY[:16]})
        assert short.error.code is Code.BAD_SESSION_KEY
        await service.update(change, Call(**{SESSION_KEY_METADATA: KEY}))
        assert site.data_servers.started[0].key == KEY
        assert KEY.hex() not in repr(site.calls.entries)

    asyncio.run(work())


def test_a_key_that_came_in_plain_text_is_not_used(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site, tls=False)
        await site.register("one")
        change = wire.UpdateTargets(uid="one", role="PROD", remote_listeners=["t.example:1"])
        await service.update(change, Call(**{SESSION_KEY_METADATA: KEY}))
        assert site.data_servers.started[0].key is None
        warnings = [entry["event"] for entry in site.calls.entries if entry["log_level"] == "warning"]
        assert warnings == ["session key ignored: it came over a plain-text channel"]

    asyncio.run(work())


def test_u61_an_unforeseen_error_is_told_as_one_and_logged(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        await site.register("one")
        site.data_servers.refusal = None
        site.data_servers.start = None
        change = wire.UpdateTargets(uid="one", role="PROD", remote_listeners=["t.example:1"])
        call = await refusal(service.update, change)
        assert (call.status, call.error.code) == (grpc.StatusCode.INTERNAL, Code.INTERNAL)
        assert "TypeError" in call.words
        (event,) = site.calls.entries
        assert (event["event"], event["code"], event["peer"]) == ("call refused", "INTERNAL", "ipv6:[::1]:41000")
        (event,) = (entry for entry in site.events.entries if entry["log_level"] == "error")
        assert (event["event"], type(event["exc_info"])) == ("unforeseen error", TypeError)
        (session,) = site.registry.sessions()
        assert session.state is SessionState.FAILED

    asyncio.run(work())


def test_a_caller_that_is_gone_is_told_nothing(site_factory):
    async def work():
        call = Call()
        call.gone = True
        with pytest.raises(asyncio.CancelledError):
            await service_of(site_factory()).req(wire.Request(uid="../x"), call)
        assert call.status is None

    asyncio.run(work())


def test_huge_numbers_of_targets_are_refused_unread(site_factory, settle):
    async def work():
        site = site_factory()
        service = service_of(site)
        request = site.ask("one")
        await settle()
        # The first would be refused as an address, if it was read.
        hello = wire.Hello(uid="one", role="PROD", prod_listeners=["no address," + "t.example:1," * 2000])
        call = await refusal(service.hello, hello)
        assert (call.error.code, call.error.facts["targets"]) == (Code.TOO_MANY_TARGETS, 2002)
        hello = wire.Hello(uid="one", role="PROD", prod_listeners=["t.example:1", "t.example:2"])
        call = await refusal(service.hello, hello)
        assert (call.error.code, call.error.facts["entry_points"]) == (Code.TOO_MANY_TARGETS, 1)
        assert not request.done()
        request.cancel()

    asyncio.run(work())


def test_the_drafts_names_are_answered_by_the_same_handlers_and_told_by_their_own(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        seen: list[tuple[str, str, str]] = []
        service._calls._observers = [lambda call: seen.append((call.name, call.uid, call.outcome))]
        draft = DraftService(service)
        request = asyncio.ensure_future(draft.RequestStream(wire.Request(uid="one", role="CONS", num_conn=1), Call()))
        said = await draft.Hello(wire.Hello(uid="one", role="PROD"), Call())
        assert list(said.listeners) == list((await request).listeners) == ["192.0.2.7:22100"]
        change = wire.UpdateTargets(uid="one", role="CONS", remote_listeners=["t.example:1"])
        reply = await draft.UpdateTargets(change, Call())
        assert list(reply.prod_listeners) == ["t.example:1"]
        assert (await draft.ReleaseStream(wire.Release(uid="one"), Call())) == reply
        assert site.is_empty
        unknown = await refusal(draft.ReleaseStream, wire.Release(uid="one"))
        assert unknown.error.code is Code.UID_UNKNOWN
        names = ["Hello", "RequestStream", "UpdateTargets", "ReleaseStream"]
        assert seen == [*((name, "one", "OK") for name in names), ("ReleaseStream", "one", "UID_UNKNOWN")]
        refused = [entry for entry in site.calls.entries if entry["event"] == "call refused"]
        assert [entry["call"] for entry in refused] == ["ReleaseStream"]

    asyncio.run(work())


def test_who_records_is_told_which_session_it_was_whatever_the_deployed_client_says(site_factory):
    async def work():
        site = site_factory()
        service = service_of(site)
        seen: list[tuple[str, str, str]] = []
        service._calls._observers = [lambda call: seen.append((call.name, call.direction, call.session_owner))]
        request = site.ask("one", Direction.OUTBOUND)
        await service.hello(wire.Hello(uid="one", role="PROD"), Call())
        await request
        assert seen == [("hello", "outbound", NO_AUTH)]

    asyncio.run(work())
