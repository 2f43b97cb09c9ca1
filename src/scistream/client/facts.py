"""What a control server tells of itself and of its caller, as plain values; texts are made printable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scistream.client.sessions import moment, plain
from scistream.errors import one_line
from scistream.protocol import operations_pb2 as wire

__all__ = [
    "AbilityFacts",
    "AuthenticationFacts",
    "EngineFacts",
    "ServerFacts",
    "read_authentication",
    "read_facts",
]


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
class AbilityFacts:
    """Whether an engine has a feature here and now; `words` say why not."""

    feature: str
    can: bool
    words: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The ability as plain data."""
        return plain(self)


@dataclass(frozen=True)
class EngineFacts:
    """One engine of a control server; `version` and `program` are empty where it is not installed.

    `encryption` is what a session gets that asks for `tls`, "none" where there is no such thing; `encryptions` are all
    that it has. `can_limit_rate` says whether it can hold a session to a rate, `abilities` all else; `privileges` are
    what the control server needs for it. Control servers from before encryption was asked for tell no `encryptions` and
    no `abilities`.
    """

    name: str
    installed: bool
    version: str
    program: str
    encryption: str
    can_limit_rate: bool = False
    encryptions: tuple[str, ...] = ()
    abilities: tuple[AbilityFacts, ...] = ()
    privileges: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The engine as plain data."""
        return plain(self) | {"abilities": [ability.as_dict() for ability in self.abilities]}

    @property
    def offered(self) -> tuple[str, ...]:
        """What its sessions can be encrypted with, the preferred first."""
        return self.encryptions or ((self.encryption,) if self.encryption else ())


@dataclass(frozen=True)
class ServerFacts:
    """What a control server is; times are seconds since the epoch, `certificate_expires` is 0 without a certificate.

    `default_lease` and `longest_lease` are in seconds, 0 for no end; `metrics_address` is empty where metrics are off;
    `warnings` are sentences that its operator should know; `old_clients` is what sessions of deployed clients get.
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
    old_clients: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data."""
        return plain(self) | {"engines": [engine.as_dict() for engine in self.engines]}

    @property
    def in_use(self) -> EngineFacts | None:
        """The engine of the sessions that are opened now."""
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
        old_clients=one_line(message.old_clients),
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
        encryptions=tuple(map(one_line, message.encryptions)),
        abilities=tuple(AbilityFacts(one_line(one.feature), one.can, one_line(one.words)) for one in message.abilities),
        privileges=one_line(message.privileges),
    )
