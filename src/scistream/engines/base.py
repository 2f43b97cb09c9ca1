"""The one interface of all engines: what a data server shall do, what an engine can do, and how it is told."""

from __future__ import annotations

import abc
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from scistream.engines.host import Host, ask, find_program
from scistream.engines.marks import ProcessMark
from scistream.engines.plans import Plan, Route
from scistream.engines.traffic import Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, Transport

__all__ = [
    "FILE_KINDS",
    "Engine",
    "Feature",
    "Handshake",
    "Installation",
    "Plan",
    "Route",
    "Traffic",
]

FILE_KINDS: Final = ("ca", "conf", "log", "log.1", "pem", "pid", "psk", "sock", "traffic")
"""Every kind of file that a data server may have."""

_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


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


class Feature(enum.Enum):
    """What an engine may be able to do: a column of the truth table, with the words that it goes by there."""

    PLAIN = "plain"
    TLS = "TLS"
    TLS_WITH_NGINX = "TLS with Nginx"
    LEGACY_PSK = "legacy-psk"
    UDP = "UDP"
    IPV6 = "IPv6"
    SOURCES = "source list"
    HALF_CLOSE = "half-close"
    RATE = "rate"
    RETARGET = "live retarget"
    RENEWAL = "certificate renewal"
    COUNTS = "byte counts"
    HANDSHAKE = "negotiated cipher"


@dataclass(frozen=True)
class Handshake:
    """What two data servers agreed on, as one of them tells it: the cipher suite, and who the other end proved to be.

    A field is empty where the engine does not tell.
    """

    cipher: str = ""
    peer: str = ""


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
    encryptions: ClassVar[tuple[Encryption, ...]]
    """What it can protect the bytes between the two gateways with; what `tls` stands for comes first."""
    transports: ClassVar[tuple[Transport, ...]] = (Transport.TCP,)
    cannot: ClassVar[Mapping[Feature, str]] = {}
    """What it cannot do, each with the sentence that a request for it is refused with."""
    is_guarded: ClassVar[bool] = False
    """Whether the kernel keeps its source lists, where the host allows it, since it has none of its own."""
    has_processes: ClassVar[bool] = False
    """Whether a data server is processes, which hold its ports, and whose id its mark is."""
    privileges: ClassVar[str] = "none"
    """What the control server needs for it, beyond an ordinary user's rights."""

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

    def shortfall(self) -> str:
        """What keeps an installed engine from any work here and now, in a sentence; empty where nothing does."""
        return ""

    def rate_shortfall(self) -> str:
        """What keeps its sessions from being kept to a rate here and now, in a sentence; empty where nothing does."""
        return self.cannot.get(Feature.RATE, "")

    def sources_shortfall(self) -> str:
        """What keeps its entry points from a source list here and now, in a sentence; empty where nothing does."""
        return self.cannot.get(Feature.SOURCES, "")

    def warnings(self, encryption: Encryption, transport: Transport) -> tuple[str, ...]:
        """What every status of such a session has to say, a sentence each."""
        del transport
        if encryption is Encryption.NONE:
            return ("nothing protects the bytes between the gateways: encryption none was asked for",)
        return ()

    @abc.abstractmethod
    async def start(self, plan: Plan) -> ProcessMark:
        """Start a data server; back when its entry points accept. On failure nothing of it is left.

        Raises:
            SciStreamError: ENGINE_MISSING, ENGINE_CANNOT, SESSION_KEY_MISSING, ENTRY_POINT_IN_USE,
                LISTEN_ADDRESS_FOREIGN, FILE_UNWRITABLE, CONFIGURATION_REJECTED, DATA_SERVER_FAILED,
                DATA_SERVER_SILENT.
        """

    @abc.abstractmethod
    async def stop(self, plan: Plan, mark: ProcessMark) -> None:
        """End it for certain, and remove its files; again, after a failure, or where it is dead: what is left.

        Raises:
            SciStreamError: DATA_SERVER_STUCK, FILE_UNWRITABLE.
        """

    @abc.abstractmethod
    async def drain(self, plan: Plan, mark: ProcessMark, deaf: Callable[[], None]) -> None:
        """Have it accept no new connections; back when the running ones have ended and it with them.

        `deaf` is called when it accepts none any more; what fails, fails before that.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """

    @abc.abstractmethod
    async def retarget(self, plan: Plan, mark: ProcessMark) -> None:
        """Have new connections go to the plan's targets; running ones go on to where they went.

        Raises:
            SciStreamError: ENGINE_CANNOT, DATA_SERVER_UNRESPONSIVE, CONFIGURATION_REJECTED, SESSION_KEY_MISSING,
                FILE_UNWRITABLE; all is then as it was.
        """

    async def renew_certificates(self, plan: Plan, mark: ProcessMark) -> None:
        """Have new connections prove this gateway with a new certificate; running ones go on.

        Raises:
            SciStreamError: ENGINE_CANNOT, DATA_SERVER_UNRESPONSIVE, FILE_UNWRITABLE; all is then as it was.
        """
        del plan, mark
        reason = self.cannot.get(Feature.RENEWAL, "it has no certificates")
        raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=reason)

    def certificate_expires(self, plan: Plan) -> float | None:
        """When the session's certificate of this gateway ends, in seconds since the epoch; None where it has none."""
        del plan
        return None

    @abc.abstractmethod
    async def traffic(self, plan: Plan, mark: ProcessMark) -> Traffic:
        """What it has carried since it started; no figure but the open connections ever falls.

        Raises:
            OSError: it does not answer; TimeoutError where it is frozen.
        """

    async def handshake(self, plan: Plan, mark: ProcessMark) -> Handshake | None:
        """What the last of its encrypted connections agreed on; None where there was none, or it does not tell.

        Raises:
            OSError: it does not answer.
        """
        del plan, mark
        return None

    @abc.abstractmethod
    def alive(self, mark: ProcessMark) -> bool:
        """Whether it is the very one that was started, and runs."""

    @abc.abstractmethod
    async def ended(self, mark: ProcessMark) -> str:
        """Wait until it ends by itself; says how."""

    async def keep_bounds(self, plan: Plan) -> None:
        """See that a running session is still kept to its rate and its sources.

        Where the kernel does that, whoever loads the host's firewall anew lifts it.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """
        del plan

    async def lift_bounds(self, plan: Plan) -> None:
        """Take away what the kernel keeps a session with, whose data server has ended; again, nothing.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """
        del plan

    def bury(self, plan: Plan, mark: ProcessMark) -> None:
        """Take note that it ended by itself, before it is stopped and another takes its place.

        For engines whose connections go on without it: they are the other's then.
        """
        del plan, mark

    def survey(self, directory: Path) -> Mapping[str, Sequence[ProcessMark]]:
        """What of it runs for a control server that is no process of this host, by what begins the files' names.

        Of engines that are processes, all are found at once, by who runs on the directory.
        """
        del directory
        return {}

    async def take_out(self, mark: ProcessMark) -> str:
        """End what `survey` found, also where nobody knows its plan; says what is left, and nothing where it went."""
        del mark
        return ""

    def ports(self, mark: ProcessMark) -> tuple[int, ...]:
        """The ports of the entry points of what `survey` found; none, where that cannot be told."""
        del mark
        return ()

    @abc.abstractmethod
    def last_words(self, plan: Plan) -> str:
        """The last that it said, in one line and without this host's directories."""
