"""The streams among the sessions of several gateways: sessions of one uid, paired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["paired", "spell_half"]

Report = Mapping[str, Any]
"""What a gateway told, as `GatewayReport.as_dict()` gives it."""


def paired(gateways: Sequence[Report]) -> list[dict[str, Any]]:
    """The streams, in the order of their gateways and openings.

    Each has `uid`, `name`, and for `inbound` and `outbound` the gateway and the session, or None where none of these
    gateways told of that end: it is another facility's then, or gone, or its gateway did not answer. A uid that several
    gateways have at the same end is several streams.
    """
    ends: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for gateway in gateways:
        for session in gateway["sessions"]:
            both = ends.setdefault(session["uid"], {"inbound": [], "outbound": []})
            both[session["direction"]].append({"gateway": gateway, "session": session})
    return [_stream(uid, *pair) for uid, both in ends.items() for pair in _zipped(both["inbound"], both["outbound"])]


def _zipped(
    inbound: list[dict[str, Any]], outbound: list[dict[str, Any]]
) -> Iterable[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    for index in range(max(len(inbound), len(outbound))):
        yield _at(inbound, index), _at(outbound, index)


def _at(ends: list[dict[str, Any]], index: int) -> dict[str, Any] | None:
    return ends[index] if index < len(ends) else None


def _stream(uid: str, inbound: dict[str, Any] | None, outbound: dict[str, Any] | None) -> dict[str, Any]:
    named = [end["session"]["name"] for end in (inbound, outbound) if end and end["session"]["name"]]
    return {"uid": uid, "name": named[0] if named else None, "inbound": inbound, "outbound": outbound}


def spell_half(stream: Mapping[str, Any]) -> str:
    """Of a stream with one end only, where that is; empty where both are there."""
    inbound, outbound = stream["inbound"], stream["outbound"]
    if inbound and outbound:
        return ""
    here, other = (inbound, "outbound") if inbound else (outbound, "inbound")
    return f"at {here['gateway']['name']} only; its {other} end is at none of the gateways that answered"
