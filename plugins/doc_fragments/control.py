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
      - Talk without TLS, to a control server that was started so. Session keys are not sent then, and a token is
        refused.
    type: bool
    default: false
  insecure_plain_text_token:
    description:
      - Send the token also if O(insecure_plain_text=true). Whoever is on its way can read it, and use it.
    type: bool
    default: false
  token:
    description:
      - Access token, where the control server authenticates its users.
      - Without it, the one in the environment variable E(SCISTREAM_TOKEN) is sent, to the control servers that
        E(SCISTREAM_TOKEN_FOR) names, as V(HOST:PORT) with commas between. Where that is not set, it is sent if the task
        asks one control server only.
    type: str
  timeout:
    description:
      - Seconds that one call to the control server may take.
    type: float
    default: 30.0
  via:
    description:
      - SSH host that leads to the control server, as V(ssh://user@host) or V(ssh://user@host:port), where the control
        server's own port is closed. The address in O(control_server) is then as seen from that host.
      - Host keys have to be known. Users, keys, jump hosts and the rest are what C(~/.ssh/config) and the system's
        configuration say, or the file that the environment names as E(SCISTREAM_SSH_CONFIG), by its whole path. Nobody
        is asked for a password.
      - The SSH connection is kept for the tasks that follow, until nobody has used it for E(SCISTREAM_SSH_IDLE)
        seconds, 60 by default.
      - Where O(control_server) names a loopback address, the control server's certificate is checked for the name of
        this host.
    type: str
notes:
  - To say once for a play how the control server is reached, use C(module_defaults) with the group
    C(group/scistream.core.control).
"""
