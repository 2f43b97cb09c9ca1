"""Data servers that run and that no journal knows, since that was damaged or lost.

Their streams go on: who uses them is not known, and nobody asked for their end. They are told of in every status, their
ports are given to nobody else, and `s2cs stop --release` ends them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scistream.control_server.data_servers import Survey
from scistream.control_server.ports import PortPool, Reservation
from scistream.engines.base import FILE_KINDS
from scistream.engines.lifecycle import ProcessMark
from scistream.engines.processes import ProcessFacts, group_of, listeners, send, socket_inodes, wait_exit
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid, parse_uid

__all__ = ["Leftover", "Leftovers", "find_leftovers"]

# Seconds for each of SIGTERM and SIGKILL.
_GRACE: Final = 5.0


@dataclass(frozen=True)
class Leftover:
    """The processes of one session's data server; `stem` begins the names of its files."""

    uid: Uid
    stem: str
    marks: tuple[ProcessMark, ...]
    ports: tuple[int, ...]
    reservation: Reservation

    def __str__(self) -> str:
        pids = ", ".join(str(mark.pid) for mark in self.marks)
        ports = f"on port {', '.join(map(str, self.ports))}" if self.ports else "on no port"
        return f"of session {self.uid} (pid {pids}, {ports})"

    def processes(self, log: Path) -> list[ProcessFacts]:
        """Those that still run."""
        found = (facts for mark in self.marks for facts in group_of(mark.pid))
        return [facts for facts in found if facts.writes_to(log)]


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
        for leftover in [each for each in self._there if not self._processes(each)]:
            self._forget(leftover)
        ending = "is in no journal and goes on: its ports are kept free of others, s2cs stop --release ends it"
        return (*self._words, *(f"the data server {each} {ending}" for each in self._there))

    def refuse(self, uid: Uid) -> None:
        """Keep a uid whose data server runs unknown from being used anew: its files would be written over.

        Raises:
            SciStreamError: UID_EXISTS.
        """
        self.warnings()
        for leftover in self._there:
            if leftover.uid == uid:
                raise SciStreamError(Code.UID_EXISTS, uid=uid, state=f"left without a journal, as {leftover.stem}")

    async def end(self) -> int:
        """End them all, and remove their files; returns how many there were.

        Raises:
            SciStreamError: LEFT_BEHIND.
        """
        there = list(self._there)
        await asyncio.gather(*map(self._end, there))
        return len(there)

    async def _end(self, leftover: Leftover) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for facts in self._processes(leftover):
                send(facts, number)
                # One that was stopped hears of it only when it goes on.
                send(facts, signal.SIGCONT)
            for facts in self._processes(leftover):
                await wait_exit(facts.pid, _GRACE)
        if self._processes(leftover):
            raise SciStreamError(Code.LEFT_BEHIND, what=f"the data server {leftover}")
        self._forget(leftover)

    def _processes(self, leftover: Leftover) -> list[ProcessFacts]:
        return leftover.processes(self._directory / f"{leftover.stem}.log")

    def _forget(self, leftover: Leftover) -> None:
        for kind in (*FILE_KINDS, "key"):
            (self._directory / f"{leftover.stem}.{kind}").unlink(missing_ok=True)
        leftover.reservation.close()
        self._there.remove(leftover)


def find_leftovers(unknown: Survey, pool: PortPool) -> list[Leftover]:
    """The data servers among what writes to logs that no session has; their ports are taken out of the pool."""
    uids = {stem: uid for stem in unknown if (uid := _uid_of(stem))}
    inodes = {listener.inode: listener.port for listener in listeners()} if uids else {}
    return [_leftover(uid, stem, tuple(unknown[stem]), inodes, pool) for stem, uid in uids.items()]


def _leftover(uid: Uid, stem: str, marks: tuple[ProcessMark, ...], inodes: dict[int, int], pool: PortPool) -> Leftover:
    pids = [facts.pid for mark in marks for facts in group_of(mark.pid)]
    ports = sorted({inodes[inode] for pid in pids for inode in socket_inodes(pid) if inode in inodes})
    return Leftover(uid, stem, marks, tuple(ports), pool.claim(pool.host, ports, in_use=True))


def _uid_of(stem: str) -> Uid | None:
    """Whose data server begins its files' names so; None where none of ours does."""
    name, dot, direction = stem.partition(".")
    if dot and direction not in {each.value for each in Direction}:
        return None
    try:
        return parse_uid(name)
    except SciStreamError:
        return None
