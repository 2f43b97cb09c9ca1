"""What a control server tells of itself and of its caller, as plain values; texts are made printable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scistream.client.sessions import moment, plain
from scistream.errors import one_line
from scistream.protocol import operations_pb2 as wire

__all__ = ["AuthenticationFacts", "EngineFacts", "ServerFacts", "read_authentication", "read_facts"]


@dataclass(frozen=True)
class AuthenticationFacts:
    """Whom a control server takes its caller for.

    `owner` is what sessions of the caller have as owner; `scope` is what a token has to be for, empty with
    authentication off; `expires` is when the token ends, in seconds since the epoch, 0 where that is not known;
    `username` is what the provider calls the owner, for people to read.
    """

    owner: str
    authentication: str
    scope: str
    scopes: tuple[str, ...]
    expires: float
    is_operator: bool
    username: str

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data."""
        return plain(self)


@dataclass(frozen=True)
class EngineFacts:
    """One engine of a control server; `version` and `program` are empty where it is not installed.

    `can_limit_rate` says whether it can hold a session to a rate.
    """

    name: str
    installed: bool
    version: str
    program: str
    encryption: str
    can_limit_rate: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The engine as plain data."""
        return plain(self)


@dataclass(frozen=True)
class ServerFacts:
    """What a control server is; times are seconds since the epoch, `certificate_expires` is 0 without a certificate.

    `default_lease` and `longest_lease` are in seconds, 0 for no end; `metrics_address` is empty where metrics are off;
    `warnings` are sentences that its operator should know.
    """

    version: str
    listen_address: str
    port_range: str
    ports_free: int
    engine: str
    engines: tuple[EngineFacts, ...]
    authentication: str
    tls: bool
    certificate_names: tuple[str, ...]
    certificate_expires: float
    started: float
    sessions: int
    scope: str = ""
    default_lease: float = 0.0
    longest_lease: float = 0.0
    metrics_address: str = ""
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data."""
        return plain(self) | {"engines": [engine.as_dict() for engine in self.engines]}

    @property
    def encryption(self) -> str:
        """What protects the bytes of the sessions that are opened now: the encryption of the engine in use."""
        return self._in_use.encryption if self._in_use else ""

    @property
    def can_limit_rate(self) -> bool:
        """Whether the sessions that are opened now can be held to a rate."""
        return self._in_use is not None and self._in_use.can_limit_rate

    @property
    def _in_use(self) -> EngineFacts | None:
        return next((engine for engine in self.engines if engine.name == self.engine), None)


def read_facts(message: wire.ServerFacts) -> ServerFacts:
    """What a control server says of itself."""
    return ServerFacts(
        version=one_line(message.version),
        listen_address=one_line(message.listen_address),
        port_range=one_line(message.port_range),
        ports_free=message.ports_free,
        engine=one_line(message.engine),
        engines=tuple(_read_engine(engine) for engine in message.engines),
        authentication=one_line(message.authentication),
        tls=message.tls,
        certificate_names=tuple(one_line(name) for name in message.certificate_names),
        certificate_expires=moment(message.certificate_expires),
        started=moment(message.started),
        sessions=message.sessions,
        scope=one_line(message.scope),
        default_lease=moment(message.default_lease),
        longest_lease=moment(message.longest_lease),
        metrics_address=one_line(message.metrics_address),
        warnings=tuple(map(one_line, message.warnings)),
    )


def read_authentication(message: wire.AuthenticationFacts) -> AuthenticationFacts:
    """Whom a control server takes its caller for."""
    return AuthenticationFacts(
        owner=one_line(message.owner),
        authentication=one_line(message.authentication),
        scope=one_line(message.scope),
        scopes=tuple(map(one_line, message.scopes)),
        expires=moment(message.expires),
        is_operator=message.is_operator,
        username=one_line(message.username),
    )


def _read_engine(message: wire.Engine) -> EngineFacts:
    return EngineFacts(
        name=one_line(message.name),
        installed=message.installed,
        version=one_line(message.version),
        program=one_line(message.program),
        encryption=one_line(message.encryption),
        can_limit_rate=message.can_limit_rate,
    )
