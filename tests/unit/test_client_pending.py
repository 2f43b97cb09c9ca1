from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from scistream.client.pending import Watch
from scistream.errors import Code, SciStreamError

_FAILED = SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server="x", reason="it went away")


class _Lost(grpc.RpcError):
    pass


class _Stream:
    """Stands where gRPC's stream stands: what it gives, and then how it ends."""

    def __init__(self, *messages: int, end: BaseException | None = None) -> None:
        self._messages = iter(messages)
        self._end = end
        self.cancelled = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        for message in self._messages:
            return message
        raise self._end or StopIteration

    def cancel(self) -> None:
        self.cancelled = True


def _watch(stream: _Stream, read: Any = str) -> Watch[Any]:
    return Watch(stream, read, lambda _: _FAILED)


def test_what_comes_is_read_until_the_control_server_ends_it() -> None:
    assert list(_watch(_Stream(1, 2))) == ["1", "2"]


def test_a_connection_that_is_lost_is_an_error_of_the_catalogue() -> None:
    watch = _watch(_Stream(1, end=_Lost()))
    assert next(watch) == "1"
    with pytest.raises(SciStreamError) as caught:
        next(watch)
    assert caught.value is _FAILED


def test_closing_is_no_failure() -> None:
    stream = _Stream(1, end=_Lost())
    with _watch(stream) as watch:
        assert next(watch) == "1"
        watch.close()
        assert list(watch) == []
    assert stream.cancelled


def test_nonsense_is_told_as_what_it_is() -> None:
    def read(_: int) -> str:
        raise _FAILED

    with pytest.raises(SciStreamError):
        next(_watch(_Stream(1), read))
