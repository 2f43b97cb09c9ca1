"""Where the demo's two facilities are: on this machine's own loopback addresses, or on hosts of their own.

Most engines are processes, and loopback shows all of it, to anybody. nftables forwards between hosts: on loopback, one
connection would have to be translated twice within one network stack. Its demo gets the four hosts of `network`.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scistream.demo.namespaces import inside
from scistream.demo.network import Host, Network
from scistream.demo.remains import Remains, look
from scistream.errors import Code, SciStreamError

__all__ = ["NAMESPACES", "Hosts", "Site", "await_keepers", "site_for"]

# Name of the environment variable that hands the hosts' namespaces on, from the application to the target.
NAMESPACES: Final = "SCISTREAM_DEMO_NAMESPACES"
# Seconds that the keeper of a killed demo's network gets to end what runs there.
_ENDING: Final = 20.0
_LOOK_AGAIN: Final = 0.05


class Site:
    """The loopback addresses of this machine, while the context lasts.

    Attributes:
        inventories: what tells Ansible of the two gateways; the later one wins.
    """

    inventories: tuple[str, ...] = ("inventory/local",)
    # What is to be said when it is gone.
    farewell = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the inventories and the playbooks read."""
        return {NAMESPACES: ""}

    def require_free(self, state: Path) -> None:
        """Refuse to begin where somebody has the demo's addresses.

        Raises:
            SciStreamError: DEMO_PORTS_IN_USE.
        """
        if taken := look(state).ports:
            raise SciStreamError(Code.DEMO_PORTS_IN_USE, what="; ".join(taken))

    def settle(self, state: Path) -> None:
        """Put into the demo's directory what the playbooks need there."""

    def look(self, state: Path) -> Remains:
        """What is left of the demo with that state directory."""
        return look(state)

    def __enter__(self) -> Self:
        """Have it ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave nothing of it."""


class Hosts(Site):
    """Four hosts, each a network namespace, that exist while the context lasts. Root only.

    Args:
        state: the demo's directory; whose network it is, in the command line of the process that keeps it.
    """

    inventories = (*Site.inventories, "inventory/network")
    farewell = "The four hosts are gone, with their addresses, their rules and all that ran on them."

    def __init__(self, state: Path) -> None:
        self._network = Network(str(state))
        self._namespaces: tuple[Path, ...] = ()
        self._inodes: set[int] = set()
        self._gateways: dict[str, Host] = {}

    @property
    def environment(self) -> dict[str, str]:
        """See `NAMESPACES`."""
        return {NAMESPACES: " ".join(map(str, self._namespaces))}

    def require_free(self, state: Path) -> None:
        """Nobody else is there."""

    def settle(self, state: Path) -> None:
        """For each gateway, the Python that runs its modules: one on its host, and what they start stays there."""
        for gateway, host in self._gateways.items():
            python = state / f"{gateway}.python"
            python.write_text(f'#!/bin/sh\nexec {shlex.join(host.command([sys.executable]))} "$@"\n')
            python.chmod(0o700)

    def look(self, state: Path) -> Remains:
        """Also on the hosts, while they are there; their keeper is no leftover until they shall be gone."""
        return look(state, ports=(), namespaces=self._namespaces)

    def __enter__(self) -> Self:
        """Build them.

        Raises:
            SciStreamError: NETWORK_UNAVAILABLE.
        """
        self._network.__enter__()
        self._namespaces = tuple(host.namespace for host in self._network.hosts)
        self._inodes = {namespace.stat().st_ino for namespace in self._namespaces}
        # As the inventories call them.
        self._gateways = {"facility_a": self._network.outbound_gateway, "facility_b": self._network.inbound_gateway}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End what still runs on them, by force; their rules, addresses and connections go with them.

        Raises:
            SciStreamError: LEFT_BEHIND.
        """
        self._namespaces = ()
        self._network.__exit__(kind, error, traceback)
        if left := list(inside(self._inodes)):
            raise SciStreamError(Code.LEFT_BEHIND, what=f"processes {left} on hosts of the demo")


def site_for(engine: str, state: Path) -> Site:
    """Where an engine is shown, by its name."""
    return Hosts(state) if engine == "nftables" else Site()


def await_keepers(state: Path) -> None:
    """Wait until a killed demo's network is gone, whose keeper ends what runs there, and itself, within a moment."""
    deadline = time.monotonic() + _ENDING
    while _is_kept(state) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN)


def _is_kept(state: Path) -> bool:
    return any("scistream.demo.namespaces" in words for words in look(state, ports=()).processes)
