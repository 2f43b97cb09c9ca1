# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is there against what is wanted. Nothing else says whether a task changes anything, and what its diff shows."""

from __future__ import annotations

import typing as t

__all__ = ["Differences"]

# What stands in a diff where the two values are nobody's business: that they differ is all that is shown.
_MASKS = {"before": "(hidden)", "after": "(hidden, another)"}


class Differences:
    """Facts of one thing, each as it is and as it is wanted. None on a side: the thing does not have that fact there.

    Args:
        title: what the thing is called in the diff.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._facts: dict[str, tuple[t.Any, t.Any]] = {}
        self._secrets: set[str] = set()

    def compare(self, name: str, before: t.Any, after: t.Any, *, secret: bool = False) -> bool:
        """Note one fact; whether it differs."""
        self._facts[name] = (before, after)
        if secret:
            self._secrets.add(name)
        return before != after

    def compare_all(self, before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> None:
        """Note every fact of either side."""
        for name in {**before, **after}:
            self.compare(name, before.get(name), after.get(name))

    @property
    def names(self) -> list[str]:
        """The facts that differ, in alphabetic order."""
        return sorted(name for name, (before, after) in self._facts.items() if before != after)

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.names)

    @property
    def diff(self) -> dict[str, t.Any]:
        """The facts that differ, as Ansible shows them."""
        return {
            "before_header": self._title,
            "after_header": self._title,
            "before": self._side(0, "before"),
            "after": self._side(1, "after"),
        }

    def _side(self, index: int, side: str) -> dict[str, t.Any]:
        shown = ((name, self._facts[name][index]) for name in self.names)
        return {name: _MASKS[side] if name in self._secrets else value for name, value in shown if value is not None}
