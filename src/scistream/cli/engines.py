"""`s2cs engines`: what each engine can do on this host, here and now."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scistream.engines import Engine, Installation
    from scistream.engines.abilities import Ability

__all__ = ["engine_facts", "engines_table"]

_WIDTH: Final = 100


def engine_facts(in_use: str) -> list[dict[str, Any]]:
    """The truth table as plain data, an engine an entry; `in_use` is the name of the control server's own."""
    return [
        {
            "name": engine.name,
            "in_use": engine.name == in_use,
            "installed": found is not None,
            "version": found.version if found else "",
            "program": str(found.program) if found else "",
            "privileges": engine.privileges,
            "encryptions": [each.value for each in engine.encryptions],
            "can": [each.feature.value for each in table if each.can],
            "cannot": {each.feature.value: each.words for each in table if not each.can},
        }
        for engine, found, table in _looked_at()
    ]


def engines_table(in_use: str) -> str:
    """The truth table for people: a column an engine, then why each `no` is one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    lines = _looked_at()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for engine, _, _ in lines:
        table.add_column(engine.title + ("*" if engine.name == in_use else ""))
    table.add_row("version", *(found.version if found else "not installed" for _, found, _ in lines))
    for row in zip(*(abilities for _, _, abilities in lines), strict=True):
        table.add_row(row[0].feature.value, *("yes" if each.can else "no" for each in row))
    # What a program says of itself is text, and no markup.
    console = Console(file=io.StringIO(), width=_WIDTH, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    drawn = "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
    return "\n".join([drawn, "", *_reasons(lines), f"* {_STAR}"])


_STAR: Final = "what this control server's new sessions are carried by (--type)"


def _looked_at() -> list[tuple[Engine, Installation | None, Sequence[Ability]]]:
    from scistream.engines import describe_engines
    from scistream.engines.abilities import abilities

    return [(engine, found, abilities(engine)) for engine, found in describe_engines()]


def _reasons(lines: Sequence[tuple[Engine, Installation | None, Sequence[Ability]]]) -> Iterator[str]:
    """A sentence for each reason, with the features that it holds for; one that is missing altogether has one."""
    for engine, _, table in lines:
        yield f"{engine.title}: needs {engine.privileges}" if engine.privileges != "none" else f"{engine.title}:"
        reasons: dict[str, list[str]] = {}
        for each in table:
            if not each.can:
                reasons.setdefault(each.words, []).append(each.feature.value)
        for words, features in reasons.items():
            named = "nothing" if len(features) == len(table) else f"no {', '.join(features)}"
            yield textwrap.fill(f"{named}: {words}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
