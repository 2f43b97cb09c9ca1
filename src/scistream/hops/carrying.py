"""Carries bytes between callers, who connect to a Unix socket, and a target behind SSH: a channel for each."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scistream.addresses import Endpoint
from scistream.errors import SciStreamError
from scistream.hops.places import is_own_peer

if TYPE_CHECKING:
    import paramiko

    from scistream.hops.connecting import Link

__all__ = ["Door", "Use"]

# A channel that was opened to see whether that is possible waits so many seconds for its caller.
_SPARE: Final = 2.0
# Seconds that the SSH host may take to connect to a target that it reached a moment ago.
_OPENING: Final = 20.0
_CHUNK: Final = 64 * 1024
_BACKLOG: Final = 128


class Use:
    """How many use the connection, and since when nobody does."""

    def __init__(self) -> None:
        self.patience = 0.0
        self._count = 0
        self._since = time.monotonic()
        self._changed = threading.Condition()

    def begin(self) -> None:
        """One more."""
        with self._changed:
            self._count += 1

    def end(self) -> None:
        """One less."""
        with self._changed:
            self._count -= 1
            self._since = time.monotonic()
            self._changed.notify_all()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Inside, it is used."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def is_over(self) -> bool:
        """Whether nobody has used it for longer than the last caller wanted it kept."""
        with self._changed:
            return not self._count and time.monotonic() - self._since > self.patience

    def await_end(self, seconds: float) -> None:
        """Wait until nobody uses it, so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, seconds)


class Door:
    """A socket each connection to which becomes a channel to one target."""

    def __init__(self, place: Path, link: Link, target: Endpoint, use: Use) -> None:
        self.place = place
        self._link = link
        self._target = target
        self._use = use
        self._spares: list[tuple[float, paramiko.Channel]] = []
        place.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place))
        place.chmod(0o600)
        self._listener.listen(_BACKLOG)
        threading.Thread(target=self._serve, daemon=True).start()

    def keep_spare(self, channel: paramiko.Channel) -> None:
        """Keep a channel for the caller who comes next: it was opened for that one."""
        self._spares.append((time.monotonic(), channel))

    def drop_spare(self) -> None:
        """Close those that nobody came for."""
        while self._spares and time.monotonic() - self._spares[0][0] > _SPARE:
            with contextlib.suppress(IndexError):
                self._spares.pop(0)[1].close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, connection: socket.socket) -> None:
        with self._use.counted(), connection, contextlib.suppress(SciStreamError, OSError):
            if is_own_peer(connection):
                _Carriage(connection, self._channel()).run()

    def _channel(self) -> paramiko.Channel:
        with contextlib.suppress(IndexError):
            while True:
                _, channel = self._spares.pop()
                if not channel.closed and not channel.eof_received:
                    return channel
        return self._link.open(self._target, _OPENING)


class _Carriage:
    """Carries bytes between a caller and a channel, until one of the two ends."""

    def __init__(self, connection: socket.socket, channel: paramiko.Channel) -> None:
        self._connection = connection
        self._channel = channel

    def run(self) -> None:
        """Carry both ways."""
        up = threading.Thread(target=self._up, daemon=True)
        up.start()
        self._down()
        up.join()

    def _up(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := self._connection.recv(_CHUNK):
                self._channel.sendall(data)
        self._stop()

    def _down(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := self._channel.recv(_CHUNK):
                self._connection.sendall(data)
        self._stop()

    def _stop(self) -> None:
        # gRPC ends a connection as a whole: what one side does not read any more, the other need not send.
        self._channel.close()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
