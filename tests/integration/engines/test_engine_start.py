"""Data servers start, or fail to: real processes of all engines."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Engine, Installation, Plan, describe_engines, nginx
from scistream.engines.haproxy import HAProxy
from scistream.engines.lifecycle import start, stop
from scistream.engines.nginx import Nginx
from scistream.engines.processes import bind_failure, group_of
from scistream.engines.stunnel import Stunnel
from scistream.errors import Code
from scistream.terms import Direction, Encryption


def writable_files(pid: int) -> set[Path]:
    """The files that the processes of a data server have open for writing."""
    found = set()
    for facts in group_of(pid):
        for link in Path(f"/proc/{facts.pid}/fd").iterdir():
            flags = int(Path(f"/proc/{facts.pid}/fdinfo/{link.name}").read_text().split()[3], 8)
            if flags & (os.O_WRONLY | os.O_RDWR) and link.readlink().is_absolute():
                found.add(link.readlink())
    return found


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


def test_u43_files_are_in_the_plans_directory_and_their_owners_only(bench: Any, engine: Engine) -> None:
    async def main() -> tuple[set[int], set[Path]]:
        plan = bench.one_route()
        async with bench.running(engine, plan) as mark:
            modes = {path.stat().st_mode & 0o777 for path in bench.directory.iterdir()}
            return modes, writable_files(mark.pid)

    modes, written = asyncio.run(main())
    assert modes == {0o600}
    kinds = {Path("/dev/null"), Path("/dev/zero")}
    assert {path for path in written - kinds if path.parent != bench.directory} == set()


def test_a_command_line_and_a_log_hold_no_key(bench: Any, engine: Engine) -> None:
    async def main() -> str:
        plan = bench.one_route(direction=Direction.OUTBOUND)
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
        async with bench.running(engine, bench.one_route()) as mark:
            return psutil.Process(mark.pid).environ()

    environment = asyncio.run(main())
    assert "SCISTREAM_CLIENT_SECRET" not in environment
    assert "NOTIFY_SOCKET" not in environment


@pytest.mark.parametrize("broken", [BrokenHAProxy(), BrokenNginx()], ids=lambda engine: engine.name)
def test_u28_a_configuration_that_the_engine_rejects(bench: Any, broken: Engine) -> None:
    error = bench.fails(Code.CONFIGURATION_REJECTED, lambda: start(broken, bench.one_route()))
    assert f"{broken.title} rejects the configuration of session {bench.uid}: " in str(error)
    assert "nonsense" in error.facts["output"]
    assert list(bench.directory.iterdir()) == []


@pytest.mark.parametrize(
    "broken", [UncheckedHAProxy(), UncheckedNginx(), BrokenStunnel()], ids=lambda engine: engine.name
)
def test_u28_a_data_server_that_dies_at_start_is_noticed(bench: Any, broken: Engine) -> None:
    bench.encryption = Encryption.TLS_PSK if broken.name == "stunnel" else Encryption.NONE
    error = bench.fails(Code.DATA_SERVER_FAILED, lambda: start(broken, bench.one_route()))
    assert f"{broken.title} of session {bench.uid} ended at once (exit status 1): " in str(error)
    assert "nonsense" in error.facts["output"]
    assert list(bench.directory.iterdir()) == []


def test_u28_a_data_server_that_is_killed_at_start(bench: Any) -> None:
    killed = bench.script("import os, signal; print('about to go'); os.kill(os.getpid(), signal.SIGSEGV)")
    error = bench.fails(Code.DATA_SERVER_FAILED, lambda: start(killed, bench.one_route()))
    assert "ended at once (signal SIGSEGV): about to go" in str(error)


def test_u28_a_data_server_that_does_not_listen(bench: Any) -> None:
    idle = bench.script("import time; print('thinking'); time.sleep(60)")
    plan = bench.one_route()
    error = bench.fails(Code.DATA_SERVER_SILENT, lambda: start(idle, plan, timeout=0.5))
    assert (
        f"Script of session {bench.uid} does not accept on {plan.routes[0].entry_point} after 0.5 s: thinking"
        in str(error)
    )
    assert list(bench.directory.iterdir()) == []


def test_a_target_that_has_no_address(bench: Any, engine: Engine) -> None:
    plan = bench.plan((bench.address(), Endpoint.parse("no-such-host.invalid:5074")))
    error = bench.fails(Code.CONFIGURATION_REJECTED, lambda: start(engine, plan))
    assert "no-such-host.invalid" in error.facts["output"]
    assert str(bench.directory) not in error.facts["output"]
    assert "NOTICE" not in error.facts["output"]
    assert bind_failure(plan.routes[0].entry_point) is None
    assert list(bench.directory.iterdir()) == []


def test_u07_a_target_called_unix_opens_no_socket_of_the_gateway(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = bench.plan((bench.address(), Endpoint("unix", 26900)))
    error = bench.fails(Code.ENGINE_CANNOT, lambda: start(ENGINES["nginx"], plan))
    assert "reads as a Unix socket" in str(error)
    assert list(bench.directory.iterdir()) == []
    # What is refused is real: Nginx takes the name for a path, and its checker finds nothing wrong with it.
    monkeypatch.setattr(nginx, "_SOCKET_PREFIX", "")
    asyncio.run(started_and_stopped(bench, ENGINES["nginx"], plan))
    full = bench.plan((bench.address(), Endpoint("unix.invalid", 26900)))
    assert "unix.invalid" in str(bench.fails(Code.CONFIGURATION_REJECTED, lambda: start(ENGINES["nginx"], full)))


async def started_and_stopped(bench: Any, engine: Engine, plan: Plan) -> None:
    async with bench.running(engine, plan):
        pass


def test_a_cancelled_start_leaves_nothing(bench: Any) -> None:
    idle = bench.script("import time; time.sleep(60)")
    plan = bench.one_route()

    async def main() -> None:
        task = asyncio.create_task(start(idle, plan))
        await bench.until(
            lambda: [child for child in psutil.Process().children() if str(plan.path("conf")) in child.cmdline()]
        )
        (child,) = (each for each in psutil.Process().children() if str(plan.path("conf")) in each.cmdline())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not child.is_running()

    asyncio.run(main())
    assert list(bench.directory.iterdir()) == []


def test_every_moment_of_a_cancelled_start_leaves_nothing(bench: Any, engine: Engine) -> None:
    # The first time, the program is asked for its version, in a thread that a cancellation does not end.
    engine.locate()
    # On a worker, another test's may be there.
    before = psutil.Process().children()

    async def main() -> None:
        for step in range(12):
            plan = bench.one_route()
            task = asyncio.create_task(start(engine, plan))
            await asyncio.sleep(step * 0.003)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stop(plan, await task, engine_title=engine.title)
            assert bind_failure(plan.routes[0].entry_point) is None
            assert list(bench.directory.iterdir()) == []
            assert psutil.Process().children() == before

    asyncio.run(main())


def test_many_data_servers_start_at_once(bench: Any, engine: Engine) -> None:
    async def main() -> None:
        plans = [bench.one_route() for _ in range(8)]
        # One uid has two directions at most; these are eight sessions.
        plans = [
            dataclasses.replace(plan, uid=f"{plan.uid}-{number}", stem=f"{plan.uid}-{number}")
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
        async with bench.running(
            bench.script(
                "import socket, sys, time; s = socket.create_server((sys.argv[1], int(sys.argv[2]))); time.sleep(60)"
            ),
            bench.one_route(),
        ) as mark:
            return os.getsid(mark.pid), mark.pid

    session, pid = asyncio.run(main())
    assert session == pid
    assert session != os.getsid(0)


def test_a_program_that_cannot_be_run(bench: Any) -> None:
    class Gone(type(bench.script(""))):  # type: ignore[misc]
        def start_command(self, plan: Plan, installation: Installation) -> list[str]:
            return ["/nonexistent/proxy"]

    error = bench.fails(Code.DATA_SERVER_FAILED, lambda: start(Gone(""), bench.one_route()))
    assert "(it did not run): [Errno 2] No such file or directory: '/nonexistent/proxy'" in str(error)


def test_all_engines_are_found_here() -> None:
    found = {engine.name: installation for engine, installation in describe_engines()}
    assert {name: bool(installation and installation.program.is_file()) for name, installation in found.items()} == {
        "haproxy": True,
        "nginx": True,
        "stunnel": True,
        "nftables": True,
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
        bench.directory, as_root = Path(name), bench.one_route()
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY],
            input=pickle.dumps((engine.name, bench.one_route(), as_root)),
            stdout=subprocess.PIPE,
            check=True,
        )
    assert done.stdout.split() == [b"65534", b"[]"]
