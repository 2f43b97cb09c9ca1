"""The kernel keeps a session's entry points to its sources, for engines that have no source list of their own.

The rules stand before a data server listens, and until it has ended (`guarded`, `unguard`). They are the kernel's: they
outlive the control server, which puts them back where somebody has flushed them (`guard`), and takes away at its start
what one that died has left (`sweep`). Their own record is all that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scistream.engines.base import Plan
from scistream.engines.guarding_rules import (
    PROBE,
    REFUSED,
    STRANGERS,
    Door,
    door_at,
    put_in,
    read_doors,
    read_refused,
    read_strangers,
    table_of,
    take_out,
)
from scistream.engines.host import find_program
from scistream.engines.nft_names import DOORS
from scistream.engines.probing import privilege_shortfall, takes
from scistream.engines.processes import plain_ip
from scistream.engines.shaping_cgroups import Slot
from scistream.engines.shaping_tools import PACKAGES, Tools, alone
from scistream.errors import Code, SciStreamError

__all__ = ["guard", "guarded", "missing", "refused", "sweep", "unguard"]

_FAILING: Final = "its entry points cannot be kept to the sources"
# Seconds for which one look at the counts serves every session.
_FRESH: Final = 1.0


@dataclass
class _Meter:
    """What was counted of one session; somebody who flushes the rules sets the kernel's own figure back."""

    counted: int = 0
    total: int = 0
    strangers: set[str] = field(default_factory=set)


_meters: Final[dict[Slot, _Meter]] = {}
_looks: Final[dict[str, tuple[float, dict[int, int]]]] = {}


def missing() -> str:
    """Why the kernel keeps no source list for this control server, in a sentence; empty where it can. Cheap."""
    words = _shortfall()
    return f"it has no source list of its own, and the kernel cannot keep one here: {words}" if words else ""


def _shortfall() -> str:
    if find_program(("nft",)) is None:
        return f"there is no program nft (package {PACKAGES['nft']})"
    if words := privilege_shortfall():
        return words
    return "" if takes(PROBE) else "nft does not take its rules on this kernel"


@contextlib.asynccontextmanager
async def guarded(plan: Plan, engine: str) -> AsyncIterator[None]:
    """Have the session's entry points guarded before the block begins; no more, where it fails.

    Raises:
        SciStreamError: ENGINE_CANNOT, CONFIGURATION_REJECTED.
    """
    try:
        await guard(plan, engine)
        yield
    except BaseException:
        # That it failed has been said, or is being said now.
        with contextlib.suppress(SciStreamError):
            await asyncio.shield(unguard(plan, engine))
        raise


async def guard(plan: Plan, engine: str) -> None:
    """Have a session's entry points kept to `plan.sources`, which are some; again, it puts back what is missing.

    Raises:
        SciStreamError: ENGINE_CANNOT, where something is missing; CONFIGURATION_REJECTED, where an entry point's name
            has no address.
    """
    tools, slot = Tools(engine, _FAILING), Slot.of(plan)
    if words := await asyncio.to_thread(missing):
        raise tools.cannot(words)
    doors = await _doors(plan, engine)
    async with alone(tools):
        if await tools.look("nft", "-f", "-", text=put_in(slot, doors, plan.sources)) is not None:
            return
        # A session that is over may still stand there, where a stop was cut short.
        there = await _standing(tools, slot.instance)
        stale = [door for door in doors if there.get(door, slot.stem) != slot.stem]
        await tools.run("nft", "-f", "-", text=put_in(slot, doors, plan.sources, stale))


async def unguard(plan: Plan, engine: str) -> None:
    """Take a session's rules away, when its data server has ended; again, nothing.

    Raises:
        SciStreamError: ENGINE_CANNOT, where nft does not run or does not do it.
    """
    tools, slot = Tools(engine, _FAILING), Slot.of(plan)
    async with alone(tools):
        await _release(tools, slot.instance, await _standing(tools, slot.instance), [slot.stem])
    _meters.pop(slot, None)


async def sweep(directory: Path, stems: Callable[[], Container[str]]) -> None:
    """Take away what a control server that died has left: sessions in `directory` that are none of `stems`.

    `stems` are asked for when no session can put rules in meanwhile: one that is being started is to be among them.

    Raises:
        SciStreamError: ENGINE_CANNOT, where nft does not run or does not do it.
    """
    if find_program(("nft",)) is None:
        return
    tools, instance = Tools("s2cs", _FAILING), Slot.instance_of(directory)
    async with alone(tools):
        there = await _standing(tools, instance)
        running = stems()
        await _release(tools, instance, there, {stem for stem in there.values() if stem not in running})


async def refused(plan: Plan, engine: str) -> int:
    """How many connections from elsewhere were reset; never less than before, and each stranger is in the log once.

    Raises:
        SciStreamError: ENGINE_CANNOT, where nft does not run.
    """
    tools, slot = Tools(engine, _FAILING), Slot.of(plan)
    meter = _meters.setdefault(slot, _Meter())
    counts = await _counts(tools, slot.instance)
    counted = sum(counts.get(port, 0) for port in _ports(plan))
    fresh = counted - meter.counted if counted >= meter.counted else counted
    meter.counted, meter.total = counted, meter.total + fresh
    if fresh:
        await _note_strangers(tools, plan, meter)
    return meter.total


def _ports(plan: Plan) -> set[int]:
    return {route.entry_point.port for route in plan.routes}


async def _counts(tools: Tools, instance: str) -> dict[int, int]:
    then, counts = _looks.get(instance, (float("-inf"), {}))
    if time.monotonic() - then > _FRESH:
        now = time.monotonic()
        answer = await _listed(tools, instance, "set", REFUSED)
        counts = read_refused(answer) if answer else {}
        _looks[instance] = now, counts
    return counts


async def _listed(tools: Tools, instance: str, kind: str, name: str) -> str | None:
    # One by one: before 1.0.7, nft reads all rules of the host for anything else.
    return await tools.look("nft", "-j", "list", kind, *table_of(instance).split(), name)


async def _note_strangers(tools: Tools, plan: Plan, meter: _Meter) -> None:
    found: set[str] = set()
    for name in STRANGERS.values():
        answer = await _listed(tools, Slot.of(plan).instance, "set", name)
        noted = read_strangers(answer) if answer else ()
        found.update(address for port, address in noted if port in _ports(plan))
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    words = f"[{when}] refused: not among the sources; {meter.total} peers refused by now"
    # Where there is no room for the lines, the count has them all the same.
    with contextlib.suppress(OSError), plan.path("log").open("a") as log:
        log.writelines(f"{address} {words}\n" for address in sorted(found - meter.strangers))
    meter.strangers = found


async def _doors(plan: Plan, engine: str) -> set[Door]:
    found: set[Door] = set()
    for entry_point in (route.entry_point for route in plan.routes):
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(entry_point.host, entry_point.port)
        except OSError as error:
            output = f"{entry_point.host}: {error.strerror}"
            raise SciStreamError(Code.CONFIGURATION_REJECTED, engine=engine, uid=plan.uid, output=output) from None
        addresses = {plain_ip(str(answer[4][0]).partition("%")[0]) for answer in answers}
        found.update(door_at(each, entry_point.port) for each in addresses)
    return found


async def _standing(tools: Tools, instance: str) -> dict[Door, str]:
    """The doors of all sessions of a control server; none, where it has no table, or nobody may look."""
    found: dict[Door, str] = {}
    for name in DOORS:
        answer = await _listed(tools, instance, "map", name)
        if answer is None:
            return {}
        found |= read_doors(answer)
    return found


async def _release(tools: Tools, instance: str, there: Mapping[Door, str], stems: Container[str]) -> None:
    if any(stem in stems for stem in there.values()):
        await tools.run("nft", "-f", "-", text=take_out(instance, there, stems))
