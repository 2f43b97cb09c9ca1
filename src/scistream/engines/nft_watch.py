"""Who waits for the end of rules: the kernel tells when somebody removes chains or tables, and then one look is taken.

Source: linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Final

from scistream.engines.marks import ProcessMark

__all__ = ["Watch", "removes"]

_NETLINK_NETFILTER: Final = 12
# The group of the changes of nftables.
_GROUP: Final = 7
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_DELETE_TABLE: Final = 0x0A02
_DELETE_CHAIN: Final = 0x0A05
_HEADER: Final = struct.Struct("=IHHII")
_BUFFER: Final = 1 << 20
# Seconds after which a look is taken in any case, and after which one is for those who have begun to wait since.
_AT_LATEST: Final = 10.0
_SOON: Final = 1.0
# Seconds in which the changes are gathered that one look is for; an end that nobody wanted can wait as long.
_GATHERED: Final = 0.2


class Watch:
    """Tells all who wait in one event loop. It listens, and looks, while somebody waits.

    Args:
        look: the marks of all sessions that stand; it blocks, and raises OSError where that cannot be told.
    """

    def __init__(self, look: Callable[[], Collection[ProcessMark]]) -> None:
        self._look = look
        self._waiting: dict[asyncio.Future[None], ProcessMark] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ended(self, mark: ProcessMark) -> None:
        """Wait until a session stands no more."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = mark
        if self._task is None:
            self._task = asyncio.create_task(self._serve())
        try:
            await future
        finally:
            del self._waiting[future]
            if not self._waiting and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _serve(self) -> None:
        with self._listening():
            while True:
                self._changed.clear()
                asked = set(self._waiting)
                with contextlib.suppress(OSError):
                    standing = await asyncio.to_thread(self._look)
                    self._tell({future for future in asked if self._waiting.get(future) not in standing})
                await self._pause(asked)

    def _tell(self, futures: Collection[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    async def _pause(self, asked: Collection[asyncio.Future[None]]) -> None:
        deadline = asyncio.get_running_loop().time() + _AT_LATEST
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _SOON)):
                    await self._changed.wait()
                    break
            if not set(self._waiting) <= set(asked):
                return
        await asyncio.sleep(_GATHERED)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
            kernel.setblocking(False)
            # Without it, the looks that are taken in any case find what happens.
            with contextlib.suppress(OSError):
                kernel.bind((0, 0))
                kernel.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
            loop.add_reader(kernel, self._read, kernel)
            try:
                yield
            finally:
                loop.remove_reader(kernel)

    def _read(self, kernel: socket.socket) -> None:
        try:
            while data := kernel.recv(_BUFFER):
                if removes(data):
                    self._changed.set()
        except BlockingIOError:
            return
        except OSError:
            # There was more than fits into the buffer.
            self._changed.set()


def removes(data: bytes) -> bool:
    """Whether one of the messages tells of the removal of a chain or a table."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if kind in (_DELETE_TABLE, _DELETE_CHAIN):
            return True
        data = data[max(length + 3 & ~3, _HEADER.size) :]
    return False
