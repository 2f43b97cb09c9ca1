"""The metrics port: HTTP for Prometheus, on a port of its own, and nothing else than one page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

__all__ = ["serve_metrics"]

_PATH: Final = "/metrics"
_TEXT: Final = "text/plain; charset=utf-8"
# Whoever says nothing, or reads nothing, is let go after so many seconds; more than so many are not talked to at once.
_PATIENCE: Final = 10.0
_AT_ONCE: Final = 8
# Bytes of a request's head, the longest that is read.
_HEAD: Final = 16 * 1024


@contextlib.asynccontextmanager
async def serve_metrics(listener: socket.socket, take: Callable[[], CollectorRegistry]) -> AsyncIterator[None]:
    """Inside, the metrics are served; after it nobody is talked to any more.

    Args:
        listener: a socket that listens.
        take: what is served, taken on the event loop for each scrape.
    """
    talks: set[asyncio.Task[None]] = set()
    room = asyncio.Semaphore(_AT_ONCE)

    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(talk(reader, writer))
        talks.add(task)
        task.add_done_callback(talks.discard)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with AsyncExitStack() as stack:
                stack.callback(writer.transport.abort)
                await stack.enter_async_context(asyncio.timeout(_PATIENCE))
                await stack.enter_async_context(room)
                await _answer(reader, writer, take)

    server = await asyncio.start_server(greet, sock=listener, limit=_HEAD)
    try:
        yield
    finally:
        server.close()
        for task in tuple(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, take: Callable[[], CollectorRegistry]
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status, kind, body = await _page(head, take)
    fields = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Allow: GET, HEAD", "Connection: close"]
    writer.write("\r\n".join([f"HTTP/1.1 {status}", *fields, "\r\n"]).encode("latin-1"))
    if not head[0].startswith("HEAD "):
        writer.write(body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _page(head: list[str], take: Callable[[], CollectorRegistry]) -> tuple[str, str, bytes]:
    method, _, rest = head[0].partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in {"GET", "HEAD"}:
        return "405 Method Not Allowed", _TEXT, b"only GET and HEAD\n"
    if path != _PATH:
        return "404 Not Found", _TEXT, f"the metrics are at {_PATH}\n".encode()
    encode, kind = choose_encoder(_header(head, "accept"))
    # A thousand sessions are thousands of lines: calls are answered meanwhile.
    return "200 OK", kind, await asyncio.to_thread(encode, take())


def _header(head: list[str], wanted: str) -> str:
    fields = (line.partition(":") for line in head[1:])
    return ",".join(value.strip() for name, _, value in fields if name.strip().lower() == wanted)
