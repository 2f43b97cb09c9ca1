#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: session_info
short_description: The sessions of a control server
version_added: 0.1.0
description:
  - Lists the caller's sessions on a control server, in the order of their opening, or looks one of them up.
  - A session that is not there is no error. The list is empty then.
extends_documentation_fragment:
  - scistream.core.attributes.info
  - scistream.core.control
  - scistream.core.library
  - scistream.core.selection
seealso:
  - module: scistream.core.session
  - module: scistream.core.control_server_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: See all sessions
  scistream.core.session_info:
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
  register: gateway

- name: Stop where one of them failed
  ansible.builtin.assert:
    that: gateway.sessions | selectattr('state', 'eq', 'failed') | length == 0

- name: See one session
  scistream.core.session_info:
    name: beamline-7
    direction: inbound
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt

- name: See the sessions of a control server on this machine that was started with --ssl=False
  scistream.core.session_info:
    control_server: localhost
    insecure_plain_text: true
"""

RETURN = r"""
sessions:
  description: The sessions, in the order of their opening.
  returned: success
  type: list
  elements: dict
  contains:
    uid:
      description: The uid, the same at both ends of a stream.
      returned: success
      type: str
      sample: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    name:
      description: The name that the task gave. V(null) without one.
      returned: success
      type: str
      sample: beamline-7
    direction:
      description: Which end of the stream, V(inbound) or V(outbound).
      returned: success
      type: str
      sample: inbound
    state:
      description: One of V(requested), V(registered), V(active), V(draining), V(released) and V(failed).
      returned: success
      type: str
      sample: active
    entry_points:
      description: Addresses that accept connections.
      returned: success
      type: list
      elements: str
      sample: ["192.0.2.7:5100"]
    targets:
      description: Addresses that the connections go to.
      returned: success
      type: list
      elements: str
      sample: ["10.0.0.5:5074"]
    connections:
      description: How many entry points were asked for.
      returned: success
      type: int
      sample: 1
    rate:
      description: The rate that was asked for, in kb/s. V(0) where none was.
      returned: success
      type: int
      sample: 0
    engine:
      description: What carries the bytes. Empty where the control server speaks the old protocol only.
      returned: success
      type: str
      sample: haproxy
    encryption:
      description: What protects the bytes between the two gateways. V(tls) is TLS 1.3 with a certificate each way,
        V(tls-psk) TLS 1.3 with a key. With V(none) and V(legacy-psk) nothing is encrypted. Empty as
        RV(sessions[].engine) is.
      returned: success
      type: str
      sample: tls
    owner:
      description: Who opened it, V(NO_AUTH) where the control server authenticates nobody. Empty as
        RV(sessions[].engine) is.
      returned: success
      type: str
      sample: NO_AUTH
    opened:
      description: When it was opened, in seconds since the epoch. V(0) where that is not known.
      returned: success
      type: float
      sample: 1795388215.5
    failure:
      description: Why it failed. Empty otherwise.
      returned: success
      type: str
      sample: ""
    lease_expires:
      description: When its lease ends, and it with it, in seconds since the epoch. V(0) where it has no end.
      returned: success
      type: float
      sample: 1795417015.5
    idle_since:
      description: Since when no byte has gone through, in seconds since the epoch. V(0) where that is not known.
      returned: success
      type: float
      sample: 1795388412.1
    restarts:
      description: How often its data server was started again after it had ended by itself.
      returned: success
      type: int
      sample: 0
    traffic:
      description: What its data server has carried since it started, as its engine tells it.
      returned: success
      type: dict
      contains:
        connections_open:
          description: Connections that are open.
          returned: success
          type: int
          sample: 1
        connections_total:
          description: Connections that there have been.
          returned: success
          type: int
          sample: 3
        bytes_to_targets:
          description: Application bytes towards the targets.
          returned: success
          type: int
          sample: 1048576
        bytes_from_targets:
          description: Application bytes from the targets.
          returned: success
          type: int
          sample: 5368709120
        refused_peers:
          description: Peers that were turned away because they did not prove themselves or are not among the sources.
          returned: success
          type: int
          sample: 0
    transport:
      description: What carries the bytes, V(tcp) or V(udp).
      returned: success
      type: str
      sample: tcp
    sources:
      description: The networks whose hosts may connect. Empty where all may.
      returned: success
      type: list
      elements: str
      sample: [198.51.100.7/32]
    half_close:
      description: Whether it was said that the application half-closes its connections.
      returned: success
      type: bool
      sample: false
    cipher:
      description: The cipher suite that the two data servers agreed on last, as they tell it. Empty before the first
        connection, and where the engine does not tell.
      returned: success
      type: str
      sample: TLS_AES_256_GCM_SHA384
    peer:
      description: Who the other gateway's data server proved to be. Empty as C(cipher) is.
      returned: success
      type: str
      sample: CN=outbound 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    warnings:
      description: What its users should know, a sentence each, as that nothing is encrypted.
      returned: success
      type: list
      elements: str
      sample: []
    certificate_expires:
      description: When the certificate ends that its data server proves itself with, in seconds since the epoch. It is
        replaced long before. V(0) where there is none.
      returned: success
      type: float
      sample: 1797980215.0
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg).
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

from ansible_collections.scistream.core.plugins.module_utils._control import CONTROL_ARGUMENTS, control_server, report
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._sessions import (
    SELECTION_ARGUMENTS,
    as_result,
    chosen_direction,
    named_uid,
)

ARGUMENTS: dict[str, dict[str, t.Any]] = {**CONTROL_ARGUMENTS, **SELECTION_ARGUMENTS}


class _Sessions:
    """The sessions that the task asks for."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name = module.params["name"]
        self.client = load(module, "scistream.client")
        self.errors = load(module, "scistream.errors")
        self.direction = chosen_direction(module)

    def look(self) -> dict[str, t.Any]:
        """Read, and nothing else."""
        uid = named_uid(self.module, create=False)
        with self.client.connect(control_server(self.module)) as connection:
            found = connection.list_sessions() if uid is None else self._described(connection, uid)
        if self.name and uid is None:
            # Without a site secret, no session has a name.
            found = ()
        wanted = (one for one in found if self.direction in (None, one.direction))
        return {"changed": False, "sessions": [as_result(one, self.name) for one in wanted]}

    def _described(self, connection: t.Any, uid: t.Any) -> t.Any:
        try:
            return connection.describe(uid)
        except self.errors.SciStreamError as error:
            if error.code is not self.errors.Code.UID_UNKNOWN:
                raise
            return ()


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("name", "uid")],
    )
    report(module, _Sessions(module).look)


if __name__ == "__main__":
    main()
