#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Whether the variables of an inventory fit together
version_added: 0.1.0
description:
  - Judges what the inventory says of gateways and clients. Each variable has to be of its kind, and all of them have to
    fit together, on one host and between hosts.
  - Runs on the controller alone. No host is connected to, so that whatever is wrong is told before any of them is
    touched.
  - It takes two tasks. The first runs for every host, and collects its variables as the roles of the play see them. The
    second runs once, judges them all, and fails with a sentence for each problem. The role
    P(scistream.core.preflight#role) has both.
options:
  collected:
    description:
      - What the first task returned, of each host. Without it, the module collects. With it, the module judges.
    type: list
    elements: dict
  gateways_group:
    description: The group of the inventory whose hosts are gateways.
    type: str
    default: gateways
  clients_group:
    description: The group of the inventory whose hosts are clients.
    type: str
    default: clients
  own_variables:
    description:
      - Variables of the site's own that begin as the collection's do, and are no typing errors.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    details: The module only reads.
  diff_mode:
    support: N/A
    details: There is nothing to show, since nothing is changed.
  idempotent:
    support: full
  platform:
    platforms: posix
    details: It runs on the controller, and needs neither the library nor a connection.
extends_documentation_fragment:
  - scistream.core.attributes
seealso:
  - module: scistream.core.control_server_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: See what each host's variables are
  scistream.core.inventory_check:
  register: inventory_seen

- name: Stop with all that is wrong, before any host is touched
  scistream.core.inventory_check:
    collected: "{{ ansible_play_hosts | map('extract', hostvars, ['inventory_seen', 'collected']) }}"
  run_once: true

- name: The same for an inventory whose groups have other names
  scistream.core.inventory_check:
    collected: "{{ ansible_play_hosts | map('extract', hostvars, ['inventory_seen', 'collected']) }}"
    gateways_group: border
    clients_group: beamlines
    own_variables: [scistream_site]
  run_once: true
"""

RETURN = r"""
collected:
  description: What the inventory says of the host. Secrets are masked.
  returned: without O(collected)
  type: dict
  contains:
    name:
      description: The host.
      returned: success
      type: str
      sample: gateway_a
    groups:
      description: The groups that it is in.
      returned: success
      type: list
      elements: str
      sample: [facility_a, gateways]
    variables:
      description: The collection's variables, evaluated.
      returned: success
      type: dict
      sample: {scistream_control_port: 5000}
    errors:
      description: Those that cannot be evaluated, and why.
      returned: success
      type: dict
      sample: {scistream_address: "'wan_address' is undefined"}
    names:
      description: The names of all variables that begin as the collection's do.
      returned: success
      type: list
      elements: str
      sample: [scistream_control_port]
problems:
  description: What is wrong.
  returned: with O(collected)
  type: list
  elements: dict
  contains:
    host:
      description: The host.
      returned: always
      type: str
      sample: gateway_a
    variable:
      description: Its variable.
      returned: always
      type: str
      sample: scistream_port_range
    seen:
      description: What it is.
      returned: always
      type: str
      sample: 5200-5100
    wanted:
      description: What it is to be.
      returned: always
      type: str
      sample: FIRST-LAST (it runs backwards)
    step:
      description: What to do next.
      returned: always
      type: str
      sample: Write the lower port first, as in 5100-5200
    sentence:
      description: All of it, for people.
      returned: always
      type: str
      sample: >-
        gateway_a: scistream_port_range is 5200-5100, and is to be FIRST-LAST (it runs backwards). Write the lower port
        first, as in 5100-5200.
"""
