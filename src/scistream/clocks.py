"""The two clocks of a host: the time of day, and one that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clocks"]


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Clocks:
    """`wall`: seconds since the epoch; `boot`: seconds since the host's start, which go on while it sleeps."""

    wall: Callable[[], float] = time.time
    boot: Callable[[], float] = _boottime
