"""HAProxy: plain TCP, spliced in the kernel. Settings: dataplane reference, "Settings that won"."""

from __future__ import annotations

import csv
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from scistream.addresses import Endpoint
from scistream.engines.base import Engine, Installation, Plan, Route, fill
from scistream.engines.host import Host
from scistream.engines.traffic import Traffic
from scistream.terms import Encryption

__all__ = ["HAProxy"]

# HAProxy 2.6 refuses to start with more (MAX_THREADS).
_MAX_THREADS: Final = 64
# Connections of one data server, where the descriptors suffice.
_MAX_CONNECTIONS: Final = 4096
_MAX_PIPES: Final = 256
# Descriptors for everything that is neither a connection, a pipe nor an entry point.
_OWN_DESCRIPTORS: Final = 128
_MIN_PIPE: Final = 64 * 1024
# fs.pipe-max-size as the kernel ships it.
_MAX_PIPE: Final = 1024 * 1024
# Older ones have no HTTP client of their own.
_HTTP_CLIENT: Final = "2.6"
# Its words for new targets are the same in failure, but for this.
_SWITCHED: Final = re.compile(r"IP changed from|no need to change the addr,")


@dataclass(frozen=True)
class _Bounds:
    """How far one HAProxy may go; it refuses to start where the descriptors do not suffice for all of it."""

    threads: int
    connections: int
    pipes: int
    pipe_size: int

    @classmethod
    def within(cls, host: Host, entry_points: int) -> Self:
        pipes = min(_MAX_PIPES, host.descriptors // 8)
        left = host.descriptors - 2 * pipes - entry_points - _OWN_DESCRIPTORS
        return cls(
            threads=min(host.cores, _MAX_THREADS),
            connections=max(1, min(_MAX_CONNECTIONS, left // 2)),
            pipes=pipes,
            pipe_size=_pipe_size(host),
        )


def _pipe_size(host: Host) -> int:
    # Beyond the bound the kernel makes pipes of two pages, and splicing with those is slower than copying.
    size = _MAX_PIPE if host.pipe_bytes is None else host.pipe_bytes // _MAX_PIPES
    return max(_MIN_PIPE, min(_MAX_PIPE, size))


class HAProxy(Engine):
    """HAProxy."""

    name: ClassVar[str] = "haproxy"
    title: ClassVar[str] = "HAProxy"
    program: ClassVar[str] = "haproxy"
    version_argument: ClassVar[str] = "-v"
    packages: ClassVar[tuple[str, ...]] = ("haproxy",)
    encryption: ClassVar[Encryption] = Encryption.NONE
    error_mark: ClassVar[str] = "[ALERT]"
    drain_signal: ClassVar[signal.Signals] = signal.SIGUSR1
    # Of all proxies (-1) the frontends (1) with all their servers (-1).
    targets_command: ClassVar[str] = "show servers state"
    traffic_command: ClassVar[str] = "show stat -1 1 -1"

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """One `listen` section a route."""
        text = fill(
            "haproxy.cfg.j2",
            plan=plan,
            bounds=_Bounds.within(installation.host, len(plan.routes)),
            # 3.0 loses bytes of half-closed connections when it splices (dataplane reference, "Whole bytes").
            splice=not installation.version.startswith("3.0."),
            http_client=installation.at_least(_HTTP_CLIENT),
        )
        return {plan.path("conf"): text}

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        """`haproxy -c`."""
        return [str(installation.program), "-c", "-f", str(plan.path("conf"))]

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        """HAProxy without a master: one process, all threads."""
        return [str(installation.program), "-db", "-f", str(plan.path("conf"))]

    def switch_commands(self, routes: Sequence[Route]) -> list[str]:
        """`set server`: for new connections only, and nothing is started or stopped."""
        targets = ((number, route.target) for number, route in enumerate(routes, 1))
        return [f"set server route-{number}/target addr {to.host} port {to.port}" for number, to in targets]

    def switched(self, answer: str) -> bool:
        """It says what it changed, or that there was no need."""
        return _SWITCHED.search(answer) is not None

    def read_targets(self, answer: str) -> list[Endpoint]:
        """`show servers state`: the proxy's name is the second word, the address the fifth, the port the nineteenth."""
        rows = (line.split() for line in answer.splitlines() if not line.startswith("#"))
        return [Endpoint(row[4], int(row[18])) for row in rows if len(row) > 18 and row[1].startswith("route-")]

    def read_traffic(self, answer: str) -> Traffic:
        """The frontends' lines of `show stat`, whose first line names the columns behind `# `."""
        rows = csv.DictReader(answer.removeprefix("# ").splitlines())
        # Its own frontends have lines as well.
        try:
            return sum((_traffic(row) for row in rows if row["pxname"].startswith("route-")), Traffic())
        except (KeyError, TypeError):
            raise ValueError("an answer to `show stat` that is not whole") from None


def _traffic(row: Mapping[str, str]) -> Traffic:
    return Traffic(
        connections_open=int(row["scur"]),
        connections_total=int(row["stot"]),
        bytes_to_targets=int(row["bin"]),
        bytes_from_targets=int(row["bout"]),
        refused_peers=int(row["dcon"]) + int(row["dses"]),
    )
