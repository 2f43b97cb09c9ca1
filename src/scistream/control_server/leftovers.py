"""Data servers that run and that no journal knows, since that was damaged or lost.

Their streams go on: who uses them is not known, and nobody asked for their end. They are told of in every status, their
ports are given to nobody else, and `s2cs stop --release` ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from scistream.control_server.data_servers import Survey
from scistream.control_server.ports import PortPool, Reservation
from scistream.engines import guarding, shaping
from scistream.engines.base import FILE_KINDS, Engine
from scistream.engines.lifecycle import ProcessMark, alive
from scistream.engines.processes import ProcessFacts, group_of, listeners, send, socket_inodes, wait_exit
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Transport, Uid, parse_uid

__all__ = ["Leftover", "Leftovers", "find_in_kernel", "find_leftovers"]

# Seconds for each of SIGTERM and SIGKILL.
_GRACE: Final = 5.0


@dataclass(frozen=True)
class Leftover:
    """One session's data server: `stem` begins the names of its files, `remains` are what runs of it."""

    uid: Uid
    stem: str
    remains: _Remains
    ports: tuple[int, ...]
    reservation: Reservation

    def __str__(self) -> str:
        ports = f"on port {', '.join(map(str, self.ports))}" if self.ports else "on no port"
        return f"of session {self.uid} ({self.remains}, {ports})"


class _Remains(Protocol):
    """What runs of a data server."""

    @property
    def is_gone(self) -> bool:
        """Whether nothing of what was found is there any more."""

    async def end(self) -> bool:
        """End it; whether nothing is left."""


@dataclass(frozen=True)
class _Processes:
    """Those that write to `log`; `groups` lead them."""

    groups: tuple[int, ...]
    marks: tuple[ProcessMark, ...]
    log: Path

    @property
    def is_gone(self) -> bool:
        return not any(map(alive, self.marks))

    def __str__(self) -> str:
        return f"pid {', '.join(map(str, self.groups))}"

    async def end(self) -> bool:
        for number in (signal.SIGTERM, signal.SIGKILL):
            there = self._there()
            for facts in there:
                send(facts, number)
                # One that was stopped hears of it only when it goes on.
                send(facts, signal.SIGCONT)
            for facts in there:
                await wait_exit(facts.pid, _GRACE)
        return not self._there()

    def _there(self) -> list[ProcessFacts]:
        found = (facts for group in self.groups for facts in group_of(group))
        return [facts for facts in found if facts.writes_to(self.log)]


@dataclass(frozen=True)
class _InKernel:
    """What an engine has in the kernel, by its own marks: no process has them."""

    engine: Engine
    marks: tuple[ProcessMark, ...]

    @property
    def is_gone(self) -> bool:
        return not any(map(self.engine.alive, self.marks))

    def __str__(self) -> str:
        return f"rules of {self.engine.title}"

    async def end(self) -> bool:
        return not any([await self.engine.take_out(mark) for mark in self.marks])


class Leftovers:
    """What a start found and cannot account for.

    Args:
        directory: the state directory.
        found: the data servers.
        words: what else there is to warn of, a sentence each.
    """

    def __init__(self, directory: Path, found: Iterable[Leftover] = (), words: Sequence[str] = ()) -> None:
        self._directory = directory
        self._there = list(found)
        self._words = tuple(words)

    def warnings(self) -> Sequence[str]:
        """A sentence for each; those that ended meanwhile are left out, and their ports are free again."""
        for leftover in [each for each in self._there if each.remains.is_gone]:
            self._forget(leftover)
        ending = "is in no journal and goes on: its ports are kept free of others, s2cs stop --release ends it"
        return (*self._words, *(f"the data server {each} {ending}" for each in self._there))

    def refuse(self, uid: Uid) -> None:
        """Keep a uid whose data server runs unknown from being used anew: its files would be written over.

        Raises:
            SciStreamError: UID_EXISTS.
        """
        for leftover in [each for each in self._there if each.uid == uid]:
            if leftover.remains.is_gone:
                self._forget(leftover)
            else:
                raise SciStreamError(Code.UID_EXISTS, uid=uid, state=f"left without a journal, as {leftover.stem}")

    @property
    def stems(self) -> Sequence[str]:
        """What begins the names of their files."""
        return [each.stem for each in self._there]

    async def end(self) -> int:
        """End them all, and remove their files; returns how many there were.

        Raises:
            SciStreamError: LEFT_BEHIND.
        """
        there = list(self._there)
        if not there:
            return 0
        await asyncio.gather(*map(self._end, there))
        # Nothing of this directory runs any more: what kept it within its bounds goes as a whole.
        with contextlib.suppress(SciStreamError):
            await shaping.sweep(self._directory, tuple)
            await guarding.sweep(self._directory, tuple)
        return len(there)

    async def _end(self, leftover: Leftover) -> None:
        if not await leftover.remains.end():
            raise SciStreamError(Code.LEFT_BEHIND, what=f"the data server {leftover}")
        self._forget(leftover)

    def _forget(self, leftover: Leftover) -> None:
        for kind in (*FILE_KINDS, "key"):
            (self._directory / f"{leftover.stem}.{kind}").unlink(missing_ok=True)
        leftover.reservation.close()
        self._there.remove(leftover)


def find_leftovers(unknown: Survey, directory: Path, pool: PortPool) -> list[Leftover]:
    """The data servers among what writes to logs that no session has; their ports are taken out of the pool."""
    uids = {stem: uid for stem in unknown if (uid := _uid_of(stem))}
    if not uids:
        return []
    sessions: dict[int, list[ProcessMark]] = {}
    for facts in filter(None, map(ProcessFacts.of, psutil.pids())):
        if not facts.gone:
            sessions.setdefault(facts.session, []).append(ProcessMark(facts.pid, facts.started))
    inodes = {found.inode: found.port for transport in Transport for found in listeners(transport)}
    found = []
    for stem, uid in uids.items():
        groups = tuple(mark.pid for mark in unknown[stem])
        processes = tuple(mark for group in groups for mark in sessions.get(group, ()))
        held = {inode for mark in processes for inode in socket_inodes(mark.pid)}
        ports = tuple(sorted({inodes[inode] for inode in held if inode in inodes}))
        reservation = pool.claim(pool.host, ports, in_use=True)
        remains = _Processes(groups, processes, directory / f"{stem}.log")
        found.append(Leftover(uid, stem, remains, ports, reservation))
    return found


def find_in_kernel(engine: Engine, unknown: Survey, pool: PortPool) -> list[Leftover]:
    """What an engine has in the kernel for sessions that no journal knows; its ports are taken out of the pool."""
    found = []
    for stem, marks in unknown.items():
        if uid := _uid_of(stem):
            ports = tuple(sorted({port for mark in marks for port in engine.ports(mark)}))
            reservation = pool.claim(pool.host, ports, in_use=True)
            # Nobody listens there. Of one that was opened on another address, the numbers are kept.
            with contextlib.suppress(OSError):
                reservation.retake(pool.host)
            found.append(Leftover(uid, stem, _InKernel(engine, tuple(marks)), ports, reservation))
    return found


def _uid_of(stem: str) -> Uid | None:
    """Whose data server begins its files' names so; None where none of ours does."""
    name, dot, direction = stem.partition(".")
    if dot and direction not in {each.value for each in Direction}:
        return None
    try:
        return parse_uid(name)
    except SciStreamError:
        return None
