"""When a data server that ended by itself is started again: at once, then ever more rarely while it does not last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["Backoff", "announce"]

# Seconds.
_FIRST: Final = 1.0
_LONGEST: Final = 60.0
# Who lived that long is sound: whatever ended it is new.
_SOUND: Final = 60.0
# 2 to this power is more than the longest pause, and never too large a number.
_MOST: Final = 6


class Backoff:
    """The pauses before the starts of one data server.

    Attributes:
        pause: seconds until the next start.
    """

    def __init__(self) -> None:
        self.pause = 0.0
        self._ends = 0

    def count(self, lived: float) -> None:
        """Note an end, after `lived` seconds; 0 of a data server that did not come up."""
        if lived >= _SOUND:
            self._ends = 0
        self.pause = min(_LONGEST, _FIRST * 2 ** min(self._ends - 1, _MOST)) if self._ends else 0.0
        self._ends += 1


def announce(words: str, at: float) -> str:
    """What went wrong, and when the next start is; `at` is in seconds since the epoch."""
    return f"{words} (it is started again at {datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC)"
