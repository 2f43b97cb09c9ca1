"""Nginx with its stream module: plain TCP. Settings: dataplane reference, "Settings that won"."""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from scistream.engines.base import Engine, Installation, Plan, fill
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption

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


class Nginx(Engine):
    """Nginx."""

    name: ClassVar[str] = "nginx"
    title: ClassVar[str] = "Nginx"
    program: ClassVar[str] = "nginx"
    version_argument: ClassVar[str] = "-V"
    packages: ClassVar[tuple[str, ...]] = ("nginx", _STREAM_PACKAGE)
    encryption: ClassVar[Encryption] = Encryption.NONE
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
        host = installation.host
        text = fill(
            "nginx.conf.j2",
            plan=plan,
            modules=installation.modules,
            host=host,
            connections=min(_MAX_CONNECTIONS, host.descriptors - len(plan.routes) - _OWN_DESCRIPTORS),
            own_descriptors=len(plan.routes) + _OWN_DESCRIPTORS,
        )
        return {plan.path("conf"): text}

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

    def count(self, plan: Plan, line: str, accepted: dict[str, list[Peer]]) -> Count:
        """A line of its access log: client's address and port, bytes from it and to it, status."""
        del plan, accepted
        address, port, received, sent, status = line.split()
        refused = int(status == _FORBIDDEN)
        carried = Traffic(0, 1 - refused, int(received), int(sent), refused)
        return Count(carried, [(ipaddress.ip_address(address), int(port))])


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
