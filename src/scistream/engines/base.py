"""The one interface of all engines: what a data server shall do, and what an engine has to say for it to happen.

An engine only renders text and names commands. Files, processes and waiting are `scistream.engines.lifecycle`'s,
once for all.
"""

from __future__ import annotations

import abc
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, SupportsIndex

from jinja2 import Environment, PackageLoader, StrictUndefined

from scistream.addresses import Endpoint
from scistream.engines.host import Host, ask, find_program
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError, one_line
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Uid, parse_uid

__all__ = [
    "FILE_KINDS",
    "Engine",
    "Installation",
    "Plan",
    "Route",
    "SecretText",
    "Traffic",
    "fill",
    "without_places",
]

FILE_KINDS: Final = ("ca", "conf", "log", "log.1", "pid", "psk", "sock", "traffic")
"""Every kind of file that a data server may have."""

_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")
# The directories of an absolute path; what is left is the file's name.
_DIRECTORIES: Final = re.compile(r"(?<![\w.:/-])(?:/[^\s/:'\"()\[\]]+)+/")

# The output is no HTML, and every value comes from a parsed type.
_TEMPLATES: Final = Environment(  # noqa: S701
    loader=PackageLoader("scistream.engines"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def fill(template: str, **values: Any) -> str:
    """Fill in one of the package's templates. Values come from parsed types, never from a caller's text (U07)."""
    return _TEMPLATES.get_template(template).render(values)


class SecretText(str):
    """A text that does not show itself where a traceback or a log prints values; written, it is what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> SecretText:
        # Printers of values cut long texts first.
        return SecretText(super().__getitem__(key))


def without_places(words: str) -> str:
    """A program's words with file names in place of this host's paths."""
    return _DIRECTORIES.sub("", words)


@dataclass(frozen=True)
class Route:
    """One entry point and the target that its connections go to.

    Raises:
        SciStreamError: BAD_ADDRESS, where an address was not made by `Endpoint.parse` and does not read like it.
    """

    entry_point: Endpoint
    target: Endpoint

    def __post_init__(self) -> None:
        for endpoint in (self.entry_point, self.target):
            if Endpoint.parse(str(endpoint)) != endpoint:
                raise SciStreamError(Code.BAD_ADDRESS, address=str(endpoint), reason="it is not in canonical form")


@dataclass(frozen=True)
class Plan:
    """What one data server shall do: the routes of one session, and where its files lie.

    `stem` begins the names of its files: the uid, or the uid and the direction with a dot between. `key` is the secret
    that the two gateways of the stream share, `scistream.protocol.SESSION_KEY_SIZE` bytes, or None where the session
    has none.

    Raises:
        SciStreamError: BAD_UID, NO_TARGETS.
    """

    uid: Uid
    direction: Direction
    routes: tuple[Route, ...]
    directory: Path
    stem: str
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parse_uid(self.uid)
        if self.stem not in (self.uid, f"{self.uid}.{self.direction.value}"):
            raise SciStreamError(Code.BAD_UID, uid=self.stem)
        if not self.routes:
            raise SciStreamError(Code.NO_TARGETS, uid=self.uid)
        if self.key is not None and len(self.key) != SESSION_KEY_SIZE:
            raise ValueError("a session key has another size")

    def path(self, kind: str) -> Path:
        """The session's file of one kind (guide 7.4: `<uid>.conf`, `<uid>.log`)."""
        return self.directory.absolute() / self.name(kind)

    def name(self, kind: str) -> str:
        """The file's name inside `directory`, which is every data server's working directory."""
        return f"{self.stem}.{kind}"


@dataclass(frozen=True)
class Installation:
    """An engine as it was found on this host.

    Attributes:
        program: the executable.
        version: what it calls itself, such as `2.6.12`.
        modules: shared objects that the program has to load for our work.
        host: the bounds that a configuration has to keep.
    """

    program: Path
    version: str
    modules: tuple[Path, ...] = ()
    host: Host = field(default_factory=Host.here)

    def at_least(self, version: str) -> bool:
        """Whether it is of this version or newer."""
        return _numbers(self.version) >= _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


class Engine(abc.ABC):
    """A kind of data server."""

    name: ClassVar[str]
    """The word for it in options and configuration, lower case."""
    title: ClassVar[str]
    """How its makers write it."""
    program: ClassVar[str]
    other_programs: ClassVar[tuple[str, ...]] = ()
    """What the program is called elsewhere."""
    version_argument: ClassVar[str]
    """What makes the program print its version."""
    packages: ClassVar[tuple[str, ...]]
    """The distribution's packages, as apt names them."""
    encryption: ClassVar[Encryption]
    """What protects the bytes between the two gateways."""
    error_mark: ClassVar[str] = ""
    """What the lines of its checker have that tell of errors; the others are notices."""
    can_limit_rate: ClassVar[bool] = False
    """Whether it can keep a session to the rate that was asked for (U57)."""
    drain_signal: ClassVar[signal.Signals | None] = None
    """What has its leader accept no more and end with its last connection; None where no signal does."""
    rebinds: ClassVar[bool] = False
    """Whether it closes its listeners and makes others when it reads its configuration anew."""
    ledger: ClassVar[str] = ""
    """The kind of file whose lines tell of ended connections (`count`); empty where it is asked by a command."""
    targets_command: ClassVar[str] = ""
    """What its command socket answers with the targets in force; empty where they are in its configuration alone."""
    traffic_command: ClassVar[str] = ""
    """What its command socket answers with its traffic."""

    def locate(self) -> Installation:
        """Find the engine on this host.

        Raises:
            SciStreamError: ENGINE_MISSING.
        """
        program = find_program((self.program, *self.other_programs))
        answer = ask(program, self.version_argument) if program else None
        if program is None or answer is None:
            raise SciStreamError(
                Code.ENGINE_MISSING, engine=self.title, program=self.program, packages=" ".join(self.packages)
            )
        return self.recognise(program, answer)

    def recognise(self, program: Path, answer: str) -> Installation:
        """Read what the program says of itself."""
        version = _VERSION.search(answer)
        return Installation(program, version.group() if version else "0")

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
        """What runs the data server in the foreground, with `plan.directory` as working directory."""

    def deaf(self, plan: Plan, installation: Installation) -> str:
        """A configuration with which, once it is loaded, running connections go on and none is accepted.

        For engines without `drain_signal`.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """
        del plan, installation
        raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason="it cannot stop accepting alone")

    def switch_commands(self, routes: Sequence[Route]) -> list[str]:
        """What its command socket has to be told for new connections to go to these targets, which are IP addresses.

        For engines with `targets_command`; the others read their configuration anew, at SIGHUP.
        """
        del routes
        return []

    def switched(self, answer: str) -> bool:
        """Whether the answer to one of `switch_commands` tells of success."""
        del answer
        return False

    def reloaded(self, words: str) -> bool:
        """Whether what its log got since SIGHUP says that it took the configuration, or need not say so.

        Raises:
            SciStreamError: ENGINE_CANNOT, where it says that it did not.
        """
        if self.error_mark and self.error_mark in words:
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=self.rejection(words))
        return True

    def read_targets(self, answer: str) -> list[Endpoint]:
        """The answer to `targets_command`, in the routes' order."""
        del answer
        return []

    def read_traffic(self, answer: str) -> Traffic:
        """The answer to `traffic_command`."""
        del answer
        return Traffic()

    def count(self, plan: Plan, line: str, accepted: dict[str, list[Peer]]) -> Count:
        """One line of the `ledger`.

        `accepted` is the engine's to keep between lines: running connections by its own names, each with the client's
        address, and behind it the address from which the data server went to the target, where the ledger tells it.
        """
        del plan, line, accepted
        return Count(Traffic())

    def is_plain_at_target(self, plan: Plan) -> bool:
        """Whether the application's bytes are to be counted at the target, since the client's are encrypted.

        Then `count` has to fill in whence the data server went to the target.
        """
        del plan
        return False

    def rejection(self, words: str) -> str:
        """What its checker found wrong, in one line for remote callers: no notices, no paths of this host."""
        lines = words.splitlines()
        errors = [line for line in lines if self.error_mark in line]
        return one_line(without_places("\n".join(errors or lines))) or "it said nothing"

    def complaint(self, words: str) -> str | None:
        """What a data server that accepts has said against its configuration, or None.

        For engines that go on where others refuse to start.
        """
        del words
        return None
