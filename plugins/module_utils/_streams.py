# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `stream` and `stream_info` share: a stream's two gateways, and what a stream looks like in a result."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import (
    CONTROL_ARGUMENTS,
    control_server,
    unlocked,
)
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._protection import PROTECTION_ARGUMENTS
from ansible_collections.scistream.core.plugins.module_utils._sessions import SELECTION_ARGUMENTS, as_result

__all__ = ["STREAM_ARGUMENTS", "STREAM_PROTECTION_ARGUMENTS", "Part", "as_stream", "naming", "stream_ends"]

_END_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **CONTROL_ARGUMENTS,
    "address": {"type": "str"},
    "gateway": {"type": "str"},
    "engine": {"type": "str", "choices": ["haproxy", "nftables", "nginx", "stunnel"]},
    "sources": PROTECTION_ARGUMENTS["sources"],
}
# The twin of plugins/doc_fragments/streams.py.
STREAM_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **{name: spec for name, spec in SELECTION_ARGUMENTS.items() if name != "direction"},
    "from": {"type": "dict", "options": _END_ARGUMENTS},
    "to": {"type": "dict", "options": _END_ARGUMENTS},
}
STREAM_PROTECTION_ARGUMENTS = {name: spec for name, spec in PROTECTION_ARGUMENTS.items() if name != "sources"}


class Part:
    """Parameters below an option, where the code that knows one control server looks for a task's.

    Args:
        module: for all else.
        params: the parameters.
    """

    def __init__(self, module: AnsibleModule, params: dict[str, t.Any]) -> None:
        self._module = module
        self.params = params

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._module, name)


def stream_ends(module: AnsibleModule) -> t.Any:
    """The gateways that the task names, as scistream.client.streams.StreamEnds.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_CONFIGURATION, BAD_SOURCES; the option stands before its words.
    """
    streams = load(module, "scistream.client.streams")
    named = {"inbound": _stream_end(module, "to", streams), "outbound": _stream_end(module, "from", streams)}
    ends = {direction: end for direction, end in named.items() if end}
    servers = unlocked(module, [end.control_server for end in ends.values()])
    for (direction, end), server in zip(ends.items(), servers, strict=True):
        named[direction] = dataclasses.replace(end, control_server=server)
    return streams.StreamEnds(**named)


def _stream_end(module: AnsibleModule, option: str, streams: t.Any) -> t.Any:
    given = module.params[option]
    if given is None:
        return None
    addresses = load(module, "scistream.addresses")
    with naming(module, option):
        return streams.StreamEnd(
            control_server=control_server(Part(module, given), is_alone=False),
            address=addresses.parse_host(given["address"]) if given["address"] else "",
            gateway=given["gateway"] or "",
            engine=given["engine"] or "",
            sources=addresses.parse_networks(",".join(given["sources"])) if given["sources"] else (),
        )


@contextlib.contextmanager
def naming(module: AnsibleModule, option: str) -> t.Iterator[None]:
    """Put before an error the option that it is about: its own words have the value only."""
    errors = load(module, "scistream.errors")
    try:
        yield
    except errors.SciStreamError as error:
        error.args = (f"{option}: {error}",)
        raise


def as_stream(name: str | None, inbound: t.Any, outbound: t.Any) -> dict[str, t.Any] | None:
    """A stream as plain data, with the name that the task gave it; None where neither session is there."""
    there = [session for session in (inbound, outbound) if session]
    if not there:
        return None
    return {
        "uid": there[0].uid,
        "name": name,
        "state": next((session.state for session in there if not session.is_active), there[0].state),
        "encryption": there[0].encryption,
        "entry_points": list(outbound.entry_points) if outbound else [],
        "targets": list(inbound.targets) if inbound else [],
        "inbound": as_result(inbound, name),
        "outbound": as_result(outbound, name),
    }
