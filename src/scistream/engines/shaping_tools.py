"""The programs `ip`, `tc` and `nft`, run for a session, and the lock that lets one run of several commands be alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import subprocess
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from scistream.engines.host import find_program
from scistream.engines.processes import pauses
from scistream.engines.shaping_marks import PROBE
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["PACKAGES", "Tools", "alone", "is_privileged", "shortfall"]

PACKAGES: Final = {"ip": "iproute2", "nft": "nftables", "tc": "iproute2"}
"""The programs, each with the distribution's package."""

_STATUS: Final = Path("/proc/self/status")
_NET_ADMIN: Final = 1 << 12
_TIMEOUT: Final = 20.0
# An abstract address is the network namespace's, as the qdiscs and rules are, and free when its process has ended.
_LOCK: Final = b"\0scistream-rates"
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
    for pause in pauses():
        try:
            address.bind(_LOCK)
        except OSError:
            await asyncio.sleep(pause)
        else:
            return


def is_privileged(status: str, *, root: bool) -> bool:
    """Whether our programs can change the network, from /proc/self/status; others than root have to hand it on."""
    wanted = "CapEff:" if root else "CapAmb:"
    held = next((line.split()[1] for line in status.splitlines() if line.startswith(wanted)), "0")
    return bool(int(held, 16) & _NET_ADMIN)


def shortfall(*, by_cgroup: bool) -> str:
    """What of programs, privileges and kernel is not there, in a sentence; empty where nothing is."""
    for name, package in PACKAGES.items():
        if find_program((name,)) is None:
            return f"there is no program {name} (package {package})"
    if not is_privileged(_STATUS.read_text(), root=os.geteuid() == 0):
        return "the control server has not the capability CAP_NET_ADMIN (root has it; its unit: AmbientCapabilities=)"
    try:
        if by_cgroup:
            _probe()
    except (subprocess.SubprocessError, OSError):
        return "nft and the kernel cannot tell packets by cgroup (socket cgroupv2, Linux 5.13 and nftables 1.0)"
    return ""


@functools.cache
def _probe() -> None:
    """Ask the kernel, changing nothing. What it can, it can for good; what it cannot is asked again."""
    nft = find_program(("nft",)) or "nft"
    subprocess.run(
        [nft, "--check", "--file", "-"],
        input=PROBE.encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT,
        env=_environment(),
        check=True,
    )
