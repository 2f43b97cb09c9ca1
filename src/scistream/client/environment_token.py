"""The token in the environment, and the control servers that it goes to.

A control server could use a token at the others that it is good for. So the environment's goes to those that
SCISTREAM_TOKEN_FOR names, and without that to the one control server that a command or a task asks.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

from scistream.addresses import Endpoint
from scistream.errors import Code, SciStreamError
from scistream.terms import DEFAULT_CONTROL_PORT, TOKEN_SERVERS_VARIABLE, TOKEN_VARIABLE

__all__ = ["environment_token", "withheld"]

# More names than these help nobody who reads them.
_NAMED: Final = 5


def environment_token(server: Endpoint, asked: Collection[Endpoint]) -> str | None:
    """The environment's token, where it is for a control server.

    Args:
        server: which one, as `ControlServer.known_as`.
        asked: all that the same command or task asks, that one among them.

    Raises:
        SciStreamError: BAD_CONFIGURATION, of SCISTREAM_TOKEN_FOR.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        return None
    meant = _meant()
    if meant is None:
        meant = set(asked) if len(set(asked)) == 1 else set()
    return token if server in meant else None


def withheld(servers: Collection[Endpoint]) -> str:
    """Why the environment's token was not sent to these, of several that are asked, and what to do.

    Empty where there is none, or where somebody said whom it is for.
    """
    if not servers or not os.environ.get(TOKEN_VARIABLE) or _meant() is not None:
        return ""
    names = [str(server) for server in dict.fromkeys(servers)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"The token in {TOKEN_VARIABLE} was not sent to {', '.join(names[:_NAMED])}{more}: several control servers are "
        "asked, and it may be meant for one of them only. Name those that it is for, HOST:PORT with commas between, in "
        f"{TOKEN_SERVERS_VARIABLE}; or give each its own token (option token; in the inventory scistream_token)."
    )


def _meant() -> set[Endpoint] | None:
    """Those that the variable names; None where nobody set it."""
    text = os.environ.get(TOKEN_SERVERS_VARIABLE)
    if not text:
        return None
    try:
        return {Endpoint.parse(word.strip(), default_port=DEFAULT_CONTROL_PORT) for word in text.split(",")}
    except SciStreamError as error:
        facts = {"key": TOKEN_SERVERS_VARIABLE, "value": text, "source": "the environment", "reason": error.seen}
        raise SciStreamError(Code.BAD_CONFIGURATION, **facts) from None
