"""What a control server can do, asked before anything is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from scistream.addresses import PortRange
from scistream.client.channel import Connection
from scistream.client.facts import AbilityFacts, EngineFacts, ServerFacts
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport

__all__ = ["check_facts", "check_kept_encryption", "check_server", "check_wishes", "granted", "too_old"]

# The truth table's words for what protects the bytes.
_FEATURES: Final[Mapping[Encryption, str]] = {
    Encryption.NONE: "plain",
    Encryption.TLS: "TLS",
    Encryption.TLS_PSK: "TLS",
    Encryption.LEGACY_PSK: "legacy-psk",
}

# The inbound gateway's engine that not every outbound one can be used with.
_NGINX: Final = "nginx"


def check_server(connection: Connection, request: SessionRequest) -> None:
    """See that a control server can do what is asked, as far as it tells, before anything is opened.

    One that speaks the old protocol only would leave out what that does not know, without a word: such a wish is
    refused by name, encryption first.

    Raises:
        SciStreamError: ENCRYPTION_UNAVAILABLE, SESSION_KEY_MISSING, OLD_CONTROL_SERVER, what `check_facts` raises, what
            the control server says, or why it cannot be talked to.
    """
    _check_channel(connection, request)
    try:
        facts = connection.server_facts()
    except SciStreamError as error:
        if error.code is not Code.OLD_CONTROL_SERVER:
            raise
        _check_old(connection, request)
        return
    check_facts(connection, request, facts)


def check_facts(connection: Connection, request: SessionRequest, facts: ServerFacts) -> None:
    """Refuse what a control server would refuse, and what its engine has otherwise than the other end.

    Raises:
        SciStreamError: ENCRYPTION_MISMATCH, LEGACY_PSK_REFUSED, OLD_CONTROL_SERVER, what `check_wishes` raises.
    """
    granted(connection, request, facts)
    if missing := [wish for feature, wish in _features(request) if wish and not _knows(facts, feature)]:
        raise too_old(connection, ", nor ".join(missing))
    check_wishes(request, facts)


def check_wishes(request: SessionRequest, facts: ServerFacts) -> None:
    """Refuse what a control server would refuse: a session that makes way for this one must not be lost for it.

    Raises:
        SciStreamError: ENGINE_CANNOT, BAD_LEASE, PORT_NOT_OFFERED.
    """
    for feature, _ in _features(request):
        ability = _ability(facts.in_use, feature)
        if ability and not ability.can:
            raise SciStreamError(Code.ENGINE_CANNOT, engine=facts.engine, reason=ability.words)
    if request.rate and facts.in_use and not facts.in_use.can_limit_rate:
        reason = f"it does not limit rates, and {request.rate} kb/s was asked for"
        raise SciStreamError(Code.ENGINE_CANNOT, engine=facts.engine, reason=reason)
    longest = facts.longest_lease
    if request.lease is not None and longest and not 0 < request.lease <= longest:
        lease = f"{request.lease:g} s" if request.lease else "no end"
        raise SciStreamError(Code.BAD_LEASE, lease=lease, reason=f"the longest is {longest:g} s here")
    offered = PortRange.parse(facts.port_range) if request.ports else ()
    for port in request.ports:
        if port not in offered:
            raise SciStreamError(Code.PORT_NOT_OFFERED, port=port, range=facts.port_range)


def granted(connection: Connection, request: SessionRequest, facts: ServerFacts) -> str:
    """The encryption that a session of this request will have; empty where the control server does not tell.

    Raises:
        SciStreamError: ENCRYPTION_MISMATCH, ENGINE_CANNOT, LEGACY_PSK_REFUSED.
    """
    offered = facts.in_use.offered if facts.in_use else ()
    # One that is not installed has nothing, and the control server says what to do about that.
    if not facts.in_use or not offered or not facts.in_use.installed:
        return request.encryption.value if offered else ""
    if request.encryption is Encryption.LEGACY_PSK and request.other_is_ours:
        reason = f"neither end is a deployed one: {connection.control_server.address} speaks scistream.v1 as well"
        raise SciStreamError(Code.LEGACY_PSK_REFUSED, uid=request.uid, reason=reason)
    found = next((each for each in offered if request.takes(each)), None)
    if found is not None:
        return found
    if request.direction is Direction.OUTBOUND:
        raise _mismatch(connection, request, facts.engine, offered[0])
    ability = _ability(facts.in_use, _FEATURES[request.encryption])
    reason = ability.words if ability else f"its sessions have encryption {offered[0]}"
    raise SciStreamError(Code.ENGINE_CANNOT, engine=facts.engine, reason=reason)


def check_kept_encryption(connection: Connection, request: SessionRequest, session: Session) -> None:
    """Refuse a session that got another encryption than was asked for.

    Raises:
        SciStreamError: ENCRYPTION_MISMATCH.
    """
    if session.encryption and not request.takes(session.encryption):
        raise _mismatch(connection, request, session.engine, session.encryption)


def too_old(connection: Connection, wishes: str) -> SciStreamError:
    """The error for wishes that a control server is too old to keep."""
    server = str(connection.control_server.address)
    return SciStreamError(Code.OLD_CONTROL_SERVER, server=server, operation=wishes)


def _check_channel(connection: Connection, request: SessionRequest) -> None:
    """Keys go over TLS only."""
    if connection.control_server.plain_text and request.encryption.needs_key:
        engine = f"encryption {request.encryption.value} over a control channel in plain text"
        raise SciStreamError(Code.SESSION_KEY_MISSING, uid=request.uid, engine=engine)


def _check_old(connection: Connection, request: SessionRequest) -> None:
    if request.encryption.needs_key:
        raise SciStreamError(Code.ENCRYPTION_UNAVAILABLE, server=str(connection.control_server.address))
    asked = {
        "end a session with its lease": request.lease,
        "give a session the ports that were named": request.ports,
        "hold a session to a rate": request.rate,
    }
    # A session without an end is what it always gives.
    wishes = [wish for wish, value in asked.items() if value] + [wish for _, wish in _features(request) if wish]
    if wishes:
        raise too_old(connection, ", nor ".join(wishes))


def _features(request: SessionRequest) -> Iterator[tuple[str, str]]:
    """What is asked of the engine, in the truth table's words, each with what an earlier control server cannot do then.

    That is empty where it can.
    """
    yield _FEATURES[request.encryption], ""
    # An earlier control server does not tell, and its other engines have it.
    if request.encryption is Encryption.TLS and request.peer == _NGINX:
        yield "TLS with Nginx", ""
    if request.transport is Transport.UDP:
        yield "UDP", "carry UDP"
    if request.sources:
        yield "source list", "let only some hosts connect"
    if request.half_close:
        yield "half-close", "promise every byte of half-closed connections"
    if request.rate:
        yield "rate", ""


def _knows(facts: ServerFacts, feature: str) -> bool:
    # Of an engine that is not there, nothing is known.
    return facts.in_use is None or not facts.in_use.installed or _ability(facts.in_use, feature) is not None


def _ability(engine: EngineFacts | None, feature: str) -> AbilityFacts | None:
    """Of an engine that is there; the control server says what to do about one that is not."""
    told = engine.abilities if engine and engine.installed else ()
    return next((ability for ability in told if ability.feature == feature), None)


def _mismatch(connection: Connection, request: SessionRequest, engine: str, encryption: str) -> SciStreamError:
    whose = f"{engine} of the control server {connection.control_server.address} has"
    # An inbound session that got something else was asked for with the same word.
    return SciStreamError(
        Code.ENCRYPTION_MISMATCH,
        uid=request.uid,
        inbound=request.encryption.value,
        whose=whose,
        outbound=encryption,
    )
