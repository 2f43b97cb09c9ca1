"""All sessions of a control server, by uid and direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scistream.control_server.callers import Caller
from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, SessionState, Uid

__all__ = ["Table"]

# File names of the control server itself in the state directory.
_OWN_STEMS: Final = frozenset({"journal", "s2cs"})


class Table:
    """The sessions there are. `is_closed` where no more are taken."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.is_closed = False
        self._supervisor = supervisor
        self._sessions: dict[tuple[Uid, Direction], Session] = {}

    def sessions(self) -> Sequence[Session]:
        """All sessions, in the order of their opening."""
        return sorted(self._sessions.values(), key=lambda session: session.opened)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def there(self, uid: Uid, direction: Direction | None) -> list[Session]:
        """The sessions with a uid, of one direction or of both, whoever they belong to."""
        wanted = (direction,) if direction else tuple(Direction)
        return [self._sessions[uid, each] for each in wanted if (uid, each) in self._sessions]

    def add(self, session: Session) -> None:
        """Take a session in."""
        self._sessions[session.identity] = session

    def __contains__(self, session: object) -> bool:
        return isinstance(session, Session) and self._sessions.get(session.identity) is session

    def require(self, session: Session) -> None:
        """Refuse what is not there any more.

        Raises:
            SciStreamError: UID_UNKNOWN.
        """
        if session not in self:
            raise SciStreamError(Code.UID_UNKNOWN, uid=session.asked.uid)

    def find(self, uid: Uid, direction: Direction | None, caller: Caller) -> Sequence[Session]:
        """The caller's sessions with a uid, of one direction or of both.

        Raises:
            SciStreamError: UID_UNKNOWN where there is none, NOT_OWNER where there are only others'.
        """
        found = self.there(uid, direction)
        if not found:
            raise SciStreamError(Code.UID_UNKNOWN, uid=uid)
        theirs = [session for session in found if caller.may_use(session.asked.owner)]
        if not theirs:
            raise SciStreamError(Code.NOT_OWNER, uid=uid)
        return theirs

    def stem(self, uid: Uid, direction: Direction) -> str:
        """How the names of a new session's files begin."""
        # A uid has no dot in it, so that only the other direction can have the name.
        taken = {session.stem for session in self.there(uid, None)} | _OWN_STEMS
        return f"{uid}.{direction.value}" if uid in taken else uid

    def drop(self, session: Session, why: str) -> None:
        """Forget a session whose data server does not run. Again: nothing."""
        if session in self:
            try:
                # A stream can be stopped with a full disk, too.
                self._supervisor.move(session, SessionState.RELEASED, why=why, must=True, key=None, change=None)
            finally:
                self.strike(session)

    def strike(self, session: Session) -> None:
        """Forget a session, and free its ports; nothing is written or told."""
        del self._sessions[session.identity]
        self.refuse(session, SciStreamError(Code.UID_UNKNOWN, uid=session.asked.uid))
        session.reservation.close()

    def close(self) -> None:
        """Take no more sessions, and fail the requests that wait."""
        self.is_closed = True
        for session in self.sessions():
            self.refuse(session, SciStreamError(Code.CONTROL_SERVER_ENDING))

    @staticmethod
    def refuse(session: Session, error: SciStreamError) -> None:
        """Fail the `req` that waits, if one does."""
        if session.registered is not None and not session.registered.done():
            session.registered.set_exception(error)
            # Retrieved once here: a request whose caller went away reads it no more.
            session.registered.exception()
