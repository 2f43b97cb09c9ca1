"""The metrics port: HTTP for Prometheus, on a port of its own, and nothing else than one page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

__all__ = ["serve_metrics"]

_PATH: Final = "/metrics"
_TEXT: Final = "text/plain; charset=utf-8"
# Whoever says nothing is let go after so many seconds, and whoever reads nothing after so many.
_SAYING: Final = 3.0
_READING: Final = 10.0
# Connections at once. Where there are more, the one that has been asking for nothing the longest has to go.
_CONNECTIONS: Final = 64
# Pages that are written out at once.
_AT_ONCE: Final = 4
# Bytes of a request's head, the longest that is read.
_HEAD: Final = 16 * 1024


@contextlib.asynccontextmanager
async def serve_metrics(listener: socket.socket, take: Callable[[], CollectorRegistry]) -> AsyncIterator[None]:
    """Inside, the metrics are served; after it nobody is talked to any more.

    Args:
        listener: a socket that listens.
        take: what is served, taken on the event loop for each scrape.
    """
    talks = _Talks(take)
    server = await asyncio.start_server(talks.greet, sock=listener, limit=_HEAD)
    try:
        yield
    finally:
        server.close()
        await talks.end()


class _Talks:
    """Those who are connected, in the order of their coming."""

    def __init__(self, take: Callable[[], CollectorRegistry]) -> None:
        self._take = take
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._talks: set[asyncio.Task[None]] = set()
        # Those who have asked for nothing yet, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}

    def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= _CONNECTIONS and not self._make_room():
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(task)
        self._silent[task] = None
        task.add_done_callback(self._forget)
        # Not in the task itself: one that is cancelled before its first step does nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    def _make_room(self) -> bool:
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        oldest.cancel()
        self._forget(oldest)
        return True

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._talks.discard(task)
        self._silent.pop(task, None)

    async def end(self) -> None:
        talks = tuple(self._talks)
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SAYING):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            if task := asyncio.current_task():
                self._silent.pop(task, None)
            async with asyncio.timeout(_READING):
                async with self._room:
                    status, kind, body = await _page(head, self._take)
                await _send(writer, status, kind, b"" if head[0].startswith("HEAD ") else body, len(body))


async def _send(writer: asyncio.StreamWriter, status: str, kind: str, body: bytes, size: int) -> None:
    fields = [f"Content-Type: {kind}", f"Content-Length: {size}", "Allow: GET, HEAD", "Connection: close"]
    writer.write("\r\n".join([f"HTTP/1.1 {status}", *fields, "\r\n"]).encode("latin-1") + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _page(head: Sequence[str], take: Callable[[], CollectorRegistry]) -> tuple[str, str, bytes]:
    method, _, rest = head[0].partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in {"GET", "HEAD"}:
        return "405 Method Not Allowed", _TEXT, b"only GET and HEAD\n"
    if path != _PATH:
        return "404 Not Found", _TEXT, f"the metrics are at {_PATH}\n".encode()
    encode, kind = choose_encoder(_header(head, "accept"))
    # A thousand sessions are thousands of lines: calls are answered meanwhile.
    return "200 OK", kind, await asyncio.to_thread(encode, take())


def _header(head: Sequence[str], wanted: str) -> str:
    fields = (line.partition(":") for line in head[1:])
    return ",".join(value.strip() for name, _, value in fields if name.strip().lower() == wanted)
