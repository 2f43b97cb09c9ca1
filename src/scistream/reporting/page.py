"""The report as one HTML page, with nothing in it that comes from elsewhere when it is read.

Names, errors and addresses come from control servers of other facilities: all of them are escaped, and the page has no
scripts and forbids them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from scistream.reporting.drawing import draw
from scistream.reporting.streams import paired, spell_half
from scistream.reporting.words import (
    is_readable,
    spell_facts,
    spell_lease,
    spell_moment,
    spell_protection,
    spell_traffic,
    summary,
)

__all__ = ["render_page"]

_TEMPLATES: Final = Environment(
    loader=PackageLoader("scistream.reporting"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(report: Mapping[str, Any]) -> str:
    """The page.

    Args:
        report: `asked`, `gateways`, `troubles` and `notices`, as module gateways_info returns them.
    """
    now = report["asked"]
    return _TEMPLATES.get_template("status.html.j2").render(
        summary=summary(report),
        asked=spell_moment(now),
        troubles=report["troubles"],
        notices=report["notices"],
        streams=[_stream(stream) for stream in paired(report["gateways"])],
        gateways=[_gateway(gateway, now) for gateway in report["gateways"]],
    )


def _stream(stream: Mapping[str, Any]) -> dict[str, Any]:
    told = (stream["inbound"] or stream["outbound"])["session"]
    protection = {"protection": spell_protection(told), "is_readable": is_readable(told)}
    return {**stream, **protection, "half": spell_half(stream), "drawing": draw(stream)}


def _gateway(gateway: Mapping[str, Any], now: float) -> dict[str, Any]:
    return {
        **gateway,
        "facts": spell_facts(gateway["facts"], now) if gateway["facts"] else {},
        "sessions": [_session(session, now) for session in gateway["sessions"]],
    }


def _session(session: Mapping[str, Any], now: float) -> dict[str, Any]:
    return {
        **session,
        "lease": spell_lease(session, now),
        "protection": spell_protection(session),
        "is_readable": is_readable(session),
        "carried": spell_traffic(session),
    }
