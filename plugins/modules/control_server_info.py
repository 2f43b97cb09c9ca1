#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: control_server_info
short_description: What a control server is, and whether it serves
version_added: 0.1.0
description:
  - Asks a control server for its version, addresses, engines, certificate and authentication.
  - Fails where the control server does not answer, and says why. That makes it the check after a deployment.
  - A control server that speaks the old protocol only tells nothing of itself. All facts but its address are V(null)
    then.
extends_documentation_fragment:
  - scistream.core.attributes.info
  - scistream.core.control
  - scistream.core.library
seealso:
  - module: scistream.core.session_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: See what the gateway's control server is
  scistream.core.control_server_info:
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
  register: gateway

- name: Stop where its certificate ends within two weeks
  ansible.builtin.assert:
    that: gateway.control_server.certificate_expires - now().timestamp() > 14 * 86400

- name: Wait until it answers, for a minute
  scistream.core.control_server_info:
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
    timeout: 5
  register: gateway
  until: gateway is success
  retries: 12
  delay: 5

- name: See every gateway of the inventory
  module_defaults:
    group/scistream.core.control:
      control_server: "{{ scistream_control_server }}"
      server_certificate: "{{ scistream_server_certificate }}"
  block:
    - name: Ask the gateway's control server
      scistream.core.control_server_info:
        timeout: 5
"""

RETURN = r"""
control_server:
  description: The control server. All facts but RV(control_server.address) are V(null) where it speaks the old
    protocol only.
  returned: success
  type: dict
  contains:
    address:
      description: Where it was asked.
      returned: success
      type: str
      sample: gateway.facility-a.example:5000
    version:
      description: Its version.
      returned: success
      type: str
      sample: 0.1.0
    listen_address:
      description: Where it listens.
      returned: success
      type: str
      sample: 192.0.2.7:5000
    port_range:
      description: The ports that it hands out as entry points.
      returned: success
      type: str
      sample: 5100-5200
    ports_free:
      description: How many of them are free.
      returned: success
      type: int
      sample: 99
    engine:
      description: The engine that carries the bytes of its sessions.
      returned: success
      type: str
      sample: haproxy
    engines:
      description: The engines that it knows.
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: The engine.
          returned: success
          type: str
          sample: haproxy
        installed:
          description: Whether the gateway has it.
          returned: success
          type: bool
          sample: true
        version:
          description: Its version. Empty where it is not installed.
          returned: success
          type: str
          sample: 2.6.12
        program:
          description: Its program. Empty where it is not installed.
          returned: success
          type: str
          sample: /usr/sbin/haproxy
        encryption:
          description: What a session gets that asks for V(tls). That is V(tls), V(tls-psk), or V(none) where the
            engine has no such thing.
          returned: success
          type: str
          sample: tls
        encryptions:
          description: All that it can protect the bytes between two gateways with.
          returned: success
          type: list
          elements: str
          sample: [tls, none]
        abilities:
          description: What it can do here and now, a row for each feature.
          returned: success
          type: list
          elements: dict
          contains:
            feature:
              description: The feature.
              returned: success
              type: str
              sample: UDP
            can:
              description: Whether it can.
              returned: success
              type: bool
              sample: false
            words:
              description: Why not. Empty where it can.
              returned: success
              type: str
              sample: it carries TCP only
        privileges:
          description: What the control server needs for it, beyond an ordinary user's rights.
          returned: success
          type: str
          sample: none
        can_limit_rate:
          description: Whether it can hold a session to a rate.
          returned: success
          type: bool
          sample: false
    authentication:
      description: How it authenticates its users. V(NO_AUTH) where everybody may do everything.
      returned: success
      type: str
      sample: NO_AUTH
    tls:
      description: Whether the control channel is encrypted.
      returned: success
      type: bool
      sample: true
    certificate_names:
      description: Host names and addresses that its certificate vouches for.
      returned: success
      type: list
      elements: str
      sample: [gateway.facility-a.example, 192.0.2.7]
    certificate_expires:
      description: When its certificate ends, in seconds since the epoch. V(0) without a certificate.
      returned: success
      type: float
      sample: 1826924215.0
    started:
      description: When it was started, in seconds since the epoch.
      returned: success
      type: float
      sample: 1795388215.5
    sessions:
      description: How many sessions there are.
      returned: success
      type: int
      sample: 1
    scope:
      description: What a token has to be for. Empty where it authenticates nobody.
      returned: success
      type: str
      sample: https://auth.globus.org/scopes/2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f/scistream
    default_lease:
      description: How many seconds a session lasts that asks for nothing else. V(0) for no end.
      returned: success
      type: float
      sample: 0.0
    longest_lease:
      description: The longest lease that can be asked for, in seconds. V(0) for no end.
      returned: success
      type: float
      sample: 86400.0
    metrics_address:
      description: Where Prometheus finds its metrics. Empty where they are off.
      returned: success
      type: str
      sample: 127.0.0.1:9100
    warnings:
      description: What its operator should know, a sentence each.
      returned: success
      type: list
      elements: str
      sample: []
    old_clients:
      description: What sessions of deployed clients get, which know of no encryption. One of V(refuse), V(plain) and
        V(legacy-psk).
      returned: success
      type: str
      sample: refuse
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

ARGUMENTS: dict[str, dict[str, t.Any]] = CONTROL_ARGUMENTS

_OLD = "The control server {address} speaks the old protocol only: it answers, and tells nothing of itself."


class _ControlServer:
    """The control server that the task asks."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.client = load(module, "scistream.client")
        self.errors = load(module, "scistream.errors")

    def look(self) -> dict[str, t.Any]:
        """Read, and nothing else."""
        asked = control_server(self.module)
        with self.client.connect(asked) as connection:
            facts = self._facts(connection)
        return {"changed": False, "control_server": {"address": str(asked.address), **facts}}

    def _facts(self, connection: t.Any) -> dict[str, t.Any]:
        try:
            connection.check_health()
            return connection.server_facts().as_dict()
        except self.errors.SciStreamError as error:
            if error.code is not self.errors.Code.OLD_CONTROL_SERVER:
                raise
        self.module.warn(_OLD.format(address=connection.control_server.address))
        return dict.fromkeys(_fields(self.client.ServerFacts))


def _fields(facts: t.Any) -> tuple[str, ...]:
    return tuple(facts.__dataclass_fields__)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    report(module, _ControlServer(module).look)


if __name__ == "__main__":
    main()
