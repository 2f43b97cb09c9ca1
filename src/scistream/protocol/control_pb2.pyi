from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Request(_message.Message):
    __slots__ = ("uid", "role", "num_conn", "rate")
    UID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NUM_CONN_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    role: str
    num_conn: int
    rate: int
    def __init__(self, uid: _Optional[str] = ..., role: _Optional[str] = ..., num_conn: _Optional[int] = ..., rate: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("uid", "prod_listeners", "role")
    UID_FIELD_NUMBER: _ClassVar[int]
    PROD_LISTENERS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    prod_listeners: _containers.RepeatedScalarFieldContainer[str]
    role: str
    def __init__(self, uid: _Optional[str] = ..., prod_listeners: _Optional[_Iterable[str]] = ..., role: _Optional[str] = ...) -> None: ...

class UpdateTargets(_message.Message):
    __slots__ = ("uid", "remote_listeners", "role")
    UID_FIELD_NUMBER: _ClassVar[int]
    REMOTE_LISTENERS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    uid: str
    remote_listeners: _containers.RepeatedScalarFieldContainer[str]
    role: str
    def __init__(self, uid: _Optional[str] = ..., remote_listeners: _Optional[_Iterable[str]] = ..., role: _Optional[str] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("uid",)
    UID_FIELD_NUMBER: _ClassVar[int]
    uid: str
    def __init__(self, uid: _Optional[str] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("listeners", "prod_listeners")
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    PROD_LISTENERS_FIELD_NUMBER: _ClassVar[int]
    listeners: _containers.RepeatedScalarFieldContainer[str]
    prod_listeners: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, listeners: _Optional[_Iterable[str]] = ..., prod_listeners: _Optional[_Iterable[str]] = ...) -> None: ...

class AppResponse(_message.Message):
    __slots__ = ("message", "listeners")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    message: str
    listeners: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, message: _Optional[str] = ..., listeners: _Optional[_Iterable[str]] = ...) -> None: ...
