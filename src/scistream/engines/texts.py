"""The texts of data servers' files, and the words of programs."""

from __future__ import annotations

import re
from typing import Any, Final, SupportsIndex

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["SecretText", "fill", "without_places"]

# The directories of an absolute path; what is left is the file's name.
_DIRECTORIES: Final = re.compile(r"(?<![\w.:/-])(?:/[^\s/:'\"()\[\]]+)+/")

# The output is no HTML, and every value comes from a parsed type.
_TEMPLATES: Final = Environment(  # noqa: S701
    loader=PackageLoader("scistream.engines"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def fill(template: str, **values: Any) -> str:
    """Fill in one of the package's templates. Values come from parsed types, never from a caller's text (U07)."""
    return _TEMPLATES.get_template(template).render(values)


class SecretText(str):
    """A text that does not show itself where a traceback or a log prints values; written, it is what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, key: SupportsIndex | slice) -> SecretText:
        # Printers of values cut long texts first.
        return SecretText(super().__getitem__(key))


def without_places(words: str) -> str:
    """A program's words with file names in place of this host's paths."""
    return _DIRECTORIES.sub("", words)
