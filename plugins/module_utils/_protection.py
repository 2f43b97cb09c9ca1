# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a session's bytes are carried and protected, as a task says it."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import refused
from ansible_collections.scistream.core.plugins.module_utils._library import load

__all__ = ["PROTECTION_ARGUMENTS", "protection"]

# The twin of plugins/doc_fragments/protection.py.
PROTECTION_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "encryption": {"type": "str", "choices": ["tls", "none"]},
    "legacy_psk": {"type": "bool", "default": False},
    "transport": {"type": "str", "choices": ["tcp", "udp"]},
    "sources": {"type": "list", "elements": "str"},
    "half_close": {"type": "bool", "default": False},
}


def protection(module: AnsibleModule) -> dict[str, t.Any]:
    """What a request takes; encryption and transport are there only where the task says them.

    Args:
        module: with PROTECTION_ARGUMENTS among its parameters.

    Raises:
        SciStreamError: BAD_SOURCES, BAD_CONFIGURATION.
    """
    terms, params = load(module, "scistream.terms"), module.params
    if params["legacy_psk"] and params["encryption"]:
        raise refused(module, "legacy_psk", "it goes without encryption: they are two wishes")
    said: dict[str, t.Any] = {"half_close": params["half_close"]}
    if params["legacy_psk"]:
        said["encryption"] = terms.Encryption.LEGACY_PSK
    if params["encryption"]:
        said["encryption"] = terms.parse_encryption(params["encryption"])
    if params["transport"]:
        said["transport"] = terms.parse_transport(params["transport"])
    # A stream has them at each end instead.
    if params.get("sources"):
        said["sources"] = load(module, "scistream.addresses").parse_networks(",".join(params["sources"]))
    return said
