"""The state directory: one control server's own, held by a lock, with word of who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from scistream.errors import Code, SciStreamError

__all__ = ["Announcement", "StateDirectory", "read_announcement"]

_LOCK: Final = "s2cs.lock"
# A reader of the announcement holds the lock for a moment: tries, and seconds between them.
_TRIES: Final = 10
_PAUSE: Final = 0.05


@dataclass(frozen=True)
class Announcement:
    """What a running control server writes beside its lock, for the commands of its host.

    `certificate` is its certificate as PEM, empty for a plain-text channel: the file may have been replaced since.
    `certificate_name` is a name that it is for. Until the server answers, only the pid is known.
    """

    pid: int
    address: str = ""
    engine: str = ""
    authentication: str = ""
    certificate: str = ""
    certificate_name: str = ""

    @property
    def tls(self) -> bool:
        """Whether the control channel is encrypted."""
        return bool(self.certificate)


class StateDirectory:
    """The directory while it is held.

    Args:
        path: the directory; it is made with mode 0700 where it is not there.
        sleep: waits some seconds.

    Raises:
        SciStreamError: STATE_DIRECTORY_TAKEN, FILE_UNWRITABLE; BAD_CONFIGURATION where others may write into it.
    """

    def __init__(self, path: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_shared(path)
            # Not truncated: it may be another's.
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
        self._take(sleep)
        self.announce(Announcement(os.getpid()))

    def _take(self, sleep: Callable[[float], None]) -> None:
        for _ in range(_TRIES):
            if _locked(self._lock, fcntl.LOCK_EX):
                return
            sleep(_PAUSE)
        holder = _parse(self._lock)
        os.close(self._lock)
        pid = holder.pid if holder else "unknown"
        raise SciStreamError(Code.STATE_DIRECTORY_TAKEN, directory=str(self.path), pid=pid)

    def announce(self, announcement: Announcement) -> None:
        """Say who holds the directory: the pid in the first line, everything in the second."""
        self._write(f"{announcement.pid}\n{json.dumps(asdict(announcement))}\n")

    def _write(self, text: str) -> None:
        # Shortened last, so that a reader never finds less than the whole.
        os.pwrite(self._lock, text.encode(), 0)
        os.ftruncate(self._lock, len(text.encode()))

    def close(self) -> None:
        """Let go of the directory. The file stays: removing it would let two hold different files of one name."""
        self._write("")
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_announcement(path: Path) -> Announcement | None:
    """Who holds a state directory; None where nobody does.

    Raises:
        SciStreamError: FILE_UNWRITABLE where this user may not look; STATE_DIRECTORY_TAKEN where the holder does not
            say who it is.
    """
    try:
        descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SciStreamError(Code.FILE_UNWRITABLE, path=str(path), reason=error.strerror or str(error)) from None
    try:
        for _ in range(_TRIES):
            if _locked(descriptor, fcntl.LOCK_SH):
                return None
            if announcement := _parse(descriptor):
                return announcement
            time.sleep(_PAUSE)
    finally:
        os.close(descriptor)
    raise SciStreamError(Code.STATE_DIRECTORY_TAKEN, directory=str(path), pid="unknown")


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(descriptor: int) -> Announcement | None:
    """None for the moment between taking the lock and saying so."""
    lines = os.pread(descriptor, 1 << 20, 0).split(b"\n")
    try:
        return Announcement(**json.loads(lines[1]))
    except (ValueError, TypeError, IndexError):
        return None


def _refuse_shared(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SciStreamError(
            Code.BAD_CONFIGURATION,
            key="state_directory",
            value=str(path),
            source="the settings",
            reason=f"others may write into it (mode {stat.S_IMODE(mode):04o}); it needs 0700",
        )
