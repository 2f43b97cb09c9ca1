"""What was found out about tokens, kept for a moment. The tokens themselves are not kept."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scistream.auth.identities import Identity

__all__ = ["NEGATIVE_SECONDS", "POSITIVE_SECONDS", "Clock", "Verdict", "Verdicts"]

POSITIVE_SECONDS: Final = 30.0
NEGATIVE_SECONDS: Final = 5.0
# Of each kind. Refused ones are counted apart: a flood of made-up tokens must not push out the good ones.
_SIZE: Final = 4096


def _steady() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Clock:
    """`wall` is in seconds since the epoch; `steady` goes on while the host sleeps, and never jumps."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = _steady


@dataclass(frozen=True)
class Verdict:
    """Whose token it is, or why it is refused."""

    identity: Identity | None
    refusal: str = ""


class Verdicts:
    """Keeps verdicts under a digest of their token, and forgets them in time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._good = OrderedDict[bytes, tuple[float, Verdict]]()
        self._bad = OrderedDict[bytes, tuple[float, Verdict]]()

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    def find(self, digest: bytes) -> Verdict | None:
        """The verdict, where it still holds."""
        for kept in (self._good, self._bad):
            until, verdict = kept.get(digest, (0.0, None))
            if verdict is None:
                continue
            if until > self._clock.steady() and not self._has_expired(verdict):
                return verdict
            del kept[digest]
        return None

    def keep(self, digest: bytes, verdict: Verdict, asked: float) -> None:
        """Keep a verdict; `asked` is the steady time at which the question was put."""
        kept, seconds = (self._good, POSITIVE_SECONDS) if verdict.identity else (self._bad, NEGATIVE_SECONDS)
        kept[digest] = (asked + seconds, verdict)
        kept.move_to_end(digest)
        while len(kept) > _SIZE:
            kept.popitem(last=False)

    def _has_expired(self, verdict: Verdict) -> bool:
        expires = verdict.identity.expires if verdict.identity else None
        return expires is not None and expires <= self._clock.wall()
