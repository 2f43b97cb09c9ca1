# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import typing as t

import yaml

from ansible_collections.scistream.core.plugins.doc_fragments import control, protection, selection


def _options(fragment: t.Any) -> dict[str, t.Any]:
    return yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"]


_PROTECTION = _options(protection)
_SELECTION = _options(selection)
# What can be said of each end, in the words of the modules that know one session only.
_END = {
    **_options(control),
    "address": {
        "description": [
            "Address that this end's entry points are reached by. {reached}",
            "It counts where the control server listens on all addresses. By default that of O(control_server).",
        ],
        "type": "str",
    },
    "gateway": {
        "description": ["Name of the gateway, as the inventory has it. Errors call the end by it, beside its address."],
        "type": "str",
    },
    "engine": {
        "description": [
            "The engine that carries the bytes there. By default any.",
            "An engine is the gateway's operator's to choose. With another one, nothing is opened.",
        ],
        "type": "str",
        "choices": ["haproxy", "nftables", "nginx", "stunnel"],
    },
    "sources": _PROTECTION["sources"],
}


def _end(name: str, *description: str, reached: str) -> dict[str, t.Any]:
    # An option's name in a text is that of an option beside it.
    words = re.sub(r"\bO\((?=\w)", f"O({name}.", yaml.safe_dump(_END, width=1000))
    told = yaml.safe_load(words.replace("{reached}", reached))
    return {"description": list(description), "type": "dict", "suboptions": told}


class ModuleDocFragment:
    """Which stream is meant, between which gateways. Its twin is plugins/module_utils/_streams.py."""

    # Annotated, since sanity's yamllint takes a plain assignment for a text.
    DOCUMENTATION: str = yaml.safe_dump(
        {
            "options": {
                **{name: option for name, option in _SELECTION.items() if name != "direction"},
                "from": _end(
                    "from",
                    "The gateway of the outbound end, which the application connects to.",
                    "Without it, that end is another facility's.",
                    reached="Applications of the facility connect to it.",
                ),
                "to": _end(
                    "to",
                    "The gateway of the inbound end, which is in front of the targets.",
                    "Without it, that end is another facility's, whose ticket came from there.",
                    reached="The other gateway connects to it.",
                ),
            }
        },
        sort_keys=False,
        width=110,
    )

    # Each end has sources of its own.
    CARRIAGE: str = yaml.safe_dump(
        {"options": {name: option for name, option in _PROTECTION.items() if name != "sources"}}, sort_keys=False
    )
