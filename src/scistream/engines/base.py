"""The one interface of all engines: what a data server shall do, and what an engine has to say for it to happen.

An engine only renders text and names commands. Files, processes and waiting are `scistream.engines.lifecycle`'s,
once for all.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from scistream.addresses import Endpoint
from scistream.terms import Direction, Encryption, Uid

__all__ = ["Engine", "Installation", "Plan", "Route"]


@dataclass(frozen=True)
class Route:
    """One entry point and the target that its connections go to."""

    entry_point: Endpoint
    target: Endpoint


@dataclass(frozen=True)
class Plan:
    """What one data server shall do: the routes of one session, and where its files lie.

    `key` is the secret that the two gateways of the stream share, `scistream.protocol.SESSION_KEY_SIZE` bytes,
    or None where the session has none.
    """

    uid: Uid
    direction: Direction
    routes: tuple[Route, ...]
    directory: Path
    stem: str
    key: bytes | None = field(default=None, repr=False)

    def path(self, kind: str) -> Path:
        """The session's file of one kind: `conf`, `log`, `pid`, `psk` (guide 7.4: `<uid>.conf`, `<uid>.log`)."""
        return self.directory / f"{self.stem}.{kind}"


@dataclass(frozen=True)
class Installation:
    """An engine as it was found on this host."""

    program: Path
    version: str


class Engine(abc.ABC):
    """A kind of data server."""

    name: ClassVar[str]
    """The word for it in options and configuration, lower case."""
    title: ClassVar[str]
    """How its makers write it."""
    program: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """The distribution's packages, as apt names them."""
    encryption: ClassVar[Encryption]
    """What protects the bytes between the two gateways."""

    @abc.abstractmethod
    def locate(self) -> Installation:
        """Find the engine on this host.

        Raises:
            SciStreamError: ENGINE_MISSING.
        """

    @abc.abstractmethod
    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """The contents of the data server's files, by path. All of them are written with mode 0600.

        Raises:
            SciStreamError: SESSION_KEY_MISSING, ENGINE_CANNOT.
        """

    @abc.abstractmethod
    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        """The engine's own check of the rendered files, or None where it has no checker."""

    @abc.abstractmethod
    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        """What runs the data server in the foreground."""
