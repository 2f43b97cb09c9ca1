# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles take: read from their own specifications, so that a new variable is known without a word here."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import difflib
import functools
import pathlib
import re
import typing as t

import yaml

from ansible_collections.scistream.core.plugins.plugin_utils._inventory import Host, Problem, as_int, is_true, shown

__all__ = ["SITE", "Option", "Roles", "is_echo", "is_secret", "kinds", "near_misses"]

# What a role's own default is where it passes on what the whole site says.
_ECHO = re.compile(r"\s*\{\{ scistream_\w+ \| default\(")
# `role_name: "{{ scistream_name | default(...) }}"` in a role's defaults.
_TWIN = re.compile(r'^(\w+): +"\{\{ (scistream_\w+) \| default\(', re.MULTILINE)
_NAME = re.compile(r"^(\w+):", re.MULTILINE)
_WORD = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")
_TEXTS = ("roles/*/*/*.yml", "roles/*/templates/*.j2", "playbooks/*.yml", "inventory/*/*.yml", "inventory/*/*/*.yml")
# Whether a token may travel is no secret.
_SECRET = re.compile(r"_(?<!_plain_text_)(secret|password|passphrase|token)$")
_FALSE = frozenset({"0", "f", "false", "n", "no", "off"})
_SITE = "scistream_"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# How alike two names are behind their common beginning, from where on one is taken for the other misspelled.
_ALIKE = 0.8


@dataclasses.dataclass(frozen=True)
class Option:
    """A variable of a role.

    Args:
        name: as the role calls it.
        kind: its type, in Ansible's word.
        choices: what it may be; empty for anything.
        twin: the whole site's variable that it takes its default from; empty for none.
    """

    name: str
    kind: str = "str"
    choices: tuple[str, ...] = ()
    twin: str = ""


SITE: t.Final = (
    Option("scistream_address"),
    Option("scistream_client_control_server"),
    Option("scistream_control_server"),
    Option("scistream_controller_directory", "path"),
    Option("scistream_facility_address"),
    Option("scistream_insecure_plain_text", "bool"),
    Option("scistream_insecure_plain_text_token", "bool"),
    Option("scistream_local_state", "path"),
    Option("scistream_monitoring", "bool"),
    Option("scistream_server_certificate", "path"),
    Option("scistream_ssh_config", "path"),
    Option("scistream_timeout", "float"),
    Option("scistream_token"),
    Option("scistream_tuning", "bool"),
    Option("scistream_via"),
)
"""Variables of the whole site that are no role's default: playbooks and inventories use them."""


class Roles:
    """The roles of the collection.

    Args:
        root: the collection's directory.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root

    @functools.cached_property
    def options(self) -> tuple[Option, ...]:
        """All variables of all roles."""
        return tuple(option for path in self._specifications for option in self._of(path))

    @property
    def _specifications(self) -> list[pathlib.Path]:
        return sorted(self._root.glob("roles/*/meta/argument_specs.yml"))

    def _of(self, path: pathlib.Path) -> c.Iterator[Option]:
        main = yaml.load(path.read_bytes(), Loader=_LOADER)["argument_specs"]["main"]  # noqa: S506 - a safe one
        defaults = path.parent.parent / "defaults/main.yml"
        twins = dict(_TWIN.findall(defaults.read_text(encoding="utf-8"))) if defaults.exists() else {}
        for name, facts in (main.get("options") or {}).items():
            choices = tuple(map(str, facts.get("choices", ())))
            yield Option(name, facts.get("type", "str"), choices, twins.get(name, ""))

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names of all variables of all roles; quicker than the variables themselves."""
        paths = self._root.glob("roles/*/defaults/main.yml")
        return frozenset(name for path in paths for name in _NAME.findall(path.read_text(encoding="utf-8")))

    @functools.cached_property
    def prefixes(self) -> tuple[str, ...]:
        """What the collection's variables begin with."""
        return (_SITE, *(f"{path.parent.parent.name}_" for path in self._specifications))

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """All names that roles, playbooks and sample inventories know."""
        paths = (path for pattern in _TEXTS for path in self._root.glob(pattern))
        return frozenset(word for path in paths for word in _WORD.findall(path.read_text(encoding="utf-8")))

    def concerns(self, name: str) -> bool:
        """Whether a variable is the collection's, by its beginning."""
        return name.startswith(self.prefixes)


def is_echo(value: t.Any) -> bool:
    """Whether an expression passes on what a variable of the whole site says: of that one it is told what is wrong."""
    return isinstance(value, str) and bool(_ECHO.match(value))


def is_secret(name: str) -> bool:
    """Whether nobody may see the variable's value."""
    return bool(_SECRET.search(name))


def kinds(host: Host, options: c.Iterable[Option]) -> c.Iterator[Problem]:
    """Values that are not of their type, or none of the choices."""
    for name, kind, choices in _by_name(options):
        value = host.variables.get(name)
        if value in (None, "") or is_secret(name):
            continue
        if choices:
            yield from _none_of(host, name, value, choices)
        elif (wanted := _KINDS.get(kind)) and not wanted[0](value):
            yield Problem(host.name, name, shown(value), wanted[1], "Correct the value")


def _by_name(options: c.Iterable[Option]) -> c.Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each variable once; what several roles take may be what any of them takes."""
    merged: dict[str, tuple[str, tuple[str, ...]]] = {}
    for option in options:
        merged[option.name] = (option.kind, option.choices)
        if option.twin:
            kind, choices = merged.get(option.twin, (option.kind, option.choices))
            merged[option.twin] = (kind, tuple(dict.fromkeys([*choices, *option.choices])))
    return ((name, *facts) for name, facts in merged.items())


def _none_of(host: Host, name: str, value: t.Any, choices: tuple[str, ...]) -> c.Iterator[Problem]:
    for word in map(str, value if isinstance(value, (list, tuple)) else [value]):
        if word not in choices:
            near = difflib.get_close_matches(word.lower(), choices, n=1)
            step = f"Probably {near[0]} is meant" if near else "Correct the word"
            yield Problem(host.name, name, shown(value), f"one of {', '.join(choices)}", step)


def _is_bool(value: t.Any) -> bool:
    return is_true(value) or str(value).strip().lower() in _FALSE


def _is_number(value: t.Any) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return not isinstance(value, bool)


_KINDS: dict[str, tuple[c.Callable[[t.Any], bool], str]] = {
    "bool": (_is_bool, "true or false"),
    "float": (_is_number, "a number"),
    "int": (lambda value: as_int(value) is not None, "a whole number"),
    "list": (lambda value: not isinstance(value, c.Mapping), "a list"),
    "path": (lambda value: isinstance(value, str), "a path"),
    "str": (lambda value: not isinstance(value, (list, tuple, c.Mapping)), "one text, and no list"),
}


def near_misses(host: Host, roles: Roles, own: c.Collection[str]) -> c.Iterator[Problem]:
    """Variables that nobody knows, and whose name is nearly that of one that somebody knows.

    Args:
        host: whose variables.
        roles: what is known.
        own: variables of the site's own, which are no mistakes whatever they are called.
    """
    for name in sorted(host.names - roles.words - frozenset(own)):
        prefix = next((one for one in roles.prefixes if name.startswith(one)), "")
        known = {word.removeprefix(prefix): word for word in roles.words if prefix and word.startswith(prefix)}
        near = difflib.get_close_matches(name.removeprefix(prefix), known, n=1, cutoff=_ALIKE)
        if near:
            step = "Correct the name; a variable of your own goes into preflight_own_variables"
            yield Problem(host.name, name, "a variable that no role and no playbook knows", known[near[0]], step)
