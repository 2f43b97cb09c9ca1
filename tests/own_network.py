"""A network of its own for each worker of a parallel run: tests have fixed addresses and ports.

    network = OwnNetwork()
    with network.outer(): ...

`python tests/own_network.py` tries it, and ends with 0 where it can be had: as root on Linux, in most containers.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["OwnNetwork", "can_be_had"]

# linux/sched.h, linux/fs.h, linux/sockios.h, linux/if.h.
_NEW_MOUNTS = 0x00020000
_NEW_NETWORK = 0x40000000
_PRIVATE_AND_BELOW = 0x4000 | 1 << 18
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_UP = 1
_REQUEST = "16sH22x"
# Where iproute2 keeps the namespaces that have names.
_NAMED = Path("/run/netns")


class OwnNetwork:
    """Takes this process out of the machine's network into an empty one, whose loopback is up.

    The kernel moves the calling thread, and with it all that it starts afterwards: to be made before there are others.
    Namespaces with names (`ip netns add`) are out of sight of other workers as well, so that two can use one name.

    Raises:
        OSError: the kernel does not permit it.
    """

    def __init__(self) -> None:
        self._outer = _network()
        _call("unshare", _NEW_NETWORK | _NEW_MOUNTS)
        self._own = _network()
        _loopback_up()
        _call("mount", None, b"/", None, ctypes.c_ulong(_PRIVATE_AND_BELOW), None)
        _NAMED.mkdir(exist_ok=True)
        _call("mount", b"tmpfs", bytes(_NAMED), b"tmpfs", ctypes.c_ulong(0), None)

    @contextlib.contextmanager
    def outer(self) -> Iterator[None]:
        """The machine's network meanwhile, for this thread and the processes that it starts."""
        _call("setns", self._outer, _NEW_NETWORK)
        try:
            yield
        finally:
            _call("setns", self._own, _NEW_NETWORK)


@functools.cache
def can_be_had() -> bool:
    """Whether the kernel permits it: tried, by a process that ends with it."""
    if os.geteuid() != 0:
        return False
    return subprocess.run([sys.executable, __file__], check=False, stderr=subprocess.DEVNULL).returncode == 0


def _network() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _call(name: str, *arguments: object) -> None:
    # Python has os.unshare and os.setns since 3.12.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        (_name, flags) = struct.unpack(_REQUEST, fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack(_REQUEST, b"lo", 0)))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags | _UP))


if __name__ == "__main__":
    OwnNetwork()
