# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads plugins without running them

from __future__ import annotations

DOCUMENTATION = r"""
name: draw_path
short_description: The path of a stream as a drawing
version_added: 0.1.0
description:
  - Draws who is connected to whom, from the application over the two gateways to the target, with addresses, engines,
    and what protects the bytes between the gateways.
positional: outbound
options:
  _input:
    description: The inbound session, as M(scistream.core.session) returns it.
    type: dict
    required: true
  outbound:
    description: The outbound session, likewise.
    type: dict
    required: true
  applications:
    description: Who connects, a name for each entry point, in turn.
    type: list
    elements: str
    default: [application]
  facilities:
    description: Names of the outbound and of the inbound facility.
    type: list
    elements: str
    default: ['', '']
seealso:
  - plugin: scistream.core.session
    plugin_type: module
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Show who is connected to whom
  ansible.builtin.debug:
    msg: "{{ inbound.session | scistream.core.draw_path(outbound.session, applications=['detector']) }}"
"""

RETURN = r"""
_value:
  description: The drawing, line by line.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

try:
    from scistream.client.drawing import draw_path as _draw_path
except ImportError as error:
    LIBRARY_ERROR: ImportError | None = error
else:
    LIBRARY_ERROR = None


def draw_path(
    inbound: dict[str, t.Any],
    outbound: dict[str, t.Any],
    applications: list[str] | None = None,
    facilities: list[str] | None = None,
) -> list[str]:
    """The drawing of a path."""
    if LIBRARY_ERROR is not None:
        raise AnsibleFilterError(f"the library scistream is missing on the controller: {LIBRARY_ERROR}")
    near, far = facilities or ("", "")
    try:
        return _draw_path(inbound, outbound, applications or "application", facilities=(near, far))
    except (KeyError, TypeError) as failure:
        raise AnsibleFilterError(
            f"draw_path takes two sessions as scistream.core.session returns them: {failure}"
        ) from failure


class FilterModule:
    """Makes it known to Ansible."""

    def filters(self) -> dict[str, t.Any]:
        return {"draw_path": draw_path}
