"""What a keeper and those who call it say to each other: one JSON object a line, over a Unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final

from scistream.errors import SciStreamError

__all__ = ["FAILURE", "OPERATION", "REACH", "STATE", "failure_in", "receive", "say", "told"]

OPERATION: Final = "operation"
"""What is asked: REACH or STATE."""
REACH: Final = "reach"
"""To have a socket that leads to a target."""
STATE: Final = "state"
"""Whether the SSH connection is there."""
FAILURE: Final = "failure"
"""The key of an answer that is an error of the catalogue."""
_LONGEST: Final = 64 * 1024


def say(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Send a message.

    Raises:
        OSError: nobody hears it.
    """
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """The messages that come, up to the end of the connection, or one that is none.

    Raises:
        OSError: the connection broke, or its time is over.
    """
    held = b""
    while len(held) < _LONGEST:
        line, found, rest = held.partition(b"\n")
        if found:
            held = rest
            try:
                message = json.loads(line)
            except ValueError:
                return
            yield message
        elif data := connection.recv(_LONGEST):
            held += data
        else:
            return


def told(error: SciStreamError) -> dict[str, str]:
    """An error as an answer."""
    return {FAILURE: error.to_wire().decode()}


def failure_in(answer: Mapping[str, Any]) -> SciStreamError | None:
    """The error that an answer is; None where it is another answer."""
    if FAILURE not in answer:
        return None
    error = SciStreamError.from_wire(str(answer[FAILURE]).encode())
    if error is not None:
        # The keeper is no control server: what it knows, it saw from here.
        error.was_sent = False
    return error
