"""What a failed gRPC call means, as an error of the catalogue.

First the error that a control server of ours sends along; then the words of a deployed one, which knows no status but
UNKNOWN (U60); then the status; and where there was no connection, what a look at the port shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from scistream.client.control_servers import ControlServer
from scistream.errors import Code, SciStreamError
from scistream.hops.reaching import Hop
from scistream.protocol import ERROR_METADATA
from scistream.terms import HELLO_TIMEOUT

__all__ = ["Attempt", "failure_of"]

_UNTOLD: Final = "the old protocol does not tell its state"
_RAISED: Final = "Exception calling application: "
_UNANSWERED: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_MISSING_PROGRAM: Final = re.compile(r"No such file or directory: '([\w.-]{1,40})'")


@dataclass(frozen=True)
class Attempt:
    """A call that was made: what it was to do (as in 'list sessions'), for which uid, and within how many seconds."""

    operation: str
    seconds: float
    uid: str = ""


def failure_of(call: grpc.Call, server: ControlServer, attempt: Attempt, hop: Hop | None = None) -> SciStreamError:
    """The error of the catalogue for a call that failed; `hop` is what it went over, where it went over SSH."""
    told = _told(call)
    if told is not None:
        return told
    if hop and call.code() in _UNANSWERED and (lost := hop.failure()):
        return lost
    by_status = _BY_STATUS.get(call.code())
    if by_status is not None:
        return by_status(call, server, attempt)
    words = f"{call.code().name}: {call.details()}"
    return SciStreamError(Code.CONTROL_SERVER_BROKEN, server=str(server.address), words=words)


def _told(call: grpc.Call) -> SciStreamError | None:
    for key, value in call.trailing_metadata() or ():
        if key == ERROR_METADATA and isinstance(value, bytes):
            return SciStreamError.from_wire(value)
    return None


def _unconnected(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    reason = call.details() or "the connection was lost"
    lost = SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server=str(server.address), reason=reason)
    return _found(server) or lost


def _too_late(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    what = f"the attempt to {attempt.operation} at {server.address}"
    last = "the control server is there, and does not answer this call"
    late = SciStreamError(Code.DEADLINE, what=what, seconds=attempt.seconds, last=last)
    # A port that swallows packets, or answers without TLS, ends as a deadline too.
    return _found(server) or late


def _found(server: ControlServer) -> SciStreamError | None:
    # Late: it reads certificates, and only what failed needs it.
    from scistream.client.probe import find_fault  # noqa: PLC0415

    return find_fault(server)


def _without_method(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    return SciStreamError(Code.OLD_CONTROL_SERVER, server=str(server.address), operation=attempt.operation)


def _refused(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    return SciStreamError(Code.AUTHENTICATION_REFUSED, server=str(server.address), words=call.details() or "no reason")


def _exists(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    return SciStreamError(Code.UID_EXISTS, uid=attempt.uid, state=_UNTOLD)


def _unknown_uid(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    return SciStreamError(Code.UID_UNKNOWN, uid=attempt.uid)


def _raised(call: grpc.Call, server: ControlServer, attempt: Attempt) -> SciStreamError:
    """What a deployed control server means: there, every error is an exception whose words are passed on."""
    words = (call.details() or "").removeprefix(_RAISED)
    for fragment, error in _old_words(attempt).items():
        if fragment in words:
            return error
    program = _MISSING_PROGRAM.search(words)
    if program:
        return _missing_engine(program[1])
    # A dictionary without the key says no more than the key.
    if attempt.uid and words in {attempt.uid, repr(attempt.uid)}:
        return SciStreamError(Code.UID_UNKNOWN, uid=attempt.uid)
    return SciStreamError(Code.CONTROL_SERVER_BROKEN, server=str(server.address), words=words or "it does not say why")


def _old_words(attempt: Attempt) -> Mapping[str, SciStreamError]:
    uid = attempt.uid
    return {
        "Entry already found for uid": SciStreamError(Code.UID_EXISTS, uid=uid, state=_UNTOLD),
        "entry not found for uid": SciStreamError(Code.UID_UNKNOWN, uid=uid),
        "Hello not received within the timeout": SciStreamError(Code.HELLO_TIMEOUT, uid=uid, seconds=HELLO_TIMEOUT),
        "integer modulo by zero": SciStreamError(Code.NO_TARGETS, uid=uid),
        "Address already in use": SciStreamError(
            Code.ENTRY_POINT_IN_USE, entry_point=f"of session {uid}", process="a process on the gateway"
        ),
    }


def _missing_engine(program: str) -> SciStreamError:
    # Late: only this sentence needs to know what the distribution calls the engine.
    from scistream.engines import ENGINES  # noqa: PLC0415

    engine = next((one for one in ENGINES.values() if program in {one.program, one.name}), None)
    title, packages = (engine.title, " ".join(engine.packages)) if engine else (program, program)
    return SciStreamError(Code.ENGINE_MISSING, engine=title, program=program, packages=packages)


_BY_STATUS: Final[Mapping[Any, Callable[[grpc.Call, ControlServer, Attempt], SciStreamError]]] = {
    grpc.StatusCode.ALREADY_EXISTS: _exists,
    grpc.StatusCode.DEADLINE_EXCEEDED: _too_late,
    grpc.StatusCode.NOT_FOUND: _unknown_uid,
    grpc.StatusCode.PERMISSION_DENIED: _refused,
    grpc.StatusCode.UNAUTHENTICATED: _refused,
    grpc.StatusCode.UNAVAILABLE: _unconnected,
    grpc.StatusCode.UNIMPLEMENTED: _without_method,
    grpc.StatusCode.UNKNOWN: _raised,
}
