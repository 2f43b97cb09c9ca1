"""Open and release sessions: the order of calls, as the protocol has it, and its way back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from scistream.addresses import Endpoint, parse_endpoints
from scistream.client.abilities import check_kept_encryption, check_server, too_old
from scistream.client.channel import Answer, Connection, Pending
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import HELLO_TIMEOUT, Direction, Uid

__all__ = [
    "Clock",
    "Pause",
    "SessionRequest",
    "await_session",
    "open_session",
    "register",
    "release_session",
]

Clock = Callable[[], float]
"""Seconds from an arbitrary start, never backwards."""
Pause = Callable[[float], None]
"""Waits that many seconds."""

# Between two hellos, in seconds.
_GROWING: Final = wait_exponential(multiplier=0.05, max=1.0)
# A control server refuses a request at once or not at all: so long its refusal may still be on its way.
_REFUSAL_SECONDS: Final = 0.5
# Stopping a data server takes its time (TERM, wait, KILL).
_ROLLBACK_SECONDS: Final = 15.0
# How a request ends that was taken up first. Any other failure left nothing, and what has that uid is another's.
_TAKEN_UP: Final = frozenset({Code.CONTROL_SERVER_BROKEN, Code.DEADLINE, Code.HELLO_TIMEOUT, Code.INTERNAL})


class _Call(Protocol):
    def notify(self, callback: Callable[[], None]) -> None: ...


def open_session(
    connection: Connection, request: SessionRequest, *, clock: Clock = time.monotonic, pause: Pause = time.sleep
) -> Session:
    """Open a session: `req`, `hello` right after it, `update`. It is ready when this returns.

    Whatever goes wrong, Ctrl-C included, leaves nothing behind, and is raised as it was.

    Raises:
        SciStreamError: NO_TARGETS, SESSION_KEY_MISSING, what `check_server` raises, what the control server says, or
            why it cannot be talked to.
    """
    if not request.targets:
        raise SciStreamError(Code.NO_TARGETS, uid=request.uid)
    request.require_key()
    check_server(connection, request)

    def answer(pending: Pending[Answer]) -> Answer:
        register(connection, request.uid, request.direction, request.targets, pending=pending, clock=clock, pause=pause)
        return pending.result()

    return _opened(connection, request, connection.control_server.timeout, answer)


def await_session(connection: Connection, request: SessionRequest, *, wait: float = HELLO_TIMEOUT) -> Session:
    """Open a session whose end an application controller registers, within `wait` seconds. It names the targets.

    Raises:
        SciStreamError: HELLO_TIMEOUT, NO_TARGETS, SESSION_KEY_MISSING, what `check_server` raises, what the control
            server says, or why it cannot be talked to.
    """

    def answer(pending: Pending[Answer]) -> Answer:
        try:
            return pending.result()
        except SciStreamError as error:
            if error.code is not Code.DEADLINE:
                raise
            raise SciStreamError(Code.HELLO_TIMEOUT, uid=request.uid, seconds=wait) from None

    request.require_key()
    check_server(connection, request)
    return _opened(connection, request, wait, answer)


def register(  # noqa: PLR0913 - the session's end, and what time is measured with
    connection: Connection,
    uid: Uid,
    direction: Direction,
    targets: tuple[Endpoint, ...],
    *,
    pending: Pending[Answer] | None = None,
    clock: Clock = time.monotonic,
    pause: Pause = time.sleep,
) -> tuple[str, ...]:
    """Send the `hello`, and again while the control server does not know the uid yet (U30). Returns the entry points.

    Args:
        connection: to the control server.
        uid: of the session.
        direction: of the session.
        targets: what the application offers.
        pending: the `req` of this session where it comes from here; when it fails, that ends this too.
        clock: measures the control server's timeout.
        pause: waits between two tries.

    Raises:
        SciStreamError: what the control server says, of the `req` or else of the `hello`.
    """
    deadline = clock() + connection.control_server.timeout

    def hello() -> tuple[str, ...]:
        return _answered(connection.hello(uid, direction, targets, timeout=_call_time(deadline - clock())), pending)

    def over(state: RetryCallState) -> bool:
        # Our control servers hold an early hello; a deployed one answers at once that it knows no such uid.
        return clock() >= deadline or (pending is None and _is_final(state))

    again = Retrying(retry=retry_if_exception(_not_yet), stop=over, wait=_GROWING, sleep=pause, reraise=True)
    return again(_remembering(hello))


def release_session(connection: Connection, uid: Uid, direction: Direction | None = None) -> bool:
    """Release a session, without a direction both ends with that uid; False where there was none.

    Raises:
        SciStreamError: what the control server says, or why it cannot be talked to.
    """
    try:
        connection.release(uid, direction)
    except SciStreamError as error:
        if error.code is Code.UID_UNKNOWN:
            return False
        raise
    return True


def _call_time(remaining: float) -> float:
    return max(round(remaining, 1), 0.1)


def _remembering(hello: Callable[[], tuple[str, ...]]) -> Callable[[], tuple[str, ...]]:
    """The last try has less time than a call takes: what the earlier ones were told is the answer."""
    refusals: list[SciStreamError] = []

    def tried() -> tuple[str, ...]:
        try:
            return hello()
        except SciStreamError as error:
            if error.code is Code.UID_UNKNOWN:
                refusals.append(error)
            if error.code is Code.DEADLINE and refusals:
                raise refusals[-1] from None
            raise

    return tried


def _is_final(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, SciStreamError) and error.was_sent


def _not_yet(error: BaseException) -> bool:
    return isinstance(error, SciStreamError) and error.code is Code.UID_UNKNOWN


def _answered(hello: Pending[tuple[str, ...]], pending: Pending[Answer] | None) -> tuple[str, ...]:
    try:
        if pending:
            _first(pending, hello)
            if pending.done():
                pending.result()
        return hello.result()
    finally:
        hello.cancel()


def _first(*calls: _Call) -> None:
    """Wait until one of the calls is done; each has a deadline of its own."""
    done = threading.Event()
    for call in calls:
        call.notify(done.set)
    done.wait()


def _opened(
    connection: Connection, request: SessionRequest, timeout: float, answer: Callable[[Pending[Answer]], Answer]
) -> Session:
    pending = connection.request(request, timeout=timeout)
    try:
        answered = answer(pending)
        targets = request.targets or parse_endpoints(answered.targets)
        connection.update(request.uid, request.direction, targets, key=request.sent_key)
        return _described(connection, request, answered, targets)
    except BaseException as error:
        told = pending.failure(_REFUSAL_SECONDS)
        pending.cancel()
        if told is None or told.code in _TAKEN_UP:
            _undo(connection, request, error)
        # When the request failed, the hello's failure is but its shadow.
        if told is not None and isinstance(error, SciStreamError) and error.code is not Code.HELLO_TIMEOUT:
            raise told from None
        raise


def _undo(connection: Connection, request: SessionRequest, error: BaseException) -> None:
    try:
        connection.release(request.uid, request.direction, timeout=_ROLLBACK_SECONDS)
    except SciStreamError as failure:
        if failure.code is not Code.UID_UNKNOWN:
            error.add_note(f"Session {request.uid} may be left over there: {failure.seen}.")


def _check_kept(connection: Connection, request: SessionRequest, session: Session) -> None:
    """A control server of ours from before leases and named ports opens a session without them."""
    ports = {endpoint.port for endpoint in parse_endpoints(session.entry_points)}
    kept = {"lease": session.lease_expires, "ports": ports == set(request.ports)}
    asked = {"lease": request.lease, "ports": request.ports}
    if left := [name for name, wish in asked.items() if wish and not kept[name]]:
        raise too_old(connection, f"keep the {' and the '.join(left)} of a session")


def _described(
    connection: Connection, request: SessionRequest, answered: Answer, targets: tuple[Endpoint, ...]
) -> Session:
    try:
        session = connection.describe(request.uid, request.direction)[0]
    except SciStreamError as error:
        if error.code is not Code.OLD_CONTROL_SERVER:
            raise
    else:
        check_kept_encryption(connection, request, session)
        _check_kept(connection, request, session)
        return session
    return request.untold(answered.entry_points, targets)
