"""HTML pages as a browser reads them: which elements and attributes there are, whatever their texts look like."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["attributes_of", "elements_of"]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: dict[str, set[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


def elements_of(page: str) -> set[str]:
    """The names of all elements."""
    return _read(page).elements


def attributes_of(page: str) -> dict[str, set[str]]:
    """The names of all attributes, and the values that each of them has somewhere."""
    return _read(page).attributes
