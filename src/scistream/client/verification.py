"""Whether a stream's entry points lead somewhere, as far as a connection that says nothing can tell (U52).

A gateway accepts before it connects to the target, so that a connection was accepted says little. One whose path is
broken is closed as soon as a gateway has found that out, which takes an engine up to 20 s where the target is silent.
One that stays open for a shorter time proves nothing: its gateway may still be trying. Only a byte is a proof.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from scistream.addresses import Endpoint
from scistream.errors import Code, SciStreamError

__all__ = ["SPOKEN", "spell_open", "try_entry_points"]

SPOKEN: Final = "accepted, and a byte came from the target"

# Seconds. HAProxy tries a target that refuses three times more, a second apart, before it closes.
_PATIENCE: Final = 5.0


def spell_open(seconds: float) -> str:
    """What is known of a connection that said nothing and stayed open so long."""
    return f"accepted, and not closed within {seconds:g} s; whether the target has it is not known"


def try_entry_points(entry_points: Iterable[str], patience: float = _PATIENCE) -> dict[str, str]:
    """Connect to each entry point, all at once, and wait whether it is closed.

    Args:
        entry_points: addresses as text.
        patience: seconds that a connection has to stay open.

    Returns:
        What each was found to do: SPOKEN, or the words of `spell_open`.

    Raises:
        SciStreamError: PATH_BROKEN.
    """
    return asyncio.run(_try_all([Endpoint.parse(entry_point) for entry_point in entry_points], patience))


async def _try_all(entry_points: list[Endpoint], patience: float) -> dict[str, str]:
    found = await asyncio.gather(*(_try(entry_point, patience) for entry_point in entry_points))
    return {str(entry_point): words for entry_point, words in zip(entry_points, found, strict=True)}


async def _try(entry_point: Endpoint, patience: float) -> str:
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(entry_point.host, entry_point.port)
    except TimeoutError:
        raise _broken(entry_point, f"not accepted within {patience:g} s") from None
    except OSError as error:
        raise _broken(entry_point, f"not accepted ({error.strerror or error})") from None
    try:
        return await _listen(reader, entry_point, patience)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _listen(reader: asyncio.StreamReader, entry_point: Endpoint, patience: float) -> str:
    try:
        async with asyncio.timeout(patience):
            byte = await reader.read(1)
    except TimeoutError:
        return spell_open(patience)
    except OSError as error:
        raise _broken(entry_point, f"accepted and reset ({error.strerror or error})") from None
    if not byte:
        raise _broken(entry_point, "accepted and closed without a byte")
    return SPOKEN


def _broken(entry_point: Endpoint, ending: str) -> SciStreamError:
    return SciStreamError(Code.PATH_BROKEN, entry_point=str(entry_point), ending=ending)
