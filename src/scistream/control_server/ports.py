"""The ports that sessions are given: reserved by binding, all or none, and kept from everyone else until release.

A reservation is a bound socket that does not listen. While it has no SO_REUSEADDR, nobody else can bind its port,
whatever options they set. A data server of ours sets SO_REUSEADDR and is let in by setting it on the reservation for
the moment of its start (`Reservation.admitted`); the kernel compares the options of the moment. Once the data server
listens, the option is taken back, and the two of them keep the port together.

A port that was given back rests for a while before another session gets it: late connections of the old stream's
application must not end up in somebody else's. Who held it last may name it and have it at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scistream.addresses import Endpoint, PortRange
from scistream.errors import Code, SciStreamError
from scistream.terms import Transport

__all__ = ["PortPool", "Reservation"]

# Foreign holders that an error names, and ports that are looked at for them: each look reads the kernel's table.
_NAMED: Final = 3
_LOOKS: Final = 8


class Reservation:
    """The ports of one session, held until `close`. `was_used` once a process was let in."""

    def __init__(
        self,
        sockets: dict[int, socket.socket | None],
        give_back: Callable[[Iterable[int]], None],
        transport: Transport = Transport.TCP,
    ) -> None:
        self.was_used = False
        self._sockets = sockets
        self._bind = _binder(transport)
        self._give_back = give_back

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports, in the order of the entry points."""
        return tuple(self._sockets)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a process that sets SO_REUSEADDR bind the ports, inside the block only."""
        self.was_used = True
        self._reuse(True)
        try:
            yield
        finally:
            self._reuse(False)

    def _reuse(self, allowed: bool) -> None:
        for held in self._sockets.values():
            if held is not None:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, allowed)

    def retake(self, host: str) -> None:
        """Bind the ports that are held by name only, as far as they are free: no data server of ours is on them."""
        for port, held in self._sockets.items():
            if held is None:
                self._sockets[port] = self._bind(host, port, False) or self._bind(host, port, True)

    def close(self) -> None:
        """Free the ports. Again: nothing."""
        _close(self._sockets)
        self._give_back(self._sockets)
        self._sockets = {}


@dataclass(frozen=True)
class _Rest:
    until: float
    owner: str


class PortPool:
    """A range of ports on one address.

    Args:
        host: the IP address that entry points listen on.
        ports: the range.
        who_listens: names the process behind an endpoint, for messages.
        quarantine: seconds that a port rests after it was given back.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        host: str,
        ports: PortRange,
        who_listens: Callable[[Endpoint], str | None],
        *,
        quarantine: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.ports = ports
        self._who_listens = who_listens
        self._quarantine = quarantine
        self._clock = clock
        self._taken: set[int] = set()
        self._resting: dict[int, _Rest] = {}

    @property
    def free(self) -> int:
        """Ports of the range that can be given out now; a foreign process may sit on some of them."""
        return sum(self._is_free(port) for port in self.ports)

    def reserve(
        self, count: int, *, owner: str = "", named: Sequence[int] = (), transport: Transport = Transport.TCP
    ) -> Reservation:
        """Reserve `count` ports, the lowest that are free, or those that are named; all of them or none.

        Args:
            count: how many.
            owner: who will hold them.
            named: the ports, where they are chosen; as many as `count`.
            transport: what they are ports of; a number is given out once, for either.

        Raises:
            SciStreamError: PORTS_EXHAUSTED naming foreign holders; for named ones PORT_NOT_OFFERED, or
                ENTRY_POINT_IN_USE naming who is there; LISTEN_ADDRESS_FOREIGN.
        """
        if named:
            return self._reserve_named(named, owner, transport)
        free = [port for port in self.ports if self._is_free(port)]
        return self._hold(self._bind_lowest(free, count, _binder(transport)), owner, transport)

    def _bind_lowest(self, free: Sequence[int], count: int, bind: _Binder) -> dict[int, socket.socket | None]:
        sockets: dict[int, socket.socket | None] = {}
        with _closed_on_failure(sockets):
            # Ports that only wait out old connections (TIME_WAIT) can be bound with the option alone, so they come
            # second.
            for reuse in (False, True):
                for port in free:
                    if len(sockets) < count and port not in sockets and (held := self._try(port, bind, reuse=reuse)):
                        sockets[port] = held
            if len(sockets) < count:
                raise self._exhausted(count, len(sockets), [port for port in free if port not in sockets])
        return dict(sorted(sockets.items()))

    def _reserve_named(self, ports: Sequence[int], owner: str, transport: Transport) -> Reservation:
        for port in ports:
            if port not in self.ports:
                raise SciStreamError(Code.PORT_NOT_OFFERED, port=port, range=str(self.ports))
        sockets: dict[int, socket.socket | None] = {}
        with _closed_on_failure(sockets):
            for port in ports:
                sockets[port] = self._try_named(port, owner, _binder(transport))
                if sockets[port] is None:
                    raise self._in_use(Endpoint(self.host, port))
        return self._hold(sockets, owner, transport)

    def _try_named(self, port: int, owner: str, bind: _Binder) -> socket.socket | None:
        rest = self._resting.get(port)
        if not (self._is_free(port) or (port not in self._taken and rest is not None and rest.owner == owner)):
            return None
        return self._try(port, bind, reuse=False) or self._try(port, bind, reuse=True)

    def _is_free(self, port: int) -> bool:
        return port not in self._taken and self._rest_of(port) <= 0

    def _rest_of(self, port: int) -> float:
        """Seconds that a port still rests."""
        rest = self._resting.get(port)
        return rest.until - self._clock() if rest else 0.0

    def claim(
        self,
        host: str,
        ports: Sequence[int],
        *,
        in_use: bool,
        owner: str = "",
        transport: Transport = Transport.TCP,
    ) -> Reservation:
        """Take back the ports of a session from the time before a restart.

        Args:
            host: the address that the session was opened on.
            ports: its ports.
            in_use: its data server runs, so that they cannot be bound; they are kept from other sessions only.
            owner: whose session it is.
            transport: what they are ports of.

        Raises:
            SciStreamError: ENTRY_POINT_IN_USE where somebody else took one meanwhile.
        """
        sockets: dict[int, socket.socket | None] = dict.fromkeys(ports)
        bind = _binder(transport)
        with _closed_on_failure(sockets):
            for port in () if in_use else ports:
                sockets[port] = bind(host, port, False) or bind(host, port, True)
                if sockets[port] is None:
                    raise self._in_use(Endpoint(host, port))
        reservation = self._hold(sockets, owner, transport)
        reservation.was_used = True
        return reservation

    def _hold(self, sockets: dict[int, socket.socket | None], owner: str, transport: Transport) -> Reservation:
        self._taken.update(sockets)
        for port in sockets:
            self._resting.pop(port, None)

        def give_back(ports: Iterable[int]) -> None:
            self._taken.difference_update(ports)
            # Nothing connects late to what never accepted.
            if self._quarantine and reservation.was_used:
                self._resting |= dict.fromkeys(ports, _Rest(self._clock() + self._quarantine, owner))

        reservation = Reservation(sockets, give_back, transport)
        return reservation

    def _try(self, port: int, bind: _Binder, *, reuse: bool) -> socket.socket | None:
        try:
            return bind(self.host, port, reuse)
        except OSError as error:
            raise SciStreamError(
                Code.LISTEN_ADDRESS_FOREIGN, address=str(Endpoint(self.host, port)), reason=error.strerror or str(error)
            ) from None

    def _in_use(self, endpoint: Endpoint) -> SciStreamError:
        return SciStreamError(Code.ENTRY_POINT_IN_USE, entry_point=str(endpoint), process=self._holder(endpoint))

    def _holder(self, endpoint: Endpoint) -> str:
        if endpoint.port in self._taken:
            return "another session"
        if (rest := self._rest_of(endpoint.port)) > 0:
            return f"nobody, and rests for {rest:.1f} s after another user's session"
        return self._who_listens(endpoint) or "another process"

    def _exhausted(self, wanted: int, free: int, foreign: Sequence[int]) -> SciStreamError:
        facts: dict[str, Any] = {"wanted": wanted, "free": free, "size": len(self.ports), "range": str(self.ports)}
        words = self._others([Endpoint(self.host, port) for port in foreign])
        rests = sorted(rest for port in self.ports if (rest := self._rest_of(port)) > 0)
        if free + len(rests) >= wanted:
            # What the protocol's draft wants with NO_RESOURCE.
            facts["retry_after"] = round(rests[wanted - free - 1], 3)
            words += (
                f"; enough will be in {facts['retry_after']:.1f} s, when the ports of released sessions have rested"
            )
        return SciStreamError(Code.PORTS_EXHAUSTED, **facts, others=words)

    def _others(self, foreign: Sequence[Endpoint]) -> str:
        named = ((endpoint, self._who_listens(endpoint)) for endpoint in foreign[:_LOOKS])
        others = [f"{endpoint} by {process}" for endpoint, process in named if process][:_NAMED]
        more = f" and {len(foreign) - len(others)} more" if len(foreign) > len(others) else ""
        return f"; others hold {', '.join(others)}{more}" if others else ""


@contextlib.contextmanager
def _closed_on_failure(sockets: Mapping[int, socket.socket | None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _close(sockets)
        raise


def _close(sockets: Mapping[int, socket.socket | None]) -> None:
    for held in sockets.values():
        if held is not None:
            held.close()


_Binder = Callable[[str, int, bool], socket.socket | None]


def _binder(transport: Transport) -> _Binder:
    kind = socket.SOCK_DGRAM if transport is Transport.UDP else socket.SOCK_STREAM
    return functools.partial(_bind, kind)


def _bind(kind: socket.SocketKind, host: str, port: int, reuse: bool) -> socket.socket | None:
    """A socket that alone has the port, or None where somebody else is on it."""
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        held.bind((host, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return held
