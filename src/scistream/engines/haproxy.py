"""HAProxy: plain TCP, spliced in the kernel, or TLS. Settings: dataplane reference, "Settings that won"."""

from __future__ import annotations

import contextlib
import csv
import datetime
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from scistream.addresses import Endpoint
from scistream.certificates.sessions import gateway_name
from scistream.engines import counting
from scistream.engines.base import Feature, Handshake, Installation, Plan, Route
from scistream.engines.command_socket import ask
from scistream.engines.credentials import CIPHERSUITES, credentials, has_certificates
from scistream.engines.host import Host
from scistream.engines.marks import ProcessMark
from scistream.engines.proxy import Proxy
from scistream.engines.reloading import cannot
from scistream.engines.renewal import renew
from scistream.engines.running import command
from scistream.engines.texts import SecretText, fill
from scistream.engines.traffic import Traffic
from scistream.errors import one_line
from scistream.terms import Direction, Encryption

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
# Older ones cannot be asked why a peer was refused, and what a connection agreed on.
_ERROR_WORDS: Final = "2.5"
# What it notes of each connection, as variables of the process.
_NOTED: Final = ("cipher", "subject", "fingerprint")
# The columns of `show stat` that count whom the source list kept out.
_DENIED: Final = ("dcon", "dses", "dreq")
_ADDRESS: Final = re.compile(r"type=ipv[46] value=<(.*)>")
_VALUE: Final = re.compile(r"type=str value=<(.*)>")
_COMMITTED: Final = "Success!"
_HANDED_OVER: Final = "Transaction "
# Its words for new targets are the same in failure, but for this.
_SWITCHED: Final = re.compile(r"IP changed from|no need to change the addr,")


@dataclass(frozen=True)
class _Bounds:
    """How far one HAProxy may go; it refuses to start where the descriptors do not suffice for all of it."""

    threads: int
    connections: int
    pipes: int
    pipe_size: int
    buffer_size: int

    @classmethod
    def within(cls, host: Host, entry_points: int) -> Self:
        pipes = min(_MAX_PIPES, host.descriptors // 8)
        left = host.descriptors - 2 * pipes - entry_points - _OWN_DESCRIPTORS
        connections = max(1, min(_MAX_CONNECTIONS, left // 2))
        return cls(
            threads=min(host.cores, _MAX_THREADS),
            connections=connections,
            pipes=pipes,
            pipe_size=_pipe_size(host),
            buffer_size=host.buffer_size(connections),
        )


def _pipe_size(host: Host) -> int:
    # Beyond the bound the kernel makes pipes of two pages, and splicing with those is slower than copying.
    size = _MAX_PIPE if host.pipe_bytes is None else host.pipe_bytes // _MAX_PIPES
    return max(_MIN_PIPE, min(_MAX_PIPE, size))


class HAProxy(Proxy):
    """HAProxy."""

    name: ClassVar[str] = "haproxy"
    title: ClassVar[str] = "HAProxy"
    program: ClassVar[str] = "haproxy"
    version_argument: ClassVar[str] = "-v"
    packages: ClassVar[tuple[str, ...]] = ("haproxy",)
    encryptions: ClassVar[tuple[Encryption, ...]] = (Encryption.TLS, Encryption.NONE)
    cannot: ClassVar[Mapping[Feature, str]] = {
        Feature.LEGACY_PSK: "it has no pre-shared keys",
        Feature.UDP: "it carries TCP only",
    }
    error_mark: ClassVar[str] = "[ALERT]"
    drain_signal: ClassVar[signal.Signals] = signal.SIGUSR1
    # Of all proxies (-1) the frontends (1) and the servers (4), whatever their number (-1).
    targets_command: ClassVar[str] = "show servers state"
    traffic_command: ClassVar[str] = "show stat -1 5 -1"

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """One `listen` section a route."""
        tls = has_certificates(self, plan)
        text = fill(
            "haproxy.cfg.j2",
            plan=plan,
            tls=tls,
            inbound=plan.direction is Direction.INBOUND,
            **(_tls_values(plan) if tls else {}),
            error_words=installation.at_least(_ERROR_WORDS),
            bounds=_Bounds.within(installation.host, len(plan.routes)),
            # 3.0 loses bytes of half-closed connections when it splices (dataplane reference, "Whole bytes").
            splice=not tls and not installation.version.startswith("3.0."),
            http_client=installation.at_least(_HTTP_CLIENT),
        )
        return {plan.path("conf"): text} | (credentials(self, plan) if tls else {})

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

    async def renew_certificates(self, plan: Plan, mark: ProcessMark) -> None:
        """By the command socket: nothing is started or stopped."""

        async def hand_over(text: SecretText) -> None:
            name = plan.name("pem")
            # An empty line ends what follows `<<`.
            for words in (f"set ssl cert {name} <<\n{text}", f"commit ssl cert {name}"):
                answer = await command(self, plan, words)
                if not answer.startswith(_HANDED_OVER) and _COMMITTED not in answer:
                    await command(self, plan, f"abort ssl cert {name}")
                    raise cannot(self, one_line(answer))

        await renew(self, plan, mark, hand_over)

    async def handshake(self, plan: Plan, mark: ProcessMark) -> Handshake | None:
        """What it noted of the last connection that was encrypted, which may still run."""
        del mark
        if not has_certificates(self, plan):
            return None
        try:
            answer = await ask(plan, "; ".join(f"get var proc.{name}" for name in _NOTED))
        except (ConnectionError, FileNotFoundError):
            return None  # it drains, and has no socket any more
        return _handshake(answer)

    async def traffic(self, plan: Plan, mark: ProcessMark) -> Traffic:
        """Also logs whom the source list of the encrypted entry point kept out, which HAProxy does not log itself."""
        before = counting.known(plan, mark).refused_peers
        told = await super().traffic(plan, mark)
        if plan.sources and told.refused_peers > before:
            # It drains, and has no socket any more; or there is no room for the line.
            with contextlib.suppress(OSError):
                await _note_stranger(plan, told.refused_peers)
        return told

    def read_traffic(self, answer: str) -> Traffic:
        """The frontends' and the servers' lines of `show stat`, whose first line names the columns behind `# `."""
        rows = csv.DictReader(answer.removeprefix("# ").splitlines())
        # Its own frontends have lines as well.
        try:
            return sum((_traffic(row) for row in rows if row["pxname"].startswith("route-")), Traffic())
        except (KeyError, TypeError):
            raise ValueError("an answer to `show stat` that is not whole") from None


def _traffic(row: Mapping[str, str]) -> Traffic:
    # Handshakes fail for want of the session's certificate; which columns there are depends on how it was built.
    strangers = int(row.get("ssl_failed_handshake") or 0)
    if row["svname"] != "FRONTEND":
        return Traffic(refused_peers=strangers)
    return Traffic(
        connections_open=int(row["scur"]),
        connections_total=int(row["stot"]),
        bytes_to_targets=int(row["bin"]),
        bytes_from_targets=int(row["bout"]),
        refused_peers=strangers + sum(int(row[column]) for column in _DENIED),
    )


async def _note_stranger(plan: Plan, refused: int) -> None:
    if found := _ADDRESS.search(await ask(plan, "get var proc.stranger")):
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with plan.path("log").open("a") as log:
            log.write(f"{found.group(1)} [{when}] refused: not among the sources; {refused} peers refused by now\n")


def _tls_values(plan: Plan) -> dict[str, Any]:
    files = f"crt {plan.name('pem')} ca-file {plan.name('ca')}"
    return {
        "certificates": f"{files} verify required ssl-min-ver TLSv1.3 ciphersuites {CIPHERSUITES}",
        "peer": gateway_name(plan.uid, Direction.INBOUND),
    }


def _handshake(answer: str) -> Handshake | None:
    """The answer to `get var` for each of _NOTED, in one."""
    told = _VALUE.findall(answer)
    if len(told) != len(_NOTED):
        return None
    cipher, subject, fingerprint = told
    return Handshake(cipher, f"{subject} (SHA-256 {fingerprint.lower()})")
