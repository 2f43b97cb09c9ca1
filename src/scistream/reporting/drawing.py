"""The path of a stream as shapes for an SVG: application, outbound gateway, inbound gateway, target.

Shapes are numbers and texts; the page's template writes them, and escapes the texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scistream.addresses import Endpoint
from scistream.errors import SciStreamError
from scistream.terms import SessionState

__all__ = ["Arrow", "Box", "Drawing", "draw"]

# Entry points that are drawn; a stream may have a thousand.
_MOST: Final = 8
# Characters that a box has room for.
_ROOM: Final = 30
_ROW: Final = 22
_HEAD: Final = 44
_BOX: Final = 230
_GAP: Final = 70
_KEYED: Final = frozenset({"tls", "tls-psk"})


@dataclass(frozen=True)
class Box:
    """A place on the path; `is_elsewhere` is one that no gateway told of, `has_failed` one that carries nothing."""

    x: int
    width: int
    title: str
    subtitle: str
    rows: tuple[str, ...]
    is_elsewhere: bool = False
    has_failed: bool = False


@dataclass(frozen=True)
class Arrow:
    """A step of the path."""

    x1: int
    x2: int
    y: int
    is_encrypted: bool = False


@dataclass(frozen=True)
class Drawing:
    """The whole of it, with its size."""

    width: int
    height: int
    label: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    remark: str = ""


def draw(stream: Mapping[str, Any]) -> Drawing:
    """Draw the path of a stream, as `paired` gives it."""
    inbound, outbound = stream["inbound"], stream["outbound"]
    sessions = inbound and inbound["session"], outbound and outbound["session"]
    shown = _rows(*sessions)
    titles = (("application", ""), _title("outbound", outbound), _title("inbound", inbound), ("target", ""))
    ends = (None, outbound, inbound, None)
    columns = [tuple(_short(row[index]) for row in shown) for index in range(len(titles))]
    boxes = tuple(
        Box(
            x=index * (_BOX + _GAP),
            width=_BOX,
            title=_short(title),
            subtitle=_short(subtitle),
            rows=columns[index],
            is_elsewhere=ends[index] is None and bool(subtitle),
            has_failed=_has_failed(ends[index]),
        )
        for index, (title, subtitle) in enumerate(titles)
    )
    arrows = tuple(
        arrow for row in range(len(shown)) for arrow in _arrows(boxes, row, _is_encrypted(inbound, outbound))
    )
    told = sessions[1] or sessions[0]
    more = len(told["entry_points"]) - len(shown) if told else 0
    return Drawing(
        width=boxes[-1].x + _BOX,
        height=_HEAD + _ROW * max(len(shown), 1) + 10,
        label=f"path of stream {stream['name'] or stream['uid']}",
        boxes=boxes,
        arrows=arrows,
        remark=f"and {more} more entry points" if more > 0 else "",
    )


def _title(direction: str, end: Mapping[str, Any] | None) -> tuple[str, str]:
    if end is None:
        return "elsewhere", f"{direction} end, not told of"
    gateway, session = end["gateway"], end["session"]
    where = f", {gateway['facility']}" if gateway["facility"] else ""
    return f"{gateway['name']}{where}", f"{direction}, {session['engine']}, {session['state']}"


def _has_failed(end: Mapping[str, Any] | None) -> bool:
    return end is not None and end["session"]["state"] == SessionState.FAILED.value


def _rows(inbound: Mapping[str, Any] | None, outbound: Mapping[str, Any] | None) -> list[tuple[str, str, str, str]]:
    """Who connects where: the first entry points that the application, or else the other gateway, connects to."""
    if outbound is None:
        points = inbound["entry_points"] if inbound else ()
        shown = points[:_MOST]
        return [("", "?", point, _in_turn(inbound["targets"], row)) for row, point in enumerate(shown) if inbound]
    ports = [_port(point) for point in inbound["entry_points"]] if inbound else []
    return [
        (_sources(outbound) if row == 0 else "", point, remote, _target(inbound, ports, remote))
        for row, point in enumerate(outbound["entry_points"][:_MOST])
        for remote in [_in_turn(outbound["targets"], row)]
    ]


def _sources(outbound: Mapping[str, Any]) -> str:
    """Who may connect."""
    first, *others = outbound["sources"] or ["any host"]
    return f"{first} and {len(others)} more" if others else str(first)


def _target(inbound: Mapping[str, Any] | None, ports: Sequence[int], remote: str) -> str:
    """Where an entry point of the inbound end leads. Ports tell which it is: it may be reached by several addresses."""
    port = _port(remote)
    return _in_turn(inbound["targets"], ports.index(port)) if inbound and port in ports else "?"


def _port(address: str) -> int:
    try:
        return Endpoint.parse(address).port
    except SciStreamError:
        return 0


def _in_turn(values: Sequence[str], number: int) -> str:
    return values[number % len(values)] if values else "?"


def _is_encrypted(inbound: Mapping[str, Any] | None, outbound: Mapping[str, Any] | None) -> bool:
    return all(end["session"]["encryption"] in _KEYED for end in (inbound, outbound) if end)


def _arrows(boxes: Sequence[Box], row: int, is_encrypted: bool) -> list[Arrow]:
    y = _HEAD + _ROW * row + _ROW // 2
    steps = zip(boxes, boxes[1:], (False, is_encrypted, False), strict=False)
    return [Arrow(near.x + near.width, far.x, y, between) for near, far, between in steps]


def _short(text: str) -> str:
    return text if len(text) <= _ROOM else f"{text[: _ROOM - 1]}…"
