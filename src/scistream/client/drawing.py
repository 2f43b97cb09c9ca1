"""The path of a stream as a small drawing: application, outbound gateway, inbound gateway, target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from scistream.terms import Encryption

__all__ = ["draw_path"]

# Entry points that are drawn; a stream may have a thousand.
_MOST: Final = 8
_PLAIN: Final = "────▶"
_ENCRYPTED: Final = "════▶"
_LEGENDS: Final = {
    Encryption.NONE.value: f"{_PLAIN} TCP as the application speaks it; nothing is encrypted on the way",
    Encryption.TLS.value: f"{_ENCRYPTED} TLS 1.3, with certificates that only the two gateways of this stream have",
    Encryption.TLS_PSK.value: f"{_ENCRYPTED} TLS 1.3, with a key that only the two gateways of this stream have",
    Encryption.LEGACY_PSK.value: f"{_PLAIN} TCP between deployed Stunnels; nothing is encrypted on the way",
}
_KEYED: Final = frozenset(each.value for each in Encryption if each.needs_key)
_TITLES: Final = {"haproxy": "HAProxy", "nftables": "nftables", "nginx": "Nginx", "stunnel": "Stunnel"}


def draw_path(
    inbound: Mapping[str, Any],
    outbound: Mapping[str, Any],
    application: str | Sequence[str] = "application",
    *,
    facilities: tuple[str, str] = ("", ""),
) -> list[str]:
    """Draw the path of a stream, a line of text for each line of the drawing.

    Args:
        inbound: the inbound session, as `Session.as_dict()` gives it.
        outbound: the outbound session, likewise.
        application: who connects; a list names one for each entry point, in turn.
        facilities: names of the outbound and of the inbound facility.
    """
    applications = [application] if isinstance(application, str) else list(application)
    rows = _rows(inbound, outbound, applications)[:_MOST]
    width = max(len(row[0]) for row in rows) if rows else 0
    near = _box([row[1] for row in rows], _title("outbound", facilities[0]), _engine(outbound))
    far = _box([row[2] for row in rows], _title("inbound", facilities[1]), _engine(inbound))
    between = _ENCRYPTED if _encryption(inbound, outbound) in _KEYED else _PLAIN
    gap = " " * len(between)
    drawing = [f"{'':{width}} {gap}{near[0]}{gap}{far[0]}"]
    for row, left, right in zip(rows, near[1:], far[1:], strict=False):
        drawing.append(f"{row[0]:{width}} {_PLAIN}{left}{between}{right}{_PLAIN} {row[3]}")
    drawing.append(f"{'':{width}} {gap}{near[-1]}{gap}{far[-1]}")
    return [*drawing, *_remarks(inbound, outbound)]


def _rows(
    inbound: Mapping[str, Any], outbound: Mapping[str, Any], applications: Sequence[str]
) -> list[tuple[str, str, str, str]]:
    rows = []
    for number, entry_point in enumerate(outbound["entry_points"]):
        remote = _in_turn(outbound["targets"], number)
        target = "?"
        if remote in inbound["entry_points"]:
            target = _in_turn(inbound["targets"], inbound["entry_points"].index(remote))
        rows.append((_in_turn(applications, number), entry_point, remote, target))
    return rows


def _in_turn(values: Sequence[str], number: int) -> str:
    return values[number % len(values)] if values else "?"


def _title(direction: str, facility: str) -> str:
    return f"{direction}, {facility}" if facility else direction


def _engine(session: Mapping[str, Any]) -> str:
    return _TITLES.get(session["engine"], session["engine"]) or "engine not told"


def _encryption(inbound: Mapping[str, Any], outbound: Mapping[str, Any]) -> str:
    return str(inbound["encryption"]) if inbound["encryption"] == outbound["encryption"] else ""


def _box(lines: Sequence[str], top: str, bottom: str) -> list[str]:
    width = max(len(text) for text in (*lines, f"{top} ", f"{bottom} ")) + 2
    upper = f"┌─ {top} ".ljust(width + 1, "─") + "┐"
    lower = f"└─ {bottom} ".ljust(width + 1, "─") + "┘"
    return [upper, *(f"│ {line:{width - 1}}│" for line in lines), lower]


def _remarks(inbound: Mapping[str, Any], outbound: Mapping[str, Any]) -> list[str]:
    remarks = []
    more = len(outbound["entry_points"]) - _MOST
    if more > 0:
        remarks.append(f"… and {more} more entry points")
    both = (inbound["encryption"], outbound["encryption"])
    if both[0] != both[1] and all(both):
        remarks.append(f"the gateways disagree: {both[0]} inbound, {both[1]} outbound; no byte will pass")
    elif both[0] in _LEGENDS and both[0] == both[1]:
        remarks.append(_LEGENDS[both[0]])
    else:
        remarks.append("what protects the bytes between the gateways is not told")
    return remarks
