"""What every call of every service has in common: who calls, what is logged, and how a failure goes over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import unquote

import grpc
import structlog
from structlog.typing import FilteringBoundLogger

from scistream.auth import Identity, Verifier
from scistream.control_server.admission import host_of_peer, was_recognised
from scistream.control_server.callers import Caller
from scistream.control_server.sessions import Session
from scistream.errors import Code, SciStreamError, one_line
from scistream.protocol import AUTHORIZATION, DIRECTION_METADATA, ERROR_METADATA
from scistream.terms import NO_AUTH, OLD_NO_AUTH, parse_direction

__all__ = ["CANCELLED", "Call", "Calls", "Context", "Observer", "metadata_bytes", "metadata_text"]

# The outcome of a call whose caller went away, or had no more time, before the answer.
CANCELLED: Final = "CANCELLED"

Context = grpc.aio.ServicerContext[Any, Any]

_STATUS: Final = {status.name: status for status in grpc.StatusCode}


@dataclass
class Call:
    """A call, for those who answer it, and then for those who count and record.

    `uid` and `direction` are as the caller said them, made printable, and empty where the call has none. `owner` is
    the caller's, empty where they were not recognised; `session_owner` is whose session it was about, where that is
    known. `outcome` is `OK`, CANCELLED or the error's code, `seconds` the time that it took.
    """

    name: str
    peer: str
    uid: str = ""
    direction: str = ""
    owner: str = ""
    session_owner: str = ""
    outcome: str = "OK"
    seconds: float = 0.0
    # Nobody, until authentication knows better.
    caller: Caller = field(default=Caller(Identity("")), repr=False)

    def about(self, session: Session) -> Session:
        """Note which session it was about: the deployed client says PROD for either end."""
        self.uid, self.direction = session.asked.uid, session.asked.direction.value
        self.session_owner = session.asked.owner
        return session


class Observer(Protocol):
    """Who wants to know of every call; it must not fail."""

    def __call__(self, call: Call) -> None:
        """Take note of a call that has ended."""


class Calls:
    """The frame of all calls of all services.

    Args:
        log: where calls are told.
        verifier: who tells whose token it is.
        operators: subjects who may see and change everybody's sessions.
        observers: told of every call, as it ends.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        verifier: Verifier,
        *,
        operators: Collection[str] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        self._log = log
        self.verifier = verifier
        self._operators = frozenset(operators)
        self._observers = observers

    @contextlib.asynccontextmanager
    async def answering(self, context: Context, name: str, request: Any = None) -> AsyncIterator[Call]:
        """Inside, the call's caller is known; a failure becomes a status with the error in it.

        Authentication comes first, before anything of the request is looked at (U11).
        """
        peer = unquote(context.peer())
        call = Call(name, peer, *_named(request, context))
        structlog.contextvars.bind_contextvars(peer=peer)
        begun = time.monotonic()
        try:
            call.caller = await self.authenticate(context)
            call.owner = call.caller.owner
            yield call
            self._log.debug("call answered", call=name)
        except asyncio.CancelledError:
            call.outcome = CANCELLED
            self._log.debug("call cancelled", call=name)
            raise
        except SciStreamError as error:
            call.outcome = str(error.code)
            self._log.warning("call refused", call=name, code=str(error.code), why=str(error))
            await _abort(context, error)
        except Exception as error:
            call.outcome = str(Code.INTERNAL)
            self._log.exception("unforeseen error", call=name)
            await _abort(context, SciStreamError(Code.INTERNAL, words=f"{type(error).__name__}: {error}"))
        finally:
            call.seconds = time.monotonic() - begun
            self._tell(call)

    async def refuse(self, context: Context, name: str, error: SciStreamError) -> NoReturn:
        """Turn a call away before anything is asked or read: it is counted, and no line of the log is written for it.

        Raises:
            asyncio.CancelledError: Nobody is there to be told; otherwise what gRPC raises.
        """
        self._tell(Call(name, unquote(context.peer()), outcome=str(error.code)))
        await _abort(context, error)
        raise asyncio.CancelledError

    def _tell(self, call: Call) -> None:
        for observer in self._observers:
            try:
                observer(call)
            except Exception:  # The call was answered; whoever counts must not undo that.
                self._log.exception("unforeseen error", call=call.name)

    async def authenticate(self, context: Context) -> Caller:
        """Who calls; again, for a call that goes on: a token may have ended meanwhile.

        Raises:
            SciStreamError: what `Verifier.verify` raises.
        """
        identity = await self.verifier.verify(_token(context), host_of_peer(context.peer()))
        was_recognised()
        return Caller(identity, is_operator=identity.subject in self._operators)


def _named(request: Any, context: Context) -> tuple[str, str]:
    told = metadata_text(context, DIRECTION_METADATA) or getattr(request, "direction", "")
    direction = str(told or getattr(request, "role", ""))
    with contextlib.suppress(SciStreamError):
        direction = parse_direction(direction).value
    return one_line(getattr(request, "uid", ""), 64), one_line(direction, 16)


def _token(context: Context) -> str | None:
    """The token of a call, in the raw form and in that of RFC 6750 (U14); the deployed placeholder is none."""
    text = (metadata_text(context, AUTHORIZATION) or "").strip()
    scheme, _, rest = text.partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else text
    return None if token in {"", NO_AUTH, OLD_NO_AUTH} else token


async def _abort(context: Context, error: SciStreamError) -> None:
    # Scripts around the deployed client look for the deployed words.
    words = f"{error} ({error.deployed})" if error.deployed else str(error)
    metadata = ((ERROR_METADATA, error.to_wire()),)
    if context.done() or context.cancelled():
        raise asyncio.CancelledError  # Nobody is there to be told.
    try:
        await context.abort(_STATUS[error.entry.status], words, trailing_metadata=metadata)
    except grpc.aio.InternalError:  # The caller went away just now.
        raise asyncio.CancelledError from None


def metadata_text(context: Context, key: str) -> str | None:
    """A text of the call's metadata. What is no text is one that nobody means."""
    value = _metadata(context, key)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def metadata_bytes(context: Context, key: str) -> bytes | None:
    """A value of the call's metadata whose name ends in `-bin`."""
    value = _metadata(context, key)
    return value.encode() if isinstance(value, str) else value


def _metadata(context: Context, key: str) -> str | bytes | None:
    return next((value for name, value in context.invocation_metadata() or () if name == key), None)
