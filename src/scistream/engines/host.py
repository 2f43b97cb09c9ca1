"""What the engines ask of the host they run on: its programs and its bounds."""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["Host", "ask", "find_program"]

# An ordinary user's PATH lacks them on Debian, and proxies live there.
_SYSTEM_DIRECTORIES: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Descriptors, where the host sets no bound: more than any data server here uses.
_MANY_DESCRIPTORS: Final = 1 << 20
_PIPE_PAGES: Final = Path("/proc/sys/fs/pipe-user-pages-soft")
_STATUS: Final = Path("/proc/self/status")
# linux/capability.h: CAP_SETGID and CAP_SETUID; CAP_SYS_ADMIN or CAP_SYS_RESOURCE.
_CHANGE_USER: Final = 1 << 6 | 1 << 7
_UNBOUND_PIPES: Final = 1 << 21 | 1 << 24
_ANSWER_TIMEOUT: Final = 10.0
_MEMORY_SHARE: Final = 8
_MIN_BUFFER: Final = 32 * 1024
_MAX_BUFFER: Final = 512 * 1024


@dataclass(frozen=True)
class Host:
    """The bounds of this host, as far as they shape a configuration.

    Attributes:
        cores: processor cores that this process may use.
        descriptors: open files that one process may have at most.
        pipe_bytes: bytes of pipe buffers that all processes of this user share; None where there is no bound.
        must_stay_root: root who may not change the user (a container without CAP_SETUID).
        memory: bytes of main memory.
    """

    cores: int
    descriptors: int
    pipe_bytes: int | None
    must_stay_root: bool
    memory: int = 16 << 30

    @classmethod
    def here(cls) -> Self:
        """Look at the host."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        capabilities = _capabilities(_STATUS.read_text())
        return cls(
            cores=len(os.sched_getaffinity(0)),
            descriptors=_MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MANY_DESCRIPTORS),
            pipe_bytes=None if capabilities & _UNBOUND_PIPES else _pipe_bytes(_PIPE_PAGES.read_text()),
            must_stay_root=os.geteuid() == 0 and capabilities & _CHANGE_USER != _CHANGE_USER,
            memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )

    def buffer_size(self, connections: int) -> int:
        """Bytes of a buffer of which each of so many connections may fill one: a power of two, 32 KiB to 512 KiB.

        More bytes at once cost less processor time, up to the largest; if all connections have a slow reader, their
        buffers fill no more than an eighth of the memory.
        """
        size = self.memory // _MEMORY_SHARE // connections
        return max(_MIN_BUFFER, min(_MAX_BUFFER, 1 << size.bit_length() - 1))


def _capabilities(status: str) -> int:
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(effective.split()[1], 16)


def _pipe_bytes(pages: str) -> int | None:
    # 0 is the kernel's word for no bound.
    return int(pages) * resource.getpagesize() or None


def find_program(names: Iterable[str]) -> Path | None:
    """The first of the programs that this user can run, also outside the user's PATH."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_DIRECTORIES))
    found = (shutil.which(name, path=path) for name in names)
    return next((Path(program) for program in found if program), None)


def ask(program: Path, *arguments: str) -> str | None:
    """What a program prints, or None where it does not run. It is run once; an upgraded program is asked again."""
    try:
        return _ask(program, arguments, program.stat().st_mtime_ns)
    except (OSError, subprocess.TimeoutExpired):
        return None


@functools.lru_cache(maxsize=32)
def _ask(program: Path, arguments: tuple[str, ...], _changed: int) -> str:
    answer = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_ANSWER_TIMEOUT,
        check=False,
    )
    return answer.stdout.decode(errors="replace")
