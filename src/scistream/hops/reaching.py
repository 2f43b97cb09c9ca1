"""The caller's side: find the keeper that holds the SSH connection, or start one, and have it lead to a target."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scistream import __version__
from scistream.addresses import Endpoint
from scistream.errors import Code, SciStreamError
from scistream.hops import messages
from scistream.hops.places import is_own_peer, locked, socket_directory
from scistream.hops.via import Via

__all__ = ["CONFIGURATION_VARIABLE", "DEFAULT_IDLE", "IDLE_VARIABLE", "Hop", "reach"]

CONFIGURATION_VARIABLE: Final = "SCISTREAM_SSH_CONFIG"
"""Names an SSH configuration that is read in place of the user's and the system's, as `ssh -F` does."""
IDLE_VARIABLE: Final = "SCISTREAM_SSH_IDLE"
"""Seconds that an SSH connection is kept without anybody who uses it."""
DEFAULT_IDLE: Final = 60.0
_LONGEST_IDLE: Final = 86400.0
_CONFIGURATION: Final = "~/.ssh/config"
_KEEPER: Final = "scistream.hops.keeper"
# Of ours: tokens and secrets among them, and the keeper needs none.
_OWN_VARIABLES: Final = "SCISTREAM_"
# The keeper ends between two of its callers; the next try starts another.
_TRIES: Final = 3
_BACKLOG: Final = 128
_NOBODY: Final = (FileNotFoundError, ConnectionRefusedError)
# On top of the caller's own time, in which the keeper answers.
_MARGIN: Final = 5.0
# Seconds for Python to start, on a machine that has much to do.
_START: Final = 30.0


class Hop:
    """A way to a target behind SSH, open until `close`; for so long, the SSH connection counts as used."""

    def __init__(self, conversation: socket.socket, answers: Iterator[dict[str, Any]], via: Via) -> None:
        self._conversation = conversation
        self._answers = answers
        self._via = via
        self.path = ""
        self.host_name = via.host

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the way; connections over it go on."""
        self._conversation.close()

    def connect(self, timeout: float) -> socket.socket:
        """A connection to the target, for `timeout` seconds of silence.

        Raises:
            OSError: the keeper is gone.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.settimeout(timeout)
        return connection

    def open(self, request: dict[str, Any]) -> bool:
        """Ask the keeper for the way; False where it ended without a word.

        Raises:
            SciStreamError: why there is no way.
        """
        answer = self._ask(request)
        if answer is None:
            return False
        self.path, self.host_name = str(answer["path"]), str(answer["host_name"])
        return True

    def failure(self) -> SciStreamError | None:
        """Why the SSH connection is lost; None where it is there."""
        try:
            answer = self._ask({messages.OPERATION: messages.STATE})
        except SciStreamError as error:
            return error
        reason = "the process that kept it has ended"
        return None if answer is not None else SciStreamError(Code.SSH_LOST, host=str(self._via), reason=reason)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None where there is none."""
        # Where it has ended, its last words can be read all the same.
        with contextlib.suppress(OSError):
            messages.say(self._conversation, request)
        try:
            answer = next(self._answers, None)
        except TimeoutError:
            raise _late(self._via, self._conversation.gettimeout() or 0.0) from None
        except OSError:
            return None
        if answer is not None and (error := messages.failure_in(answer)):
            raise error
        return answer


def _late(via: Via, seconds: float) -> SciStreamError:
    last = "the process that is to connect does not answer"
    return SciStreamError(Code.SSH_TIMEOUT, host=via.host, seconds=seconds, last=last, command=f"ssh {via}")


def reach(via: Via, target: Endpoint, *, timeout: float) -> Hop:
    """Have a way to `target`, as seen from the SSH host; the SSH connection is made where nobody holds one yet.

    The environment says where the SSH configuration is (SCISTREAM_SSH_CONFIG), and how long an unused connection is
    kept (SCISTREAM_SSH_IDLE).

    Raises:
        SciStreamError: SSH_..., CONTROL_PORT_CLOSED: why SSH fails, or what is behind it; BAD_CONFIGURATION.
    """
    configuration = os.environ.get(CONFIGURATION_VARIABLE) or None
    named = str(Path(configuration).expanduser().absolute()) if configuration else None
    request = {
        messages.OPERATION: messages.REACH,
        "via": str(via),
        "configuration": named,
        "idle": _idle(),
        "target": str(target),
        "timeout": timeout,
    }
    place = socket_directory() / _key(via, named)
    for _ in range(_TRIES):
        hop = Hop(conversation := _conversation(place), messages.receive(conversation), via)
        conversation.settimeout(timeout + _MARGIN)
        try:
            if hop.open(request):
                return hop
        except BaseException:
            hop.close()
            raise
        hop.close()
    raise SciStreamError(Code.SSH_LOST, host=str(via), reason="the process that keeps it ends again and again")


def _idle() -> float:
    text = os.environ.get(IDLE_VARIABLE) or str(DEFAULT_IDLE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_IDLE:
        reason = f"it is a number of seconds from 0 to {_LONGEST_IDLE:g}"
        raise SciStreamError(
            Code.BAD_CONFIGURATION, key=IDLE_VARIABLE, value=text, source="the environment", reason=reason
        )
    return seconds


def _key(via: Via, configuration: str | None) -> str:
    """What two callers have in common that share a connection: where it leads, as whom, and what says so."""
    files = [Path(configuration)] if configuration else [_own_configuration(), Path("/etc/ssh/ssh_config")]
    facts = [
        __version__,
        str(via),
        [_state(file) for file in files],
        [os.environ.get(name) for name in ("HOME", "SSH_AUTH_SOCK")],
        _network(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _own_configuration() -> Path:
    try:
        return Path(_CONFIGURATION).expanduser()
    except RuntimeError:
        reason = "this user has no home directory; name one by HOME in the environment"
        raise SciStreamError(Code.SSH_CONFIGURATION_BAD, path=_CONFIGURATION, reason=reason) from None


def _network() -> str:
    """Which network this process is in: addresses mean something else in another one."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/net").readlink())
    return ""


def _state(path: Path) -> list[Any]:
    try:
        found = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def _conversation(place: Path) -> socket.socket:
    """A connection to the keeper of that place, which is started where there is none."""
    try:
        with contextlib.suppress(*_NOBODY):
            return _connect(place)
        with locked(place.parent):
            # Another caller may have been first.
            with contextlib.suppress(*_NOBODY):
                return _connect(place)
            _start(place)
            return _connect(place)
    except OSError as error:
        reason = f"{place.parent}: {error.strerror or error}"
        raise SciStreamError(Code.SSH_DIRECTORY_UNSAFE, reason=reason) from None


def _connect(place: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(place))
    except OSError:
        connection.close()
        raise
    if not is_own_peer(connection):
        connection.close()
        raise SciStreamError(Code.SSH_DIRECTORY_UNSAFE, reason=f"another user listens at {place}")
    return connection


def _start(place: Path) -> None:
    """Start a keeper; it listens from the first moment on, and gets nothing but its socket."""
    # One that was killed left its own socket, and those that led to its targets.
    _clear(place)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            place.chmod(0o600)
            listener.listen(_BACKLOG)
            _run(listener)
    except BaseException:
        _clear(place)
        raise


def _clear(place: Path) -> None:
    for left in place.parent.glob(f"{place.name}*"):
        left.unlink(missing_ok=True)


def _run(listener: socket.socket) -> None:
    try:
        # Its first process makes the second, and ends: nobody has to wait for the other's end.
        code = subprocess.run(
            # Not what lies in the directory that somebody happens to stand in.
            [sys.executable, "-P", "-m", _KEEPER],
            stdin=listener.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={key: value for key, value in os.environ.items() if not key.startswith(_OWN_VARIABLES)},
            # Ctrl-C is for the caller, and not for the connection that others use.
            start_new_session=True,
            timeout=_START,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        what, last = "the start of the process that keeps SSH connections", "Python starts"
        raise SciStreamError(Code.DEADLINE, what=what, seconds=_START, last=last) from None
    if code:
        words = f"the process that keeps SSH connections ended at once ({sys.executable} -m {_KEEPER}: {code})"
        raise SciStreamError(Code.INTERNAL, words=words)
