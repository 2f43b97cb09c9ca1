"""Sessions as the library has them: for each a data server of its own. Also what both arrangements have in common."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import psutil

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Plan, Route
from scistream.engines.marks import ProcessMark
from scistream.engines.proxy import Proxy
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Uid

__all__ = ["SETTLING", "Apart", "Arrangement", "Kind", "accepts", "processes_of"]

_FIRST_PORT: Final = 20000
# Starts at once, where none of them is timed.
_AT_ONCE: Final = 6
SETTLING: Final = 0.05


@dataclass(frozen=True)
class Kind:
    """An engine, and what protects the bytes of its sessions."""

    engine: str
    encryption: Encryption

    def __str__(self) -> str:
        return f"{self.engine} {self.encryption.value}"

    @property
    def proxy(self) -> Proxy:
        """The library's engine."""
        found = ENGINES[self.engine]
        assert isinstance(found, Proxy)  # noqa: S101 - for mypy
        return found


class Arrangement(abc.ABC):
    """Sessions of one kind, the inbound gateway's, all with entry points on `host` and one target.

    Attributes:
        plans: of the sessions that stand.
        lost_reloads: those that nothing came of, and that were asked for again.
    """

    name: ClassVar[str]

    def __init__(self, kind: Kind, directory: Path, host: str, target: Endpoint) -> None:
        directory.mkdir(mode=0o700)
        self.kind = kind
        self.plans: list[Plan] = []
        self.lost_reloads = 0
        self._directory = directory
        self._host = host
        self._target = target

    def _plan(self, number: int) -> Plan:
        uid = Uid(f"s{number}")
        route = Route(Endpoint(self._host, _FIRST_PORT + number), self._target)
        key = secrets.token_bytes(SESSION_KEY_SIZE)
        return Plan(uid, Direction.INBOUND, (route,), self._directory, uid, key, encryption=self.kind.encryption)

    async def add(self) -> None:
        """One more session; back when its entry point accepts."""
        await self.fill(len(self.plans) + 1)

    @abc.abstractmethod
    async def fill(self, count: int) -> None:
        """Add as many as are missing to so many, in whatever way is fast."""

    async def settle(self) -> None:
        """Wait until what the last addition has begun is done, so that it does not meet the next one."""
        await asyncio.sleep(SETTLING)

    @abc.abstractmethod
    async def end(self) -> None:
        """End all of them, for certain."""

    @abc.abstractmethod
    def leaders(self) -> list[int]:
        """The processes that lead those of all sessions; the first session's comes first."""

    def pids(self) -> list[int]:
        """All of their processes."""
        return processes_of(self.leaders())

    def outer(self, host: str) -> Plan:
        """The other gateway's end of the first session."""
        first = self.plans[0]
        directory = self._directory / "outer"
        directory.mkdir(mode=0o700, exist_ok=True)
        route = Route(Endpoint(host, _FIRST_PORT), first.routes[0].entry_point)
        return replace(first, direction=Direction.OUTBOUND, directory=directory, routes=(route,))


def processes_of(leaders: list[int]) -> list[int]:
    """The processes in the sessions (setsid) of these."""
    wanted, found = set(leaders), []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) in wanted:
                found.append(pid)
    return found


def accepts(entry_point: Endpoint) -> bool:
    """Whether a connection is taken."""
    with contextlib.suppress(ConnectionError), socket.create_connection((entry_point.host, entry_point.port), 10):
        return True
    return False


class Apart(Arrangement):
    """A data server for each session, started and stopped by the library."""

    name = "process per session"

    def __init__(self, kind: Kind, directory: Path, host: str, target: Endpoint) -> None:
        super().__init__(kind, directory, host, target)
        self._marks: dict[Plan, ProcessMark] = {}

    async def fill(self, count: int) -> None:
        """Several are started at once."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def start(plan: Plan) -> None:
            async with turns:
                self._marks[plan] = await self.kind.proxy.start(plan)

        wanted = [self._plan(number) for number in range(len(self.plans), count)]
        async with asyncio.TaskGroup() as group:
            for plan in wanted:
                group.create_task(start(plan))
        self.plans += wanted

    def leaders(self) -> list[int]:
        """One for each session."""
        return [self._marks[plan].pid for plan in self.plans]

    async def end(self) -> None:
        """Also those whose start was part of what was interrupted."""
        async with asyncio.TaskGroup() as group:
            for plan, mark in self._marks.items():
                group.create_task(self.kind.proxy.stop(plan, mark))
        self._marks.clear()
        self.plans.clear()
