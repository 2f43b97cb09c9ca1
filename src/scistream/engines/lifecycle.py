"""The life of a data server, the same for all engines.

Start: files, the engine's own check, the process, proof that it accepts. Stop: the end, and proof that nothing is left.
A data server is a process of its own session (setsid): it lives on when the control server ends, and what it forks is
found by its session. Its output goes to `<stem>.log`, never into a pipe that somebody would have to read (U41).
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from scistream.addresses import Endpoint
from scistream.engines import counting
from scistream.engines.base import Installation, Plan
from scistream.engines.children import ProcessMark, alive, ending, farewell, present, reap, spawn
from scistream.engines.connections import accepting
from scistream.engines.files import last_words, remove_files, tail, write_files
from scistream.engines.holders import who_listens
from scistream.engines.processes import (
    ProcessFacts,
    bind_failure,
    group_of,
    is_in_use,
    pauses,
    send,
    wait_exit,
)
from scistream.engines.shaping_cgroups import entering
from scistream.errors import Code, SciStreamError

if TYPE_CHECKING:
    from scistream.engines.proxy import Proxy

__all__ = ["ProcessMark", "alive", "farewell", "last_words", "present", "remove_files", "start", "stop"]

# Seconds until those that are told to end are looked for again, where none of them ended before.
_NEXT_LOOK: Final = 0.05
# Seconds that the kernel gets to clear away what was killed.
_KILL_GRACE: Final = 5.0


async def start(engine: Proxy, plan: Plan, *, timeout: float = 10.0) -> ProcessMark:  # noqa: ASYNC109  the error names it
    """Start a data server, and return when each of its entry points accepts.

    Where it fails or is cancelled, nothing is left: no process, no file. `timeout` is in seconds.

    Raises:
        SciStreamError: ENGINE_MISSING, ENGINE_CANNOT, SESSION_KEY_MISSING, ENTRY_POINT_IN_USE, LISTEN_ADDRESS_FOREIGN,
            FILE_UNWRITABLE, CONFIGURATION_REJECTED, DATA_SERVER_FAILED, DATA_SERVER_SILENT.
    """
    installation = await asyncio.to_thread(engine.locate)
    files = engine.render(plan, installation)
    _require_free(plan)
    attempt = _Attempt(engine, plan, installation, timeout)
    try:
        write_files(plan, files)
        return await attempt.run()
    except BaseException:
        # A second cancellation must not cut the clearing away short.
        await asyncio.shield(attempt.undo())
        raise


async def stop(plan: Plan, mark: ProcessMark, *, engine_title: str, grace: float = 5.0) -> None:
    """End a data server and prove it: no process of its session, no listener on its entry points, no file (U39).

    It works for a child of this process, for one that an earlier control server started, and for one that is dead. A
    stop that was cancelled can be repeated. `grace` is in seconds: between SIGTERM and SIGKILL, and again for the ports
    to come free.

    Raises:
        SciStreamError: DATA_SERVER_STUCK; FILE_UNWRITABLE where a file cannot be removed.
    """
    left = await _end(plan, mark, grace) or await _wait_free(plan, grace)
    if left:
        raise SciStreamError(Code.DATA_SERVER_STUCK, engine=engine_title, uid=plan.uid, pid=mark.pid, left=left)
    counting.forget(plan)
    remove_files(plan, mark.pid)


class _Attempt:
    """One start, with what has to be undone when it fails."""

    def __init__(self, engine: Proxy, plan: Plan, installation: Installation, seconds: float) -> None:
        self._engine = engine
        self._plan = plan
        self._installation = installation
        self._seconds = seconds
        self._marks: list[ProcessMark] = []

    async def run(self) -> ProcessMark:
        try:
            async with asyncio.timeout(self._seconds):
                mark = self._launch(self._engine.start_command(self._plan, self._installation))
                await self._wait_listening(mark)
        except TimeoutError:
            raise self._silence() from None
        if complaint := self._engine.complaint(self._plan.path("log").read_text(errors="replace")):
            raise self._error(Code.CONFIGURATION_REJECTED, output=complaint)
        return mark

    async def undo(self) -> None:
        for mark in self._marks:
            if left := await _end(self._plan, mark, grace=0):
                raise self._error(Code.DATA_SERVER_STUCK, pid=mark.pid, left=left)
        remove_files(self._plan, *(mark.pid for mark in self._marks))

    async def _explain(self, how: str) -> SciStreamError:
        """Why it ended at once.

        An engine reads all of its configuration before it binds anything, with the reader that its checker has, and
        ends where it finds fault. So the checker is asked afterwards, only to tell a fault in the configuration from
        others: on the way to success it would do the same work twice.
        """
        _require_free(self._plan)
        output, words = tail(self._plan), last_words(self._plan)
        command = self._engine.check_command(self._plan, self._installation)
        if command is None:
            return self._error(Code.DATA_SERVER_FAILED, ending=how, output=words)
        mark = self._launch(command)
        await wait_exit(mark.pid, None)
        if ending(mark) != "exit status 0":
            return self._error(Code.CONFIGURATION_REJECTED, output=self._engine.rejection(output))
        reap(mark)
        return self._error(Code.DATA_SERVER_FAILED, ending=how, output=words)

    def _launch(self, command: list[str]) -> ProcessMark:
        try:
            mark = spawn(entering(self._plan, command), self._plan)
        except OSError as error:
            raise self._error(Code.DATA_SERVER_FAILED, ending="it did not run", output=str(error)) from None
        self._marks.append(mark)
        return mark

    async def _wait_listening(self, mark: ProcessMark) -> None:
        for pause in pauses():
            if how := ending(mark):
                raise await self._explain(how)
            if not self._deaf(mark) and self._takes_commands():
                return
            await wait_exit(mark.pid, pause)

    def _deaf(self, mark: ProcessMark) -> list[Endpoint]:
        """The entry points on which the data server does not listen."""
        entry_points = [route.entry_point for route in self._plan.routes]
        heard = accepting([mark.pid], entry_points, self._plan.transport)
        return [entry_point for entry_point in entry_points if entry_point not in heard]

    def _takes_commands(self) -> bool:
        """Whether the command socket is there, which an engine that has one makes last."""
        return not self._engine.traffic_command or self._plan.path("sock").exists()

    def _silence(self) -> SciStreamError:
        deaf = self._deaf(self._marks[-1]) or [self._plan.routes[0].entry_point]
        words = last_words(self._plan)
        return self._error(Code.DATA_SERVER_SILENT, entry_point=str(deaf[0]), seconds=self._seconds, output=words)

    def _error(self, code: Code, **facts: object) -> SciStreamError:
        return SciStreamError(code, engine=self._engine.title, uid=self._plan.uid, **facts)


def _require_free(plan: Plan) -> None:
    for route in plan.routes:
        error = bind_failure(route.entry_point, plan.transport)
        if error is None:
            continue
        address = str(route.entry_point)
        if is_in_use(error):
            raise SciStreamError(Code.ENTRY_POINT_IN_USE, entry_point=address, process=_holder(plan, route.entry_point))
        raise SciStreamError(Code.LISTEN_ADDRESS_FOREIGN, address=address, reason=error.strerror or str(error))


def _holder(plan: Plan, entry_point: Endpoint) -> str:
    return who_listens(entry_point, plan.transport) or "a process that holds it and does not listen"


async def _end(plan: Plan, mark: ProcessMark, grace: float) -> str | None:
    """Signal what is left of a data server until nothing is; says what is left where SIGKILL does not help."""
    known: dict[int, ProcessFacts] = {}
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_GRACE)):
        rest = await _signal_until_gone(plan, mark, known, number, seconds)
        if not rest:
            return None
    return "process " + ", ".join(str(facts.pid) for facts in rest)


async def _signal_until_gone(
    plan: Plan, mark: ProcessMark, known: dict[int, ProcessFacts], number: signal.Signals, seconds: float
) -> list[ProcessFacts]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    told: set[int] = set()
    while rest := _remains(plan, mark, known):
        for facts in rest:
            if facts.pid not in told:
                send(facts, number)
                # One that is stopped would heed SIGTERM when somebody wakes it.
                send(facts, signal.SIGCONT)
                told.add(facts.pid)
        if loop.time() >= deadline:
            break
        await wait_exit(rest[0].pid, _NEXT_LOOK)
    return rest


def _remains(plan: Plan, mark: ProcessMark, known: dict[int, ProcessFacts]) -> list[ProcessFacts]:
    """The processes of a data server that still run; `known` are those that were seen before."""
    found = {facts.pid: facts for facts in _members(plan, mark)}
    # Without its leader, a session is found by its process group only.
    found |= {pid: facts for pid, facts in known.items() if alive(ProcessMark(pid, facts.started))}
    known |= found
    return list(found.values())


def _members(plan: Plan, mark: ProcessMark) -> list[ProcessFacts]:
    """The processes of its session.

    Without its leader, a session's number proves nothing: after a reboot it may be any daemon's. Then only those count
    that write to the data server's log.
    """
    leader = ProcessFacts.of(mark.pid)
    if leader is not None and leader.started == mark.started:
        # The leader may end while the others are looked for.
        if not leader.gone and (found := group_of(mark.pid)):
            return found
        if not reap(mark):
            return [leader]
    return [facts for facts in group_of(mark.pid) if facts.writes_to(plan.path("log"))]


async def _wait_free(plan: Plan, seconds: float) -> str | None:
    """What still listens on an entry point. A killed process shows as ended before its last thread's sockets close."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    waits = pauses()
    while taken := _taken(plan):
        if loop.time() >= deadline:
            return f"a listener on {taken[0]}, {_holder(plan, taken[0])},"
        await asyncio.sleep(next(waits))
    return None


def _taken(plan: Plan) -> list[Endpoint]:
    errors = ((route.entry_point, bind_failure(route.entry_point, plan.transport)) for route in plan.routes)
    return [entry_point for entry_point, error in errors if error and is_in_use(error)]
