"""The journal as it is kept while a control server runs: what could not be written is told, and made up for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from scistream.control_server.journal import Journal, Record
from scistream.control_server.sessions import Session
from scistream.errors import SciStreamError
from scistream.terms import Direction, SessionState, Uid

__all__ = ["Books"]


class Books:
    """The journal of one control server.

    Args:
        journal: the file.
        unwritten: told of a session that the journal does not know as it is, and why.
    """

    def __init__(self, journal: Journal, unwritten: Callable[[Session, str], None]) -> None:
        self._journal = journal
        self._unwritten = unwritten
        # Released sessions that the journal still has: it could not be written.
        self._stale: set[tuple[Uid, Direction]] = set()

    def write(self, session: Session, *, must: bool) -> None:
        """Bring the journal up to date with a session; one that is released is struck off.

        What `must` be is written with all means, and where they do not help, it happened all the same.

        Raises:
            SciStreamError: JOURNAL_UNREADABLE, STATE_DIRECTORY_FULL.
        """
        if must:
            with self._telling(session):
                self._write(session, self._journal.put_certainly)
        else:
            self._write(session, self._journal.put)

    def announce_release(self, session: Session) -> None:
        """Write that a session is being released, so that no crash brings it back."""
        with self._telling(session):
            record = dataclasses.replace(session.record(), state=SessionState.RELEASED, wanted=False)
            self._journal.put_certainly(record)

    def _write(self, session: Session, put: Callable[[Record], None]) -> None:
        if session.state is SessionState.RELEASED:
            self._stale.add(session.identity)
        else:
            put(session.record())
            self._stale.discard(session.identity)
        with self._telling(session):
            self._strike_off()

    def close(self) -> None:
        """Strike off what could not be before: another session has its ports by the next start."""
        with contextlib.suppress(SciStreamError):
            self._strike_off()

    def _strike_off(self) -> None:
        for identity in list(self._stale):
            self._journal.remove(*identity)
            self._stale.discard(identity)

    @contextlib.contextmanager
    def _telling(self, session: Session) -> Iterator[None]:
        try:
            yield
        except SciStreamError as error:
            self._unwritten(session, str(error))
