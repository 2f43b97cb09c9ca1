"""Nginx with its stream module: TCP, TLS, UDP. Settings: dataplane reference, "Settings that won"."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from scistream.certificates.sessions import gateway_name
from scistream.engines.base import Feature, Handshake, Installation, Plan
from scistream.engines.credentials import CIPHERSUITES, credentials, has_certificates
from scistream.engines.marks import ProcessMark
from scistream.engines.proxy import Proxy
from scistream.engines.renewal import renew
from scistream.engines.texts import fill
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport

__all__ = ["Nginx"]

_STATIC_STREAM: Final = re.compile(r"--with-stream(?:\s|$)")
_MODULES_PATH: Final = re.compile(r"--modules-path=(\S+)")
_STREAM_MODULE: Final = "ngx_stream_module.so"
_STREAM_PACKAGE: Final = "libnginx-mod-stream"
# Older ones have no `proxy_half_close`, and cut half-closed connections (U72).
_FIRST_WHOLE: Final = "1.21.4"
# `proxy_pass unix:...` is a Unix socket's path.
_SOCKET_PREFIX: Final = "unix"
# Connections of one worker, to applications and to targets counted alike.
_MAX_CONNECTIONS: Final = 4096
# What Nginx calls a client that `deny` turned away.
_FORBIDDEN: Final = "403"
# Descriptors of a worker for everything else.
_OWN_DESCRIPTORS: Final = 64
# A line of the ledger for a connection that has ended, and what an encrypted one says besides.
_ENDED: Final = re.compile(
    r"(?P<ip>[0-9a-f.:]+) (?P<port>\d+) (?P<received>\d+) (?P<sent>\d+) (?P<status>\d+)"
    r"(?: (?P<number>\d+\*\d+) (?P<cipher>\S+) (?P<fingerprint>\S+) (?P<verdict>[^|]*)\|(?P<subject>.*))?$"
)
# Lines that Nginx writes of an encrypted connection while it runs.
_NOTE: Final = re.compile(r"\S+ \S+ \[\w+\] (?P<pid>\d+)#\d+: (?P<number>\*\d+) (?P<words>.*)")
_CONNECTED: Final = re.compile(r"(?:client|proxy) \[?([0-9a-f.:]+?)\]?:(\d+) connected to ")
_IMPOSTOR: Final = "while SSL handshaking to upstream"
_VERIFIED: Final = "SUCCESS"
# Bytes at the ledger's end in which the last connection is looked for.
_TAIL: Final = 1 << 16


class Nginx(Proxy):
    """Nginx."""

    name: ClassVar[str] = "nginx"
    title: ClassVar[str] = "Nginx"
    program: ClassVar[str] = "nginx"
    version_argument: ClassVar[str] = "-V"
    packages: ClassVar[tuple[str, ...]] = ("nginx", _STREAM_PACKAGE)
    encryptions: ClassVar[tuple[Encryption, ...]] = (Encryption.TLS, Encryption.NONE)
    transports: ClassVar[tuple[Transport, ...]] = (Transport.TCP, Transport.UDP)
    cannot: ClassVar[Mapping[Feature, str]] = {
        Feature.LEGACY_PSK: "it has no pre-shared keys",
        Feature.HANDSHAKE: "it tells at the inbound end only, and when a connection has ended",
    }
    error_mark: ClassVar[str] = "[emerg]"
    drain_signal: ClassVar[signal.Signals] = signal.SIGQUIT
    ledger: ClassVar[str] = "traffic"

    def recognise(self, program: Path, answer: str) -> Installation:
        """The stream module is a part of it, and may be a shared object of another package."""
        return replace(super().recognise(program, answer), modules=_stream_modules(answer))

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """One `server` block a route.

        Raises:
            SciStreamError: ENGINE_CANNOT where Nginx would cut half-closed connections, or would take a target's name
                for the path of a socket of this host (U07).
        """
        if any(route.target.host == _SOCKET_PREFIX for route in plan.routes):
            reason = f"a target whose name is {_SOCKET_PREFIX!r} reads as a Unix socket; name it in full"
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=reason)
        if not installation.at_least(_FIRST_WHOLE):
            reason = f"half-closed connections need {_FIRST_WHOLE} or newer, and this is {installation.version}"
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=reason)
        tls = has_certificates(self, plan)
        host = installation.host
        connections = min(_MAX_CONNECTIONS, host.descriptors - len(plan.routes) - _OWN_DESCRIPTORS)
        text = fill(
            "nginx.conf.j2",
            plan=plan,
            tls=tls,
            udp=plan.transport is Transport.UDP,
            inbound=plan.direction is Direction.INBOUND,
            peer=gateway_name(plan.uid, Direction.INBOUND),
            ciphersuites=CIPHERSUITES,
            # Each connection that comes makes another to the target.
            buffer_size=host.buffer_size(host.cores * max(1, connections // 2)),
            modules=installation.modules,
            host=host,
            connections=connections,
            own_descriptors=len(plan.routes) + _OWN_DESCRIPTORS,
        )
        return {plan.path("conf"): text} | (credentials(self, plan) if tls else {})

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        """`nginx -t`."""
        return [*self.start_command(plan, installation), "-t", "-q"]

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        """A master and its workers; `daemon off` keeps the master in the foreground."""
        # -e: before it has read the configuration, Nginx writes to the log that it was built with.
        return [
            str(installation.program),
            *("-p", str(plan.directory.absolute())),
            *("-c", str(plan.path("conf"))),
            *("-e", "stderr"),
        ]

    async def renew_certificates(self, plan: Plan, mark: ProcessMark) -> None:
        """By other workers: those that run go on with the old one, for as long as their connections last."""
        await renew(self, plan, mark)

    async def handshake(self, plan: Plan, mark: ProcessMark) -> Handshake | None:
        """What the last encrypted connection that ended at the inbound end had agreed on.

        To the outbound end, Nginx does not tell what it agreed on with the target's, nor who that proved to be.
        """
        del mark
        lines = reversed(_tail(plan.path(self.ledger)).splitlines())
        ended = (found for line in lines if (found := _ENDED.match(line)))
        return next((_handshake(found) for found in ended if found["verdict"] == _VERIFIED), None)

    def is_plain_at_target(self, plan: Plan) -> bool:
        """The inbound side is the TLS server."""
        return plan.encryption is Encryption.TLS and plan.direction is Direction.INBOUND

    def count(self, plan: Plan, line: str, accepted: dict[str, list[Peer]]) -> Count:
        """A line of its access log, or of what it notes of encrypted connections, which have a number in each."""
        if note := _NOTE.match(line):
            return _begun(note, accepted)
        found = _ENDED.match(line)
        if found is None:
            raise ValueError("no line of Nginx's")
        came = (ipaddress.ip_address(found["ip"]), int(found["port"]))
        refused = found["status"] == _FORBIDDEN or (self.is_plain_at_target(plan) and found["verdict"] != _VERIFIED)
        carried = Traffic(0, 1 - refused, int(found["received"]), int(found["sent"]), int(refused))
        return Count(carried, accepted.pop(found["number"] or "", [came]))


def _begun(note: re.Match[str], accepted: dict[str, list[Peer]]) -> Count:
    if connected := _CONNECTED.match(note["words"]):
        peer = (ipaddress.ip_address(connected.group(1)), int(connected.group(2)))
        accepted.setdefault(note["pid"] + note["number"], []).append(peer)
    return Count(Traffic(refused_peers=int(_IMPOSTOR in note["words"])))


def _handshake(ended: re.Match[str]) -> Handshake:
    return Handshake(ended["cipher"], f"{ended['subject']} (SHA-1 {ended['fingerprint']})")


def _tail(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as ledger:
        ledger.seek(max(0, ledger.seek(0, os.SEEK_END) - _TAIL))
        return ledger.read().decode(errors="replace")
    return ""


def _stream_modules(answer: str) -> tuple[Path, ...]:
    """The shared object that `load_module` has to name; none where the module is built in.

    Raises:
        SciStreamError: ENGINE_MISSING, where there is no stream module at all.
    """
    if _STATIC_STREAM.search(answer):
        return ()
    directory = _MODULES_PATH.search(answer)
    if directory and (module := Path(directory.group(1), _STREAM_MODULE)).is_file():
        return (module,)
    raise SciStreamError(
        Code.ENGINE_MISSING, engine="Nginx's stream module", program=_STREAM_MODULE, packages=_STREAM_PACKAGE
    )
