"""Data servers as the registry sees them: started, watched and ended. Behind it stands the engines' lifecycle."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import psutil

from scistream.control_server.state_directory import log_of
from scistream.engines import ENGINES, lifecycle
from scistream.engines.base import Engine, Handshake, Plan, Traffic
from scistream.engines.lifecycle import ProcessMark
from scistream.engines.processes import ProcessFacts
from scistream.errors import Code, SciStreamError

__all__ = ["DataServers", "Engines", "Survey", "merged", "survey", "survey_engines", "survey_processes"]

Survey = Mapping[str, Sequence[ProcessMark]]
"""By the first part of their files' names: the data servers that run, each by the leader of its processes.

What works in the kernel has no process; its mark there is its engine's own.
"""

# A start time that no process has: `lifecycle.stop` then spares everything that does not write to the session's log.
_UNCERTAIN: Final = -1
# Seconds for one name, which an engine has asked for a moment ago.
_LOOK_UP: Final = 5.0


class DataServers(Protocol):
    """What the registry needs of whatever carries the bytes."""

    async def start(self, engine: Engine, plan: Plan) -> ProcessMark:
        """Start a data server; back when its entry points accept. On failure nothing of it is left."""

    async def drain(self, engine: Engine, plan: Plan, mark: ProcessMark, deaf: Callable[[], None]) -> None:
        """Have it accept no new connections; back when the running ones have ended and it with them.

        `deaf` is called when it accepts none any more; what fails, fails before that.
        """

    async def retarget(self, engine: Engine, plan: Plan, mark: ProcessMark) -> None:
        """Have new connections go to the plan's targets; running ones go on to where they went."""

    async def traffic(self, engine: Engine, plan: Plan, mark: ProcessMark) -> Traffic:
        """What it has carried since it started."""

    async def renew_certificates(self, engine: Engine, plan: Plan, mark: ProcessMark) -> None:
        """Have new connections prove this gateway with a new certificate; running ones go on."""

    async def handshake(self, engine: Engine, plan: Plan, mark: ProcessMark) -> Handshake | None:
        """What the last of its encrypted connections agreed on."""

    async def stop(self, engine: Engine, plan: Plan, mark: ProcessMark | None) -> None:
        """End it for certain, and remove its files. Without a mark: whatever writes to the session's log."""

    def survey(self, directory: Path) -> Survey:
        """Everything that runs for a state directory, whatever the journal says."""

    def wipe(self, plan: Plan) -> None:
        """Remove the files of one that does not run."""

    def alive(self, engine: Engine, mark: ProcessMark) -> bool:
        """Whether it is the one that was started, and runs."""

    async def ended(self, engine: Engine, mark: ProcessMark) -> str:
        """Wait until it ends by itself; says how."""

    def last_words(self, engine: Engine, plan: Plan) -> str:
        """The last that it said, in one line."""


@contextlib.asynccontextmanager
async def _by_name(plan: Plan) -> AsyncIterator[None]:
    """Inside, a configuration that is rejected for a target's name is refused by that: each engine says it otherwise.

    Raises:
        SciStreamError: TARGET_UNRESOLVED; what is raised inside.
    """
    try:
        yield
    except SciStreamError as error:
        if error.code is not Code.CONFIGURATION_REJECTED:
            raise
        raise await _unresolved(plan) or error from None


async def _unresolved(plan: Plan) -> SciStreamError | None:
    loop = asyncio.get_running_loop()
    for target in dict.fromkeys(route.target for route in plan.routes if route.target.ip is None):
        try:
            async with asyncio.timeout(_LOOK_UP):
                await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except TimeoutError:
            return None
        except OSError as error:
            reason = error.strerror or str(error)
            return SciStreamError(Code.TARGET_UNRESOLVED, target=str(target), host=target.host, reason=reason)
    return None


class Engines:
    """The real ones: each engine does it in its own way."""

    async def start(self, engine: Engine, plan: Plan) -> ProcessMark:
        """See `Engine.start`."""
        async with _by_name(plan):
            return await engine.start(plan)

    async def drain(self, engine: Engine, plan: Plan, mark: ProcessMark, deaf: Callable[[], None]) -> None:
        """See `Engine.drain`."""
        await engine.drain(plan, mark, deaf)

    async def retarget(self, engine: Engine, plan: Plan, mark: ProcessMark) -> None:
        """See `Engine.retarget`."""
        async with _by_name(plan):
            await engine.retarget(plan, mark)

    async def traffic(self, engine: Engine, plan: Plan, mark: ProcessMark) -> Traffic:
        """See `Engine.traffic`."""
        return await engine.traffic(plan, mark)

    async def renew_certificates(self, engine: Engine, plan: Plan, mark: ProcessMark) -> None:
        """See `Engine.renew_certificates`."""
        await engine.renew_certificates(plan, mark)

    async def handshake(self, engine: Engine, plan: Plan, mark: ProcessMark) -> Handshake | None:
        """See `Engine.handshake`."""
        return await engine.handshake(plan, mark)

    async def stop(self, engine: Engine, plan: Plan, mark: ProcessMark | None) -> None:
        """See `Engine.stop`; without a mark, for what a crash kept out of the journal."""
        found = (mark,) if mark else (await asyncio.to_thread(self.survey, plan.directory)).get(plan.stem, ())
        for each in found:
            await engine.stop(plan, each)
        if not found:
            await engine.lift_bounds(plan)
        lifecycle.remove_files(plan)

    def survey(self, directory: Path) -> Survey:
        """See `survey`."""
        return survey(directory)

    def wipe(self, plan: Plan) -> None:
        """See `engines.lifecycle.remove_files`."""
        lifecycle.remove_files(plan)

    def alive(self, engine: Engine, mark: ProcessMark) -> bool:
        """See `Engine.alive`."""
        return engine.alive(mark)

    async def ended(self, engine: Engine, mark: ProcessMark) -> str:
        """See `Engine.ended`."""
        return await engine.ended(mark)

    def last_words(self, engine: Engine, plan: Plan) -> str:
        """See `Engine.last_words`."""
        return engine.last_words(plan)


def survey(directory: Path) -> Survey:
    """All of both: processes, and what stands in the kernel."""
    return merged(survey_processes(directory), *survey_engines(directory).values())


def merged(*surveys: Survey) -> Survey:
    """Several as one."""
    found: dict[str, list[ProcessMark]] = {}
    for stem, marks in itertools.chain.from_iterable(each.items() for each in surveys):
        found.setdefault(stem, []).extend(marks)
    return found


def survey_engines(directory: Path) -> Mapping[Engine, Survey]:
    """What stands in the kernel, by the engine that it is of."""
    surveys = ((engine, engine.survey(directory)) for engine in ENGINES.values())
    return {engine: found for engine, found in surveys if found}


def survey_processes(directory: Path) -> Survey:
    """The processes whose output is a log of a state directory: one walk over all processes, however many those are."""
    place = os.path.realpath(directory)
    found: dict[str, set[int]] = {}
    for pid in psutil.pids():
        stem = _stem_of(pid, place)
        facts = ProcessFacts.of(pid) if stem else None
        if stem and facts and not facts.gone:
            found.setdefault(stem, set()).add(facts.session)
    return {stem: [ProcessMark(group, _UNCERTAIN) for group in sorted(groups)] for stem, groups in found.items()}


def _stem_of(pid: int, place: str) -> str | None:
    try:
        output = Path(str(Path(f"/proc/{pid}/fd/1").readlink()).removesuffix(" (deleted)"))
    except OSError:
        return None
    # The control server's own output may lie there as well.
    is_data_servers = str(output.parent) == place and output.suffix == ".log" and output.name != log_of(output).name
    return output.stem if is_data_servers else None
