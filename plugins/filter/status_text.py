# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads plugins without running them

from __future__ import annotations

DOCUMENTATION = r"""
name: status_text
short_description: A report about gateways as text
version_added: 0.1.0
description:
  - Spells what M(scistream.core.gateways_info) found. What needs attention stands first, then each gateway with its
    sessions, then the path of each stream.
options:
  _input:
    description: What M(scistream.core.gateways_info) returned.
    type: dict
    required: true
seealso:
  - module: scistream.core.gateways_info
  - plugin: scistream.core.status_page
    plugin_type: filter
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Show what there is
  ansible.builtin.debug:
    msg: "{{ report | scistream.core.status_text }}"
"""

RETURN = r"""
_value:
  description: The report, line by line.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

try:
    from scistream.reporting import render_text
except ImportError as error:
    LIBRARY_ERROR: ImportError | None = error
else:
    LIBRARY_ERROR = None


def status_text(report: dict[str, t.Any]) -> list[str]:
    """The lines of the report."""
    if LIBRARY_ERROR is not None:
        raise AnsibleFilterError(f"the library scistream is missing on the controller: {LIBRARY_ERROR}")
    try:
        return render_text(report)
    except (KeyError, TypeError) as failure:
        raise AnsibleFilterError(
            f"status_text takes what scistream.core.gateways_info returned: {failure}"
        ) from failure


class FilterModule:
    """Makes it known to Ansible."""

    def filters(self) -> dict[str, t.Any]:
        return {"status_text": status_text}
