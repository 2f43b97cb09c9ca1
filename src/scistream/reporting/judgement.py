"""What about a site needs attention: troubles, which somebody has to mend, and notices, which somebody should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scistream.durations import spell_duration
from scistream.reporting.words import is_readable
from scistream.terms import NO_AUTH, OldClients, SessionState

__all__ = ["judged"]

_DAY: Final = 86400.0
_OLD: Final = "its control server speaks the old protocol only: it answers, and tells nothing of itself"
_UNENCRYPTED: Final = (
    "the bytes of session {uid} ({direction}) can be read between the gateways: encryption {encryption}"
)


def judged(gateways: Sequence[Mapping[str, Any]], *, now: float, certificate_days: float) -> dict[str, list[str]]:
    """The troubles and the notices of all gateways, as sentences that begin with the gateway's name.

    Args:
        gateways: as `GatewayReport.as_dict()` gives them.
        now: seconds since the epoch.
        certificate_days: a certificate that ends sooner is trouble.
    """
    troubles: list[str] = []
    notices: list[str] = []
    for gateway in gateways:
        name = gateway["name"]
        troubles += [f"{name}: {words}" for words in _troubles(gateway, now, certificate_days)]
        notices += [f"{name}: {words}" for words in _notices(gateway)]
    return {"troubles": troubles, "notices": notices}


def _troubles(gateway: Mapping[str, Any], now: float, certificate_days: float) -> Iterator[str]:
    if not gateway["reached"]:
        failure = gateway["failure"]
        yield f"{failure['seen']}; {failure['remedy']}"
    facts = gateway["facts"]
    if facts:
        yield from _certificate(facts, now, certificate_days)
        if not facts["ports_free"]:
            yield f"all ports of {facts['port_range']} are taken: no stream can be opened"
    for session in gateway["sessions"]:
        if session["state"] == SessionState.FAILED.value:
            reason = session["failure"] or "it does not say why"
            yield f"session {session['uid']} ({session['direction']}) failed: {reason}"


def _certificate(facts: Mapping[str, Any], now: float, days: float) -> Iterator[str]:
    if not facts["certificate_expires"]:
        return
    left = facts["certificate_expires"] - now
    if left <= 0:
        yield "its certificate has expired: nobody can connect to its control server"
    elif left < days * _DAY:
        yield f"its certificate ends in {spell_duration(left)}; renew it: rotate_certificates"


def _notices(gateway: Mapping[str, Any]) -> Iterator[str]:
    facts = gateway["facts"]
    if gateway["reached"] and not facts:
        yield _OLD
    if facts:
        yield from _switches(facts)
        yield from facts["warnings"]
    for session in gateway["sessions"]:
        if is_readable(session):
            yield _UNENCRYPTED.format(**{key: session[key] for key in ("uid", "direction", "encryption")})


def _switches(facts: Mapping[str, Any]) -> Iterator[str]:
    """What an operator has switched off, knowingly or not."""
    if facts["authentication"] == NO_AUTH:
        yield "whoever reaches its control port may do everything: authentication is off"
    if not facts["tls"]:
        yield "its control channel is plain text: whoever is on the way can read it"
    if facts["old_clients"] not in {"", OldClients.REFUSE.value}:
        yield f"deployed clients are served unencrypted: old_clients is {facts['old_clients']}"
