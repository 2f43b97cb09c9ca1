"""Data servers that are told something by a signal, and whether they did it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from scistream import atomic_files
from scistream.addresses import Endpoint
from scistream.engines.base import Plan
from scistream.engines.children import ProcessMark, alive
from scistream.engines.connections import accepting
from scistream.engines.files import log_size, words_since
from scistream.engines.processes import ProcessFacts, catches, group_of, pauses, send
from scistream.errors import Code, SciStreamError

if TYPE_CHECKING:
    from scistream.engines.proxy import Proxy

__all__ = ["accepted_by", "cannot", "configuration", "reload", "renewed", "tell", "unresponsive", "until"]

# Seconds that a data server gets to do as it was told.
_OBEDIENCE: Final = 10.0


@contextlib.asynccontextmanager
async def configuration(
    engine: Proxy, plan: Plan, leader: ProcessFacts, text: str, *, kind: str = "conf"
) -> AsyncIterator[None]:
    """Another configuration, or another file of that kind, which stays where the block succeeds.

    Where it fails, the old one is back and in force.

    Raises:
        SciStreamError: FILE_UNWRITABLE, and what the block raises.
    """
    path = plan.path(kind)
    try:
        old = path.read_bytes()
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
    atomic_files.write(path, text.encode())
    try:
        yield
    except _NotTakenError as error:
        atomic_files.write(path, old)
        if error.is_uncertain:
            await asyncio.shield(_go_back(engine, plan, leader))
        raise error.reason from None
    except BaseException:
        atomic_files.write(path, old)
        raise


class _NotTakenError(Exception):
    """A configuration that a data server was told to read, and is not in force; what is in force may be uncertain."""

    def __init__(self, reason: BaseException, *, is_uncertain: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_uncertain = is_uncertain


async def _go_back(engine: Proxy, plan: Plan, leader: ProcessFacts) -> None:
    with contextlib.suppress(_NotTakenError):
        await reload(engine, plan, leader, renewed(engine, plan, leader))


async def reload(engine: Proxy, plan: Plan, leader: ProcessFacts, done: Callable[[], bool]) -> None:
    """Have it read its configuration, and wait until that is in force. Only inside `configuration`."""
    size = log_size(plan)
    await tell(engine, leader, signal.SIGHUP)
    try:
        await _wait(lambda: engine.reloaded(words_since(plan, size)) and done())
    except SciStreamError as refusal:
        # It has kept what it had. But a Stunnel that cannot bind has nothing, and tries again until it can.
        raise _NotTakenError(refusal, is_uncertain=not _accepts_all(plan, leader)) from None
    except TimeoutError:
        error = unresponsive(engine, plan, "it was told to read its configuration, and still does as before")
        raise _NotTakenError(error, is_uncertain=True) from None
    except BaseException as error:
        raise _NotTakenError(error, is_uncertain=True) from None


def renewed(engine: Proxy, plan: Plan, leader: ProcessFacts) -> Callable[[], bool]:
    """What tells whether all that accepts now does as the configuration says, seen from when this was called."""
    workers = [facts.pid for facts in group_of(leader.pid) if facts.pid != leader.pid]
    before = set(accepted_by(plan, leader).values())

    def done() -> bool:
        if not _accepts_all(plan, leader):
            return False
        if engine.rebinds:
            return before.isdisjoint(accepted_by(plan, leader).values())
        # Nginx's old workers accept until they are told of the new ones.
        return not accepting(workers, _entry_points(plan), plan.transport)

    return done


async def tell(engine: Proxy, leader: ProcessFacts, number: signal.Signals) -> None:
    """Signal a data server once it has a handler: it accepts a moment before, and the signal would end it.

    One that has ended by then is told nothing.

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    mark = ProcessMark(leader.pid, leader.started)
    await until(lambda: catches(leader.pid, number) or not alive(mark), engine, f"it does not heed {number.name}")
    send(leader, number)


async def until(true: Callable[[], bool], engine: Proxy, reason: str) -> None:
    """Wait for what a data server does at once.

    Raises:
        SciStreamError: ENGINE_CANNOT with the reason, where it does not.
    """
    try:
        await _wait(true)
    except TimeoutError:
        raise cannot(engine, reason) from None


async def _wait(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(_OBEDIENCE):
        for pause in pauses():
            if true():
                return
            await asyncio.sleep(pause)


def _entry_points(plan: Plan) -> list[Endpoint]:
    return [route.entry_point for route in plan.routes]


def accepted_by(plan: Plan, leader: ProcessFacts) -> dict[Endpoint, int]:
    """The entry points on which its processes listen, with the listeners' inodes."""
    return accepting([facts.pid for facts in group_of(leader.pid)], _entry_points(plan), plan.transport)


def _accepts_all(plan: Plan, leader: ProcessFacts) -> bool:
    return len(accepted_by(plan, leader)) == len(plan.routes)


def cannot(engine: Proxy, reason: str) -> SciStreamError:
    """The error for what an engine, or a data server of it, does not do."""
    return SciStreamError(Code.ENGINE_CANNOT, engine=engine.title, reason=reason)


def unresponsive(engine: Proxy, plan: Plan, reason: str) -> SciStreamError:
    """The error for a data server that would do as it is told, and does nothing."""
    return SciStreamError(Code.DATA_SERVER_UNRESPONSIVE, engine=engine.title, uid=plan.uid, reason=reason)
