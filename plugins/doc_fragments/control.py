# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a control server is reached. Its twin is CONTROL_ARGUMENTS in plugins/module_utils/_control.py."""

    DOCUMENTATION = r"""
options:
  control_server:
    description:
      - The control server, as V(HOST:PORT) or V([IPv6]:PORT). Without a port, it is 5000.
    type: str
    required: true
    aliases: [s2cs]
  server_certificate:
    description:
      - PEM file that vouches for the control server. It is the control server's own certificate or its facility's CA.
      - Without it, the public certificate authorities count.
    type: path
    aliases: [server_cert]
  insecure_plain_text:
    description:
      - Talk without TLS, to a control server that was started so. Session keys are not sent then.
    type: bool
    default: false
  token:
    description:
      - Access token, where the control server authenticates its users.
      - Better kept in the environment variable E(SCISTREAM_TOKEN).
    type: str
  timeout:
    description:
      - Seconds that one call to the control server may take.
    type: float
    default: 30.0
notes:
  - To say once for a play how the control server is reached, use C(module_defaults) with the group
    C(group/scistream.core.control).
"""
