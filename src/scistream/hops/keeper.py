"""The keeper: a process that holds one SSH connection for its user's calls. `reaching` starts it; it ends by itself.

It listens on a Unix socket that it is given as its standard input. A caller says where it wants to go; it is answered
with another socket, each connection to which becomes a channel to the target. Nothing is on the command line, and
nothing that goes over the channels is looked at: TLS is between the caller and the control server.

It ends when nobody has used it for a while, and when the SSH connection does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import socket
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scistream.addresses import Endpoint
from scistream.errors import Code, SciStreamError
from scistream.hops import messages
from scistream.hops.carrying import Door, Use
from scistream.hops.places import is_own_peer, locked
from scistream.hops.via import Via

if TYPE_CHECKING:
    from scistream.hops.connecting import Link

__all__ = ["Keeper", "main"]

# Seconds between two looks whether it is still wanted.
_TICK: Final = 0.25
# Until the end of a connection is known that broke a moment ago.
_SETTLING: Final = 0.3
_LAST_ANSWERS: Final = 2.0
_DIGITS: Final = 12


class Keeper:
    """Holds the connection.

    Args:
        listener: where callers come; its file is removed at the end.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._place = Path(listener.getsockname())
        self._linking = threading.Lock()
        self._link: Link | None = None
        self._failure: SciStreamError | None = None
        self._use = Use()
        self._doors: dict[Endpoint, Door] = {}

    def run(self) -> None:
        """Serve until it is not wanted any more, or the connection is gone."""
        self._listener.settimeout(_TICK)
        while self._goes_on():
            # Nobody came for a while, or the way in was closed.
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self._start(connection)
        if self._failure is not None:
            self._use.await_end(_LAST_ANSWERS)
        if self._link:
            self._link.close()

    def _start(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        if not is_own_peer(connection):
            connection.close()
            return
        # From here on it is used: not only when the thread comes to run.
        self._use.begin()
        threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _goes_on(self) -> bool:
        if self._failure is not None:
            return False
        if self._link and not self._link.is_there():
            self._give_up(self._link.lost())
            return False
        for door in list(self._doors.values()):
            door.drop_spare()
        return not self._use.is_over() or self._has_late_caller()

    def _has_late_caller(self) -> bool:
        """Whether somebody came after all; where not, nobody can come any more."""
        # Where the directory itself went away, nobody comes.
        with contextlib.suppress(OSError), locked(self._place.parent):
            self._listener.setblocking(False)
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                self._close()
                return False
            self._listener.settimeout(_TICK)
            self._start(connection)
            return True
        return False

    def _give_up(self, error: SciStreamError) -> None:
        """Let nobody in any more: the next caller is to try anew, and those who are here are told why."""
        with contextlib.suppress(OSError), locked(self._place.parent):
            if self._failure is None:
                self._failure = error
                self._close()
        self._failure = self._failure or error

    def _close(self) -> None:
        for path in (self._place, *(door.place for door in self._doors.values())):
            with contextlib.suppress(OSError):
                path.unlink()
        # From any thread: who waits at the door sees the end of it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                for request in messages.receive(connection):
                    answer = self._answer(request)
                    if answer is not None:
                        messages.say(connection, answer)
                    if self._failure is not None:
                        return
        finally:
            self._use.end()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """What is answered; None where the caller is to try with another keeper."""
        asks_for_state = request.get(messages.OPERATION) == messages.STATE
        try:
            return self._state() if asks_for_state else self._reach(request)
        except SciStreamError as error:
            if error.code is not Code.SSH_LOST or asks_for_state:
                return messages.told(error)
            # It broke before this caller came, who has lost nothing by that.
            self._give_up(error)
            return None
        except Exception as error:
            # It is told to the caller: there is nobody else here.
            words = f"{type(error).__name__}: {error}"
            failure = SciStreamError(Code.INTERNAL, words=f"in the process that keeps SSH connections: {words}")
            self._give_up(failure)
            return messages.told(failure)

    def _state(self) -> dict[str, Any]:
        if self._link and not self._link.is_there(_SETTLING):
            raise self._link.lost()
        return {}

    def _reach(self, request: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + float(request["timeout"])
        self._use.patience = float(request["idle"])
        link = self._linked(request)
        target = Endpoint.parse(str(request["target"]))
        channel = link.open(target, max(deadline - time.monotonic(), _TICK))
        door = self._door(link, target)
        door.keep_spare(channel)
        return {"path": str(door.place), "host_name": link.settings.host}

    def _linked(self, request: dict[str, Any]) -> Link:
        """The connection; the first who asks has it made, and the others wait for that."""
        with self._linking:
            if self._failure is not None:
                raise self._failure
            if self._link is None:
                _spare("invoke")
                # Late: its import takes longer than a caller's look whether there is a keeper.
                from scistream.hops.configuration import Configuration  # noqa: PLC0415
                from scistream.hops.connecting import connect  # noqa: PLC0415

                named = request["configuration"]
                configuration = Configuration(Path(named) if named else None)
                try:
                    self._link = connect(Via.parse(request["via"]), configuration, float(request["timeout"]))
                except SciStreamError as error:
                    self._give_up(error)
                    raise
            return self._link

    def _door(self, link: Link, target: Endpoint) -> Door:
        with self._linking:
            if target not in self._doors:
                # Of the target, not a number: gRPC comes again, and may find the next keeper.
                digest = hashlib.sha256(str(target).encode()).hexdigest()[:_DIGITS]
                place = self._place.with_name(f"{self._place.name}.{digest}")
                try:
                    self._doors[target] = Door(place, link, target, self._use)
                except OSError as error:
                    # The disk is full, say: the connection is there, and others use it.
                    reason = f"{place.parent}: {error.strerror or error}"
                    raise SciStreamError(Code.SSH_DIRECTORY_UNSAFE, reason=reason) from None
            return self._doors[target]


class _Late(types.ModuleType):
    """Stands for a module until somebody uses it. What the standard library has for that is loaded by an import."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _spare(name: str) -> None:
    """Have a module loaded when somebody uses it, and not when somebody imports it.

    Paramiko imports invoke for `Match exec` in an SSH configuration alone, and it is a fourth of this process.
    """
    if name not in sys.modules and importlib.util.find_spec(name):
        sys.modules[name] = _Late(name)


def main() -> None:
    """The process: it goes into the background, and serves."""
    listener = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Who started it waits for this one, and no more for its child.
    if os.fork():
        os._exit(0)
    Keeper(listener).run()
    # Threads of callers that are gone hold nothing.
    os._exit(0)


if __name__ == "__main__":
    main()
