"""Data servers start, fail, and end: real processes of all engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine, Installation, Plan, describe_engines
from scistream.engines.haproxy import HAProxy
from scistream.engines.lifecycle import ProcessMark, alive, start, stop
from scistream.engines.nginx import Nginx
from scistream.engines.processes import bind_failure, group_of, who_listens
from scistream.engines.stunnel import Stunnel
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid


@contextlib.contextmanager
def listening(address: Endpoint) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    with socket.create_server((address.host, address.port), family=family) as server:
        yield server


def bound(pid: int) -> set[tuple[str, int]]:
    """What the processes of a data server listen on, as the kernel says."""
    processes = [psutil.Process(facts.pid) for facts in group_of(pid)]
    sockets = [entry for process in processes for entry in process.net_connections(kind="tcp")]
    return {(entry.laddr.ip, entry.laddr.port) for entry in sockets if entry.status == psutil.CONN_LISTEN}


def fails_with(code: Code, run: Callable[[], object]) -> SciStreamError:
    with pytest.raises(SciStreamError) as caught:
        run()
    assert caught.value.code is code, str(caught.value)
    return caught.value


class Broken:
    """An engine whose configuration has a mistake in it."""

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        files = dict(super().render(plan, installation))  # type: ignore[misc]
        return files | {plan.path("conf"): files[plan.path("conf")] + "nonsense yes;\n"}


class BrokenHAProxy(Broken, HAProxy):
    pass


class BrokenNginx(Broken, Nginx):
    pass


class BrokenStunnel(Broken, Stunnel):
    pass


class Unchecked:
    """An engine that is started without having been asked."""

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        return None


class UncheckedHAProxy(Unchecked, BrokenHAProxy):
    pass


class UncheckedNginx(Unchecked, BrokenNginx):
    pass


class Script(Engine):
    """A data server in a few lines of Python, for behaviour that no engine shows when asked."""

    name: ClassVar[str] = "script"
    title: ClassVar[str] = "Script"

    def __init__(self, text: str) -> None:
        self.text = textwrap.dedent(text)

    def locate(self) -> Installation:
        return Installation(Path(sys.executable), "1")

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        return {plan.path("conf"): self.text}

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        return None

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        entry_point = plan.routes[0].entry_point
        return [sys.executable, "-u", str(plan.path("conf")), entry_point.host, str(entry_point.port)]


LISTEN = """
import os, signal, socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
"""


async def until(true: Callable[[], object]) -> None:
    """Wait for what the kernel or a proxy does in its own time."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def writable_files(pid: int) -> set[Path]:
    """The files that the processes of a data server have open for writing."""
    found = set()
    for facts in group_of(pid):
        for link in Path(f"/proc/{facts.pid}/fd").iterdir():
            flags = int(Path(f"/proc/{facts.pid}/fdinfo/{link.name}").read_text().split()[3], 8)
            if flags & (os.O_WRONLY | os.O_RDWR) and link.readlink().is_absolute():
                found.add(link.readlink())
    return found


def one_route(bench: Any, **options: Any) -> Plan:
    return bench.plan((bench.address(), bench.address()), **options)


@pytest.mark.parametrize("host", ["127.0.10.7", "::1"])
@pytest.mark.parametrize("direction", list(Direction))
def test_u04_binds_what_it_was_told(bench: Any, engine: Engine, host: str, direction: Direction) -> None:
    entry_points = [bench.address(host) for _ in range(3)]

    async def main() -> set[tuple[str, int]]:
        plan = bench.plan(*((entry_point, bench.address()) for entry_point in entry_points), direction=direction)
        async with bench.running(engine, plan) as mark:
            return bound(mark.pid)

    assert asyncio.run(main()) == {(entry_point.host, entry_point.port) for entry_point in entry_points}


@pytest.mark.parametrize(("host", "other"), [("0.0.0.0", "::"), ("::", "0.0.0.0")])  # noqa: S104
def test_u04_all_addresses_of_one_family(bench: Any, engine: Engine, host: str, other: str) -> None:
    async def main() -> set[tuple[str, int]]:
        plan = one_route(bench)
        wide = bench.plan((Endpoint(host, plan.routes[0].entry_point.port), plan.routes[0].target))
        async with bench.running(engine, wide) as mark:
            assert bind_failure(Endpoint(other, wide.routes[0].entry_point.port)) is None
            return {ip for ip, _ in bound(mark.pid)}

    assert asyncio.run(main()) == {host}


def test_the_control_servers_reservation_is_no_hindrance(bench: Any, engine: Engine) -> None:
    """As the port pool holds a port: bound without SO_REUSEADDR, which is set afterwards; never listening."""

    async def main() -> set[tuple[str, int]]:
        plan = one_route(bench)
        entry_point = plan.routes[0].entry_point
        with socket.socket() as held:
            held.bind((entry_point.host, entry_point.port))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            async with bench.running(engine, plan) as mark:
                return bound(mark.pid)

    assert len(asyncio.run(main())) == 1


def test_u39_release_leaves_no_process_and_no_port(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan = one_route(bench)
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


def test_u43_files_are_in_the_plans_directory_and_their_owners_only(bench: Any, engine: Engine) -> None:
    async def main() -> tuple[set[int], set[Path]]:
        plan = one_route(bench)
        async with bench.running(engine, plan) as mark:
            modes = {path.stat().st_mode & 0o777 for path in bench.directory.iterdir()}
            return modes, writable_files(mark.pid)

    modes, written = asyncio.run(main())
    assert modes == {0o600}
    kinds = {Path("/dev/null"), Path("/dev/zero")}
    assert {path for path in written - kinds if path.parent != bench.directory} == set()


def test_a_command_line_and_a_log_hold_no_key(bench: Any, engine: Engine) -> None:
    async def main() -> str:
        plan = one_route(bench, direction=Direction.OUTBOUND)
        async with bench.running(engine, plan) as mark:
            command = " ".join(psutil.Process(mark.pid).cmdline())
            return command + plan.path("log").read_text() + plan.path("conf").read_text()

    words = asyncio.run(main())
    assert words
    assert bench.key.hex() not in words


def test_a_data_server_inherits_no_secret(bench: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCISTREAM_CLIENT_SECRET", "do-not-tell")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nobody")

    async def main() -> dict[str, str]:
        async with bench.running(engine, one_route(bench)) as mark:
            return psutil.Process(mark.pid).environ()

    environment = asyncio.run(main())
    assert "SCISTREAM_CLIENT_SECRET" not in environment
    assert "NOTIFY_SOCKET" not in environment


@pytest.mark.parametrize("broken", [BrokenHAProxy(), BrokenNginx()], ids=lambda engine: engine.name)
def test_u28_a_configuration_that_the_engine_rejects(bench: Any, broken: Engine) -> None:
    error = fails_with(Code.CONFIGURATION_REJECTED, lambda: asyncio.run(start(broken, one_route(bench))))
    assert f"{broken.title} rejects the configuration of session {bench.uid}: " in str(error)
    assert "nonsense" in error.facts["output"]
    assert list(bench.directory.iterdir()) == []


@pytest.mark.parametrize(
    "broken", [UncheckedHAProxy(), UncheckedNginx(), BrokenStunnel()], ids=lambda engine: engine.name
)
def test_u28_a_data_server_that_dies_at_start_is_noticed(bench: Any, broken: Engine) -> None:
    error = fails_with(Code.DATA_SERVER_FAILED, lambda: asyncio.run(start(broken, one_route(bench))))
    assert f"{broken.title} of session {bench.uid} ended at once (exit status 1): " in str(error)
    assert "nonsense" in error.facts["output"]
    assert list(bench.directory.iterdir()) == []


def test_u28_a_data_server_that_is_killed_at_start(bench: Any) -> None:
    killed = Script("import os, signal; print('about to go'); os.kill(os.getpid(), signal.SIGSEGV)")
    error = fails_with(Code.DATA_SERVER_FAILED, lambda: asyncio.run(start(killed, one_route(bench))))
    assert "ended at once (signal SIGSEGV): about to go" in str(error)


def test_u28_a_data_server_that_does_not_listen(bench: Any) -> None:
    idle = Script("import time; print('thinking'); time.sleep(60)")
    plan = one_route(bench)
    error = fails_with(Code.DATA_SERVER_SILENT, lambda: asyncio.run(start(idle, plan, timeout=0.5)))
    assert (
        f"Script of session {bench.uid} does not accept on {plan.routes[0].entry_point} after 0.5 s: thinking"
        in str(error)
    )
    assert list(bench.directory.iterdir()) == []


def test_u04_a_data_server_that_listens_elsewhere_does_not_pass(bench: Any) -> None:
    wide = Script("import socket, sys, time; s = socket.create_server(('', int(sys.argv[2]))); time.sleep(60)")
    fails_with(Code.DATA_SERVER_SILENT, lambda: asyncio.run(start(wide, one_route(bench), timeout=0.5)))


def test_a_target_that_has_no_address(bench: Any, engine: Engine) -> None:
    plan = bench.plan((bench.address(), Endpoint.parse("no-such-host.invalid:5074")))
    error = fails_with(Code.CONFIGURATION_REJECTED, lambda: asyncio.run(start(engine, plan)))
    assert "no-such-host.invalid" in error.facts["output"]
    assert bind_failure(plan.routes[0].entry_point) is None
    assert list(bench.directory.iterdir()) == []


def test_an_entry_point_in_use_names_the_process(bench: Any, engine: Engine) -> None:
    plan = one_route(bench)
    with listening(plan.routes[0].entry_point):
        error = fails_with(Code.ENTRY_POINT_IN_USE, lambda: asyncio.run(start(engine, plan)))
    me = psutil.Process()
    assert f"entry point {plan.routes[0].entry_point} is in use by {me.name()} (pid {me.pid})" in str(error)
    assert list(bench.directory.iterdir()) == []


def test_an_entry_point_in_use_on_all_addresses_names_the_process(bench: Any, engine: Engine) -> None:
    plan = one_route(bench)
    with listening(Endpoint("0.0.0.0", plan.routes[0].entry_point.port)):  # noqa: S104
        error = fails_with(Code.ENTRY_POINT_IN_USE, lambda: asyncio.run(start(engine, plan)))
    assert f"(pid {os.getpid()})" in str(error)


def test_an_entry_point_that_is_held_without_listening(bench: Any, engine: Engine) -> None:
    plan = one_route(bench)
    entry_point = plan.routes[0].entry_point
    with socket.socket() as held:
        held.bind((entry_point.host, entry_point.port))
        error = fails_with(Code.ENTRY_POINT_IN_USE, lambda: asyncio.run(start(engine, plan)))
    assert "a process that holds it and does not listen" in str(error)


def test_an_entry_point_that_is_taken_during_the_start(bench: Any) -> None:
    """The race that looking first cannot win."""
    late = Script("import sys; sys.exit('bind: Address already in use')")
    plan = one_route(bench)

    class Taken(Script):
        def start_command(self, plan: Plan, installation: Installation) -> list[str]:
            server.bind((plan.routes[0].entry_point.host, plan.routes[0].entry_point.port))
            server.listen()
            return late.start_command(plan, installation)

    with socket.socket() as server:
        fails_with(Code.ENTRY_POINT_IN_USE, lambda: asyncio.run(start(Taken(late.text), plan)))


def test_an_address_of_another_host(bench: Any, engine: Engine) -> None:
    plan = bench.plan((bench.address("192.0.2.1"), bench.address()))
    error = fails_with(Code.LISTEN_ADDRESS_FOREIGN, lambda: asyncio.run(start(engine, plan)))
    assert f"cannot listen on {plan.routes[0].entry_point}: Cannot assign requested address" in str(error)


def test_a_cancelled_start_leaves_nothing(bench: Any) -> None:
    idle = Script("import time; time.sleep(60)")
    plan = one_route(bench)

    async def main() -> None:
        task = asyncio.create_task(start(idle, plan))
        await until(
            lambda: [child for child in psutil.Process().children() if str(plan.path("conf")) in child.cmdline()]
        )
        (child,) = psutil.Process().children()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not child.is_running()

    asyncio.run(main())
    assert list(bench.directory.iterdir()) == []


def test_every_moment_of_a_cancelled_start_leaves_nothing(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        for step in range(12):
            plan = one_route(bench)
            task = asyncio.create_task(start(engine, plan))
            await asyncio.sleep(step * 0.008)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stop(plan, await task, engine_title=engine.title)
            assert bind_failure(plan.routes[0].entry_point) is None
            assert list(bench.directory.iterdir()) == []
            assert psutil.Process().children() == []

    asyncio.run(main())


def test_a_data_server_that_ignores_sigterm_is_killed(bench: Any) -> None:
    deaf = Script(LISTEN + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(60)")

    async def main() -> None:
        plan = one_route(bench)
        mark = await start(deaf, plan)
        await until(lambda: plan.path("log").stat().st_size)
        await stop(plan, mark, engine_title=deaf.title, grace=0.1)
        assert not psutil.pid_exists(mark.pid)

    asyncio.run(main())
    assert list(bench.directory.iterdir()) == []


def test_u39_nginx_workers_without_their_master_are_ended(bench: Any) -> None:
    nginx = ENGINES["nginx"]

    async def main() -> None:
        plan = one_route(bench)
        mark = await start(nginx, plan)
        await until(lambda: len(group_of(mark.pid)) > 1)
        os.kill(mark.pid, signal.SIGKILL)
        await until(lambda: not alive(mark))
        assert group_of(mark.pid) != []
        assert bind_failure(plan.routes[0].entry_point) is not None
        await stop(plan, mark, engine_title=nginx.title)
        assert group_of(mark.pid) == []
        assert bind_failure(plan.routes[0].entry_point) is None

    asyncio.run(main())


ELSEWHERE = """
import asyncio, pickle, sys
from scistream.engines import find_engine
from scistream.engines.lifecycle import start
engine, plan = pickle.load(sys.stdin.buffer)
mark = asyncio.run(start(find_engine(engine), plan))
print(mark.pid, mark.started)
"""


def start_elsewhere(engine: Engine, plan: Plan) -> ProcessMark:
    """A control server starts it, and ends."""
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=pickle.dumps((engine.name, plan)), stdout=subprocess.PIPE, check=True
    )
    return ProcessMark(*map(int, done.stdout.split()))


def test_u40_a_data_server_lives_on_and_is_adopted(bench: Any, engine: Engine) -> None:
    plan = one_route(bench)
    mark = start_elsewhere(engine, plan)
    assert alive(mark)
    assert psutil.Process(mark.pid).ppid() != os.getpid()
    asyncio.run(stop(plan, mark, engine_title=engine.title))
    assert not alive(mark)
    assert group_of(mark.pid) == []
    assert bind_failure(plan.routes[0].entry_point) is None
    assert list(bench.directory.iterdir()) == []


def test_u40_adopted_nginx_workers_without_their_master_are_ended(bench: Any) -> None:
    plan = one_route(bench)
    mark = start_elsewhere(ENGINES["nginx"], plan)

    async def main() -> None:
        await until(lambda: len(group_of(mark.pid)) > 1)
        os.kill(mark.pid, signal.SIGKILL)
        await until(lambda: not alive(mark))
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
    plan = one_route(bench)
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
        running = one_route(bench)
        bench.uid = Uid("another")
        plan = one_route(bench)
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
        asyncio.run(stop(one_route(bench), ProcessMark(daemon.pid, 1), engine_title="Nginx"))
        assert [facts.pid for facts in group_of(daemon.pid)] == [survivor.pid]
    finally:
        os.kill(survivor.pid, signal.SIGKILL)


def test_u39_a_port_that_is_not_free_is_said(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scistream.engines.lifecycle._KILL_GRACE", 0.1)
    plan = one_route(bench)
    with listening(plan.routes[0].entry_point):
        gone = ProcessMark(2**22 + 1, 1)
        error = fails_with(Code.DATA_SERVER_STUCK, lambda: asyncio.run(stop(plan, gone, engine_title="Nginx")))
    assert f"a listener on {plan.routes[0].entry_point}, {psutil.Process().name()} (pid {os.getpid()})" in str(error)


def test_a_dead_data_server_is_no_zombie_after_the_stop(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plan = one_route(bench)
        mark = await start(engine, plan)
        for facts in group_of(mark.pid):
            os.kill(facts.pid, signal.SIGKILL)
        await until(lambda: not alive(mark))
        await stop(plan, mark, engine_title=engine.title)
        assert not psutil.pid_exists(mark.pid)

    asyncio.run(main())


def test_many_data_servers_start_at_once(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plans = [one_route(bench) for _ in range(8)]
        # One uid has two directions at most; these are eight sessions.
        plans = [
            type(plan)(
                f"{plan.uid}-{number}", plan.direction, plan.routes, plan.directory, f"{plan.uid}-{number}", plan.key
            )
            for number, plan in enumerate(plans)
        ]
        marks = await asyncio.gather(*(start(engine, plan) for plan in plans))
        assert len({mark.pid for mark in marks}) == 8
        await asyncio.gather(
            *(stop(plan, mark, engine_title=engine.title) for plan, mark in zip(plans, marks, strict=True))
        )

    asyncio.run(main())


def test_a_child_leads_a_session_of_its_own(bench: Any) -> None:
    """Ctrl-C at the control server's terminal is not for the data servers."""

    async def main() -> tuple[int, int]:
        async with bench.running(Script(LISTEN + "time.sleep(60)"), one_route(bench)) as mark:
            return os.getsid(mark.pid), mark.pid

    session, pid = asyncio.run(main())
    assert session == pid
    assert session != os.getsid(0)


def test_a_program_that_cannot_be_run(bench: Any) -> None:
    class Gone(Script):
        def start_command(self, plan: Plan, installation: Installation) -> list[str]:
            return ["/nonexistent/proxy"]

    error = fails_with(Code.DATA_SERVER_FAILED, lambda: asyncio.run(start(Gone(""), one_route(bench))))
    assert "(it did not run): [Errno 2] No such file or directory: '/nonexistent/proxy'" in str(error)


def test_all_engines_are_found_here() -> None:
    found = {engine.name: installation for engine, installation in describe_engines()}
    assert {name: bool(installation and installation.program.is_file()) for name, installation in found.items()} == {
        "haproxy": True,
        "nginx": True,
        "stunnel": True,
    }
    assert all(installation and installation.at_least("1") for installation in found.values())


AS_NOBODY = """
import asyncio, os, pickle, sys
from scistream.engines import find_engine
from scistream.engines.lifecycle import start, stop
engine, plan, another = pickle.load(sys.stdin.buffer)
engine = find_engine(engine)

async def once(plan):
    mark = await start(engine, plan)
    reader, writer = await asyncio.open_connection(plan.routes[0].entry_point.host, plan.routes[0].entry_point.port)
    writer.close()
    await stop(plan, mark, engine_title=engine.title)

asyncio.run(once(another))  # as root, so that every module is loaded before the way to it is barred
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
asyncio.run(once(plan))
print(os.getuid(), sorted(os.listdir(plan.directory)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; without root all tests run so")
def test_without_root(bench: Any, engine: Engine) -> None:
    import pickle
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)
        Path(name).chmod(0o700)
        bench.directory, as_root = Path(name), one_route(bench)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY],
            input=pickle.dumps((engine.name, one_route(bench), as_root)),
            stdout=subprocess.PIPE,
            check=True,
        )
    assert done.stdout.split() == [b"65534", b"[]"]
