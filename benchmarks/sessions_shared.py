"""Sessions as they could be: all of an engine's in one process, whose configuration is read anew for each.

The configurations are the library's own, put together: what a session has in its alone stands in its section here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sessions_apart import SETTLING, Arrangement, Kind, accepts, processes_of

from scistream.addresses import Endpoint
from scistream.engines import Installation, Plan, Route
from scistream.engines.children import environment, raise_descriptor_limit
from scistream.engines.processes import catches, wait_exit
from scistream.terms import Uid

__all__ = ["Shared"]

_PATIENCE: Final = 30.0
_PAUSE: Final = 0.002
# Seconds after which a reload that nothing is said of is asked for again.
_LOST: Final = 0.5


@dataclass(frozen=True)
class _Form:
    """How configurations of an engine are put together, and how one is put in force.

    Attributes:
        cut: begins the first section.
        end: ends the file, behind the last section.
        own: begins each line before the sections that tells of one session alone.
        loaded: what its log says at each start and reload that is over; empty where it says nothing.
        begun: what its log says of each reload that it was asked for; empty where it loses none.
    """

    cut: str
    title: Callable[[Plan], str]
    own: tuple[str, ...]
    reload: signal.Signals
    loaded: str = ""
    begun: str = ""
    options: tuple[str, ...] = ()
    end: str = ""

    def head(self, text: str) -> str:
        """What all sessions have in common."""
        lines = text.split(self.cut, 1)[0].splitlines()
        return "\n".join(line for line in lines if not line.startswith(self.own)) + "\n"

    def section(self, plan: Plan, text: str) -> str:
        """What is one session's."""
        before, rest = text.split(self.cut, 1)
        own = [line for line in before.splitlines() if line.startswith(self.own)]
        return "\n".join([self.title(plan), *own, rest.removesuffix(self.end)])


_FORMS: Final = {
    "haproxy": _Form(
        "\nlisten route-1\n",
        lambda plan: f"\nlisten {plan.uid}",
        ("#",),
        signal.SIGUSR2,
        loaded="Loading success.",
        begun="Reloading HAProxy",
        options=("-W",),
    ),
    "nginx": _Form(
        "\n    server {\n", lambda _: "    server {", ("#", "    ssl_", "    proxy_ssl_"), signal.SIGHUP, end="}\n"
    ),
    "stunnel": _Form(
        "\n[route-1]\n", lambda plan: f"\n[{plan.uid}]", (";", "PSKsecrets", "cert ", "CAfile"), signal.SIGHUP
    ),
}


class Shared(Arrangement):
    """One process with its children, at most `room` sessions."""

    name = "one process, reloaded"

    def __init__(self, kind: Kind, directory: Path, host: str, target: Endpoint, room: int) -> None:
        super().__init__(kind, directory, host, target)
        self._form = _FORMS[kind.engine]
        self._installation: Installation = kind.proxy.locate()
        # How much it may hold depends on how many entry points it has.
        routes = tuple(Route(Endpoint(host, 20000 + number), target) for number in range(room))
        self._all = replace(self._plan(0), uid=Uid("all"), stem="all", routes=routes)
        self._head = self._form.head(self._rendered(self._all))
        self._sections: list[str] = []
        self._loads = 0
        self._process: subprocess.Popen[bytes] | None = None

    def _rendered(self, plan: Plan) -> str:
        """A session's own configuration; its other files are written."""
        files = dict(self.kind.proxy.render(plan, self._installation))
        text = files.pop(plan.path("conf"))
        for path, secret in files.items():
            _write(path, secret)
        return text

    async def fill(self, count: int) -> None:
        """One reload for all."""
        for number in range(len(self.plans), count):
            plan = self._plan(number)
            self._sections.append(self._form.section(plan, self._rendered(plan)))
            self.plans.append(plan)
        _write(self._all.path("conf"), "".join((self._head, *self._sections, self._form.end)))
        self._loads += 1
        self._process = self._process or self._launch()
        if self._loads > 1:
            self._process.send_signal(self._form.reload)
        await self._accepts(self._process, self.plans[-1].routes[0].entry_point)

    def _launch(self) -> subprocess.Popen[bytes]:
        raise_descriptor_limit()
        command = self.kind.proxy.start_command(self._all, self._installation)
        with self._all.path("log").open("ab") as log:
            return subprocess.Popen(
                [*command, *self._form.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=environment(),
                start_new_session=True,
            )

    async def settle(self) -> None:
        """HAProxy's master heeds no signal while a reload goes on: the next one would be lost."""
        for _ in range(round(_PATIENCE / SETTLING)):
            await super().settle()
            if self._is_settled():
                return

    def _said(self, words: str) -> int:
        return self._all.path("log").read_text(errors="replace").count(words)

    def _is_settled(self) -> bool:
        form = self._form
        said = not form.loaded or self._said(form.loaded) >= self._loads
        return said and all(catches(pid, form.reload) for pid in self.leaders())

    def _is_lost(self) -> bool:
        return bool(self._form.begun) and self._said(self._form.begun) < self._loads - 1

    async def _accepts(self, process: subprocess.Popen[bytes], entry_point: Endpoint) -> None:
        begun = told = time.monotonic()
        while (now := time.monotonic()) < begun + _PATIENCE:
            if accepts(entry_point):
                return
            if now > told + _LOST and self._is_lost():
                self.lost_reloads += 1
                told = now
                process.send_signal(self._form.reload)
            await asyncio.sleep(_PAUSE)
        words = self._all.path("log").read_text(errors="replace")[-500:]
        raise RuntimeError(f"{self.kind}, {self.name}: {entry_point} does not accept: {words}")

    def leaders(self) -> list[int]:
        """The one."""
        return [self._process.pid] if self._process else []

    async def end(self) -> None:
        """Kill all, the first one first: it would start others."""
        if self._process:
            self._process.kill()
            left = processes_of(self.leaders())
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            for pid in left:
                await wait_exit(pid, _PATIENCE)
        self._process = None
        self._all.path("log").unlink(missing_ok=True)
        self._loads = 0
        self._sections.clear()
        self.plans.clear()


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
