# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import yaml

from ansible_collections.scistream.core.plugins.doc_fragments import control

_OWN = r"""
name:
  description: What the report calls the gateway.
  type: str
  required: true
facility:
  description: The facility that it belongs to.
  type: str
  default: ""
inbound_address:
  description:
    - Address that other gateways connect to, where the control server listens on all addresses. By default that of
      O(control_server).
  type: str
outbound_address:
  description:
    - Address that the facility's applications connect to, likewise.
  type: str
control_server:
  description:
    - The control server, as V(HOST:PORT) or V([IPv6]:PORT). Without a port, it is 5000.
    - A gateway without one is reported as one that cannot be asked.
  type: str
  aliases: [s2cs]
"""


def _named_below(words: str) -> str:
    """An option's name in a text is that of an option beside it."""
    return re.sub(r"\bO\((?=\w)", "O(gateways[].", words)


class ModuleDocFragment:
    """How the control servers of many gateways are reached. Its twin is in plugins/modules/gateways_info.py."""

    # Annotated, since sanity's yamllint takes a plain assignment for a text.
    DOCUMENTATION: str = yaml.safe_dump(
        {
            "options": {
                "gateways": {
                    "description": ["The gateways, and how their control servers are reached."],
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "suboptions": {
                        **yaml.safe_load(_named_below(control.ModuleDocFragment.DOCUMENTATION))["options"],
                        **yaml.safe_load(_named_below(_OWN)),
                    },
                }
            }
        },
        sort_keys=False,
    )
