"""Draws the engines' truth table into docs/engines.md: `python tools/engines_page.py [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from scistream.engines import ENGINES, Engine
from scistream.engines.base import Feature

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "engines.md"
_BEGIN, _END = "<!-- the table: tools/engines_page.py -->\n", "<!-- the table ends -->\n"
# Decided by the host, not by the engine.
_BY_HOST = "where the host allows it"


def _lines() -> Iterator[str]:
    engines = list(ENGINES.values())
    yield "| | " + " | ".join(engine.title for engine in engines) + " |"
    yield "| --- " * (len(engines) + 1) + "|"
    for feature in Feature:
        yield f"| {feature.value} | " + " | ".join(_cell(engine, feature) for engine in engines) + " |"
    yield "| privileges | " + " | ".join(engine.privileges for engine in engines) + " |"
    yield ""
    for engine in engines:
        for feature, words in engine.cannot.items():
            yield f"- {engine.title}, {feature.value}: {words}."
    yield ""


def _cell(engine: Engine, feature: Feature) -> str:
    if feature in engine.cannot:
        return "no"
    by_host = feature is Feature.RATE or (feature is Feature.SOURCES and engine.is_guarded)
    return _BY_HOST if by_host else "yes"


def _drawn(page: str) -> str:
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{_PAGE} has no table to replace")
    return head + begin + "\n" + "\n".join(_lines()) + "\n" + end + tail


def main() -> int:
    """Draw, or with `--check` say whether the page shows the engines as they are."""
    page = _PAGE.read_text()
    if sys.argv[1:] != ["--check"]:
        _PAGE.write_text(_drawn(page))
        return 0
    if _drawn(page) == page:
        return 0
    sys.stderr.write("docs/engines.md is not fresh; run: python tools/engines_page.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
