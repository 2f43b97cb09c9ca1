"""What stands before the calls of all services: who gets in, and how their requests are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from scistream.control_server.admission import Places, take_place
from scistream.control_server.answering import Calls, Context
from scistream.errors import Code, SciStreamError

__all__ = ["Reading"]

# Streams that need no token: a host's monitoring needs one or two.
_OPEN_STREAMS: Final = (64, 8)
# Calls whose request or whose caller is not known yet. A client may well begin a thousand at once, and a token that is
# asked about the first time keeps them all waiting. Together they are half of what gRPC takes.
_WAITING: Final = (8192, 2048)
# Seconds that a request may take to come: it is one small message.
_PATIENCE: Final = 10.0
# Services of gRPC's own, which need no token.
_OPEN: Final = "/grpc."

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Answer = Callable[[Any, Context], Awaitable[Any]]
_Messages = AsyncIterator[bytes]


class Reading(grpc.aio.ServerInterceptor):
    """Bounds what strangers hold open, and reads the requests; bytes that are no message of ours get words of ours.

    A call gets its place before its request is there: who sends none could otherwise hold any number of calls open.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._streams = Places(*_OPEN_STREAMS, "streams that need no token are open")
        self._waiting = Places(*_WAITING, "calls wait whose callers are not known")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """See gRPC."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        name, is_open = method.rpartition("/")[2], method.startswith(_OPEN)
        if handler.request_streaming:
            return self._reflection(name, handler)
        if handler.response_streaming:
            places = self._streams if is_open else self._waiting
            answer = self._reading(name, handler.unary_stream, handler.request_deserializer, places)
            return grpc.stream_stream_rpc_method_handler(answer, None, _serializer(handler))
        answer = self._reading(name, handler.unary_unary, handler.request_deserializer, self._waiting)
        return grpc.stream_unary_rpc_method_handler(answer, None, _serializer(handler))

    def _reading(self, name: str, method: _Answer, read: Callable[[bytes], Any], places: Places) -> Any:
        # Given as one that takes a stream of requests, it is called before the first one is there.
        async def answer(messages: _Messages, context: Context) -> Any:
            try:
                give_back = take_place(places, context.peer())
            except SciStreamError as error:
                return await self._calls.refuse(context, name, error)
            try:
                return await method(await self._request(name, read, messages, context), context)
            finally:
                give_back()

        return answer

    async def _request(self, name: str, read: Callable[[bytes], Any], messages: _Messages, context: Context) -> Any:
        try:
            message = await _first(messages)
        except (TimeoutError, StopAsyncIteration):
            await self._calls.refuse(context, name, SciStreamError(Code.BAD_MESSAGE, call=name))
        try:
            return read(message)
        except DecodeError:
            # Whose token is not good learns nothing else (U11).
            async with self._calls.answering(context, name):
                raise SciStreamError(Code.BAD_MESSAGE, call=name) from None

    def _reflection(self, name: str, handler: Any) -> _Handler:
        async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            try:
                give_back = take_place(self._streams, context.peer())
            except SciStreamError as error:
                await self._calls.refuse(context, name, error)
                return
            try:
                async for reply in handler.stream_stream(requests, context):
                    yield reply
            finally:
                give_back()

        return grpc.stream_stream_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


async def _first(messages: _Messages) -> bytes:
    async with asyncio.timeout(_PATIENCE):
        return await anext(aiter(messages))


def _serializer(handler: Any) -> Callable[[Any], bytes]:
    """As the handler's own; what is bytes already was serialised once for many."""

    def serialize(message: Any) -> bytes:
        return message if isinstance(message, bytes) else bytes(handler.response_serializer(message))

    return serialize
