# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `session` and `session_info` share: which session is meant, and what a session looks like in a result."""

from __future__ import annotations

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._library import load

__all__ = ["DIRECTIONS", "SELECTION_ARGUMENTS", "as_result", "chosen_direction", "named_uid"]

# The old protocol's roles are aliases, at this edge only.
DIRECTIONS = ["inbound", "outbound", "PROD", "CONS"]

# The twin of plugins/doc_fragments/selection.py.
SELECTION_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str"},
    "uid": {"type": "str"},
    "direction": {"type": "str", "choices": DIRECTIONS},
    "site_secret": {"type": "path", "no_log": False},
}


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
    return client.uid_of(name, client.site_secret(path, create=create))


def as_result(session: t.Any, name: str | None) -> dict[str, t.Any] | None:
    """A session of scistream.client as plain data, with the name that the task gave it; None stays None."""
    return None if session is None else {**session.as_dict(), "name": name}
