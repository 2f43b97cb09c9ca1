"""The Unix socket on which a data server takes commands, where its engine has one: a line there, an answer back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Final

from scistream.engines.base import Plan

__all__ = ["ask"]

# Seconds for one command; a data server that is stopped or gone must not hold up the others' figures.
_TIMEOUT: Final = 1.5


async def ask(plan: Plan, command: str) -> str:
    """Send a command, and return all of the answer.

    Raises:
        OSError: nobody listens there; TimeoutError where no answer comes.
    """
    directory = os.open(plan.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with asyncio.timeout(_TIMEOUT):
            # The path of a Unix socket has 107 bytes at most, and the state directory may lie deep.
            way = f"/proc/self/fd/{directory}/{plan.name('sock')}"
            reader, writer = await asyncio.open_unix_connection(way)
            with contextlib.closing(writer):
                writer.write(f"{command}\n".encode())
                return (await reader.read()).decode(errors="replace")
    finally:
        os.close(directory)
