# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory says of its hosts, and what is wrong with it. On the controller only; without the library."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

__all__ = ["Host", "Problem", "Said", "as_int", "is_true", "shown"]

_LOCAL = frozenset({"local", "ansible.builtin.local"})
_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_LONGEST = 80
# Unless the inventory names another, by scope.
_STATE_DIRECTORIES = {"system": "/var/lib/scistream", "user": "~/.local/state/scistream/gateway"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A variable that cannot be used: on which host, what it is, what it is to be, and what to do next."""

    host: str
    variable: str
    seen: str
    wanted: str
    step: str

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        return f"{self.host}: {self.variable} is {self.seen}, and is to be {self.wanted}. {self.step}."

    def as_dict(self) -> dict[str, str]:
        """All of it, for programs."""
        return {**dataclasses.asdict(self), "sentence": self.sentence}


@dataclasses.dataclass(frozen=True)
class Said:
    """A value, and the variable that says it. None where nobody says it, and there is no default."""

    variable: str
    value: t.Any

    @property
    def text(self) -> str:
        """The value as a word; empty where it is not set."""
        return "" if self.value is None else str(self.value).strip()


@dataclasses.dataclass(frozen=True)
class Host:
    """A host of the play.

    Args:
        name: in the inventory.
        groups: that it is in.
        variables: the values of those that concern the collection, evaluated; secrets are masked.
        errors: those that could not be evaluated, and why.
        names: of all variables that begin as the collection's do.
    """

    name: str
    groups: frozenset[str] = frozenset()
    variables: c.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    errors: c.Mapping[str, str] = dataclasses.field(default_factory=dict)
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, collected: c.Mapping[str, t.Any]) -> Host:
        """A host from what scistream.core.inventory_check collected of it."""
        groups, names = frozenset(collected["groups"]), frozenset(collected["names"])
        return cls(collected["name"], groups, collected["variables"], collected["errors"], names)

    def said(self, *names: str, default: t.Any = None) -> Said:
        """The first of these variables that is set; the last one's name with the default where none is."""
        for name in names:
            if self.variables.get(name) is not None:
                return Said(name, self.variables[name])
        return Said(names[-1], default)

    def text(self, *names: str, default: str = "") -> str:
        """As `said`, only the value, as a word."""
        return self.said(*names, default=default).text

    def problem(self, said: Said, wanted: str, step: str) -> Problem:
        """A problem of this host."""
        return Problem(self.name, said.variable, shown(said.value), wanted, step)

    @property
    def is_local(self) -> bool:
        """Whether it is the controller's own machine."""
        return self.text("ansible_connection", default="ssh") in _LOCAL

    @property
    def scope(self) -> Said:
        """How its control server runs."""
        usual = "process" if self.is_local else "system"
        return self.said("control_server_scope", "scistream_scope", default=usual)

    @property
    def is_leaving(self) -> bool:
        """Whether it goes out of service: nothing needs to fit together any more."""
        return self.text("control_server_state", "scistream_state", default="started") == "absent"

    @property
    def listen_address(self) -> Said:
        """Where control server and entry points listen."""
        return self.said("control_server_listen_address", "scistream_listen_address", default="0.0.0.0")  # noqa: S104

    @property
    def control_address(self) -> Said:
        """Where its control server listens: where the entry points do, unless it is said."""
        said = self.said("control_server_control_address", "scistream_control_address")
        return said if said.text else Said(said.variable, self.listen_address.value)

    @property
    def control_port(self) -> Said:
        """Where its control server listens."""
        return self.said("control_server_port", "scistream_control_port", default=5000)

    @property
    def port_range(self) -> Said:
        """The ports of its entry points."""
        return self.said("control_server_port_range", "scistream_port_range", default="5100-5200")

    @property
    def metrics_address(self) -> Said:
        """Where its metrics are served."""
        return self.said("control_server_metrics_ip", "scistream_metrics_ip", default="127.0.0.1")

    @property
    def metrics_port(self) -> Said:
        """The port of its metrics, 0 for none."""
        return self.said("control_server_metrics_port", "scistream_metrics_port", default=0)

    @property
    def state_directory(self) -> Said:
        """Where its control server keeps what it knows."""
        usual = _STATE_DIRECTORIES.get(self.scope.text, "~/.scistream")
        return self.said("control_server_directory", "scistream_state_directory", default=usual)

    @property
    def engine(self) -> Said:
        """What carries its bytes."""
        said = self.said("control_server_engine", "scistream_engine")
        installed = self.variables.get("scistream_engines")
        usual = installed[0] if isinstance(installed, list) and installed else "haproxy"
        return said if said.text else Said(said.variable, usual)


def as_int(value: t.Any) -> int | None:
    """A whole number, or None where it is none."""
    if isinstance(value, bool):
        return None
    try:
        return int(str(value).strip())
    except ValueError:
        return None


def is_true(value: t.Any) -> bool:
    """Whether Ansible takes a value for true."""
    return str(value).strip().lower() in _TRUE


def shown(value: t.Any) -> str:
    """A value as it stands in a sentence."""
    if value is None or value == "":
        return "not set"
    words = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    line = " ".join(words.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
