"""What tells one data server from all others."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ProcessMark"]


@dataclass(frozen=True)
class ProcessMark:
    """One data server for certain.

    A process by its pid and its start in clock ticks since the host's (proc(5), stat, field 22). Of an engine in the
    kernel, its rules by their number and by what tells one making of them from the next.
    """

    pid: int
    started: int
