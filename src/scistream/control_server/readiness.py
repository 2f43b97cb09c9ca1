"""What the service manager is told: that the control server answers, and that it is about to end (sd_notify(3))."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Final

__all__ = ["NOTIFY_SOCKET", "READY", "STOPPING", "tell_manager"]

NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
"""The environment variable that names the manager's socket; without it, nobody waits for word."""

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def tell_manager(state: str, environment: Mapping[str, str]) -> None:
    """Tell a service manager, where there is one. One that cannot be told waits until its own time is over.

    Args:
        state: `READY` or `STOPPING`.
        environment: this process's; it names the manager's socket.
    """
    address = environment.get(NOTIFY_SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    # An abstract address begins with a null character, which no environment can hold.
    place = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(place)
        channel.send(state.encode())
