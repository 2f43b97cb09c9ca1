"""The control server's configuration: default, TOML file, environment, option, in rising order."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, SecretStr, ValidationError

from scistream.addresses import Endpoint, PortRange
from scistream.auth.introspection import method_name
from scistream.auth.providers import GLOBUS, parse_scope
from scistream.control_server.configuration_files import find_credentials, read_credentials, read_file
from scistream.control_server.configuration_values import (
    read_address,
    read_address_or_none,
    read_duration,
    read_engine,
    read_old_clients,
    read_port_range,
    read_targets,
    read_url,
    read_wait,
    read_words,
)
from scistream.errors import Code, SciStreamError
from scistream.terms import DEFAULT_CONTROL_PORT, DEFAULT_PORT_RANGE, HELLO_TIMEOUT, MAX_LEASE, NO_AUTH, OldClients

__all__ = ["CREDENTIALS_DIRECTORY", "ENVIRONMENT_PREFIX", "Settings", "Surroundings", "load"]

ENVIRONMENT_PREFIX: Final = "SCISTREAM_"

_DEFAULTS: Final = "the defaults"
_SECRETS: Final = frozenset({"client_secret"})
# `SCISTREAM_COMPAT` asks the clients for the deployed words, and is in many a user's profile: it must not turn
# authentication off.
_NOT_IN_ENVIRONMENT: Final = frozenset({"compat"})
# Files of these names in $CREDENTIALS_DIRECTORY are the service manager's (systemd.exec, LoadCredential=).
_CREDENTIALS: Final = ("client_id", "client_secret")
# Of these the value is the file itself.
_CREDENTIAL_FILES: Final = ("server_crt", "server_key")
CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
_PATHS: Final = frozenset({"audit_file", "log_file", "server_crt", "server_key", "state_directory"})

# What is wanted, by the beginnings of the validator's words for what is wrong.
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "finite": "a number",
}
_BOUNDS: Final = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


class Settings(BaseModel):
    """What a control server is told.

    Keys and defaults are those of the deployed tool (protocol reference, Commands and options), and a few of ours.
    `control_ip` is where the control port is, in place of `listener_ip`, where the entry points are.
    Times are in seconds, also told as `90s`, `30m` or `8h`: `hello_timeout`, also that of a registered session for its
    update; `lease`, what a session gets that asks for none, and `longest_lease`, what it may ask for, 0 or `unlimited`
    without an end; `quarantine`, how long a released port is given to nobody. `provider` is the issuer whose tokens are
    accepted (RFC 8414), `audience` and `scope` what they have to be for; `operators` are the subjects who may see and
    change everybody's sessions. `ports_per_owner` is how many ports one user's sessions may have together, 0 for all of
    them. `metrics_port` 0 is no metrics. `old_clients` is what sessions of deployed clients get, which know of no
    encryption: `refuse`, `plain` or `legacy-psk`; by default refuse, with `compat` plain. `allowed_targets` are those
    that may be asked for (`AllowedTargets`), all where there are none.
    Paths are absolute once `load` made them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    listener_ip: Annotated[str, BeforeValidator(read_address)] = "0.0.0.0"  # noqa: S104 - the deployed default
    control_ip: Annotated[str, BeforeValidator(read_address_or_none)] = ""
    port: Annotated[int, Field(ge=1, le=65535)] = DEFAULT_CONTROL_PORT
    port_range: Annotated[InstanceOf[PortRange], BeforeValidator(read_port_range)] = PortRange.parse(DEFAULT_PORT_RANGE)
    type: Annotated[str, BeforeValidator(read_engine)] = "haproxy"
    verbose: bool = False
    server_crt: Path = Path("server.crt")
    server_key: Path = Path("server.key")
    ssl: bool = True
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    insecure_no_auth: bool = False
    compat: bool = False
    state_directory: Path = Path("~/.scistream")
    log_file: Path | None = None
    hello_timeout: Annotated[float, Field(gt=0), BeforeValidator(read_wait)] = HELLO_TIMEOUT
    lease: Annotated[float, Field(ge=0, le=MAX_LEASE), BeforeValidator(read_duration)] = 0.0
    longest_lease: Annotated[float, Field(ge=0, le=MAX_LEASE), BeforeValidator(read_duration)] = 0.0
    quarantine: Annotated[float, Field(ge=0, le=3600), BeforeValidator(read_wait)] = 1.0
    ports_per_owner: Annotated[int, Field(ge=0)] = 0
    provider: Annotated[str, BeforeValidator(read_url)] = GLOBUS
    introspection_url: Annotated[str, BeforeValidator(read_url)] = ""
    audience: str = ""
    scope: str = ""
    operators: Annotated[tuple[str, ...], BeforeValidator(read_words)] = ()
    metrics_ip: Annotated[str, BeforeValidator(read_address)] = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    log_format: Annotated[Literal["plain", "json"], Field()] = "plain"
    audit_file: Path | None = None
    allowed_targets: Annotated[tuple[str, ...], BeforeValidator(read_targets)] = ()
    old_clients: Annotated[OldClients | None, BeforeValidator(read_old_clients)] = None

    @property
    def for_old_clients(self) -> OldClients:
        """What sessions of deployed clients get, who cannot say what they want between the gateways."""
        return self.old_clients or (OldClients.PLAIN if self.compat else OldClients.REFUSE)

    @property
    def address(self) -> Endpoint:
        """Where the control server listens."""
        return Endpoint(self.control_ip or self.listener_ip, self.port)

    @property
    def is_called_by_address(self) -> bool:
        """Whether clients call it by the address where it listens; not by another one of the host, nor through SSH."""
        behind_ssh = self.control_ip and ipaddress.ip_address(self.control_ip).is_loopback
        return not (behind_ssh or ipaddress.ip_address(self.address.host).is_unspecified)

    @property
    def authenticates(self) -> bool:
        """Whether tokens are checked."""
        return bool(self.client_secret.get_secret_value())

    @property
    def authentication(self) -> str:
        """How it shows in every status: `NO_AUTH`, or the method's name."""
        return method_name(self.provider) if self.authenticates else NO_AUTH

    @property
    def demanded_audience(self) -> str:
        """Whom tokens have to be for."""
        return self.audience or self.client_id

    @property
    def demanded_scope(self) -> str:
        """What tokens have to be good for."""
        return parse_scope(self.scope) or f"{GLOBUS}/scopes/{self.client_id}/scistream"

    def check_authentication(self) -> None:
        """Refuse to run where nobody said how users are authenticated (U13), or two things were said.

        Raises:
            SciStreamError: AUTHENTICATION_UNDECIDED, AUTHENTICATION_CONTRADICTORY, BAD_CONFIGURATION.
        """
        if not self.authenticates:
            if not (self.insecure_no_auth or self.compat):
                raise SciStreamError(Code.AUTHENTICATION_UNDECIDED)
            return
        if self.insecure_no_auth:
            raise SciStreamError(Code.AUTHENTICATION_CONTRADICTORY)
        if not (self.client_id and self.provider):
            key = "provider" if self.client_id else "client_id"
            facts = {"key": key, "value": "", "source": "the settings", "reason": "client_secret is nothing without it"}
            raise SciStreamError(Code.BAD_CONFIGURATION, **facts)

    def digest(self) -> str:
        """What two control servers have in common that were told the same, secrets apart: SHA-256 in hex."""
        told = {key: str(getattr(self, key)) for key in Settings.model_fields if key not in _SECRETS}
        told["authentication"] = self.authentication
        return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()

    def arguments(self) -> list[str]:
        """The settings as options of `s2cs`, less the secrets: other users can read a command line (U19)."""
        given = {key: getattr(self, key) for key in sorted(Settings.model_fields) if key not in _SECRETS}
        words = ((f"--{key.replace('_', '-')}", value) for key, value in given.items())
        return [
            word if value is True else f"{word}={_spelled(value)}" for word, value in words if _is_told(word, value)
        ]


def _spelled(value: object) -> str:
    if isinstance(value, OldClients):
        return value.value
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _is_told(word: str, value: object) -> bool:
    """Whether a setting appears on a command line: `--ssl` has a value, the other truth values are bare or absent."""
    return value not in (None, "", ()) and (value is not False or word == "--ssl")


@dataclass(frozen=True)
class Surroundings:
    """Where relative paths start, and the process's environment."""

    directory: Path
    environment: Mapping[str, str]


def load(options: Mapping[str, Any], surroundings: Surroundings, *, config: Path | None = None) -> Settings:
    """Put the settings together.

    Args:
        options: what the command line named, by key; None and missing ones were not named.
        surroundings: working directory and environment; SCISTREAM_PORT is the key `port`.
        config: the TOML file. Its relative paths start at its own directory.

    Raises:
        SciStreamError: BAD_CONFIGURATION naming key, value and source; CONFIGURATION_UNREADABLE, SECRET_READABLE,
            BAD_PORT_RANGE, ENGINE_UNKNOWN.
    """
    directory = surroundings.directory
    values, sources = dict[str, Any](), dict[str, str]()
    for layer in _layers(options, surroundings, config):
        for key, value in layer.values.items():
            sources[key] = layer.source(key)
            values[key] = _rooted(layer.base, value, key, sources[key]) if key in _PATHS else value
    for key in _PATHS - values.keys():
        default = Settings.model_fields[key].default
        if default is not None:
            values[key] = _rooted(directory, default, key, _DEFAULTS)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _bad(error, values, sources) from None


@dataclass(frozen=True)
class _Layer:
    values: Mapping[str, Any]
    base: Path
    words: str

    def source(self, key: str) -> str:
        return self.words.format(option=key.replace("_", "-"), variable=ENVIRONMENT_PREFIX + key.upper())


def _layers(options: Mapping[str, Any], surroundings: Surroundings, config: Path | None) -> list[_Layer]:
    named = {key: value for key, value in options.items() if value is not None}
    keys = Settings.model_fields.keys() - _NOT_IN_ENVIRONMENT
    variables = {key: surroundings.environment.get(ENVIRONMENT_PREFIX + key.upper()) for key in keys}
    layers = [
        _credentials(surroundings),
        _Layer({key: text for key, text in variables.items() if text}, surroundings.directory, "{variable}"),
        _Layer(named, surroundings.directory, "option --{option}"),
    ]
    if config is None:
        return layers
    path = Path(str(_rooted(surroundings.directory, config, "config", "option --config or SCISTREAM_CONFIG")))
    return [_Layer(read_file(path, _SECRETS), path.parent, _braced(path)), *layers]


def _credentials(surroundings: Surroundings) -> _Layer:
    """What the service manager hands over, which stands between the file and the environment."""
    named = surroundings.environment.get(CREDENTIALS_DIRECTORY)
    if not named:
        return _Layer({}, surroundings.directory, "")
    directory = surroundings.directory / named
    values = {**read_credentials(directory, _CREDENTIALS), **find_credentials(directory, _CREDENTIAL_FILES)}
    return _Layer(values, directory, f"the systemd credential in {_braced(directory)}")


def _braced(path: Path) -> str:
    """A path as words of a layer: braces in a file's name are no fields."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _rooted(base: Path, value: object, key: str, source: str) -> object:
    if not isinstance(value, str | Path):
        return value
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise _bad_path(key, value, source, "there is no such user") from None
    if "\0" in str(path):
        raise _bad_path(key, value, source, "a path holds no null character")
    return base / path


def _bad_path(key: str, value: str | Path, source: str, reason: str) -> SciStreamError:
    return SciStreamError(Code.BAD_CONFIGURATION, key=key, value=str(value), source=source, reason=reason)


def _bad(error: ValidationError, values: Mapping[str, Any], sources: Mapping[str, str]) -> SciStreamError:
    first = error.errors(include_url=False, include_input=False)[0]
    key = str(first["loc"][0])
    return SciStreamError(
        Code.BAD_CONFIGURATION,
        key=key,
        value="***" if key in _SECRETS else str(values.get(key)),
        source=sources.get(key, _DEFAULTS),
        reason=_reason(first["type"], first.get("ctx", {})),
    )


def _reason(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "extra_forbidden":
        return f"no such key; the keys are {', '.join(Settings.model_fields)}"
    if kind == "value_error":
        return str(context["error"])
    bounds = (f"{_BOUNDS[word]} {limit:g}" for word, limit in context.items() if word in _BOUNDS)
    wanted = next((words for start, words in _KINDS.items() if kind.startswith(start)), "of another kind")
    return f"it has to be {next(bounds, wanted)}"
