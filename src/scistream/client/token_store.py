"""The tokens that a user logged in for: one file under their configuration directory, theirs alone (U18)."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scistream import atomic_files
from scistream.errors import Code, SciStreamError
from scistream.places import configuration_directory

__all__ = ["StoredToken", "TokenStore", "default_token_store"]

_VERSION: Final = 1
_LIMIT: Final = 1 << 20
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
# Who holds the lock asks the provider for some seconds at most.
_LOCK_SECONDS: Final = 30.0
_PAUSE: Final = 0.05
# What `tempfile` adds to the name of a file that is not in its place yet.
_TEMPORARY: Final = "????????"


@dataclass(frozen=True)
class StoredToken:
    """A login: what it is for, whom it came from, and by whose name (`client_id`) it can be refreshed.

    `refresh_token` is empty where there is none; `expires` is in seconds since the epoch, None where it is not known.
    `servers` are the control servers ("HOST:PORT") that it was named for, and goes to without being named again.
    """

    scope: str
    provider: str
    client_id: str
    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires: float | None = None
    servers: tuple[str, ...] = ()

    def lasts(self, until: float) -> bool:
        """Whether it is good at a time, as far as this host knows."""
        return self.expires is None or self.expires > until


def default_token_store() -> Path:
    """Where a user's tokens lie, `tokens.json` beside their other files of SciStream."""
    return configuration_directory() / "tokens.json"


class TokenStore:
    """The file, read and written whole.

    Args:
        path: the file; its directory is made with mode 0700 where it is not there.
        sleep: waits some seconds for another program that holds the lock.
    """

    def __init__(self, path: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        self._sleep = sleep

    def read(self) -> dict[str, StoredToken]:
        """The tokens by their scope; none where there is no file.

        Raises:
            SciStreamError: BAD_TOKEN_STORE, also where it is not this user's alone.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # Also where this user has no home of their own: a batch job's, a service's.
            return {}
        except OSError as error:
            raise self._bad(error.strerror or str(error)) from None
        with os.fdopen(descriptor, "rb") as file:
            self._check(os.fstat(file.fileno()))
            return self._parse(file.read(_LIMIT))

    def write(self, tokens: Mapping[str, StoredToken]) -> None:
        """Put these in place of what is there; inside `locked`.

        Raises:
            SciStreamError: FILE_UNWRITABLE.
        """
        if not tokens:
            self.remove()
            return
        self._sweep()
        body = {"version": _VERSION, "tokens": [dataclasses.asdict(token) for token in tokens.values()]}
        atomic_files.write(self.path, (json.dumps(body, indent=2) + "\n").encode())

    def remove(self) -> None:
        """Remove the file, and what a write that was killed left of it; inside `locked`.

        Raises:
            SciStreamError: FILE_UNWRITABLE.
        """
        self._sweep()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _sweep(self) -> None:
        """Remove the temporary files of writes that were killed: there are tokens in them."""
        try:
            for left in self.path.parent.glob(f".{self.path.name}.{_TEMPORARY}"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other program changes the file.

        Raises:
            SciStreamError: BAD_TOKEN_STORE, FILE_UNWRITABLE.
        """
        self._prepare()
        try:
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._take(lock)
            yield
        finally:
            os.close(lock)

    def _prepare(self) -> None:
        directory = self.path.parent
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
            found = directory.stat()
        except OSError as error:
            raise self._unwritable(error) from None
        if found.st_mode & _OTHERS_WRITE:
            raise self._bad(f"others can write into its directory; close it: chmod 700 {directory}")

    def _take(self, lock: int) -> None:
        for _ in range(int(_LOCK_SECONDS / _PAUSE)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._sleep(_PAUSE)
            else:
                return
        raise self._bad(f"another program has held it for {_LOCK_SECONDS:g} s")

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self._bad("it is not a regular file")
        if found.st_uid != os.geteuid():
            raise self._bad(f"it belongs to the user with id {found.st_uid}, and this is {os.geteuid()}")
        mode = stat.S_IMODE(found.st_mode)
        if mode & _OTHERS:
            raise self._bad(f"it is not for its owner alone (mode {mode:04o}), and its tokens may be known to others")

    def _parse(self, content: bytes) -> dict[str, StoredToken]:
        try:
            body = json.loads(content)
            if body["version"] != _VERSION:
                raise self._bad(f"it is of version {body['version']}, and this reads version {_VERSION}")
            tokens = [_token(entry) for entry in body["tokens"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._bad("it is damaged") from None
        return {token.scope: token for token in tokens}

    def _bad(self, reason: str) -> SciStreamError:
        return SciStreamError(Code.BAD_TOKEN_STORE, path=str(self.path), reason=reason)

    def _unwritable(self, error: OSError) -> SciStreamError:
        return SciStreamError(Code.FILE_UNWRITABLE, path=str(self.path), reason=error.strerror or str(error))


def _token(entry: Mapping[str, Any]) -> StoredToken:
    servers = entry.get("servers", [])
    token = StoredToken(**{**entry, "servers": tuple(servers)})
    texts = (token.scope, token.provider, token.client_id, token.access_token, token.refresh_token, *token.servers)
    if not isinstance(servers, list):
        raise TypeError
    if not all(isinstance(text, str) for text in texts) or not isinstance(token.expires, int | float | None):
        raise TypeError
    return token
