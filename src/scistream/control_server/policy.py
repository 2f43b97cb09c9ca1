"""What sessions may be on this gateway: where their targets may lie, and how many ports one user may have."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil

from scistream.addresses import Endpoint
from scistream.control_server.allowed_targets import AllowedTargets
from scistream.control_server.sessions import Session, SessionRequest
from scistream.engines.processes import plain_ip
from scistream.errors import Code, SciStreamError

__all__ = ["Policy", "host_addresses"]

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_LOOPBACK: Final = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def host_addresses() -> Collection[_IP]:
    """The addresses of this host's interfaces."""
    found = (each.address for every in psutil.net_if_addrs().values() for each in every if each.family in _FAMILIES)
    return {plain_ip(address.partition("%")[0]) for address in found}


@dataclass(frozen=True)
class Policy:
    """What sessions may be.

    Of a target's name, `localhost` and this host's own are known; others are not resolved, and what a name leads to is
    not seen. Neither is a loop through other gateways.

    Args:
        own: this control server's own ports, with what they are.
        ports_per_owner: how many ports the sessions of one owner may have together; 0: all.
        allowed: the targets that may be asked for.
        addresses: the addresses of this host.
        host_name: its name.
    """

    own: Mapping[Endpoint, str] = field(default_factory=dict)
    ports_per_owner: int = 0
    allowed: AllowedTargets = field(default_factory=AllowedTargets)
    addresses: Callable[[], Collection[_IP]] = host_addresses
    host_name: str = field(default_factory=lambda: socket.gethostname().lower())

    def check_ports(self, asked: SessionRequest, sessions: Iterable[Session]) -> None:
        """Refuse more ports than one owner may have.

        Raises:
            SciStreamError: OWNER_PORTS_EXHAUSTED.
        """
        if not self.ports_per_owner:
            return
        held = sum(len(session.ports) for session in sessions if session.asked.owner == asked.owner)
        if held + asked.connections > self.ports_per_owner:
            facts = {"wanted": asked.connections, "held": held, "limit": self.ports_per_owner}
            raise SciStreamError(Code.OWNER_PORTS_EXHAUSTED, **facts)

    def check_targets(self, session: Session, targets: Sequence[Endpoint], sessions: Iterable[Session]) -> None:
        """Refuse targets that are not allowed, this control server's own, or lead back here for ever.

        Raises:
            SciStreamError: TARGET_REFUSED.
        """
        for target in targets:
            if not self.allowed.allow(target, session.asked.owner):
                reason = "it is not among the targets that this gateway's operator allows you (allowed_targets)"
                raise SciStreamError(Code.TARGET_REFUSED, target=str(target), reason=reason)
            for own, what in self.own.items():
                if self._reaches(target, own):
                    raise SciStreamError(Code.TARGET_REFUSED, target=str(target), reason=f"it is {what}")
        there = {port: each for each in sessions for port in each.ports}
        there.update(dict.fromkeys(session.ports, session))
        for index, port in enumerate(session.ports):
            if targets and self._comes_back(port, targets[index % len(targets)], there, session, targets):
                target = targets[index % len(targets)]
                reason = f"a connection to it would come back to port {port} of session {session.asked.uid} for ever"
                raise SciStreamError(Code.TARGET_REFUSED, target=str(target), reason=reason)

    def _comes_back(
        self,
        start: int,
        target: Endpoint,
        there: Mapping[int, Session],
        changed: Session,
        targets: Sequence[Endpoint],
    ) -> bool:
        """Whether an entry point can be reached again from its own target, through sessions of this gateway."""
        seen, ahead = set[int](), [target]
        while ahead:
            point = ahead.pop()
            session = there.get(point.port)
            if session is None or point.port in seen:
                continue
            if not self._reaches(point, Endpoint(session.bound_host, point.port)):
                continue
            if point.port == start:
                return True
            seen.add(point.port)
            known = [targets] if session is changed else _targets(session)
            index = session.ports.index(point.port)
            ahead += [each[index % len(each)] for each in known if each]
        return False

    def _reaches(self, target: Endpoint, listener: Endpoint) -> bool:
        """Whether a connection to a target of this gateway's comes to a port that listens on it."""
        if target.port != listener.port:
            return False
        ip, anywhere = listener.ip, listener.ip is not None and listener.ip.is_unspecified
        return any(
            type(found) is type(ip) and (found == ip or (anywhere and self._is_here(found)))
            for found in self._resolved(target)
        )

    def _resolved(self, target: Endpoint) -> Iterator[_IP]:
        name = target.host.removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):
            yield from _LOOPBACK
        elif name == self.host_name:
            yield from (*_LOOPBACK, *self.addresses())
        elif target.ip is not None:
            ip = plain_ip(target.host)
            # The kernel takes a connection to no address for one to the host itself.
            yield _LOOPBACK[ip.version == 6] if ip.is_unspecified else ip

    def _is_here(self, ip: _IP) -> bool:
        return ip.is_loopback or ip in self.addresses()


def _targets(session: Session) -> Iterator[Sequence[Endpoint]]:
    """The targets that a session has, and those that it is about to get."""
    yield session.targets
    if session.change is not None:
        yield session.change.targets
