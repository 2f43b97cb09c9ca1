# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads plugins without running them

from __future__ import annotations

DOCUMENTATION = r"""
name: status_page
short_description: A report about gateways as an HTML page
version_added: 0.1.0
description:
  - Makes one HTML page of what M(scistream.core.gateways_info) found, with a drawing of the path of each stream.
  - The page has nothing in it that comes from elsewhere when it is read, and no scripts. What other facilities' control
    servers say is escaped.
options:
  _input:
    description: What M(scistream.core.gateways_info) returned.
    type: dict
    required: true
seealso:
  - module: scistream.core.gateways_info
  - plugin: scistream.core.status_text
    plugin_type: filter
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ report | scistream.core.status_page }}"
    dest: scistream-status.html
    mode: "0600"
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

try:
    from scistream.reporting import render_page
except ImportError as error:
    LIBRARY_ERROR: ImportError | None = error
else:
    LIBRARY_ERROR = None


def status_page(report: dict[str, t.Any]) -> str:
    """The page."""
    if LIBRARY_ERROR is not None:
        raise AnsibleFilterError(f"the library scistream is missing on the controller: {LIBRARY_ERROR}")
    try:
        return render_page(report)
    except (KeyError, TypeError) as failure:
        raise AnsibleFilterError(
            f"status_page takes what scistream.core.gateways_info returned: {failure}"
        ) from failure


class FilterModule:
    """Makes it known to Ansible."""

    def filters(self) -> dict[str, t.Any]:
        return {"status_page": status_page}
