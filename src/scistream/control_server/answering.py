"""What every call of every service has in common: who calls, what is logged, and how a failure goes over the wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import DecodeError
from structlog.typing import FilteringBoundLogger

from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA
from scistream.terms import NO_AUTH

__all__ = ["Context", "Reading", "answering", "metadata_bytes", "metadata_text", "owner_of"]

Context = grpc.aio.ServicerContext[Any, Any]

_STATUS: Final = {status.name: status for status in grpc.StatusCode}


def owner_of(context: Context) -> str:
    """Whose sessions the caller may see and change: with authentication off, everybody's."""
    return NO_AUTH


@contextlib.asynccontextmanager
async def answering(context: Context, log: FilteringBoundLogger, call: str) -> AsyncIterator[None]:
    """The frame of a call: its events carry the caller's address, its failure becomes a status with the error in it."""
    structlog.contextvars.bind_contextvars(peer=unquote(context.peer()))
    try:
        yield
        log.debug("call answered", call=call)
    except SciStreamError as error:
        log.warning("call refused", call=call, code=str(error.code), why=str(error))
        await _abort(context, error)
    except Exception as error:
        log.exception("unforeseen error", call=call)
        await _abort(context, SciStreamError(Code.INTERNAL, words=f"{type(error).__name__}: {error}"))


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


class Reading(grpc.aio.ServerInterceptor):
    """Reads the requests of all calls with one answer; bytes that are no message of ours get words of ours."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See gRPC."""
        found = await continuation(handler_call_details)
        handler: Any = found
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return found
        call = handler_call_details.method.rpartition("/")[2]

        async def answer(data: bytes, context: Context) -> Any:
            try:
                request = handler.request_deserializer(data)
            except DecodeError:
                async with answering(context, self._log, call):
                    raise SciStreamError(Code.BAD_MESSAGE, call=call) from None
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)


def metadata_text(context: Context, key: str) -> str | None:
    """A text of the call's metadata."""
    value = _metadata(context, key)
    return value.decode() if isinstance(value, bytes) else value


def metadata_bytes(context: Context, key: str) -> bytes | None:
    """A value of the call's metadata whose name ends in `-bin`."""
    value = _metadata(context, key)
    return value.encode() if isinstance(value, str) else value


def _metadata(context: Context, key: str) -> str | bytes | None:
    return next((value for name, value in context.invocation_metadata() or () if name == key), None)
