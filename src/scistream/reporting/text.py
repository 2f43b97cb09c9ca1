"""The report as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scistream.client.drawing import draw_path
from scistream.reporting.streams import paired, spell_half
from scistream.reporting.words import (
    spell_facts,
    spell_lease,
    spell_protection,
    spell_traffic,
    summary,
)

__all__ = ["render_text"]

_LABEL: Final = 16


def render_text(report: Mapping[str, Any]) -> list[str]:
    """The report, line by line; what needs attention stands first.

    Args:
        report: `asked`, `gateways`, `troubles` and `notices`, as module gateways_info returns them.
    """
    lines = [summary(report)]
    lines += _section("needs attention", report["troubles"])
    lines += _section("to know", report["notices"])
    for gateway in report["gateways"]:
        lines += ["", *_gateway(gateway, report["asked"])]
    for stream in paired(report["gateways"]):
        lines += ["", *_stream(stream)]
    return lines


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {sentence}" for sentence in sentences)] if sentences else []


def _gateway(gateway: Mapping[str, Any], now: float) -> Iterator[str]:
    facility = f" ({gateway['facility']})" if gateway["facility"] else ""
    yield f"{gateway['name']}{facility}, control server {gateway['control_server'] or 'not named'}"
    if gateway["failure"]:
        yield f"  {gateway['failure']['seen']}"
    if gateway["facts"]:
        for name, words in spell_facts(gateway["facts"], now).items():
            yield f"  {name:{_LABEL}}{words}"
    for session in gateway["sessions"]:
        yield from _session(session, now)


def _session(session: Mapping[str, Any], now: float) -> Iterator[str]:
    called = f"{session['name']} ({session['uid']})" if session["name"] else session["uid"]
    facts = (session["state"], session["engine"], f"lease {spell_lease(session, now)}")
    yield f"  {session['direction']} session {called}: {', '.join(facts)}"
    if session["failure"]:
        yield f"    {session['failure']}"
    yield f"    {', '.join(session['entry_points'])} -> {', '.join(session['targets'])}"
    yield f"    {spell_protection(session)}"
    yield f"    {spell_traffic(session)}"
    for warning in session["warnings"]:
        yield f"    {warning}"


def _stream(stream: Mapping[str, Any]) -> Iterator[str]:
    called = f"{stream['name']} ({stream['uid']})" if stream["name"] else stream["uid"]
    inbound, outbound = stream["inbound"], stream["outbound"]
    if inbound and outbound:
        yield f"stream {called}"
        names = (outbound["gateway"]["name"], inbound["gateway"]["name"])
        yield from (f"  {line}" for line in draw_path(inbound["session"], outbound["session"], facilities=names))
        return
    yield f"stream {called}: {spell_half(stream)}"
