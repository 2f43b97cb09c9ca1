"""What the registry grants: whether a session can be had, which one is meant, and whether an update fits it."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Sequence

from scistream.addresses import Endpoint
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.engines.abilities import protection, require
from scistream.engines.base import Engine
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, SessionState

__all__ = ["bounded", "check", "check_drain", "check_ports", "check_renewal", "check_sources", "granted", "preferred"]


def granted(asked: SessionRequest, engine: Engine) -> SessionRequest:
    """The request, with what the engine gives for the encryption that was asked for; never half of a wish (U57, U63).

    Raises:
        SciStreamError: ENGINE_CANNOT.
    """
    require(engine, asked.wishes)
    return dataclasses.replace(asked, encryption=protection(engine, asked.encryption, asked.direction, asked.peer))


def check_ports(asked: SessionRequest, sessions: Iterable[Session]) -> None:
    """Refuse named ports that are too many or too few, or that a session has.

    Raises:
        SciStreamError: PORTS_MISCOUNTED, ENTRY_POINT_IN_USE.
    """
    named = set(asked.named_ports)
    if not named:
        return
    if len(named) != asked.connections:
        raise SciStreamError(Code.PORTS_MISCOUNTED, ports=len(named), connections=asked.connections)
    for session in sessions:
        for port in sorted(named.intersection(session.ports)):
            theirs = session.asked.owner == asked.owner
            holder = f"session {session.asked.uid}" if theirs else "another user's session"
            point = Endpoint(asked.host, port)
            raise SciStreamError(Code.ENTRY_POINT_IN_USE, entry_point=str(point), process=holder)


def check_sources(asked: SessionRequest, address: str) -> None:
    """Refuse sources none of which has a way to where the entry points are; `::` is open to both IP versions.

    Raises:
        SciStreamError: SOURCES_UNREACHABLE.
    """
    own = ipaddress.ip_address(address)
    is_open = own.version == 6 and own.is_unspecified
    if not asked.sources or is_open or any(source.version == own.version for source in asked.sources):
        return
    facts = {"sources": ",".join(map(str, asked.sources)), "family": f"IPv{own.version}", "address": address}
    raise SciStreamError(Code.SOURCES_UNREACHABLE, uid=asked.uid, **facts)


def preferred(sessions: Sequence[Session], direction: Direction) -> Session:
    """The session of a direction, else the first."""
    return next((session for session in sessions if session.asked.direction is direction), sessions[0])


def bounded(targets: tuple[Endpoint, ...], session: Session) -> tuple[Endpoint, ...]:
    """Targets that have an entry point each.

    Raises:
        SciStreamError: TOO_MANY_TARGETS.
    """
    if len(targets) > len(session.ports):
        raise SciStreamError(Code.TOO_MANY_TARGETS, targets=len(targets), entry_points=len(session.ports))
    return targets


def check(session: Session, change: Update) -> None:
    """Whether an update can be meant for a session as it stands.

    Raises:
        SciStreamError: SESSION_NOT_REGISTERED, SESSION_NOT_ACTIVE, NO_TARGETS, TOO_MANY_TARGETS, TARGET_IN_USE.
    """
    uid, targets = session.asked.uid, change.targets
    if session.state is SessionState.REQUESTED:
        raise SciStreamError(Code.SESSION_NOT_REGISTERED, uid=uid, what="the update")
    if session.state is SessionState.DRAINING:
        raise _not_active(session, "the update")
    if not targets:
        raise SciStreamError(Code.NO_TARGETS, uid=uid)
    bounded(targets, session)
    if session.state is not SessionState.ACTIVE:
        return
    # After a restart the key is known to the data server only, and cannot be compared.
    if change.key is not None and session.key is not None and change.key != session.key:
        raise SciStreamError(Code.TARGET_IN_USE, uid=uid, differences="the session key")


def check_drain(session: Session) -> None:
    """Whether a session can be drained; one that is drained already can be, again.

    Raises:
        SciStreamError: SESSION_NOT_ACTIVE.
    """
    if session.state not in {SessionState.ACTIVE, SessionState.DRAINING}:
        raise _not_active(session, "draining")


def check_renewal(session: Session) -> None:
    """Whether a session has a certificate that can be renewed.

    Raises:
        SciStreamError: SESSION_NOT_ACTIVE, ENGINE_CANNOT.
    """
    if session.state is not SessionState.ACTIVE:
        raise _not_active(session, "the renewal of certificates")
    if session.asked.encryption is not Encryption.TLS:
        encryption = session.asked.encryption.value
        raise SciStreamError(Code.NO_CERTIFICATES, uid=session.asked.uid, encryption=encryption)


def _not_active(session: Session, what: str) -> SciStreamError:
    return SciStreamError(Code.SESSION_NOT_ACTIVE, uid=session.asked.uid, state=session.state.value, what=what)
