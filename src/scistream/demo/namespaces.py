"""Network namespaces without a name, and the process that keeps them: `python -m scistream.demo.namespaces NAME COUNT`.

A namespace that nobody named is gone with the last process and descriptor that holds it. The keeper holds them, and
its standard input is its life line: when that ends, because its parent is done or was killed, it ends what still runs
in the namespaces (data servers outlive whoever started them), and then itself. A crash leaves nothing.

A named namespace would be a file below /run/netns, and somebody has to take it away.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["ends", "entered", "inside", "main"]

# linux/sched.h
_CLONE_NEWNET: Final = 0x40000000
_LOOK_AGAIN: Final = 0.005
_HERE: Final = Path("/proc/thread-self/ns/net")


@contextlib.contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Take the calling thread into a network namespace, for the time of the context.

    Sockets that are made meanwhile stay in it, processes and threads that are started meanwhile too. Other threads
    stay where they are; `/proc/net` is the main thread's, whoever reads it.

    Raises:
        OSError: there is no such namespace, or this user may not enter it.
    """
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            _call("setns", home, _CLONE_NEWNET)
    finally:
        os.close(home)


def _enter(namespace: Path) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", descriptor, _CLONE_NEWNET)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: int) -> None:
    # Python has both from 3.12 on.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _made() -> int:
    """A descriptor of a new namespace, in which this process then is."""
    _call("unshare", _CLONE_NEWNET)
    return os.open(_HERE, os.O_RDONLY)


def ends(namespaces: Sequence[int], spared: Sequence[int], proc: Path = Path("/proc")) -> None:
    """Kill every process whose main thread is in one of the namespaces, and wait until there is none.

    Args:
        namespaces: descriptors.
        spared: processes that stay.
        proc: where the kernel tells of processes.
    """
    inodes = {os.fstat(descriptor).st_ino for descriptor in namespaces}
    while found := [pid for pid in inside(inodes, proc) if pid not in spared]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_AGAIN)


def inside(inodes: Collection[int], proc: Path = Path("/proc")) -> Iterator[int]:
    """The processes whose main thread is in one of the namespaces, which are told by their inodes."""
    for entry in proc.iterdir():
        # One that has ended, or that is a zombie, is in no namespace.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/net").stat().st_ino in inodes:
                yield int(entry.name)


def main(arguments: Sequence[str]) -> int:
    """Make the namespaces, tell their descriptors in a line, and keep them until standard input ends."""
    # Ctrl-C and the like are the parent's to hear.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    try:
        made = [_made() for _ in range(int(arguments[1]))]
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
        return 1
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{' '.join(map(str, made))}\n".encode())
    while os.read(0, 1):
        pass
    ends(made, (os.getpid(), parent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
