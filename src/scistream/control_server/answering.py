"""What every call of every service has in common: who calls, what is logged, and how a failure goes over the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import unquote

import grpc
import structlog
from structlog.typing import FilteringBoundLogger

from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA
from scistream.terms import NO_AUTH

__all__ = ["Context", "answering", "metadata_bytes", "metadata_text", "owner_of"]

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
    await context.abort(_STATUS[error.entry.status], words, trailing_metadata=((ERROR_METADATA, error.to_wire()),))


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
