"""Data servers end, and nothing of them is left: real processes of all engines."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import psutil

from scistream.control_server.data_servers import Engines
from scistream.engines import ENGINES, Engine, children
from scistream.engines.holders import who_listens
from scistream.engines.lifecycle import ProcessMark, alive, farewell, start, stop
from scistream.engines.processes import bind_failure, group_of
from scistream.errors import Code
from scistream.terms import Uid


def test_u39_release_leaves_no_process_and_no_port(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan = bench.one_route()
        entry_point = plan.routes[0].entry_point
        mark = await start(engine, plan)
        assert alive(mark)
        assert who_listens(entry_point) == f"{psutil.Process(mark.pid).name()} (pid {mark.pid})"
        # A connection that is being held must not hold the port after the release.
        with socket.create_connection((entry_point.host, entry_point.port)):
            await stop(plan, mark, engine_title=engine.title)
        assert not alive(mark)
        assert group_of(mark.pid) == []
        assert not psutil.pid_exists(mark.pid)
        assert bind_failure(entry_point) is None
        assert who_listens(entry_point) is None
        assert list(bench.directory.iterdir()) == []
        # Released twice: nothing is there, and that is right.
        await stop(plan, mark, engine_title=engine.title)

    asyncio.run(main())


DEAF = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
time.sleep(60)
"""


def test_a_data_server_that_ignores_sigterm_is_killed(bench: Any) -> None:
    deaf = bench.script(DEAF)

    async def main() -> None:
        plan = bench.one_route()
        mark = await start(deaf, plan)
        await stop(plan, mark, engine_title=deaf.title, grace=0.1)
        assert not psutil.pid_exists(mark.pid)

    asyncio.run(main())
    assert list(bench.directory.iterdir()) == []


DEAF_CHILD_OF_ITS_OWN_GROUP = """
import os, signal, socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
if os.fork() == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.close(1)
    time.sleep(60)
time.sleep(60)
"""


def test_u39_a_process_that_left_the_group_is_ended_with_its_session(bench: Any) -> None:
    engine = bench.script(DEAF_CHILD_OF_ITS_OWN_GROUP)

    async def main() -> None:
        plan = bench.one_route()
        mark = await start(engine, plan)
        await bench.until(lambda: any(facts.group == facts.pid != mark.pid for facts in group_of(mark.pid)))
        (child,) = [facts for facts in group_of(mark.pid) if facts.pid != mark.pid]
        # The port is free as soon as the parent is gone: nothing but the session tells of the child.
        await stop(plan, mark, engine_title=engine.title, grace=0.2)
        assert not psutil.pid_exists(child.pid) or psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE

    asyncio.run(main())


def test_u39_nginx_workers_without_their_master_are_ended(bench: Any) -> None:
    nginx = ENGINES["nginx"]

    async def main() -> None:
        plan = bench.one_route()
        mark = await start(nginx, plan)
        await bench.until(lambda: len(group_of(mark.pid)) > 1)
        os.kill(mark.pid, signal.SIGKILL)
        await bench.until(lambda: not alive(mark))
        assert group_of(mark.pid) != []
        assert bind_failure(plan.routes[0].entry_point) is not None
        await stop(plan, mark, engine_title=nginx.title)
        assert group_of(mark.pid) == []
        assert bind_failure(plan.routes[0].entry_point) is None

    asyncio.run(main())


def test_u40_a_data_server_lives_on_and_is_adopted(bench: Any, engine: Engine) -> None:
    plan = bench.one_route()
    mark = bench.start_elsewhere(engine, plan)
    assert alive(mark)
    assert psutil.Process(mark.pid).ppid() != os.getpid()
    asyncio.run(stop(plan, mark, engine_title=engine.title))
    assert not alive(mark)
    assert group_of(mark.pid) == []
    assert bind_failure(plan.routes[0].entry_point) is None
    assert list(bench.directory.iterdir()) == []


def test_u40_adopted_nginx_workers_without_their_master_are_ended(bench: Any) -> None:
    plan = bench.one_route()
    mark = bench.start_elsewhere(ENGINES["nginx"], plan)

    async def main() -> None:
        await bench.until(lambda: len(group_of(mark.pid)) > 1)
        os.kill(mark.pid, signal.SIGKILL)
        await bench.until(lambda: not alive(mark))
        assert group_of(mark.pid) != []
        await stop(plan, mark, engine_title="Nginx")

    asyncio.run(main())
    assert group_of(mark.pid) == []


ORPHAN = """
import os, socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
if os.fork() == 0:
    time.sleep(60)
"""


def test_u39_what_a_dead_leader_left_is_known_by_its_log(bench: Any) -> None:
    plan = bench.one_route()
    entry_point = plan.routes[0].entry_point
    with plan.path("log").open("w") as log:
        command = [sys.executable, "-c", ORPHAN, entry_point.host, str(entry_point.port)]
        leader = subprocess.Popen(command, stdout=log, start_new_session=True)
    leader.wait()
    assert len(group_of(leader.pid)) == 1
    asyncio.run(stop(plan, ProcessMark(leader.pid, 1), engine_title="Nginx"))
    assert group_of(leader.pid) == []
    assert bind_failure(entry_point) is None


def test_another_process_with_the_same_pid_is_left_alone(bench: Any, engine: Engine) -> None:
    """After a reboot, the journal's pid may be anybody's."""

    async def main() -> None:
        running = bench.one_route()
        bench.uid = Uid("another")
        plan = bench.one_route()
        async with bench.running(engine, running) as mark:
            foreign = ProcessMark(mark.pid, mark.started - 1)
            assert not alive(foreign)
            await stop(plan, foreign, engine_title=engine.title)
            assert alive(mark)

    asyncio.run(main())


def test_another_daemon_whose_leader_is_gone_is_left_alone(bench: Any) -> None:
    """A daemon that forked twice has the number of a session whose leader has ended."""
    text = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\n"
    daemon = subprocess.Popen([sys.executable, "-c", text], start_new_session=True)
    daemon.wait()
    (survivor,) = group_of(daemon.pid)
    try:
        asyncio.run(stop(bench.one_route(), ProcessMark(daemon.pid, 1), engine_title="Nginx"))
        assert [facts.pid for facts in group_of(daemon.pid)] == [survivor.pid]
    finally:
        os.kill(survivor.pid, signal.SIGKILL)


def test_u39_a_port_that_is_not_free_is_said(bench: Any) -> None:
    plan = bench.one_route()
    gone = ProcessMark(2**22 + 1, 1)
    with socket.create_server((plan.routes[0].entry_point.host, plan.routes[0].entry_point.port)):
        error = bench.fails(Code.DATA_SERVER_STUCK, lambda: stop(plan, gone, engine_title="Nginx", grace=0.1))
    told = rf"a listener on {plan.routes[0].entry_point}, (pytest|python[0-9.]*) \(pid {os.getpid()}\)"
    assert re.search(told, str(error))


def test_a_dead_data_server_is_no_zombie_after_the_stop(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan = bench.one_route()
        mark = await start(engine, plan)
        for facts in group_of(mark.pid):
            os.kill(facts.pid, signal.SIGKILL)
        await bench.until(lambda: not alive(mark))
        await stop(plan, mark, engine_title=engine.title)
        assert not psutil.pid_exists(mark.pid)

    asyncio.run(main())


def test_a_data_server_that_is_lost_leaves_neither_a_zombie_nor_a_memory_of_it(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan, known = bench.one_route(), len(children._children)
        mark = await start(engine, plan)
        assert farewell(mark) is None
        for facts in group_of(mark.pid):
            os.kill(facts.pid, signal.SIGKILL)
        assert await Engines().ended(engine, mark) == "signal SIGKILL"
        assert not psutil.pid_exists(mark.pid)
        assert len(children._children) == known
        assert farewell(mark) is None
        assert await Engines().ended(engine, mark) == "its exit status is not known"
        await stop(plan, mark, engine_title=engine.title)

    asyncio.run(main())
