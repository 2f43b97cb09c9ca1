# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a session's bytes are carried. Its twin is PROTECTION_ARGUMENTS in plugins/module_utils/_protection.py."""

    DOCUMENTATION = r"""
options:
  encryption:
    description:
      - What protects the bytes between the two gateways.
      - V(tls) is TLS 1.3, where each gateway proves itself to the other with what exists for this session only.
      - V(none) leaves the bytes readable on their way. Every status says so.
      - By default V(tls). An outbound session with a ticket has what its inbound one has, V(none) as well.
    type: str
    choices: [tls, none]
  legacy_psk:
    description:
      - Authenticate as the deployed Stunnel does, by a key that is no secret, and encrypt nothing.
      - Only for a stream whose other end is a deployed gateway. Refused where both ends are known not to be.
      - An outbound session needs it even where its ticket says as much, and is refused without it.
    type: bool
    default: false
  transport:
    description:
      - What carries the bytes. V(udp) needs O(encryption=none), and an engine that can carry it.
      - By default V(tcp). An outbound session with a ticket has what its inbound one has.
    type: str
    choices: [tcp, udp]
  sources:
    description:
      - Addresses and networks whose hosts may connect to the entry points, as V(192.0.2.7) or V(2001:db8::/32). By
        default everybody may.
      - Refused where the control server's engine has no source list.
    type: list
    elements: str
  half_close:
    description:
      - Say that the application half-closes its connections, and needs every byte all the same.
      - Refused where the control server's engine would lose bytes then.
    type: bool
    default: false
"""
