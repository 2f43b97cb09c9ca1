"""What the kernel's queues have let through, as `tc -s class show` counts it.

Whether a session is held to its rate is told by its queue: which rate that has, that the bytes went through it, and
that they had to wait there. How exactly a rate is kept is a matter of time, and the benchmarks'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Queue", "read_queues"]

_CLASS = re.compile(
    r"^class htb (?P<handle>\S+) .*? rate (?P<rate>\d+)(?P<unit>[KMG]?)bit .*\n"
    r" Sent (?P<sent>\d+) bytes .*overlimits (?P<waits>\d+) ",
    re.MULTILINE,
)
_KILOBITS = {"": 0.001, "K": 1, "M": 1000, "G": 1_000_000}


@dataclass(frozen=True)
class Queue:
    """A class of HTB: its rate in kb/s, the bytes that it let through, and how often something had to wait for it."""

    rate: float
    sent: int
    waits: int

    def holds(self, rate: int, size: int) -> bool:
        """Whether it is one for that rate (TCP's headers come on top), which so many bytes have passed, and waited."""
        return rate <= self.rate <= 1.01 * rate and self.sent >= size and self.waits > 0


def read_queues(told: str) -> dict[str, Queue]:
    """The queues by their handles."""
    return {
        found["handle"]: Queue(int(found["rate"]) * _KILOBITS[found["unit"]], int(found["sent"]), int(found["waits"]))
        for found in _CLASS.finditer(told)
    }
