"""What a data server carried, in figures."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple

__all__ = ["Count", "Peer", "Traffic"]

Peer = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
"""The address and the port of a connection's other end."""


@dataclass(frozen=True)
class Traffic:
    """What a data server has carried since it started: connections, application bytes, peers that were turned away.

    `+` adds field by field; `since` never falls below an earlier figure, except for the open connections.
    """

    connections_open: int = 0
    connections_total: int = 0
    bytes_to_targets: int = 0
    bytes_from_targets: int = 0
    refused_peers: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(mine + others for mine, others in zip(astuple(self), astuple(other), strict=True)))

    def since(self, earlier: Traffic) -> Traffic:
        """The same, where it is not less than what was told before: a reader takes a smaller figure for a new start."""
        pairs = zip(astuple(self), astuple(earlier), strict=True)
        return replace(Traffic(*itertools.starmap(max, pairs)), connections_open=self.connections_open)


class Count(NamedTuple):
    """What a line of a data server's files tells: what it adds, and by its addresses the connection that it ends."""

    traffic: Traffic
    ended: Sequence[Peer] = ()
