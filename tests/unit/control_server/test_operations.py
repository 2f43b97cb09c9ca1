from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import structlog

from scistream.auth import Identity
from scistream.control_server.answering import Calls
from scistream.control_server.operations import Operations
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA
from scistream.protocol import operations_pb2 as wire
from scistream.terms import NO_AUTH


class AbortedError(Exception):
    """What gRPC raises in `abort`."""


async def abort(status, words, trailing_metadata) -> None:
    raise AbortedError(SciStreamError.from_wire(dict(trailing_metadata)[ERROR_METADATA]).code)


class ByToken:
    """Whose token it is: the token's own word."""

    name, scope = "by token", "scope"

    async def verify(self, token: str | None) -> Identity:
        return Identity(token or NO_AUTH)


def call(token: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        done=lambda: False,
        cancelled=lambda: False,
        peer=lambda: "ipv4:127.0.20.1:41000",
        abort=abort,
        invocation_metadata=lambda: (("authorization", token),),
    )


def test_u12_both_reads_show_the_callers_sessions_only(site_factory):
    async def work():
        site = site_factory()
        service = Operations(site.registry, None, Calls(structlog.get_logger(), ByToken()))
        await site.open("one")
        listed = await service.ListSessions(wire.ListSessionsRequest(), call())
        described = await service.DescribeSession(wire.DescribeSessionRequest(uid="one"), call())
        assert [session.uid for session in listed.sessions] == ["one"]
        assert listed == described
        assert not (await service.ListSessions(wire.ListSessionsRequest(), call("another"))).sessions
        with pytest.raises(AbortedError) as raised:
            await service.DescribeSession(wire.DescribeSessionRequest(uid="one"), call("another"))
        assert raised.value.args == (Code.NOT_OWNER,)

    asyncio.run(work())
