"""How much is held open for callers who have not shown who they are: in all, and for any one host.

gRPC refuses everybody once a number of calls is open. Without a bound of their own, callers without a token could open
as many, and shut everybody else out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final
from urllib.parse import unquote

from scistream.engines.processes import plain_ip
from scistream.errors import Code, SciStreamError

__all__ = ["Places", "host_of_peer", "take_place", "was_recognised"]

# Bits of an IPv6 address that are one site's to choose from.
_OWN_BITS: Final = 64


class Places:
    """So many places at once, and so many for one host. Kept on one event loop.

    Args:
        total: how many there are.
        each: how many one host may have.
        what: what they are for, in the plural and with its verb.
    """

    def __init__(self, total: int, each: int, what: str) -> None:
        self._total = total
        self._each = each
        self._what = what
        self._taken = Counter[str]()
        self._all = 0

    def take(self, host: str) -> Callable[[], None]:
        """Take a place; what is returned gives it back, and does nothing when it is called again.

        Raises:
            SciStreamError: TOO_MANY_CALLS.
        """
        if self._taken[host] >= self._each:
            raise SciStreamError(Code.TOO_MANY_CALLS, limit=self._each, what=f"{self._what} for this host")
        if self._all >= self._total:
            raise SciStreamError(Code.TOO_MANY_CALLS, limit=self._total, what=self._what)
        self._count(host, 1)
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._count(host, -1)

        return give_back

    def _count(self, host: str, change: int) -> None:
        self._all += change
        self._taken[host] += change
        if not self._taken[host]:
            del self._taken[host]


_place: ContextVar[Callable[[], None] | None] = ContextVar("_place", default=None)


def take_place(places: Places, peer: str) -> Callable[[], None]:
    """Take a place for the call that this task answers, until `was_recognised` or until it is given back.

    Raises:
        SciStreamError: TOO_MANY_CALLS.
    """
    give_back = places.take(host_of_peer(peer))
    _place.set(give_back)
    return give_back


def was_recognised() -> None:
    """The caller of this task's call is known, and no stranger any more."""
    if give_back := _place.get():
        give_back()


def host_of_peer(peer: str) -> str:
    """The host of a peer as gRPC names it (`ipv4:192.0.2.7:41000`); of IPv6, the network that one site has."""
    bare = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
    try:
        ip = plain_ip(bare.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.IPv6Network((ip, _OWN_BITS), strict=False))
