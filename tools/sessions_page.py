"""Draws the states of a session into docs/sessions.md: `python tools/sessions_page.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from scistream.control_server.states import drawing

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "sessions.md"
_BEGIN, _END = "```mermaid\n", "\n```\n"


def _drawn(page: str) -> str:
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{_PAGE} has no drawing to replace")
    return head + begin + drawing() + end + tail


def main() -> int:
    """Draw, or with `--check` say whether the page shows the table as it is."""
    page = _PAGE.read_text()
    if sys.argv[1:] != ["--check"]:
        _PAGE.write_text(_drawn(page))
        return 0
    if _drawn(page) == page:
        return 0
    sys.stderr.write("docs/sessions.md is not fresh; run: python tools/sessions_page.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
