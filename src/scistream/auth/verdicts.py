"""What was found out about tokens, kept for a moment. The tokens themselves are not kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from scistream.auth.identities import Identity
from scistream.clocks import Clocks

__all__ = ["NEGATIVE_SECONDS", "POSITIVE_SECONDS", "Verdict", "Verdicts"]

POSITIVE_SECONDS: Final = 30.0
NEGATIVE_SECONDS: Final = 5.0
# Of each kind. Refused ones are counted apart: a flood of made-up tokens must not push out the good ones.
_SIZE: Final = 4096


@dataclass(frozen=True)
class Verdict:
    """Whose token it is, or why it is refused."""

    identity: Identity | None
    refusal: str = ""


class Verdicts:
    """Keeps verdicts under a digest of their token, and forgets them in time."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._good = OrderedDict[bytes, tuple[float, Verdict]]()
        self._bad = OrderedDict[bytes, tuple[float, Verdict]]()
        self._known = OrderedDict[bytes, None]()

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    def find(self, digest: bytes) -> Verdict | None:
        """The verdict, where it still holds."""
        for kept in (self._good, self._bad):
            until, verdict = kept.get(digest, (0.0, None))
            if verdict is None:
                continue
            if until > self._clocks.boot() and not self._has_expired(verdict):
                return verdict
            del kept[digest]
        return None

    def was_good(self, digest: bytes) -> bool:
        """Whether the last answer about a token was that it is good, however long ago."""
        return digest in self._known

    def keep(self, digest: bytes, verdict: Verdict, asked: float) -> None:
        """Keep a verdict; `asked` is the boot clock's time at which the question was put."""
        kept, seconds = (self._good, POSITIVE_SECONDS) if verdict.identity else (self._bad, NEGATIVE_SECONDS)
        kept[digest] = (asked + seconds, verdict)
        kept.move_to_end(digest)
        while len(kept) > _SIZE:
            kept.popitem(last=False)
        self._known.pop(digest, None)
        if verdict.identity:
            self._known[digest] = None
        while len(self._known) > _SIZE:
            self._known.popitem(last=False)

    def _has_expired(self, verdict: Verdict) -> bool:
        expires = verdict.identity.expires if verdict.identity else None
        return expires is not None and expires <= self._clocks.wall()
