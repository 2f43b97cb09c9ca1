"""Leases: how long a session may last, and when its time is over.

A lease is counted on a clock that nobody sets and that also runs while the host sleeps (CLOCK_BOOTTIME), so that
neither a correction of the time of day nor a pause of the machine ends or lengthens one. The time of day is what people
are told, and what counts across a reboot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from scistream.clocks import Clocks
from scistream.control_server.sessions import Session
from scistream.control_server.supervisor import Supervisor
from scistream.errors import Code, SciStreamError

__all__ = ["Lease", "LeaseTerms", "LeaseWatch", "Leases"]

# Seconds after which leases are looked at again, whatever they say: the loop's clock stands still while the host
# sleeps, and the time of day may have been set.
_LOOK: Final = 60.0
# Seconds that the two clocks may drift apart before people are told another end.
_DRIFT: Final = 1.0


@dataclass(frozen=True)
class LeaseTerms:
    """What the operator grants, in seconds, 0 without an end: `default` to who asks for none, `longest` to anybody."""

    default: float = 0.0
    longest: float = 0.0

    def granted(self, asked: float | None) -> float:
        """The length of a lease, 0 without an end.

        Raises:
            SciStreamError: BAD_LEASE.
        """
        if asked is None:
            return min(self.default or self.longest, self.longest or self.default)
        if self.longest and not 0 < asked <= self.longest:
            wanted = f"{asked:g} s" if asked else "no end"
            raise SciStreamError(Code.BAD_LEASE, lease=wanted, reason=f"the longest is {self.longest:g} s here")
        return asked


_CLOCKS: Final = Clocks()
_NO_END: Final = LeaseTerms()


class Lease(NamedTuple):
    """When a session ends, by either clock; None: it does not."""

    lease_expires: float | None = None
    lease_boottime: float | None = None


class Leases:
    """The leases of one control server's sessions."""

    def __init__(self, terms: LeaseTerms = _NO_END, clocks: Clocks = _CLOCKS) -> None:
        self.terms = terms
        self._clocks = clocks

    def grant(self, asked: float | None) -> Lease:
        """A lease from now on.

        Raises:
            SciStreamError: BAD_LEASE.
        """
        seconds = self.terms.granted(asked)
        return Lease(self._clocks.wall() + seconds, self._clocks.boot() + seconds) if seconds else Lease()

    def reckoned(self, session: Session) -> Lease:
        """A session's lease by both clocks as they go now; after a reboot only the time of day is known of it."""
        if session.lease_boottime is not None:
            return Lease(self._clocks.wall() + session.lease_boottime - self._clocks.boot(), session.lease_boottime)
        if session.lease_expires is not None:
            return Lease(session.lease_expires, self._clocks.boot() + session.lease_expires - self._clocks.wall())
        return Lease()

    def is_stale(self, session: Session) -> bool:
        """Whether the time of day was set since people were told a session's end, or the host booted."""
        expires, boottime = self.reckoned(session)
        return boottime != session.lease_boottime or abs((expires or 0) - (session.lease_expires or 0)) > _DRIFT

    def has_ended(self, session: Session) -> bool:
        """Whether a session's time is over."""
        return session.lease_boottime is not None and session.lease_boottime <= self._clocks.boot()

    def left(self, session: Session) -> float:
        """Seconds until a session's time is over, a look's pause where that is far or past."""
        if session.lease_boottime is None or self.has_ended(session):
            return _LOOK
        return min(_LOOK, session.lease_boottime - self._clocks.boot())


class LeaseWatch:
    """Has sessions released when their time is over: one timer for all of them.

    Args:
        leases: what tells their time.
        supervisor: what writes and tells.
        sessions: all there are.
        release: releases one whose time is over still when its turn comes.
    """

    def __init__(
        self,
        leases: Leases,
        supervisor: Supervisor,
        *,
        sessions: Iterable[Session],
        release: Callable[[Session], Coroutine[Any, Any, None]],
    ) -> None:
        self._leases = leases
        self._supervisor = supervisor
        self._sessions = sessions
        self._release = release
        self._timer: asyncio.TimerHandle | None = None

    def note(self, session: Session) -> None:
        """Heed a session whose lease is new or another."""
        if session.lease_boottime is not None:
            self._set(self._leases.left(session))

    def _set(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is None or due < self._timer.when():
            self.close()
            self._timer = loop.call_at(due, self.look)

    def look(self) -> None:
        """Begin to release what is over, and tell another end where the time of day was set."""
        self.close()
        leased = [session for session in self._sessions if session.lease_boottime is not None]
        if leased:
            # What cannot be released is tried again after a minute.
            self._set(min(map(self._leases.left, leased)))
        for session in leased:
            if self._leases.has_ended(session):
                self._supervisor.begin(self._release(session))
            elif self._leases.is_stale(session):
                lease = self._leases.reckoned(session)
                self._supervisor.move(session, session.state, must=True, **lease._asdict())

    def close(self) -> None:
        """Look no more until the next `note`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
