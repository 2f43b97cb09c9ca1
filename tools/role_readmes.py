"""Writes the table of variables in each role's README from its argument_specs; with --check, says which are stale."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

_BEGIN, _END = "<!-- variables: made by tools/role_readmes.py -->", "<!-- end of variables -->"
_MARKUP = re.compile(r"\b[CVO]\(([^)]*)\)")


def table(specs: dict[str, Any]) -> str:
    """The variables of a role as a Markdown table."""
    rows = ["| variable | type | default | what it is |", "| --- | --- | --- | --- |"]
    rows += [_row(name, option) for name, option in specs["argument_specs"]["main"]["options"].items()]
    return "\n".join(rows)


def _row(name: str, option: dict[str, Any]) -> str:
    kind = option["type"] if option["type"] != "list" else f"list of {option['elements']}"
    default = f"`{_plain(option['default'])}`" if "default" in option else ""
    words = option["description"]
    text = " ".join(words if isinstance(words, list) else [words])
    if "choices" in option:
        text += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
    code = _MARKUP.sub(r"`\1`", text)
    return f"| `{name}` | {kind} | {default} | {code} |"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def renewed(readme: str, specs: dict[str, Any]) -> str:
    """The README with a fresh table between its two marks."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table(specs)}\n{_END}{after}"


def main(arguments: list[str]) -> int:
    """Renew, or check, the README of every role."""
    stale = []
    for specs in sorted(Path(__file__).parent.parent.glob("roles/*/meta/argument_specs.yml")):
        readme = specs.parent.parent / "README.md"
        fresh = renewed(readme.read_text(), yaml.safe_load(specs.read_text()))
        if fresh != readme.read_text():
            stale.append(str(readme))
            if "--check" not in arguments:
                readme.write_text(fresh)
    if stale and "--check" in arguments:
        sys.stderr.write(f"stale, run {sys.argv[0]}: {', '.join(stale)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
