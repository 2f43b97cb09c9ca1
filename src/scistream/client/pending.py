"""Calls that are under way: one with one answer, and one that tells and tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import grpc

from scistream.errors import SciStreamError

__all__ = ["Pending", "Watch"]

_Value = TypeVar("_Value")


class Pending(Generic[_Value]):
    """A call that is under way."""

    def __init__(
        self, future: grpc.Future[Any], read: Callable[[Any], _Value], fail: Callable[[grpc.Call], SciStreamError]
    ) -> None:
        self._future = future
        self._read = read
        self._fail = fail
        self._failed: SciStreamError | None = None

    def done(self) -> bool:
        """Whether the answer is there, or the failure."""
        return self._future.done()

    def cancel(self) -> None:
        """Give up waiting; nothing happens where the call is done."""
        self._future.cancel()

    def notify(self, callback: Callable[[], None]) -> None:
        """Call `callback` as soon as the call is done, from another thread."""
        self._future.add_done_callback(lambda _: callback())

    def result(self) -> _Value:
        """Wait for the answer.

        Raises:
            SciStreamError: what the control server says, or why it cannot be talked to.
        """
        try:
            return self._read(self._future.result())
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def failure(self, seconds: float) -> SciStreamError | None:
        """Wait that long at most: the call's failure, or None where it went well, was cancelled or goes on."""
        try:
            self._future.result(seconds)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            return None
        except grpc.RpcError as error:
            return self._translated(error)
        return None

    def _translated(self, error: grpc.RpcError) -> SciStreamError:
        # Once only: it may have to look at the port.
        self._failed = self._failed or self._fail(cast("grpc.Call", error))
        return self._failed


class Watch(Generic[_Value]):
    """A call that tells and tells: iterated, it waits for what comes next.

    It ends where the control server ends it, and after `close`, which any thread may call; also the end of a `with`.
    """

    def __init__(self, stream: Any, read: Callable[[Any], _Value], fail: Callable[[grpc.Call], SciStreamError]) -> None:
        self._stream = stream
        self._read = read
        self._fail = fail
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[_Value]:
        return self

    def __next__(self) -> _Value:
        """Wait for what comes next.

        Raises:
            SciStreamError: what the control server says, or why it cannot be talked to.
        """
        try:
            return self._read(next(self._stream))
        except grpc.RpcError as error:
            if self._closed:
                raise StopIteration from None
            raise self._fail(cast("grpc.Call", error)) from None

    def await_begin(self) -> None:
        """Wait until the control server watches, or has refused to: what happens from then on is told."""
        # Its head comes before the first event, and at the latest with it.
        self._stream.initial_metadata()

    def close(self) -> None:
        """Hear no more; whoever waits for what comes next is let go."""
        self._closed = True
        self._stream.cancel()
