"""Writes docs/errors.md from the error catalogue: `python tools/errors_page.py [--check]`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from scistream.errors import CATALOGUE, Code, Entry, ExitCode

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
_HEAD = """\
# Errors

Each error says what was seen, the likely cause and the next step, and carries a stable code: in square brackets on the
command line, as `failure.code` in a module's result. This page is generated from the catalogue
(`src/scistream/errors.py`, by `tools/errors_page.py`); words in *italics* are filled in.

## Exit codes of the commands

| exit code | class |
| --- | --- |
"""


def _italics(template: str) -> str:
    """The template with its facts in italics, without their formats."""
    return re.sub(r"\{(\w+)(?:![rs])?(?::[^}]*)?\}", r"*\1*", template).replace("|", "\\|")


def _section(code: Code, entry: Entry) -> str:
    lines = [
        f"## {code}",
        "",
        f"- Seen: {_italics(entry.seen)}",
        f"- Cause: {_italics(entry.cause)}",
        f"- Next: {_italics(entry.remedy)}",
        f"- Exit code {int(entry.exit_code)}; gRPC status `{entry.status}`; draft code `{entry.draft}`",
    ]
    if entry.deployed:
        lines.append(f"- The deployed system says: {_italics(entry.deployed)}")
    return "\n".join(lines)


def _page() -> str:
    classes = "".join(f"| {int(code)} | {code.name.lower().replace('_', ' ')} |\n" for code in ExitCode)
    return _HEAD + classes + "\n" + "\n\n".join(_section(*item) for item in CATALOGUE.items()) + "\n"


def main() -> int:
    """Write the page, or with `--check` say whether it is fresh."""
    if sys.argv[1:] != ["--check"]:
        _PAGE.write_text(_page())
        return 0
    if _PAGE.read_text() == _page():
        return 0
    sys.stderr.write("docs/errors.md is not fresh; run: python tools/errors_page.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
