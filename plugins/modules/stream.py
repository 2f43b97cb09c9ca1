#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: stream
short_description: A stream between two gateways
version_added: 0.1.0
description:
  - Opens a stream, which is an inbound session on one control server and an outbound one on another, and releases it.
  - Both control servers are asked before anything is touched. The inbound end is opened first. Where the outbound end
    fails all the same, the inbound one that was opened for it is released again.
  - What goes between the two gateways is encrypted, unless the task says O(encryption=none).
  - Each end that is there with the same parameters is left alone. What is done about one that differs is what
    M(scistream.core.session) does.
  - With one end alone, the other one is another facility's. O(to) alone writes the ticket for it, O(from) alone reads
    the ticket that came from there.
options:
  state:
    description:
      - Whether the stream shall be there.
      - With V(absent), the outbound end is released first. An end that cannot be reached does not keep the other one
        from being released. The task fails then, and says which it was.
    type: str
    choices: [present, absent]
    default: present
  targets:
    description:
      - Addresses behind the inbound gateway that connections go to, each V(HOST:PORT) or V([IPv6]:PORT). Fewer than
        O(connections) are used in turn.
      - Required with O(to) and O(state=present).
    type: list
    elements: str
  connections:
    description:
      - Number of entry points at each end. Each takes a port of its control server, and carries many connections.
      - By default as many as there are targets.
    type: int
  rate:
    description:
      - Rate in kb/s of application bytes that each end holds the stream to. By default it is held to none, and a stream
        that is there may have any.
      - Refused where the engine of one of them cannot hold a session to a rate.
    type: int
  lease:
    description:
      - How long the stream lasts, from its opening on, as V(90) (seconds), V(30m), V(8h) or V(unlimited). By default
        as each control server says.
      - It counts where the task opens a session. One that is there keeps the lease that it has.
    type: str
  drain:
    description:
      - With O(state=absent), how many seconds the connections that run have to end by themselves, at each end. No new
        ones are let in during that time. What is left then is cut.
      - Without it they are cut at once.
    type: float
    default: 0
  ticket:
    description:
      - File on the controller with the ticket (mode 0600), which the inbound end writes. With O(from) alone it is
        required, and is what the other facility handed over.
      - It holds the key that the two gateways share, where the stream is encrypted.
      - Without this option it is kept where the module runs, in C(scistream/tickets) in the user's state directory
        (E(XDG_STATE_HOME), else C(~/.local/state)), named by the uid.
    type: path
extends_documentation_fragment:
  - scistream.core.attributes
  - scistream.core.library
  - scistream.core.streams
  - scistream.core.streams.carriage
seealso:
  - module: scistream.core.stream_info
  - module: scistream.core.session
  - module: scistream.core.gateways_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Open a stream from the compute hosts of facility B to the detector of facility A
  scistream.core.stream:
    name: beamline-7
    from:
      control_server: gateway.facility-b.example:5000
      server_certificate: facility-b.crt
    to:
      control_server: gateway.facility-a.example:5000
      server_certificate: facility-a.crt
    targets: ["10.0.0.5:5074"]
  register: opened

- name: Say where the application connects to
  ansible.builtin.debug:
    msg: "{{ opened.stream.entry_points }}"

- name: Only these hosts may connect, for one shift, with a second connection
  scistream.core.stream:
    name: beamline-7
    from:
      control_server: gateway.facility-b.example:5000
      server_certificate: facility-b.crt
      sources: [10.1.0.0/24]
    to:
      control_server: gateway.facility-a.example:5000
      server_certificate: facility-a.crt
      sources: [198.51.100.7]
    targets: ["10.0.0.5:5074"]
    connections: 2
    lease: 8h

- name: Open this facility's end, and write the ticket for the other facility
  scistream.core.stream:
    name: beamline-7
    to:
      control_server: gateway.facility-a.example:5000
      server_certificate: facility-a.crt
    targets: ["10.0.0.5:5074"]
    ticket: beamline-7.ticket

- name: Open this facility's end with the ticket of the other facility
  scistream.core.stream:
    from:
      control_server: gateway.facility-b.example:5000
      server_certificate: facility-b.crt
    ticket: beamline-7.ticket

- name: Release both ends, and give running connections five minutes to end
  scistream.core.stream:
    name: beamline-7
    from:
      control_server: gateway.facility-b.example:5000
      server_certificate: facility-b.crt
    to:
      control_server: gateway.facility-a.example:5000
      server_certificate: facility-a.crt
    state: absent
    drain: 300
"""

RETURN = r"""
stream:
  description:
    - The stream as it is after the task. V(null) if O(state=absent).
    - In check mode, what a real run would open.
  returned: success
  type: dict
  contains:
    uid:
      description: The uid, the same at both ends. V(null) in check mode, where no site secret was made yet.
      returned: success
      type: str
      sample: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    name:
      description: The name, from the task or the ticket. V(null) without one.
      returned: success
      type: str
      sample: beamline-7
    state:
      description: What both ends are, V(active) where they carry bytes. Where they differ, that of one that does not.
      returned: success
      type: str
      sample: active
    encryption:
      description: What protects the bytes between the two gateways.
      returned: success
      type: str
      sample: tls
    entry_points:
      description: Addresses that the application connects to. Empty in check mode, where the outbound end is not there
        yet, and where it is another facility's.
      returned: success
      type: list
      elements: str
      sample: ["198.51.100.7:5100"]
    targets:
      description: Addresses that the connections come out at. Empty where the inbound end is another facility's.
      returned: success
      type: list
      elements: str
      sample: ["10.0.0.5:5074"]
    inbound:
      description: The inbound session, as M(scistream.core.session) returns it. V(null) where it is another facility's.
      returned: success
      type: dict
      sample: {"direction": "inbound", "engine": "haproxy", "entry_points": ["192.0.2.7:5100"], "state": "active"}
    outbound:
      description: The outbound session, likewise.
      returned: success
      type: dict
      sample: {"direction": "outbound", "engine": "haproxy", "entry_points": ["198.51.100.7:5100"], "state": "active"}
ticket:
  description: The file with the ticket. V(null) if O(state=absent).
  returned: success
  type: str
  sample: beamline-7.ticket
actions:
  description:
    - What was done at each end, or in check mode would be, as RV(scistream.core.session#module:action) says it.
    - V(null) for an end that is another facility's.
  returned: success
  type: dict
  contains:
    inbound:
      description: At the inbound end.
      returned: success
      type: str
      sample: opened
    outbound:
      description: At the outbound end.
      returned: success
      type: str
      sample: opened
differences:
  description: What about the ends that were there was not as wished, in words. Empty where nothing was.
  returned: success
  type: list
  elements: str
  sample: ["outbound: connections 1, not 2"]
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg), after the option or the end that it
    is about.
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

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import refused, report
from ansible_collections.scistream.core.plugins.module_utils._differences import Differences
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._protection import protection
from ansible_collections.scistream.core.plugins.module_utils._sessions import named_uid, wished_facts
from ansible_collections.scistream.core.plugins.module_utils._streams import (
    STREAM_ARGUMENTS,
    STREAM_PROTECTION_ARGUMENTS,
    as_stream,
    naming,
    stream_ends,
)

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **STREAM_ARGUMENTS,
    **STREAM_PROTECTION_ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "targets": {"type": "list", "elements": "str"},
    "connections": {"type": "int"},
    "rate": {"type": "int"},
    "lease": {"type": "str"},
    "drain": {"type": "float", "default": 0},
    "ticket": {"type": "path"},
}


class _Stream:
    """One stream: as it is, and as the task wants it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.client = load(module, "scistream.client")
        self.convergence = load(module, "scistream.client.stream_convergence")
        self.errors = load(module, "scistream.errors")
        self.ends = stream_ends(module)
        self.ticket = pathlib.Path(module.params["ticket"]) if module.params["ticket"] else None
        self.name = module.params["name"]
        self.uid_is_made_up = False

    def converge(self) -> dict[str, t.Any]:
        """Bring it into its state."""
        return self.absent() if self.params["state"] == "absent" else self.present()

    def present(self) -> dict[str, t.Any]:
        """Open what of it is not there as wished."""
        wish = self._wish()
        act = self.convergence.plan_stream if self.module.check_mode else self.convergence.ensure_stream
        outcome = act(self.ends, wish)
        sessions = [end.session if end else None for end in (outcome.inbound, outcome.outbound)]
        self._warn(outcome, sessions)
        return self._result(outcome, self._compare(outcome), as_stream(self.name, *sessions), wish.ticket)

    def absent(self) -> dict[str, t.Any]:
        """Release what of it is there."""
        if not 0 <= self.params["drain"] < float("inf"):
            raise refused(self.module, "drain", "it is a number of seconds, 0 for none")
        held = self._held()
        uid = named_uid(self.module, create=False) or (held and held.uid)
        if uid is None:
            # A name that never became a uid, or a ticket that went with its session.
            nothing = load(self.module, "scistream.client.streams").StreamOutcome()
            return self._result(nothing, self._compare(nothing), None)
        ticket = self.ticket
        if ticket is None and self.ends.inbound:
            ticket = self.client.own_place(uid, self.ends.inbound.control_server.known_as)
        act = self.convergence.plan_stream_absent if self.module.check_mode else self.convergence.ensure_stream_absent
        outcome = act(self.ends, uid, ticket=ticket, drain=self.params["drain"])
        self._warn(outcome, [])
        return self._result(outcome, self._compare(outcome), None)

    def _wish(self) -> t.Any:
        """What is wished for."""
        held = self._held()
        uid = self._uid(held)
        self.name = self.name or (held.name if held else None) or None
        return load(self.module, "scistream.client.streams").StreamWish(
            uid=uid,
            targets=self._targets(uid),
            connections=self.params["connections"],
            ticket=self.ticket or self.client.place_for(uid),
            name=self.params["name"] or "",
            **self._rate_and_lease(),
            **protection(self.module),
        )

    def _held(self) -> t.Any:
        """The ticket that the task names; None where it names none, or the inbound end has not written it yet."""
        is_read = self.ends.inbound is None and self.params["state"] == "present"
        if self.ticket is None or not (is_read or self.ticket.exists()):
            return None
        with naming(self.module, "ticket"):
            return load(self.module, "scistream.client.tickets").read(self.ticket)

    def _uid(self, held: t.Any) -> t.Any:
        uid = named_uid(self.module, create=not self.module.check_mode)
        if uid is None and self.name:
            # Check mode makes no site secret. Without one, no stream has that name yet: any uid finds as much.
            self.uid_is_made_up = True
            return self.client.uid_of(self.name, b"")
        if uid is None and held is None:
            raise refused(self.module, "name", "a stream needs a name or a uid, or a ticket that has it")
        if held is not None and uid not in (None, held.uid):
            reason = f"it is of stream {held.uid}, and {uid} is wished for"
            raise self.errors.SciStreamError(self.errors.Code.BAD_TICKET, path=str(self.ticket), reason=reason)
        return held.uid if uid is None else uid

    def _targets(self, uid: t.Any) -> tuple[t.Any, ...]:
        if self.ends.inbound is None:
            return ()
        with naming(self.module, "targets"):
            if not self.params["targets"]:
                raise self.errors.SciStreamError(self.errors.Code.NO_TARGETS, uid=uid)
            return load(self.module, "scistream.addresses").parse_endpoints(self.params["targets"])

    def _rate_and_lease(self) -> dict[str, t.Any]:
        rate, lease = self.params["rate"], self.params["lease"]
        wishes: dict[str, t.Any] = {}
        if rate is not None:
            with naming(self.module, "rate"):
                wishes["rate"] = load(self.module, "scistream.terms").parse_rate(rate)
        if lease is not None:
            with naming(self.module, "lease"):
                wishes["lease"] = load(self.module, "scistream.durations").parse_duration(lease)
        return wishes

    def _warn(self, outcome: t.Any, sessions: t.Sequence[t.Any]) -> None:
        for warning in outcome.warnings:
            self.module.warn(warning)
        for session in filter(None, sessions):
            for warning in session.warnings:
                self.module.warn(f"{session.direction.value} session {session.uid}: {warning}")

    def _compare(self, outcome: t.Any) -> Differences:
        differences = Differences(f"stream {self.name or self.params['uid'] or self.ticket}")
        for direction, end in (("inbound", outcome.inbound), ("outbound", outcome.outbound)):
            if end is None:
                continue
            before, after = (_prefixed(direction, wished_facts(side)) for side in (end.before, end.after))
            differences.compare_all(before, after)
            differences.compare(f"{direction} not_as_wished", list(end.differences) or None, None)
            if end.changed and not differences.changed:
                # A control server with the old protocol only does not say what was there.
                differences.compare(direction, "there, or perhaps there", None)
        return differences

    def _result(
        self, outcome: t.Any, differences: Differences, stream: dict[str, t.Any] | None, ticket: t.Any = None
    ) -> dict[str, t.Any]:
        if stream and self.uid_is_made_up:
            stream["uid"] = None
        ends = {"inbound": outcome.inbound, "outbound": outcome.outbound}
        return {
            "changed": differences.changed,
            "actions": {direction: end.action.value if end else None for direction, end in ends.items()},
            "stream": stream,
            "ticket": str(ticket) if ticket else None,
            "differences": [
                f"{direction}: {words}" for direction, end in ends.items() if end for words in end.differences
            ],
            "diff": differences.diff,
        }


def _prefixed(direction: str, facts: dict[str, t.Any]) -> dict[str, t.Any]:
    return {f"{direction} {name}": value for name, value in facts.items() if name != "direction"}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("name", "uid")],
        required_one_of=[("name", "uid", "ticket"), ("from", "to")],
    )
    report(module, lambda: _Stream(module).converge())


if __name__ == "__main__":
    main()
