"""What a control server can do, asked before anything is opened."""

from __future__ import annotations

from scistream.addresses import PortRange
from scistream.client.channel import Connection
from scistream.client.facts import ServerFacts
from scistream.client.requests import SessionRequest
from scistream.errors import Code, SciStreamError

__all__ = ["agree", "check_server", "check_wishes", "too_old"]


def check_server(connection: Connection, request: SessionRequest) -> None:
    """See that a control server can do what is asked, as far as it tells, before anything is opened.

    The encryption of the two gateways has to be the same; and one that speaks the old protocol only would leave out
    what that does not know, without a word: such a wish is refused by name.

    Raises:
        SciStreamError: ENCRYPTION_MISMATCH, OLD_CONTROL_SERVER, what `check_wishes` raises, what the control server
            says, or why it cannot be talked to.
    """
    wishes = _new_wishes(request)
    if not (request.encryption or wishes):
        return
    try:
        facts = connection.server_facts()
    except SciStreamError as error:
        if error.code is not Code.OLD_CONTROL_SERVER:
            raise
        if wishes:
            raise too_old(connection, wishes) from None
        return
    agree(connection, request, facts.engine, facts.encryption)
    check_wishes(request, facts)


def check_wishes(request: SessionRequest, facts: ServerFacts) -> None:
    """Refuse what a control server would refuse: a session that makes way for this one must not be lost for it.

    Raises:
        SciStreamError: ENGINE_CANNOT, BAD_LEASE, PORT_NOT_OFFERED.
    """
    longest = facts.longest_lease
    if request.rate and not facts.can_limit_rate:
        reason = f"it does not limit rates, and {request.rate} kb/s was asked for"
        raise SciStreamError(Code.ENGINE_CANNOT, engine=facts.engine, reason=reason)
    if request.lease is not None and longest and not 0 < request.lease <= longest:
        lease = f"{request.lease:g} s" if request.lease else "no end"
        raise SciStreamError(Code.BAD_LEASE, lease=lease, reason=f"the longest is {longest:g} s here")
    offered = PortRange.parse(facts.port_range) if request.ports else ()
    for port in request.ports:
        if port not in offered:
            raise SciStreamError(Code.PORT_NOT_OFFERED, port=port, range=facts.port_range)


def _new_wishes(request: SessionRequest) -> str:
    """What is asked for that the old protocol has no word for. A session without an end is what it always gives."""
    asked = {
        "end a session with its lease": request.lease,
        "give a session the ports that were named": request.ports,
        "hold a session to a rate": request.rate,
    }
    return ", nor ".join(wish for wish, value in asked.items() if value)


def too_old(connection: Connection, wishes: str) -> SciStreamError:
    """The error for wishes that a control server is too old to keep."""
    server = str(connection.control_server.address)
    return SciStreamError(Code.OLD_CONTROL_SERVER, server=server, operation=wishes)


def agree(connection: Connection, request: SessionRequest, engine: str, encryption: str) -> None:
    """Refuse an engine whose encryption is known not to be the other end's.

    Raises:
        SciStreamError: ENCRYPTION_MISMATCH.
    """
    if request.encryption and encryption and request.encryption != encryption:
        server = str(connection.control_server.address)
        ends = {"inbound": request.encryption, "outbound": encryption}
        raise SciStreamError(Code.ENCRYPTION_MISMATCH, uid=request.uid, engine=engine, server=server, **ends)
