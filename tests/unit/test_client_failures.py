from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from scistream.addresses import Endpoint
from scistream.client.control_servers import ControlServer
from scistream.client.failures import Attempt, failure_of
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA

_SERVER = ControlServer(Endpoint("gateway.example", 5000))
_ATTEMPT = Attempt("open a session", 30.0, "abc")
_UNKNOWN = grpc.StatusCode.UNKNOWN


@dataclass
class _Call:
    """A failed call, as gRPC shows it."""

    status: grpc.StatusCode
    words: str | None = ""
    trailer: tuple[tuple[str, Any], ...] = ()

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str | None:
        return self.words

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self.trailer


def _failure(status: grpc.StatusCode, words: str | None = "", trailer: bytes | None = None) -> SciStreamError:
    metadata = ((ERROR_METADATA, trailer),) if trailer is not None else ()
    return failure_of(_Call(status, words, metadata), _SERVER, _ATTEMPT)  # type: ignore[arg-type]


def test_what_a_control_server_of_ours_sends_along_is_the_error() -> None:
    sent = SciStreamError(Code.PORTS_EXHAUSTED, wanted=5, free=1, size=11, range="5100-5110", others="")
    error = _failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", sent.to_wire())
    assert (error.code, str(error)) == (sent.code, str(sent))


@pytest.mark.parametrize(
    "trailer",
    [b"", b"{", b"[]", b'{"code": "FROM_THE_FUTURE", "facts": {}}', b'{"code": "UID_EXISTS", "facts": {}}', b"\xff"],
)
def test_a_trailer_that_makes_no_sense_is_passed_over(trailer: bytes) -> None:
    assert _failure(grpc.StatusCode.ALREADY_EXISTS, "x", trailer).code is Code.UID_EXISTS


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Exception calling application: Entry already found for uid", Code.UID_EXISTS),
        ("Exception calling application: entry not found for uid 'abc'", Code.UID_UNKNOWN),
        ("Exception calling application: 'abc'", Code.UID_UNKNOWN),
        ("Exception calling application: Hello not received within the timeout period", Code.HELLO_TIMEOUT),
        ("Exception calling application: integer modulo by zero", Code.NO_TARGETS),
        ("Exception calling application: [Errno 98] Address already in use", Code.ENTRY_POINT_IN_USE),
        ("Exception calling application: [Errno 2] No such file or directory: 'haproxy'", Code.ENGINE_MISSING),
        ("Exception calling application: something else", Code.CONTROL_SERVER_BROKEN),
        (None, Code.CONTROL_SERVER_BROKEN),
    ],
)
def test_u60_the_words_of_a_deployed_server_are_understood(words: str | None, code: Code) -> None:
    assert _failure(_UNKNOWN, words).code is code


@pytest.mark.parametrize(("program", "package"), [("haproxy", "haproxy"), ("stunnel", "stunnel4"), ("x-y", "x-y")])
def test_u50_a_missing_proxy_of_a_deployed_server_names_the_package(program: str, package: str) -> None:
    error = _failure(_UNKNOWN, f"Exception calling application: [Errno 2] No such file or directory: '{program}'")
    assert error.code is Code.ENGINE_MISSING
    assert f"apt-get install {package}" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, Code.OLD_CONTROL_SERVER, "gateway.example:5000 cannot open a session"),
        (grpc.StatusCode.UNAUTHENTICATED, Code.AUTHENTICATION_REFUSED, "refuses the caller: no such"),
        (grpc.StatusCode.PERMISSION_DENIED, Code.AUTHENTICATION_REFUSED, "refuses the caller: no such"),
        (grpc.StatusCode.NOT_FOUND, Code.UID_UNKNOWN, "no session with uid abc"),
        (grpc.StatusCode.INTERNAL, Code.CONTROL_SERVER_BROKEN, "INTERNAL: no such"),
        (grpc.StatusCode.CANCELLED, Code.CONTROL_SERVER_BROKEN, "CANCELLED: no such"),
    ],
)
def test_a_status_without_an_error_of_ours_is_understood(status: grpc.StatusCode, code: Code, words: str) -> None:
    error = _failure(status, "no such")
    assert error.code is code
    assert words in str(error)
