"""What can be done with a data server while it carries streams: asked for its traffic, retargeted, drained.

All of it works for one that an earlier control server started.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from scistream.addresses import Endpoint
from scistream.engines import counting
from scistream.engines.base import Installation, Plan, Route
from scistream.engines.children import ProcessMark, environment
from scistream.engines.command_socket import ask
from scistream.engines.connections import connections
from scistream.engines.counting import rotate
from scistream.engines.processes import ProcessFacts, pauses, plain_ip, send, socket_inodes, wait_exit
from scistream.engines.reloading import accepted_by, cannot, configuration, reload, renewed, tell, unresponsive, until
from scistream.engines.traffic import Traffic
from scistream.errors import Code, SciStreamError, one_line

if TYPE_CHECKING:
    from scistream.engines.proxy import Proxy

__all__ = ["command", "drain", "retarget", "rotate", "running_leader", "traffic"]

# Seconds that an engine's checker gets.
_CHECK: Final = 20.0


async def traffic(engine: Proxy, plan: Plan, mark: ProcessMark) -> Traffic:
    """What the data server has carried since it started, as far as it tells; no figure but the open ones ever falls.

    Nginx and Stunnel tell the bytes of a connection at its end; until then the kernel's count stands for them. HAProxy
    brings its own up to date every 5 s; while it drains it has no socket any more: its figures stay as they were, and
    only the open connections are counted on. Large logs are put aside on the way.

    Raises:
        OSError: it does not answer; TimeoutError where it is frozen.
    """
    told = await _figures(engine, plan, mark)
    # A log that cannot be put aside goes on growing, and the next look tries again.
    with contextlib.suppress(OSError):
        rotate(plan)
    return told


async def _figures(engine: Proxy, plan: Plan, mark: ProcessMark) -> Traffic:
    if not engine.traffic_command:
        return counting.measure(engine, plan, mark)
    try:
        answer = await ask(plan, engine.traffic_command)
    except (ConnectionError, FileNotFoundError):
        return counting.measure(engine, plan, mark)
    return counting.remember(engine, plan, mark, engine.read_traffic(answer))


async def drain(engine: Proxy, plan: Plan, mark: ProcessMark, deaf: Callable[[], None] = lambda: None) -> None:
    """Have it accept no new connections; back when the running ones have ended and it with them.

    `deaf` is called when it accepts none any more. It can be cancelled and taken up again. Files stay, and a child of
    ours stays as a zombie: both are `stop`'s.

    Raises:
        SciStreamError: ENGINE_CANNOT, and then it accepts as before, or did not do as it was told.
    """
    leader = _leader(mark)
    if leader is None:
        return
    if accepted_by(plan, leader):
        # The last figures that HAProxy tells.
        with contextlib.suppress(OSError):
            await traffic(engine, plan, mark)
        await _deafen(engine, plan, leader)
    deaf()
    if engine.drain_signal is None:
        await _wait_idle(leader)
        send(leader, signal.SIGTERM)
    await wait_exit(mark.pid, None)


async def _deafen(engine: Proxy, plan: Plan, leader: ProcessFacts) -> None:
    def deaf() -> bool:
        return not accepted_by(plan, leader)

    if engine.drain_signal is not None:
        await tell(engine, leader, engine.drain_signal)
        await until(deaf, engine, "it was told to accept no more, and still does")
        return
    installation = await asyncio.to_thread(engine.locate)
    text = engine.deaf(plan, installation)
    try:
        connections()
    except OSError as error:
        raise cannot(engine, f"the kernel does not tell which connections it holds: {error.strerror}") from None
    async with configuration(engine, plan, leader, text):
        await reload(engine, plan, leader, deaf)


async def _wait_idle(leader: ProcessFacts) -> None:
    """Wait until it holds no connection."""
    for pause in pauses():
        # What the kernel does not tell now, it told a moment ago, and will tell again.
        with contextlib.suppress(OSError):
            held = {found.inode for found in connections()}
            if held.isdisjoint(socket_inodes(leader.pid)):
                return
        if await wait_exit(leader.pid, 5 * pause):
            return


async def retarget(engine: Proxy, plan: Plan, mark: ProcessMark) -> None:
    """Have new connections go to the plan's targets; running ones go on to where they went.

    The plan has the entry points of the running data server. Where the ports are reserved, call it inside
    `Reservation.admitted()`: Stunnel binds them anew, and for that moment of less than a millisecond a new connection
    may be refused.

    Raises:
        SciStreamError: ENGINE_CANNOT, DATA_SERVER_UNRESPONSIVE, CONFIGURATION_REJECTED, SESSION_KEY_MISSING,
            FILE_UNWRITABLE; all is then as it was.
    """
    leader = running_leader(engine, plan, mark)
    installation = await asyncio.to_thread(engine.locate)
    text = engine.render(plan, installation)[plan.path("conf")]
    routes = [Route(route.entry_point, await _resolved(engine, plan, route.target)) for route in plan.routes]
    async with configuration(engine, plan, leader, text):
        await _check(engine, plan, installation)
        if engine.targets_command:
            await _switch(engine, plan, routes)
        else:
            await reload(engine, plan, leader, renewed(engine, plan, leader))


async def _switch(engine: Proxy, plan: Plan, routes: Sequence[Route]) -> None:
    """Have the command socket take all targets, or none."""
    before = engine.read_targets(await command(engine, plan, engine.targets_command))
    old = [Route(route.entry_point, target) for route, target in zip(routes, before, strict=True)]
    try:
        await _tell(engine, plan, routes)
    except BaseException:
        with contextlib.suppress(SciStreamError):
            await asyncio.shield(_tell(engine, plan, old))
        raise


async def _tell(engine: Proxy, plan: Plan, routes: Sequence[Route]) -> None:
    for words in engine.switch_commands(routes):
        answer = await command(engine, plan, words)
        if not engine.switched(answer):
            raise cannot(engine, one_line(answer))


async def command(engine: Proxy, plan: Plan, words: str) -> str:
    """The answer of its command socket.

    Raises:
        SciStreamError: DATA_SERVER_UNRESPONSIVE.
    """
    try:
        return await ask(plan, words)
    except OSError as error:
        reason = f"its command socket does not answer ({error.strerror or 'too late'})"
        raise unresponsive(engine, plan, reason) from None


def running_leader(engine: Proxy, plan: Plan, mark: ProcessMark) -> ProcessFacts:
    """The leader of a data server that accepts.

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    leader = _leader(mark)
    if leader is None or not accepted_by(plan, leader):
        raise cannot(engine, "it has ended, or it drains")
    return leader


def _leader(mark: ProcessMark) -> ProcessFacts | None:
    facts = ProcessFacts.of(mark.pid)
    return facts if facts and facts.started == mark.started and not facts.gone else None


async def _resolved(engine: Proxy, plan: Plan, target: Endpoint) -> Endpoint:
    """The target by its first address, as the engines take it when they start."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        output = f"{target.host}: {error.strerror}"
        raise SciStreamError(Code.CONFIGURATION_REJECTED, engine=engine.title, uid=plan.uid, output=output) from None
    return Endpoint(str(plain_ip(str(found[0][4][0]))), target.port)


async def _check(engine: Proxy, plan: Plan, installation: Installation) -> None:
    words = engine.check_command(plan, installation)
    if words is None:
        return
    try:
        done = await asyncio.to_thread(_run, words, plan)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise cannot(engine, f"its checker does not run: {error}") from None
    if done.returncode != 0:
        output = engine.rejection(done.stdout.decode(errors="replace"))
        raise SciStreamError(Code.CONFIGURATION_REJECTED, engine=engine.title, uid=plan.uid, output=output)


def _run(command: list[str], plan: Plan) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        cwd=plan.directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_CHECK,
        check=False,
    )
