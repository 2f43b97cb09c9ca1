# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `session` and `session_info` share: which session is meant, and what a session looks like in a result."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._library import load

__all__ = ["DIRECTIONS", "SELECTION_ARGUMENTS", "as_result", "chosen_direction", "named_uid", "wished_facts"]

# The old protocol's roles are aliases, at this edge only.
DIRECTIONS = ["inbound", "outbound", "PROD", "CONS"]

# The twin of plugins/doc_fragments/selection.py.
SELECTION_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str"},
    "uid": {"type": "str"},
    "direction": {"type": "str", "choices": DIRECTIONS},
    "site_secret": {"type": "path", "no_log": False},
}

# What a session is wished to be. The rest (ports, times, owner) is the control server's to say, and no difference.
_WISHED = (
    "connections",
    "direction",
    "encryption",
    "engine",
    "half_close",
    "rate",
    "sources",
    "state",
    "targets",
    "ticket",
    "transport",
)


def chosen_direction(module: AnsibleModule) -> t.Any:
    """The direction that was asked for, as scistream.terms.Direction; None where none was."""
    text = module.params["direction"]
    return load(module, "scistream.terms").parse_direction(text) if text else None


def named_uid(module: AnsibleModule, *, create: bool) -> t.Any:
    """The uid that `uid` or `name` give; None where neither was given, or there is no site secret to make it with.

    Args:
        module: with SELECTION_ARGUMENTS among its parameters.
        create: make the site secret where there is none.

    Raises:
        SciStreamError: BAD_UID, BAD_NAME, SITE_SECRET_UNREADABLE, FILE_UNWRITABLE.
    """
    params = module.params
    if params["uid"]:
        return load(module, "scistream.terms").parse_uid(params["uid"])
    if not params["name"]:
        return None
    client = load(module, "scistream.client")
    name = client.parse_name(params["name"])
    path = pathlib.Path(params["site_secret"]) if params["site_secret"] else client.default_site_secret()
    if not create and not path.exists():
        return None
    if params["site_secret"] and not path.exists():
        # The default one is made without a word; this one may be mistyped.
        module.warn(f"There was no site secret {path}, and it was made: with another one, names give other uids.")
    return client.uid_of(name, client.site_secret(path, create=create))


def as_result(session: t.Any, name: str | None) -> dict[str, t.Any] | None:
    """A session of scistream.client as plain data, with the name that the task gave it; None stays None."""
    return None if session is None else {**session.as_dict(), "name": name}


def wished_facts(facts: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """The facts that a wish can be compared by; of a stream's both ends, each by its direction."""
    if facts is None:
        return {}
    if "uid" not in facts:
        return {direction: wished_facts(one) for direction, one in facts.items()}
    return {name: facts[name] for name in _WISHED if facts.get(name) not in (None, "")}
