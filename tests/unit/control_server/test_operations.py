from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import structlog

from scistream.control_server import operations
from scistream.control_server.operations import Operations
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA
from scistream.protocol import operations_pb2 as wire


class AbortedError(Exception):
    """What gRPC raises in `abort`."""


async def abort(status, words, trailing_metadata) -> None:
    raise AbortedError(SciStreamError.from_wire(dict(trailing_metadata)[ERROR_METADATA]).code)


CALL = SimpleNamespace(done=lambda: False, cancelled=lambda: False, peer=lambda: "ipv4:127.0.20.1:41000", abort=abort)


def test_both_reads_show_the_callers_sessions_only(site_factory, monkeypatch):
    async def work():
        site = site_factory()
        service = Operations(site.registry, None, structlog.get_logger())
        await site.open("one")
        listed = await service.ListSessions(wire.ListSessionsRequest(), CALL)
        described = await service.DescribeSession(wire.DescribeSessionRequest(uid="one"), CALL)
        assert [session.uid for session in listed.sessions] == ["one"]
        assert listed == described
        monkeypatch.setattr(operations, "owner_of", lambda context: "somebody else")
        assert not (await service.ListSessions(wire.ListSessionsRequest(), CALL)).sessions
        with pytest.raises(AbortedError) as raised:
            await service.DescribeSession(wire.DescribeSessionRequest(uid="one"), CALL)
        assert raised.value.args == (Code.UID_UNKNOWN,)

    asyncio.run(work())
