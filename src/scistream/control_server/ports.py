"""The ports that sessions are given: reserved by binding, all or none, and kept from everyone else until release.

A reservation is a bound socket that does not listen. While it has no SO_REUSEADDR, nobody else can bind its port,
whatever options they set. A data server of ours sets SO_REUSEADDR and is let in by setting it on the reservation for
the moment of its start (`Reservation.admitted`); the kernel compares the options of the moment. Once the data server
listens, the option is taken back, and the two of them keep the port together.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from scistream.addresses import Endpoint, PortRange
from scistream.errors import Code, SciStreamError

__all__ = ["PortPool", "Reservation"]

# Foreign holders that an error names, and ports that are looked at for them: each look reads the kernel's table.
_NAMED: Final = 3
_LOOKS: Final = 8


class Reservation:
    """The ports of one session, held until `close`."""

    def __init__(self, sockets: dict[int, socket.socket | None], give_back: Callable[[Iterable[int]], None]) -> None:
        self._sockets = sockets
        self._give_back = give_back

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports, in rising order."""
        return tuple(sorted(self._sockets))

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Let a process that sets SO_REUSEADDR bind the ports, inside the block only."""
        self._reuse(True)
        try:
            yield
        finally:
            self._reuse(False)

    def _reuse(self, allowed: bool) -> None:
        for held in self._sockets.values():
            if held is not None:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, allowed)

    def close(self) -> None:
        """Free the ports. Again: nothing."""
        for held in self._sockets.values():
            if held is not None:
                held.close()
        self._give_back(self._sockets)
        self._sockets = {}


class PortPool:
    """A range of ports on one address.

    Args:
        host: the IP address that entry points listen on.
        ports: the range.
        who_listens: names the process behind an endpoint, for messages.
    """

    def __init__(self, host: str, ports: PortRange, who_listens: Callable[[Endpoint], str | None]) -> None:
        self.host = host
        self.ports = ports
        self._who_listens = who_listens
        self._taken: set[int] = set()

    @property
    def free(self) -> int:
        """Ports of the range that no session holds; a foreign process may sit on some of them."""
        return sum(port not in self._taken for port in self.ports)

    def reserve(self, count: int) -> Reservation:
        """Reserve `count` ports, the lowest that are free; all of them or none.

        Raises:
            SciStreamError: PORTS_EXHAUSTED naming foreign holders; LISTEN_ADDRESS_FOREIGN.
        """
        sockets: dict[int, socket.socket | None] = {}
        # Ports that only wait out old connections (TIME_WAIT) can be bound with the option alone, so they come second.
        for reuse in (False, True):
            for port in self.ports:
                if len(sockets) < count and port not in self._taken and port not in sockets:
                    held = self._try(port, reuse=reuse)
                    if held is not None:
                        sockets[port] = held
        reservation = self._hold(sockets)
        if len(sockets) < count:
            reservation.close()
            raise self._exhausted(count, len(sockets), [port for port in self.ports if port not in sockets])
        return reservation

    def claim(self, host: str, ports: Sequence[int], *, in_use: bool) -> Reservation:
        """Take back the ports of a session from the time before a restart.

        Args:
            host: the address that the session was opened on.
            ports: its ports.
            in_use: its data server runs, so that they cannot be bound; they are kept from other sessions only.

        Raises:
            SciStreamError: ENTRY_POINT_IN_USE where somebody else took one meanwhile.
        """
        sockets: dict[int, socket.socket | None] = dict.fromkeys(ports)
        reservation = self._hold(sockets)
        for port in () if in_use else ports:
            held = sockets[port] = _bind(host, port, reuse=False) or _bind(host, port, reuse=True)
            if held is None:
                reservation.close()
                raise self._in_use(Endpoint(host, port))
        return reservation

    def _hold(self, sockets: dict[int, socket.socket | None]) -> Reservation:
        self._taken.update(sockets)
        return Reservation(sockets, self._taken.difference_update)

    def _try(self, port: int, *, reuse: bool) -> socket.socket | None:
        try:
            return _bind(self.host, port, reuse=reuse)
        except OSError as error:
            raise SciStreamError(
                Code.LISTEN_ADDRESS_FOREIGN, address=str(Endpoint(self.host, port)), reason=error.strerror or str(error)
            ) from None

    def _in_use(self, endpoint: Endpoint) -> SciStreamError:
        process = self._who_listens(endpoint) or "another process"
        return SciStreamError(Code.ENTRY_POINT_IN_USE, entry_point=str(endpoint), process=process)

    def _exhausted(self, wanted: int, free: int, rest: Sequence[int]) -> SciStreamError:
        foreign = [Endpoint(self.host, port) for port in rest if port not in self._taken]
        named = ((endpoint, self._who_listens(endpoint)) for endpoint in foreign[:_LOOKS])
        others = [f"{endpoint} by {process}" for endpoint, process in named if process][:_NAMED]
        more = f" and {len(foreign) - len(others)} more" if len(foreign) > len(others) else ""
        words = f"; others hold {', '.join(others)}{more}" if others else ""
        return SciStreamError(
            Code.PORTS_EXHAUSTED, wanted=wanted, free=free, size=len(self.ports), range=str(self.ports), others=words
        )


def _bind(host: str, port: int, *, reuse: bool) -> socket.socket | None:
    """A socket that alone has the port, or None where somebody else is on it."""
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
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
