"""What text and page say in the same words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from scistream.addresses import PortRange
from scistream.cli.tables import spell_bytes
from scistream.durations import spell_duration
from scistream.errors import SciStreamError
from scistream.terms import NO_AUTH

__all__ = ["is_readable", "spell_facts", "spell_lease", "spell_moment", "spell_protection", "spell_traffic", "summary"]

_READABLE: Final = frozenset({"none", "legacy-psk"})


def summary(report: Mapping[str, Any]) -> str:
    """The report in one line."""
    gateways = report["gateways"]
    reached, sessions = sum(one["reached"] for one in gateways), sum(len(one["sessions"]) for one in gateways)
    counted = f"{_count(len(gateways), 'gateway')}, {reached} answered; {_count(sessions, 'session')}"
    return f"{counted}; {_count(len(report['troubles']), 'trouble')}; asked {spell_moment(report['asked'])}"


def spell_moment(seconds: float) -> str:
    """A moment, the same wherever the report is read."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def spell_facts(facts: Mapping[str, Any], now: float) -> dict[str, str]:
    """What a control server is, fact by fact."""
    told = {
        "version": f"{facts['version']}, up {spell_duration(now - facts['started'])}",
        "engine": _spell_engine(facts),
        "cannot": _spell_lacks(facts),
        "ports": _spell_ports(facts),
        "certificate": _spell_certificate(facts, now),
        "authentication": "off: whoever reaches it may do everything"
        if facts["authentication"] == NO_AUTH
        else facts["authentication"],
        "control channel": "TLS" if facts["tls"] else "plain text",
        "old clients": facts["old_clients"],
        "sessions": _spell_sessions(facts),
    }
    return {name: words for name, words in told.items() if words}


def _spell_engine(facts: Mapping[str, Any]) -> str:
    others = (
        f"{one['name']} {one['version']}" for one in facts["engines"] if one["installed"] and one is not _used(facts)
    )
    used = _used(facts)
    words = f"{facts['engine']} {used['version']}: {', '.join(used['encryptions'])}" if used else facts["engine"]
    listed = ", ".join(others)
    return f"{words}; also there: {listed}" if listed else words


def _spell_lacks(facts: Mapping[str, Any]) -> str:
    used = _used(facts)
    lacks = [f"{one['feature']} ({one['words']})" for one in used["abilities"] if not one["can"]] if used else []
    return "; ".join(lacks)


def _used(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((one for one in facts["engines"] if one["name"] == facts["engine"]), None)


def _spell_ports(facts: Mapping[str, Any]) -> str:
    try:
        size = len(PortRange.parse(facts["port_range"]))
    except SciStreamError:
        return f"{facts['ports_free']} free"
    return f"{size - facts['ports_free']} of {size} used ({facts['port_range']}), {facts['ports_free']} free"


def _spell_certificate(facts: Mapping[str, Any], now: float) -> str:
    if not facts["certificate_expires"]:
        return "none"
    left = facts["certificate_expires"] - now
    names = ", ".join(facts["certificate_names"])
    return f"{spell_duration(left)} left ({names})" if left > 0 else f"expired ({names})"


def _spell_sessions(facts: Mapping[str, Any]) -> str:
    return f"{facts['sessions']} in all, of all owners"


def spell_lease(session: Mapping[str, Any], now: float) -> str:
    """How much of a session's lease is left."""
    if not session["lease_expires"]:
        return "no end"
    left = session["lease_expires"] - now
    return f"{spell_duration(left)} left" if left > 0 else "over"


def spell_traffic(session: Mapping[str, Any]) -> str:
    """What a session has carried."""
    traffic = session["traffic"]
    words = f"{traffic['connections_open']} open, {traffic['connections_total']} in all; "
    words += f"{spell_bytes(traffic['bytes_to_targets'])} to the targets, "
    words += f"{spell_bytes(traffic['bytes_from_targets'])} from them"
    return f"{words}; {_count(refused, 'peer')} refused" if (refused := traffic["refused_peers"]) else words


def spell_protection(session: Mapping[str, Any]) -> str:
    """What protects a session's bytes between the gateways, as far as it was negotiated."""
    if is_readable(session):
        return f"NOT ENCRYPTED ({session['encryption']})"
    if not session["cipher"]:
        return str(session["encryption"])
    peer = session["peer"] or "the holder of the key"
    return f"{session['encryption']}: {session['cipher']} with {peer}"


def is_readable(session: Mapping[str, Any]) -> bool:
    """Whether the bytes can be read on their way between the gateways."""
    return session["encryption"] in _READABLE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
