#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: gateways_info
short_description: What runs on many gateways, and what of it needs attention
version_added: 0.1.0
description:
  - Asks the control servers of all gateways at once what they are and which of the caller's sessions they have.
  - A gateway that does not answer is part of the report, with the reason. It does not fail the task.
options:
  certificate_days:
    description: A control server's certificate that ends in fewer days needs attention.
    type: float
    default: 14.0
extends_documentation_fragment:
  - scistream.core.attributes.info
  - scistream.core.gateways
  - scistream.core.library
seealso:
  - module: scistream.core.control_server_info
  - module: scistream.core.session_info
  - plugin: scistream.core.status_text
    plugin_type: filter
  - plugin: scistream.core.status_page
    plugin_type: filter
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Ask two gateways
  scistream.core.gateways_info:
    gateways:
      - name: gateway_a
        control_server: gateway.facility-a.example:5000
        server_certificate: facility-a.crt
      - name: gateway_b
        control_server: gateway.facility-b.example:5000
        server_certificate: facility-b.crt
  register: report

- name: Show what there is
  ansible.builtin.debug:
    msg: "{{ report | scistream.core.status_text }}"

- name: Stop where something needs attention, a certificate that ends within a month included
  scistream.core.gateways_info:
    gateways:
      - name: gateway_a
        control_server: gateway.facility-a.example:5000
        server_certificate: facility-a.crt
    certificate_days: 30
  register: report
  failed_when: report.troubles | length > 0

- name: Ask a gateway whose control port is closed, from the gateway itself
  scistream.core.gateways_info:
    gateways:
      - name: gateway_a
        facility: facility_a
        control_server: 127.0.0.1:5000
        server_certificate: facility-a.crt
        via: ssh://operator@gateway.facility-a.example
        inbound_address: 192.0.2.7
        outbound_address: 10.0.0.2
"""

RETURN = r"""
asked:
  description: When the gateways were asked, in seconds since the epoch.
  returned: success
  type: float
  sample: 1795388215.5
troubles:
  description: What somebody has to mend, sentences that begin with the gateway's name. Gateways that do not answer,
    sessions that failed, certificates that end, ports that are all taken.
  returned: success
  type: list
  elements: str
  sample: ["gateway_a: its certificate ends in 3d04h; renew it: rotate_certificates"]
notices:
  description: What somebody should know, likewise. Switches that are not secure, what is not encrypted, and what the
    control servers warn of.
  returned: success
  type: list
  elements: str
  sample: ["gateway_a: whoever reaches its control port may do everything: authentication is off"]
gateways:
  description: The gateways, in the order of O(gateways).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The gateway.
      returned: success
      type: str
      sample: gateway_a
    facility:
      description: Its facility.
      returned: success
      type: str
      sample: facility_a
    control_server:
      description: Where it was asked. Empty where that cannot be told.
      returned: success
      type: str
      sample: gateway.facility-a.example:5000
    reached:
      description: Whether its control server answered.
      returned: success
      type: bool
      sample: true
    failure:
      description: Why it did not, as RV(failure). V(null) where it did.
      returned: success
      type: dict
      sample: null
    facts:
      description: What it is, as M(scistream.core.control_server_info) returns it. V(null) where it does not say.
      returned: success
      type: dict
      sample: {"version": "0.1.0", "engine": "haproxy", "ports_free": 99}
    sessions:
      description: Its sessions, as M(scistream.core.session_info) returns them. The name is that by which the same user
        opened them.
      returned: success
      type: list
      elements: dict
      sample: [{"uid": "7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48", "direction": "inbound", "state": "active"}]
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg).
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the error.
      returned: failure
      type: str
      sample: BAD_CONFIGURATION
    details:
      description: The facts of the error, by name.
      returned: failure
      type: dict
      sample: {"key": "certificate_days", "value": "-1.0"}
    seen:
      description: What was seen.
      returned: failure
      type: str
      sample: "certificate_days = '-1.0' in the task's parameters cannot be used: it is a number of days, 0 or more"
    cause:
      description: The likely cause.
      returned: failure
      type: str
      sample: the configuration holds a wrong key or value
    remedy:
      description: What to do next.
      returned: failure
      type: str
      sample: correct certificate_days in the task's parameters
"""

import dataclasses
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import (
    CONTROL_ARGUMENTS,
    control_server,
    refused,
    report,
    unlocked,
)
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._streams import Part

_GATEWAY: dict[str, dict[str, t.Any]] = {
    **CONTROL_ARGUMENTS,
    "control_server": {"type": "str", "aliases": ["s2cs"]},
    "name": {"type": "str", "required": True},
    "facility": {"type": "str", "default": ""},
    "inbound_address": {"type": "str"},
    "outbound_address": {"type": "str"},
}
ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "gateways": {"type": "list", "elements": "dict", "required": True, "options": _GATEWAY},
    "certificate_days": {"type": "float", "default": 14.0},
}


class _Gateways:
    """The gateways that the task asks."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.survey = load(module, "scistream.client.survey")
        self.errors = load(module, "scistream.errors")

    def look(self) -> dict[str, t.Any]:
        """Read, and nothing else."""
        days = self.module.params["certificate_days"]
        if not 0 <= days < float("inf"):
            raise refused(self.module, "certificate_days", "it is a number of days, 0 or more")
        reports = self._reports()
        now, gateways = time.time(), [one.as_dict() for one in reports]
        judged = load(self.module, "scistream.reporting").judged(gateways, now=now, certificate_days=days)
        return {"changed": False, "asked": now, "gateways": gateways, **judged}

    def _reports(self) -> list[t.Any]:
        """In the order of the task's gateways; those that cannot be asked as well."""
        meant = [self._gateway(given) for given in self.module.params["gateways"]]
        asked = [one for one in meant if isinstance(one, self.survey.Gateway)]
        servers = unlocked(self.module, [one.control_server for one in asked])
        ready = [dataclasses.replace(one, control_server=server) for one, server in zip(asked, servers, strict=True)]
        reports = iter(self.survey.ask_gateways(ready))
        return [next(reports) if isinstance(one, self.survey.Gateway) else one for one in meant]

    def _gateway(self, given: dict[str, t.Any]) -> t.Any:
        """A gateway that can be asked, or the report of one that cannot."""
        called = {"name": given["name"], "facility": given["facility"]}
        addresses = load(self.module, "scistream.addresses")
        try:
            at = {
                name: addresses.parse_host(given[name])
                for name in ("inbound_address", "outbound_address")
                if given[name]
            }
            server = control_server(Part(self.module, given), is_alone=False)
            return self.survey.Gateway(control_server=server, **called, **at)
        except self.errors.SciStreamError as error:
            return self.survey.GatewayReport(**called, address=given["control_server"] or "", failure=error)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    report(module, _Gateways(module).look)


if __name__ == "__main__":
    main()
