"""Engines that are processes of this host, and connect for others.

Such an engine only renders text and names commands. Files, processes and waiting are `scistream.engines.lifecycle`'s
and `scistream.engines.running`'s, once for all.
"""

from __future__ import annotations

import abc
import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from scistream.addresses import Endpoint
from scistream.engines import guarding, lifecycle, renewal, running, shaping
from scistream.engines.base import Engine, Installation, Plan, Route
from scistream.engines.marks import ProcessMark
from scistream.engines.processes import wait_exit
from scistream.engines.texts import without_places
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError, one_line

__all__ = ["Proxy"]


class Proxy(Engine):
    """An engine whose data servers are processes, each in a session (setsid) of its own."""

    has_processes = True
    error_mark: ClassVar[str] = ""
    """What the lines of its checker have that tell of errors; the others are notices."""
    drain_signal: ClassVar[signal.Signals | None] = None
    """What has its leader accept no more and end with its last connection; None where no signal does."""
    rebinds: ClassVar[bool] = False
    """Whether it closes its listeners and makes others when it reads its configuration anew."""
    ledger: ClassVar[str] = ""
    """The kind of file whose lines tell of ended connections (`count`); empty where it is asked by a command."""
    targets_command: ClassVar[str] = ""
    """What its command socket answers with the targets in force; empty where they are in its configuration alone."""
    traffic_command: ClassVar[str] = ""
    """What its command socket answers with its traffic."""

    @abc.abstractmethod
    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """The contents of the data server's files, by path. All of them are written with mode 0600.

        Raises:
            SciStreamError: SESSION_KEY_MISSING, ENGINE_CANNOT.
        """

    @abc.abstractmethod
    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        """The engine's own check of the rendered files, or None where it has no checker."""

    @abc.abstractmethod
    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        """What runs the data server in the foreground, with `plan.directory` as working directory."""

    def deaf(self, plan: Plan, installation: Installation) -> str:
        """A configuration with which, once it is loaded, running connections go on and none is accepted.

        For engines without `drain_signal`.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """
        del plan, installation
        raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason="it cannot stop accepting alone")

    def switch_commands(self, routes: Sequence[Route]) -> list[str]:
        """What its command socket has to be told for new connections to go to these targets, which are IP addresses.

        For engines with `targets_command`; the others read their configuration anew, at SIGHUP.
        """
        del routes
        return []

    def switched(self, answer: str) -> bool:
        """Whether the answer to one of `switch_commands` tells of success."""
        del answer
        return False

    def reloaded(self, words: str) -> bool:
        """Whether what its log got since SIGHUP says that it took the configuration, or need not say so.

        Raises:
            SciStreamError: ENGINE_CANNOT, where it says that it did not.
        """
        if self.error_mark and self.error_mark in words:
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=self.rejection(words))
        return True

    def read_targets(self, answer: str) -> list[Endpoint]:
        """The answer to `targets_command`, in the routes' order."""
        del answer
        return []

    def read_traffic(self, answer: str) -> Traffic:
        """The answer to `traffic_command`."""
        del answer
        return Traffic()

    def count(self, plan: Plan, line: str, accepted: dict[str, list[Peer]]) -> Count:
        """One line of the `ledger`.

        `accepted` is the engine's to keep between lines: running connections by its own names, each with the client's
        address, and behind it the address from which the data server went to the target, where the ledger tells it.
        """
        del plan, line, accepted
        return Count(Traffic())

    def is_plain_at_target(self, plan: Plan) -> bool:
        """Whether the application's bytes are to be counted at the target, since the client's are encrypted.

        Then `count` has to fill in whence the data server went to the target.
        """
        del plan
        return False

    def rejection(self, words: str) -> str:
        """What its checker found wrong, in one line for remote callers: no notices, no paths of this host."""
        lines = words.splitlines()
        errors = [line for line in lines if self.error_mark in line]
        return one_line(without_places("\n".join(errors or lines))) or "it said nothing"

    def complaint(self, words: str) -> str | None:
        """What a data server that accepts has said against its configuration, or None.

        For engines that go on where others refuse to start.
        """
        del words
        return None

    def rate_shortfall(self) -> str:
        """See `engines.shaping.missing`: the kernel limits, whatever the engine."""
        return shaping.missing()

    def sources_shortfall(self) -> str:
        """See `engines.guarding.missing`, where the engine has no source list of its own."""
        return guarding.missing() if self.is_guarded else super().sources_shortfall()

    async def start(self, plan: Plan) -> ProcessMark:
        """See `engines.lifecycle.start`; what keeps it to its sources and its rate is there before."""
        if not self._is_guarded(plan):
            return await self._start(plan)
        async with guarding.guarded(plan, self.title):
            return await self._start(plan)

    def _is_guarded(self, plan: Plan) -> bool:
        return self.is_guarded and bool(plan.sources)

    async def _start(self, plan: Plan) -> ProcessMark:
        if not plan.rate:
            return await lifecycle.start(self, plan)
        await shaping.limit(plan, self.title)
        try:
            return await lifecycle.start(self, plan)
        except BaseException:
            await asyncio.shield(shaping.unlimit(plan, self.title))
            raise

    async def keep_bounds(self, plan: Plan) -> None:
        """See `engines.guarding.guard` and `engines.shaping.limit`."""
        if self._is_guarded(plan):
            await guarding.guard(plan, self.title)
        if plan.rate:
            await shaping.limit(plan, self.title)

    async def stop(self, plan: Plan, mark: ProcessMark) -> None:
        """See `engines.lifecycle.stop`."""
        await lifecycle.stop(plan, mark, engine_title=self.title)
        await self.lift_bounds(plan)

    async def lift_bounds(self, plan: Plan) -> None:
        """See `engines.shaping.unlimit` and `engines.guarding.unguard`."""
        if plan.rate:
            await shaping.unlimit(plan, self.title)
        if self._is_guarded(plan):
            await guarding.unguard(plan, self.title)

    async def drain(self, plan: Plan, mark: ProcessMark, deaf: Callable[[], None] = lambda: None) -> None:
        """See `engines.running.drain`."""
        await running.drain(self, plan, mark, deaf)

    async def retarget(self, plan: Plan, mark: ProcessMark) -> None:
        """See `engines.running.retarget`; the way to the new targets may be another device's."""
        if plan.rate:
            await shaping.limit(plan, self.title)
        await running.retarget(self, plan, mark)

    def certificate_expires(self, plan: Plan) -> float | None:
        """See `engines.renewal.expires`."""
        return renewal.expires(plan)

    async def traffic(self, plan: Plan, mark: ProcessMark) -> Traffic:
        """See `engines.running.traffic`; peers that the kernel has refused in front of it are counted too."""
        told = await running.traffic(self, plan, mark)
        if not self._is_guarded(plan):
            return told
        return replace(told, refused_peers=told.refused_peers + await guarding.refused(plan, self.title))

    def alive(self, mark: ProcessMark) -> bool:
        """See `engines.lifecycle.alive`."""
        return lifecycle.alive(mark)

    async def ended(self, mark: ProcessMark) -> str:
        """Wait on the process's pidfd; it also tells of processes that are not our children."""
        # One whose last threads are still being cleared away counts as dead already, and has no status yet.
        if lifecycle.present(mark):
            await wait_exit(mark.pid, None)
        return lifecycle.farewell(mark) or "its exit status is not known"

    def last_words(self, plan: Plan) -> str:
        """See `engines.lifecycle.last_words`."""
        return lifecycle.last_words(plan)
