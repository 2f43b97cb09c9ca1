"""Many gateways asked at once: what each control server is and which sessions it has, or why it does not say."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from scistream.client.channel import ControlServer, connect
from scistream.client.facts import ServerFacts
from scistream.client.kept_tickets import kept_ticket
from scistream.client.sessions import Session
from scistream.client.streams import StreamEnd
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Uid

__all__ = ["Gateway", "GatewayReport", "ask_gateways"]

# Threads wait for most of the time, and each has a connection of its own.
_AT_ONCE: Final = 16


@dataclass(frozen=True)
class Gateway:
    """A gateway as its site names it.

    `inbound_address` and `outbound_address` are the hosts that the entry points of its inbound and of its outbound
    sessions are reached by, where its control server listens on all its addresses; empty for the one that it is called
    by.
    """

    name: str
    control_server: ControlServer
    facility: str = ""
    inbound_address: str = ""
    outbound_address: str = ""

    def reached(self, session: Session) -> Session:
        """A session of this gateway, with its entry points as others reach them."""
        is_inbound = session.direction is Direction.INBOUND
        address = self.inbound_address if is_inbound else self.outbound_address
        return StreamEnd(self.control_server, address).reached(session)


@dataclass(frozen=True)
class GatewayReport:
    """What a gateway's control server told, or the reason why it did not.

    `facts` are None as well where it speaks the old protocol only: that one answers, and tells nothing.
    """

    name: str
    facility: str = ""
    address: str = ""
    facts: ServerFacts | None = None
    sessions: tuple[Session, ...] = ()
    failure: SciStreamError | None = None

    @property
    def is_reached(self) -> bool:
        """Whether its control server answered."""
        return self.failure is None or self.failure.code is Code.OLD_CONTROL_SERVER

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data; a session has the name that this user opened it by, where that is known."""
        return {
            "name": self.name,
            "facility": self.facility,
            "control_server": self.address,
            "reached": self.is_reached,
            "failure": self.failure.failure() if self.failure else None,
            "facts": self.facts.as_dict() if self.facts else None,
            "sessions": [session.as_dict() | {"name": _name(session.uid)} for session in self.sessions],
        }


def ask_gateways(gateways: Sequence[Gateway]) -> list[GatewayReport]:
    """Ask the control servers of all gateways; the reports come in the gateways' order. Raises nothing for one."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_ask, gateways))


def _ask(gateway: Gateway) -> GatewayReport:
    report = partial(GatewayReport, gateway.name, gateway.facility, str(gateway.control_server.known_as))
    try:
        with connect(gateway.control_server) as connection:
            facts, sessions = connection.server_facts(), connection.list_sessions()
            return report(facts=facts, sessions=tuple(map(gateway.reached, sessions)))
    except SciStreamError as error:
        return report(failure=error)


def _name(uid: Uid) -> str | None:
    """The name in the ticket that this user keeps of a session; names are no control server's business."""
    try:
        held = kept_ticket(uid)
    except SciStreamError:
        return None
    return held.name or None if held else None
