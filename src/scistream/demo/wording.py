"""How far a stream has come, in a line of text, and not too many lines of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from scistream.demo.traffic import Progress

__all__ = ["Narrator", "progress_line", "size"]

_WIDTH: Final = 30
_SECONDS: Final = 10.0
# The end follows at once, and is told by whoever knows it.
_NEARLY: Final = 0.95
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def size(number: float) -> str:
    """Bytes as people say them, in powers of 1000, as rates are."""
    for unit in _UNITS[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.2f} {unit}"
        number /= 1000
    return f"{number:.2f} {_UNITS[-1]}"


def progress_line(progress: Progress) -> str:
    """A bar, the share, the bytes and the rate."""
    full = int(progress.share * _WIDTH)
    bar = "█" * full + "░" * (_WIDTH - full)
    amount = f"{size(progress.bytes)} of {size(progress.total)}"
    return f"{bar} {progress.share:4.0%}  {amount:>22}  {progress.gbps:6.2f} Gb/s"


class Narrator:
    """Tells of every tenth but the last, and of every ten seconds where a tenth takes longer."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._tenths = 0
        self._told = clock()

    def hear(self, progress: Progress) -> None:
        """Tell of it where it is time."""
        now = self._clock()
        tenths = int(progress.share * 10)
        is_step = tenths > self._tenths and progress.share < _NEARLY
        if not is_step and now - self._told < _SECONDS:
            return
        self._told = now
        self._tenths = tenths
        self._tell(progress_line(progress))
