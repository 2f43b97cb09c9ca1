# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Which session is meant. Its twin is SELECTION_ARGUMENTS in plugins/module_utils/_sessions.py."""

    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the session, 1 to 128 printable characters.
      - The same name at the same site is the same uid, on every run and on every control server.
    type: str
  uid:
    description:
      - The uid itself, 1 to 64 letters, digits and hyphens.
    type: str
  direction:
    description:
      - Which end of the stream. V(inbound) is in front of the targets, V(outbound) in front of the application that
        connects.
      - V(PROD) and V(CONS) are the old protocol's words for the two.
    type: str
    choices: [inbound, outbound, PROD, CONS]
  site_secret:
    description:
      - File with the site's secret, which makes uids out of names (mode 0600). It is made where a name is used first.
      - By default, C(scistream/site.secret) in the user's configuration directory (E(XDG_CONFIG_HOME), else
        C(~/.config)).
    type: path
"""
