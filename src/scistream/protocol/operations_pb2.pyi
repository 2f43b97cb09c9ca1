from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListSessionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeSessionRequest(_message.Message):
    __slots__ = ("uid", "direction")
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    uid: str
    direction: str
    def __init__(self, uid: _Optional[str] = ..., direction: _Optional[str] = ...) -> None: ...

class ListSessionsReply(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("uid", "direction", "state", "entry_points", "targets", "engine", "encryption", "owner", "connections", "rate", "opened", "failure", "lease_expires", "idle_since", "restarts", "traffic", "transport", "sources", "cipher", "peer", "warnings", "half_close", "certificate_expires")
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_POINTS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    IDLE_SINCE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    CIPHER_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    HALF_CLOSE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    uid: str
    direction: str
    state: str
    entry_points: _containers.RepeatedScalarFieldContainer[str]
    targets: _containers.RepeatedScalarFieldContainer[str]
    engine: str
    encryption: str
    owner: str
    connections: int
    rate: int
    opened: float
    failure: str
    lease_expires: float
    idle_since: float
    restarts: int
    traffic: Traffic
    transport: str
    sources: _containers.RepeatedScalarFieldContainer[str]
    cipher: str
    peer: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    half_close: bool
    certificate_expires: float
    def __init__(self, uid: _Optional[str] = ..., direction: _Optional[str] = ..., state: _Optional[str] = ..., entry_points: _Optional[_Iterable[str]] = ..., targets: _Optional[_Iterable[str]] = ..., engine: _Optional[str] = ..., encryption: _Optional[str] = ..., owner: _Optional[str] = ..., connections: _Optional[int] = ..., rate: _Optional[int] = ..., opened: _Optional[float] = ..., failure: _Optional[str] = ..., lease_expires: _Optional[float] = ..., idle_since: _Optional[float] = ..., restarts: _Optional[int] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., transport: _Optional[str] = ..., sources: _Optional[_Iterable[str]] = ..., cipher: _Optional[str] = ..., peer: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., half_close: _Optional[bool] = ..., certificate_expires: _Optional[float] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("connections_open", "connections_total", "bytes_to_targets", "bytes_from_targets", "refused_peers")
    CONNECTIONS_OPEN_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_TO_TARGETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FROM_TARGETS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_PEERS_FIELD_NUMBER: _ClassVar[int]
    connections_open: int
    connections_total: int
    bytes_to_targets: int
    bytes_from_targets: int
    refused_peers: int
    def __init__(self, connections_open: _Optional[int] = ..., connections_total: _Optional[int] = ..., bytes_to_targets: _Optional[int] = ..., bytes_from_targets: _Optional[int] = ..., refused_peers: _Optional[int] = ...) -> None: ...

class WatchSessionsRequest(_message.Message):
    __slots__ = ("uid", "direction")
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    uid: str
    direction: str
    def __init__(self, uid: _Optional[str] = ..., direction: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("time", "kind", "session", "words")
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    time: float
    kind: str
    session: Session
    words: str
    def __init__(self, time: _Optional[float] = ..., kind: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., words: _Optional[str] = ...) -> None: ...

class RenewSessionRequest(_message.Message):
    __slots__ = ("uid", "direction", "lease")
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    direction: str
    lease: float
    def __init__(self, uid: _Optional[str] = ..., direction: _Optional[str] = ..., lease: _Optional[float] = ...) -> None: ...

class DrainSessionRequest(_message.Message):
    __slots__ = ("uid", "direction")
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    uid: str
    direction: str
    def __init__(self, uid: _Optional[str] = ..., direction: _Optional[str] = ...) -> None: ...

class RenewCertificatesRequest(_message.Message):
    __slots__ = ("uid", "direction")
    UID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    uid: str
    direction: str
    def __init__(self, uid: _Optional[str] = ..., direction: _Optional[str] = ...) -> None: ...

class CheckAuthenticationRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuthenticationFacts(_message.Message):
    __slots__ = ("owner", "authentication", "scope", "scopes", "expires", "is_operator", "username")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    IS_OPERATOR_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    owner: str
    authentication: str
    scope: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    expires: float
    is_operator: bool
    username: str
    def __init__(self, owner: _Optional[str] = ..., authentication: _Optional[str] = ..., scope: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., expires: _Optional[float] = ..., is_operator: _Optional[bool] = ..., username: _Optional[str] = ...) -> None: ...

class GetServerFactsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerFacts(_message.Message):
    __slots__ = ("version", "listen_address", "port_range", "ports_free", "engine", "engines", "authentication", "tls", "certificate_names", "certificate_expires", "started", "sessions", "scope", "default_lease", "longest_lease", "metrics_address", "warnings", "old_clients")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LISTEN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_RANGE_FIELD_NUMBER: _ClassVar[int]
    PORTS_FREE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NAMES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LEASE_FIELD_NUMBER: _ClassVar[int]
    LONGEST_LEASE_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    OLD_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    version: str
    listen_address: str
    port_range: str
    ports_free: int
    engine: str
    engines: _containers.RepeatedCompositeFieldContainer[Engine]
    authentication: str
    tls: bool
    certificate_names: _containers.RepeatedScalarFieldContainer[str]
    certificate_expires: float
    started: float
    sessions: int
    scope: str
    default_lease: float
    longest_lease: float
    metrics_address: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    old_clients: str
    def __init__(self, version: _Optional[str] = ..., listen_address: _Optional[str] = ..., port_range: _Optional[str] = ..., ports_free: _Optional[int] = ..., engine: _Optional[str] = ..., engines: _Optional[_Iterable[_Union[Engine, _Mapping]]] = ..., authentication: _Optional[str] = ..., tls: _Optional[bool] = ..., certificate_names: _Optional[_Iterable[str]] = ..., certificate_expires: _Optional[float] = ..., started: _Optional[float] = ..., sessions: _Optional[int] = ..., scope: _Optional[str] = ..., default_lease: _Optional[float] = ..., longest_lease: _Optional[float] = ..., metrics_address: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., old_clients: _Optional[str] = ...) -> None: ...

class Engine(_message.Message):
    __slots__ = ("name", "installed", "version", "program", "encryption", "can_limit_rate", "encryptions", "abilities", "privileges")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_FIELD_NUMBER: _ClassVar[int]
    CAN_LIMIT_RATE_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTIONS_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    installed: bool
    version: str
    program: str
    encryption: str
    can_limit_rate: bool
    encryptions: _containers.RepeatedScalarFieldContainer[str]
    abilities: _containers.RepeatedCompositeFieldContainer[Ability]
    privileges: str
    def __init__(self, name: _Optional[str] = ..., installed: _Optional[bool] = ..., version: _Optional[str] = ..., program: _Optional[str] = ..., encryption: _Optional[str] = ..., can_limit_rate: _Optional[bool] = ..., encryptions: _Optional[_Iterable[str]] = ..., abilities: _Optional[_Iterable[_Union[Ability, _Mapping]]] = ..., privileges: _Optional[str] = ...) -> None: ...

class Ability(_message.Message):
    __slots__ = ("feature", "can", "words")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    CAN_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    feature: str
    can: bool
    words: str
    def __init__(self, feature: _Optional[str] = ..., can: _Optional[bool] = ..., words: _Optional[str] = ...) -> None: ...
