#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: stream_info
short_description: What there is of a stream at its two gateways
version_added: 0.1.0
description:
  - Looks up the sessions of a stream, the inbound one at O(to), the outbound one at O(from).
  - A stream that is not there is no error. What is returned is V(null) then.
extends_documentation_fragment:
  - scistream.core.attributes.info
  - scistream.core.library
  - scistream.core.streams
seealso:
  - module: scistream.core.stream
  - module: scistream.core.session_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: See a stream
  scistream.core.stream_info:
    name: beamline-7
    from:
      control_server: gateway.facility-b.example:5000
      server_certificate: facility-b.crt
    to:
      control_server: gateway.facility-a.example:5000
      server_certificate: facility-a.crt
  register: found

- name: Stop where it does not carry bytes
  ansible.builtin.assert:
    that: found.stream.state == 'active'

- name: See the end that this facility has
  scistream.core.stream_info:
    uid: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    from:
      control_server: gateway.facility-b.example:5000
      server_certificate: facility-b.crt

- name: See it through a gateway whose control port is closed
  scistream.core.stream_info:
    name: beamline-7
    to:
      control_server: 127.0.0.1:5000
      server_certificate: facility-a.crt
      via: ssh://operator@gateway.facility-a.example
      address: 192.0.2.7
"""

RETURN = r"""
stream:
  description: The stream. V(null) where neither of its sessions is there.
  returned: success
  type: dict
  contains:
    uid:
      description: The uid, the same at both ends.
      returned: success
      type: str
      sample: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    name:
      description: The name that the task gave. V(null) without one.
      returned: success
      type: str
      sample: beamline-7
    state:
      description: What both ends are, V(active) where they carry bytes. Where they differ, that of one that does not.
      returned: success
      type: str
      sample: active
    encryption:
      description: What protects the bytes between the two gateways.
      returned: success
      type: str
      sample: tls
    entry_points:
      description: Addresses that the application connects to. Empty where the outbound session is not there.
      returned: success
      type: list
      elements: str
      sample: ["198.51.100.7:5100"]
    targets:
      description: Addresses that the connections come out at. Empty where the inbound session is not there.
      returned: success
      type: list
      elements: str
      sample: ["10.0.0.5:5074"]
    inbound:
      description: The inbound session, as M(scistream.core.session_info) returns it. V(null) where it is not there.
      returned: success
      type: dict
      sample: {"direction": "inbound", "engine": "haproxy", "entry_points": ["192.0.2.7:5100"], "state": "active"}
    outbound:
      description: The outbound session, likewise.
      returned: success
      type: dict
      sample: {"direction": "outbound", "engine": "haproxy", "entry_points": ["198.51.100.7:5100"], "state": "active"}
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg), after the option or the end that it
    is about.
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the error.
      returned: failure
      type: str
      sample: CONTROL_SERVER_UNREACHABLE
    details:
      description: The facts of the error, by name.
      returned: failure
      type: dict
      sample: {"reason": "nothing listens there (connection refused)", "server": "192.0.2.7:5000"}
    seen:
      description: What was seen.
      returned: failure
      type: str
      sample: "cannot connect to control server 192.0.2.7:5000: nothing listens there (connection refused)"
    cause:
      description: The likely cause.
      returned: failure
      type: str
      sample: its name or its port is another, it is not running, or a firewall is between
    remedy:
      description: What to do next.
      returned: failure
      type: str
      sample: "on the gateway: s2cs status; from here: curl -v telnet://192.0.2.7:5000"
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import report
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._sessions import named_uid
from ansible_collections.scistream.core.plugins.module_utils._streams import STREAM_ARGUMENTS, as_stream, stream_ends

ARGUMENTS: dict[str, dict[str, t.Any]] = STREAM_ARGUMENTS


def look(module: AnsibleModule) -> dict[str, t.Any]:
    """Read, and nothing else."""
    directions = load(module, "scistream.terms").Direction
    uid, ends = named_uid(module, create=False), stream_ends(module)
    # Without a site secret, no stream has a name.
    found = load(module, "scistream.client.stream_convergence").look_at_stream(ends, uid) if uid else {}
    sessions = (found.get(direction) for direction in (directions.INBOUND, directions.OUTBOUND))
    return {"changed": False, "stream": as_stream(module.params["name"], *sessions)}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("name", "uid")],
        required_one_of=[("name", "uid"), ("from", "to")],
    )
    report(module, lambda: look(module))


if __name__ == "__main__":
    main()
