from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
import structlog

from scistream.auth import Identity, NoAuthentication
from scistream.control_server.answering import CANCELLED, Call, Calls
from scistream.errors import Code, SciStreamError
from scistream.protocol import DIRECTION_METADATA
from scistream.protocol import control_pb2 as wire
from scistream.terms import NO_AUTH


class AbortedError(Exception):
    """What gRPC raises in `abort`."""


async def abort(status, words, trailing_metadata) -> None:
    raise AbortedError


def context(**metadata: str | bytes) -> SimpleNamespace:
    return SimpleNamespace(
        done=lambda: False,
        cancelled=lambda: False,
        peer=lambda: "ipv4:127.0.20.1:41000",
        abort=abort,
        invocation_metadata=lambda: tuple(metadata.items()),
    )


class Refusing:
    name, scope = "refusing", ""

    async def verify(self, token: str | None, host: str = "") -> Identity:
        raise SciStreamError(Code.AUTHENTICATION_REQUIRED, scope="scope")


def answered(work, request=None, verifier=None, **metadata: str | bytes) -> Call:
    """A call whose handler does `work`, as an observer sees it."""
    seen: list[Call] = []

    async def answer() -> None:
        calls = Calls(structlog.get_logger(), verifier or NoAuthentication(), observers=[seen.append])
        async with calls.answering(context(**metadata), "req", request):
            work()

    with contextlib.suppress(AbortedError, asyncio.CancelledError):
        asyncio.run(answer())
    (call,) = seen
    return call


def nothing() -> None:
    """Goes well."""


def fail(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "outcome"),
    [
        (nothing, "OK"),
        (fail(asyncio.CancelledError()), CANCELLED),
        (fail(SciStreamError(Code.UID_UNKNOWN, uid="x")), "UID_UNKNOWN"),
        (fail(ValueError()), "INTERNAL"),
    ],
)
def test_every_end_of_a_call_is_told_once(work, outcome):
    call = answered(work)
    assert (call.name, call.owner, call.outcome) == ("req", NO_AUTH, outcome)
    assert call.seconds > 0


def test_a_caller_who_was_not_recognised_has_no_name():
    call = answered(nothing, verifier=Refusing())
    assert (call.owner, call.outcome) == ("", "AUTHENTICATION_REQUIRED")


@pytest.mark.parametrize(
    ("role", "metadata", "direction"),
    [
        ("PROD", {}, "inbound"),
        ("PROD", {DIRECTION_METADATA: "outbound"}, "outbound"),
        ("non\nsense", {}, "non sense"),
        ("", {}, ""),
    ],
)
def test_what_it_was_about_is_as_the_caller_said_it_and_printable(role, metadata, direction):
    call = answered(nothing, wire.Request(uid="a\x1bb" + 70 * "x", role=role), **metadata)
    assert call.direction == direction
    assert call.uid.isprintable()
    assert len(call.uid) <= 65


def test_u60_metadata_that_is_no_text_is_no_unforeseen_error():
    call = answered(nothing, wire.Request(uid="one"), **{DIRECTION_METADATA: b"\xff", "authorization": b"\xfe\xff"})
    assert (call.outcome, call.direction) == ("OK", "\ufffd")


def test_an_observer_that_fails_fails_no_call():
    log = structlog.testing.LogCapture()
    heard: list[Call] = []

    def broken(call: Call) -> None:
        raise RuntimeError

    async def answer() -> None:
        logger = structlog.wrap_logger(None, processors=[structlog.stdlib.add_log_level, log])
        calls = Calls(logger, NoAuthentication(), observers=[broken, heard.append])
        async with calls.answering(context(), "req"):
            pass

    asyncio.run(answer())
    assert [call.outcome for call in heard] == ["OK"]
    assert [entry["event"] for entry in log.entries if entry["log_level"] == "error"] == ["unforeseen error"]
