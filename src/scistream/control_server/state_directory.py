"""The state directory: one control server's own, held by a lock, with word of who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from scistream.addresses import Endpoint
from scistream.control_server.ballast import Ballast
from scistream.control_server.private_files import open_private, prepare_directory
from scistream.errors import Code, SciStreamError

__all__ = ["Announcement", "StateDirectory", "Traces", "has_traces", "log_of", "read_announcement"]

_LOCK: Final = "s2cs.lock"
_BALLAST: Final = "journal.ballast"
# A reader of the announcement holds the lock for a moment: tries, and seconds between them.
_TRIES: Final = 10
_PAUSE: Final = 0.05
# Linux gives no larger ones (PID_MAX_LIMIT).
_LARGEST_PID: Final = 1 << 22


@dataclass(frozen=True)
class Announcement:
    """What a running control server writes beside its lock, for the commands of its host.

    `certificate` is its certificate as PEM, empty for a plain-text channel: the file may have been replaced since.
    `certificate_name` is a name that it is for. `settings` is the digest of what it was told. `host_secret` is the
    token of this host's operator, empty where none is needed. Until the server answers, only the pid is known.
    """

    pid: int
    address: str = ""
    engine: str = ""
    authentication: str = ""
    certificate: str = ""
    certificate_name: str = ""
    settings: str = ""
    host_secret: str = field(default="", repr=False)

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
        SciStreamError: STATE_DIRECTORY_TAKEN, STATE_DIRECTORY_FULL, FILE_UNWRITABLE; BAD_CONFIGURATION where others may
            write into it.
    """

    def __init__(self, path: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        self._lock = self._take(sleep)
        self.announce(Announcement(os.getpid()))

    def _take(self, sleep: Callable[[float], None]) -> int:
        holder = None
        for _ in range(_TRIES):
            prepare_directory(self.path)
            # Not truncated: it may be another's.
            lock = _open_lock(self.path, os.O_RDWR | os.O_CREAT)
            # A start that failed may have removed it in between.
            if _locked(lock, fcntl.LOCK_EX) and _is_at(lock, self.path / _LOCK):
                # A secret will stand in it; a file that was there may have been open to others.
                os.fchmod(lock, 0o600)
                return lock
            holder = _parse(lock)
            os.close(lock)
            sleep(_PAUSE)
        pid = holder.pid if holder else "unknown"
        raise SciStreamError(Code.STATE_DIRECTORY_TAKEN, directory=str(self.path), pid=pid)

    def announce(self, announcement: Announcement) -> None:
        """Say who holds the directory: the pid in the first line, everything in the second."""
        self._write(f"{announcement.pid}\n{json.dumps(asdict(announcement))}\n")

    def _write(self, text: str) -> None:
        try:
            self._overwrite(text.encode())
        except OSError as error:
            # What is kept for the journal serves here too: it is taken again when that is open.
            if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not Ballast(self.path / _BALLAST).free():
                raise self._full(error) from None
            self._overwrite(text.encode())

    def _overwrite(self, data: bytes) -> None:
        # Shortened last, so that a reader never finds less than the whole.
        os.pwrite(self._lock, data, 0)
        os.ftruncate(self._lock, len(data))

    def _full(self, error: OSError) -> SciStreamError:
        reason = error.strerror or str(error)
        return SciStreamError(Code.STATE_DIRECTORY_FULL, directory=str(self.path), reason=reason)

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
        SciStreamError: FILE_UNREADABLE where this user may not look; STATE_DIRECTORY_TAKEN where the holder does not
            say who it is.
    """
    try:
        descriptor = _open_lock(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
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


def has_traces(path: Path) -> bool:
    """Whether a control server ever held a directory, as far as this user may look."""
    try:
        return (path / _LOCK).exists()
    except OSError:
        return False


def log_of(path: Path) -> Path:
    """Where a control server in the background writes."""
    return path / "s2cs.log"


class Traces:
    """What a start makes of a state directory that was not there, for the case that it fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._missing = [each for each in (path, *path.parents) if not each.exists()]

    def remove(self) -> None:
        """Remove lock, log and directory, unless somebody holds it or there is more in it by now."""
        if not self._missing or not self._path.is_dir():
            return
        # What stays is no harm, and must not hide why the start failed.
        with contextlib.suppress(OSError, SciStreamError):
            lock = _open_lock(self._path, os.O_RDWR | os.O_CREAT)
            try:
                self._remove_files(lock)
            finally:
                os.close(lock)
            for each in self._missing:
                each.rmdir()

    def _remove_files(self, lock: int) -> None:
        own = {self._path / _LOCK, log_of(self._path)}
        if _locked(lock, fcntl.LOCK_EX) and own.issuperset(self._path.iterdir()):
            for each in own:
                each.unlink(missing_ok=True)


def _open_lock(path: Path, flags: int) -> int:
    """Raises FileNotFoundError and NotADirectoryError as they are."""
    try:
        return open_private(path / _LOCK, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        reason, code = error.strerror or str(error), Code.FILE_UNWRITABLE if flags else Code.FILE_UNREADABLE
        raise SciStreamError(code, path=str(path / _LOCK), reason=reason) from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(descriptor: int) -> Announcement | None:
    """None for the moment between taking the lock and saying so, and where it says what no control server does.

    Root reads what another user wrote.
    """
    lines = os.pread(descriptor, 1 << 20, 0).split(b"\n")
    try:
        said = Announcement(**json.loads(lines[1]))
        return said if _is_sound(said) else None
    except (ValueError, TypeError, IndexError, RecursionError, SciStreamError):
        return None


def _is_sound(said: Announcement) -> bool:
    """Whether each fact is of its kind: a number that a process can have, an address, and text that can be shown.

    Raises:
        SciStreamError: the address is none.
    """
    facts = asdict(said)
    pid, words = facts.pop("pid"), facts.values()
    if type(pid) is not int or not 0 < pid <= _LARGEST_PID or not all(isinstance(word, str) for word in words):
        return False
    if said.address:
        Endpoint.parse(said.address)
    # It is sent as metadata of a call.
    return said.host_secret.isascii() and all(line.isprintable() for word in words for line in word.split("\n"))
