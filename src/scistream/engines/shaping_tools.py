"""The programs `ip`, `tc` and `nft`, run for a session, and the lock that lets one run of several commands be alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import weakref
from collections.abc import AsyncIterator
from typing import Final

from scistream.engines.host import find_program
from scistream.engines.probing import privilege_shortfall, takes
from scistream.engines.processes import pauses
from scistream.engines.shaping_marks import PROBE
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["PACKAGES", "Tools", "alone", "shortfall"]

PACKAGES: Final = {"ip": "iproute2", "nft": "nftables", "tc": "iproute2"}
"""The programs, each with the distribution's package."""

_TIMEOUT: Final = 20.0
# An abstract address is the network namespace's, as the qdiscs and rules are, and free when its process has ended.
_LOCK: Final = b"\0scistream-rates"
# Looks at a holder that is none, or does not listen yet.
_DOUBTS: Final = 5
_locks: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = weakref.WeakKeyDictionary()


class Tools:
    """Runs the programs; what fails is said in the name of the engine that asked.

    Args:
        engine: its title.
        failing: what cannot be where a program fails, in words.
    """

    def __init__(self, engine: str, failing: str = "it cannot be kept to a rate") -> None:
        self._engine = engine
        self._failing = failing

    async def run(self, name: str, *arguments: str, text: str = "") -> str:
        """Run one to its end, with `text` as its input; gives its output.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """
        status, output, words = await self._run(name, *arguments, text=text)
        if status:
            raise self.cannot(f"{self._failing}: {name}: {words or f'exit status {status}'}")
        return output

    async def look(self, name: str, *arguments: str, text: str = "") -> str | None:
        """The same, for what may well fail; None where it did.

        Raises:
            SciStreamError: ENGINE_CANNOT, where it does not run at all.
        """
        status, output, _ = await self._run(name, *arguments, text=text)
        return None if status else output

    async def try_all(self, name: str, *arguments: str, text: str) -> str:
        """The same, for a batch whose lines may well fail, each for itself.

        Raises:
            SciStreamError: ENGINE_CANNOT, where it does not run at all.
        """
        return (await self._run(name, *arguments, text=text))[1]

    def cannot(self, reason: str) -> SciStreamError:
        """The error for the engine."""
        return SciStreamError(Code.ENGINE_CANNOT, engine=self._engine, reason=reason)

    async def _run(self, name: str, *arguments: str, text: str) -> tuple[int, str, str]:
        program = find_program((name,))
        if program is None:
            raise self.cannot(f"there is no program {name} (package {PACKAGES[name]})")
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
            )
        except OSError as error:
            raise self.cannot(f"{name} does not run: {error.strerror}") from None
        try:
            async with asyncio.timeout(_TIMEOUT):
                output, words = await process.communicate(text.encode())
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
            if isinstance(error, TimeoutError):
                raise self.cannot(f"{name} did not end within {_TIMEOUT:.0f} s") from None
            raise
        return process.returncode or 0, output.decode(errors="replace"), one_line(words.decode(errors="replace"), 200)


def _environment() -> dict[str, str]:
    """Nothing of this process's own, and English words."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


@contextlib.asynccontextmanager
async def alone(tools: Tools) -> AsyncIterator[None]:
    """While this lasts, no control server of this network namespace changes what is shared: qdiscs, numbers, table.

    Raises:
        SciStreamError: ENGINE_CANNOT, where another one does not let go.
    """
    lock = _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with lock:
        with socket.socket(socket.AF_UNIX) as address:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await _take(address)
            except TimeoutError:
                words = "another process is holding the lock of all rates and source lists, and does not let go"
                raise tools.cannot(words) from None
            yield


async def _take(address: socket.socket) -> None:
    strangers = 0
    for pause in pauses():
        try:
            address.bind(_LOCK)
            address.listen()
        except OSError:
            # Any local user can have the address; only who may change the rules keeps others from it.
            strangers += not _is_held()
            if strangers > _DOUBTS:
                return
            await asyncio.sleep(pause)
        else:
            return


def _is_held() -> bool:
    """Whether the lock is in the hands of root or of this user."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(_LOCK)
        except BlockingIOError:
            return True  # its queue is full, so it listens
        except OSError:
            return False
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[1] in {0, os.geteuid()}


def shortfall(*, by_cgroup: bool) -> str:
    """What of programs, privileges and kernel is not there, in a sentence; empty where nothing is."""
    for name, package in PACKAGES.items():
        if find_program((name,)) is None:
            return f"there is no program {name} (package {package})"
    if words := privilege_shortfall():
        return words
    if by_cgroup and not takes(PROBE):
        return "nft and the kernel cannot tell packets by cgroup (socket cgroupv2, Linux 5.13 and nftables 1.0)"
    return ""
