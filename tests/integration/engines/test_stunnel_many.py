"""Stunnel has a thread for each connection: what visitors who say nothing cost, and for how long.

That it carries 1,000 at once, each with its own bytes, is among the tests of all engines (`test_streams_many.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from scistream.engines import ENGINES, Installation, Plan
from scistream.terms import Direction, Encryption

STUNNEL: Any = ENGINES["stunnel"]
SILENT = 200


class Hasty(type(STUNNEL)):  # type: ignore[misc]
    """The same, with less patience for handshakes."""

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        files = dict(super().render(plan, installation))
        text = files[plan.path("conf")]
        assert "TIMEOUTbusy = 30\n" in text
        return files | {plan.path("conf"): text.replace("TIMEOUTbusy = 30\n", "TIMEOUTbusy = 4\n")}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)


@pytest.mark.parametrize("encryption", [Encryption.TLS_PSK, Encryption.TLS])
def test_u03_who_says_nothing_is_let_go_of_and_keeps_nobody_out(bench: Any, encryption: Encryption) -> None:
    bench.encryption = encryption

    async def main() -> None:
        async with bench.serving(echo) as target, contextlib.AsyncExitStack() as visitors:
            inbound = bench.plan((bench.address(), target))
            inner = inbound.routes[0].entry_point
            outbound = bench.plan((bench.address(), inner), direction=Direction.OUTBOUND)
            async with bench.running(Hasty(), inbound) as mark, bench.running(STUNNEL, outbound):
                threads = psutil.Process(mark.pid).num_threads
                idle = threads()
                silent = [await visitors.enter_async_context(bench.connected(inner)) for _ in range(SILENT)]
                async with bench.connected(outbound.routes[0].entry_point) as (reader, writer):
                    writer.write(b"here")
                    assert await reader.readexactly(4) == b"here"
                    for visitor, _ in silent:
                        with contextlib.suppress(ConnectionResetError):
                            assert await visitor.read() == b""
                    await bench.until(lambda: threads() == idle + 1)
                    assert (await STUNNEL.traffic(inbound, mark)).refused_peers == SILENT
                    # Who had proved itself is there for as long as it likes.
                    writer.write(b"still")
                    assert await reader.readexactly(5) == b"still"

    asyncio.run(main())
