#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: session
short_description: One end of a stream, on one control server
version_added: 0.1.0
description:
  - Opens a session on a control server, which starts the data server that carries the bytes, and releases it.
  - A stream is two sessions with one uid. The inbound one is in front of the targets, and writes a ticket. The
    outbound one is in front of the application that connects, and reads the ticket.
  - What goes between the two gateways is encrypted, unless the task says O(encryption=none).
  - A session that is there with the same parameters is left alone. One that runs and differs in nothing but its targets
    gets the new ones. Running connections go on, new ones go to the new targets.
  - One that failed or drains, or has other parameters, is released and opened anew, which cuts its connections. With a
    warning, so is one whose targets the control server cannot change while it runs.
  - A control server that speaks the old protocol only does not describe its sessions. There, the uid that is taken
    already is the session that is there, and its facts come from the ticket. In check mode, nothing else can be known
    there.
options:
  state:
    description:
      - Whether the session shall be there.
      - With V(absent) and without O(direction), both ends with the uid are released.
    type: str
    choices: [present, absent]
    default: present
  targets:
    description:
      - Addresses that connections go to, each V(HOST:PORT) or V([IPv6]:PORT). Fewer than O(connections) are used in
        turn.
      - Required for an inbound session. An outbound one takes the inbound end's entry points out of O(ticket).
    type: list
    elements: str
    aliases: [prod_listeners, remote_listeners]
  connections:
    description:
      - Number of entry points. Each takes a port of the control server, and carries many connections.
      - By default as many as there are targets, or as the ticket says.
    type: int
    aliases: [num_conn]
  rate:
    description:
      - Rate in kb/s of application bytes that the session is held to. By default it is held to none, and a session
        that is there may have any.
      - Refused where the control server's engine cannot hold a session to a rate.
    type: int
  lease:
    description:
      - How long the session lasts, from its opening on, as V(90) (seconds), V(30m), V(8h) or V(unlimited). By default
        as the control server says.
      - It counts where the task opens the session. One that is there keeps the lease that it has.
      - Refused by a control server that speaks the old protocol only, unless it is V(unlimited).
    type: str
  drain:
    description:
      - With O(state=absent), how many seconds the running connections have to end by themselves. No new ones are let in
        during that time. What is left then is cut.
      - Without it they are cut at once.
    type: float
    default: 0
  ticket:
    description:
      - File on the controller that the facility of the inbound end hands to the one of the outbound end (mode 0600).
      - An inbound session writes it, and removes it when it is released. An outbound session reads it, and needs
        neither O(name) nor O(uid) nor O(targets) then.
      - It holds the key that the two gateways share, where the stream is encrypted.
      - Without this option it is kept where the module runs, in C(scistream/tickets) in the user's state directory
        (E(XDG_STATE_HOME), else C(~/.local/state)), named by the uid. The same user's outbound session finds it there.
      - The kept ticket of a session with the same name on another control server is not overwritten. The task fails.
    type: path
extends_documentation_fragment:
  - scistream.core.attributes
  - scistream.core.control
  - scistream.core.library
  - scistream.core.protection
  - scistream.core.selection
seealso:
  - module: scistream.core.session_info
  - module: scistream.core.control_server_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Open a stream between two facilities
  module_defaults:
    group/scistream.core.control:
      timeout: 60
  block:
    - name: Offer the detector's service
      scistream.core.session:
        name: beamline-7
        direction: inbound
        control_server: gateway.facility-a.example:5000
        server_certificate: facility-a.crt
        targets: ["10.0.0.5:5074"]
        ticket: beamline-7.ticket

    - name: Let the compute hosts connect to it
      scistream.core.session:
        direction: outbound
        control_server: gateway.facility-b.example:5000
        server_certificate: facility-b.crt
        ticket: beamline-7.ticket
      register: outbound

    - name: Say where the application connects to
      ansible.builtin.debug:
        msg: "{{ outbound.session.entry_points }}"

- name: An outbound session without a ticket, towards a deployed control server that has none
  scistream.core.session:
    uid: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    direction: outbound
    control_server: gateway.facility-b.example:5000
    server_certificate: facility-b.crt
    targets: ["192.0.2.7:5100"]
    encryption: none

- name: Only the other facility's gateway may connect
  scistream.core.session:
    name: beamline-7
    direction: inbound
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
    targets: ["10.0.0.5:5074"]
    sources: [198.51.100.7]
    ticket: beamline-7.ticket

- name: Offer the detector's service for one shift
  scistream.core.session:
    name: beamline-7
    direction: inbound
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
    targets: ["10.0.0.5:5074"]
    ticket: beamline-7.ticket
    lease: 8h

- name: Release it, and give running connections five minutes to end
  scistream.core.session:
    name: beamline-7
    direction: inbound
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
    state: absent
    drain: 300

- name: Release it
  scistream.core.session:
    name: beamline-7
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
    ticket: beamline-7.ticket
    state: absent
"""

RETURN = r"""
session:
  description:
    - The session as it is after the task. V(null) if O(state=absent).
    - In check mode, what a real run would open.
  returned: success
  type: dict
  contains:
    uid:
      description: The uid, the same at both ends of a stream. V(null) in check mode, where no site secret was made yet.
      returned: success
      type: str
      sample: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    name:
      description: The name, from the task or the ticket. V(null) without one.
      returned: success
      type: str
      sample: beamline-7
    direction:
      description: Which end of the stream, V(inbound) or V(outbound).
      returned: success
      type: str
      sample: inbound
    state:
      description: One of V(requested), V(registered), V(active), V(draining), V(released) and V(failed).
      returned: success
      type: str
      sample: active
    entry_points:
      description: Addresses that accept connections. Empty in check mode, where the session is not there yet.
      returned: success
      type: list
      elements: str
      sample: ["192.0.2.7:5100"]
    targets:
      description: Addresses that the connections go to.
      returned: success
      type: list
      elements: str
      sample: ["10.0.0.5:5074"]
    connections:
      description: How many entry points were asked for.
      returned: success
      type: int
      sample: 1
    rate:
      description: The rate that was asked for, in kb/s. V(0) where none was.
      returned: success
      type: int
      sample: 0
    engine:
      description: What carries the bytes. Empty where the control server speaks the old protocol only.
      returned: success
      type: str
      sample: haproxy
    encryption:
      description: What protects the bytes between the two gateways. V(tls) is TLS 1.3 with a certificate each way,
        V(tls-psk) TLS 1.3 with a key. With V(none) and V(legacy-psk) nothing is encrypted. Of a control server that
        speaks the old protocol only, it is what was asked for.
      returned: success
      type: str
      sample: tls
    owner:
      description: Who opened it, V(NO_AUTH) where the control server authenticates nobody. Empty as
        RV(session.engine) is.
      returned: success
      type: str
      sample: NO_AUTH
    opened:
      description: When it was opened, in seconds since the epoch. V(0) where that is not known.
      returned: success
      type: float
      sample: 1795388215.5
    failure:
      description: Why it failed. Empty otherwise.
      returned: success
      type: str
      sample: ""
    lease_expires:
      description: When its lease ends, and it with it, in seconds since the epoch. V(0) where it has no end.
      returned: success
      type: float
      sample: 1795417015.5
    idle_since:
      description: Since when no byte has gone through, in seconds since the epoch. V(0) where that is not known.
      returned: success
      type: float
      sample: 1795388412.1
    restarts:
      description: How often its data server was started again after it had ended by itself.
      returned: success
      type: int
      sample: 0
    traffic:
      description: What its data server has carried since it started, as its engine tells it.
      returned: success
      type: dict
      contains:
        connections_open:
          description: Connections that are open.
          returned: success
          type: int
          sample: 1
        connections_total:
          description: Connections that there have been.
          returned: success
          type: int
          sample: 3
        bytes_to_targets:
          description: Application bytes towards the targets.
          returned: success
          type: int
          sample: 1048576
        bytes_from_targets:
          description: Application bytes from the targets.
          returned: success
          type: int
          sample: 5368709120
        refused_peers:
          description: Peers that were turned away because they did not prove themselves or are not among the sources.
          returned: success
          type: int
          sample: 0
    transport:
      description: What carries the bytes, V(tcp) or V(udp).
      returned: success
      type: str
      sample: tcp
    sources:
      description: The networks whose hosts may connect. Empty where all may.
      returned: success
      type: list
      elements: str
      sample: [198.51.100.7/32]
    half_close:
      description: Whether it was said that the application half-closes its connections.
      returned: success
      type: bool
      sample: false
    cipher:
      description: The cipher suite that the two data servers agreed on last, as they tell it. Empty before the first
        connection, and where the engine does not tell.
      returned: success
      type: str
      sample: TLS_AES_256_GCM_SHA384
    peer:
      description: Who the other gateway's data server proved to be. Empty as C(cipher) is.
      returned: success
      type: str
      sample: CN=outbound 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    warnings:
      description: What its users should know, a sentence each, as that nothing is encrypted.
      returned: success
      type: list
      elements: str
      sample: []
    certificate_expires:
      description: When the certificate ends that its data server proves itself with, in seconds since the epoch. It is
        replaced long before. V(0) where there is none.
      returned: success
      type: float
      sample: 1797980215.0
ticket:
  description: The file with the ticket of an inbound session. V(null) for an outbound one, and if O(state=absent).
  returned: success
  type: str
  sample: beamline-7.ticket
action:
  description:
    - What was done, or in check mode would be. One of V(none), V(opened), V(reopened), V(retargeted), V(ticket_written)
      and V(released).
    - Of these, V(reopened) and V(released) cut connections.
  returned: success
  type: str
  sample: opened
differences:
  description: What about the session that was there was not as wished, in words. Empty where it was, or there was none.
  returned: success
  type: list
  elements: str
  sample: ["connections 1, not 2"]
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

import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import (
    CONTROL_ARGUMENTS,
    control_server,
    refused,
    report,
)
from ansible_collections.scistream.core.plugins.module_utils._differences import Differences
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._protection import PROTECTION_ARGUMENTS, protection
from ansible_collections.scistream.core.plugins.module_utils._sessions import (
    SELECTION_ARGUMENTS,
    as_result,
    chosen_direction,
    named_uid,
    wished_facts,
)

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **CONTROL_ARGUMENTS,
    **SELECTION_ARGUMENTS,
    **PROTECTION_ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "targets": {"type": "list", "elements": "str", "aliases": ["prod_listeners", "remote_listeners"]},
    "connections": {"type": "int", "aliases": ["num_conn"]},
    "rate": {"type": "int"},
    "lease": {"type": "str"},
    "drain": {"type": "float", "default": 0},
    "ticket": {"type": "path"},
}


class _Session:
    """One session: as it is, and as the task wants it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.client = load(module, "scistream.client")
        self.errors = load(module, "scistream.errors")
        self.direction = chosen_direction(module)
        self.is_outbound = self.direction is load(module, "scistream.terms").Direction.OUTBOUND
        self.ticket = pathlib.Path(module.params["ticket"]) if module.params["ticket"] else None
        self.name = module.params["name"]
        self.uid_is_made_up = False

    def converge(self) -> dict[str, t.Any]:
        """Bring it into its state."""
        return self.absent() if self.params["state"] == "absent" else self.present()

    def present(self) -> dict[str, t.Any]:
        """Open it where the one that is there does not do."""
        request = self._request()
        if self.is_outbound and not self._is_predictable:
            request.require_key()
        act = self.client.plan_session if self.module.check_mode else self.client.ensure_session
        # An outbound session has no ticket of its own.
        ticket = None if self.is_outbound else self.ticket or self.client.place_for(request.uid)
        with self.client.connect(control_server(self.module)) as connection:
            outcome = act(connection, request, ticket=ticket, name=self.params["name"] or "")
        self._warn(outcome.session)
        return self._result(outcome, self._compare(outcome), ticket)

    def _warn(self, session: t.Any) -> None:
        for warning in session.warnings if session else ():
            self.module.warn(f"{session.direction.value} session {session.uid}: {warning}")

    def absent(self) -> dict[str, t.Any]:
        """Release it where it is there."""
        held = self._held()
        uid = named_uid(self.module, create=False) or (held and held.uid)
        if uid is None and not (self.name or self.ticket):
            raise refused(self.module, "name", "a session needs a name or a uid, or a ticket that has it")
        if uid is None:
            # A name that never became a uid, or a ticket that went with its session.
            outcome = self.client.Outcome(None, changed=False, before=None, after=None)
            return self._result(outcome, self._compare(outcome))
        act = self.client.plan_absent if self.module.check_mode else self.client.ensure_absent
        if not 0 <= self.params["drain"] < float("inf"):
            raise refused(self.module, "drain", "it is a number of seconds, 0 for none")
        server = control_server(self.module)
        ticket = self.ticket or self.client.own_place(uid, server.known_as)
        with self.client.connect(server) as connection:
            outcome = act(connection, uid, self.direction, ticket=ticket, drain=self.params["drain"])
        differences = self._compare(outcome)
        is_its_own = held.uid == uid if held else ticket is not None and self.ticket is None
        if is_its_own and not self.is_outbound:
            # An outbound end's ticket is a copy of the other facility's, and stays.
            differences.compare("ticket", str(ticket), None)
        return self._result(outcome, differences)

    def _request(self) -> t.Any:
        """What is asked of the control server."""
        held = self._held()
        uid = self._uid(held)
        self.name = self.name or (held.name if held else None) or None
        # The ticket of an inbound session is its own, and the client's to compare.
        given = held or self._kept(uid) if self.is_outbound else None
        targets = self._targets(uid, given)
        connections, wishes = self.params["connections"], {"rate": self._rate(), "lease": self._lease()}
        wishes |= protection(self.module)
        if given:
            return self.client.SessionRequest.of_ticket(given, connections=connections, targets=targets, **wishes)
        if connections is None:
            connections = max(len(targets), 1)
        return self.client.SessionRequest(uid, self.direction, targets, connections, **wishes)

    def _kept(self, uid: t.Any) -> t.Any:
        """The ticket that the same user's inbound session left here; None where it left none, or one was named."""
        return None if self.ticket else self.client.kept_ticket(uid)

    def _rate(self) -> int:
        asked = self.params["rate"]
        return 0 if asked is None else load(self.module, "scistream.terms").parse_rate(asked)

    def _lease(self) -> float | None:
        asked = self.params["lease"]
        return None if asked is None else load(self.module, "scistream.durations").parse_duration(asked)

    def _held(self) -> t.Any:
        """The ticket; None where there is none, and a session can be meant without it."""
        if self.ticket is None:
            return None
        must_be_there = self.is_outbound and self.params["state"] == "present" and not self._is_predictable
        if not (must_be_there or self.ticket.exists()):
            return None
        return load(self.module, "scistream.client.tickets").read(self.ticket)

    @property
    def _is_predictable(self) -> bool:
        """Whether a ticket may be missing, because an earlier task of this play would have written it."""
        return self.module.check_mode and bool(self.params["name"] or self.params["uid"])

    def _uid(self, held: t.Any) -> t.Any:
        uid = named_uid(self.module, create=not self.module.check_mode)
        if uid is None and self.params["name"]:
            # Check mode makes no site secret. Without one, no session has that name yet: any uid finds as much.
            self.uid_is_made_up = True
            return self.client.uid_of(self.params["name"], b"")
        if uid is None and held is None:
            raise refused(self.module, "name", "a session needs a name or a uid, or a ticket that has it")
        if held is not None and uid not in (None, held.uid):
            reason = f"it is of session {held.uid}, and {uid} is wished for"
            raise self.errors.SciStreamError(self.errors.Code.BAD_TICKET, path=str(self.ticket), reason=reason)
        return held.uid if uid is None else uid

    def _targets(self, uid: t.Any, given: t.Any) -> tuple[t.Any, ...]:
        asked = self.params["targets"]
        if asked:
            return load(self.module, "scistream.addresses").parse_endpoints(asked)
        if given is not None:
            return given.entry_points
        # What an earlier task of this play would have opened has no entry points yet.
        if self.module.check_mode and (asked == [] or self.is_outbound):
            return ()
        raise self.errors.SciStreamError(self.errors.Code.NO_TARGETS, uid=uid)

    def _result(self, outcome: t.Any, differences: Differences, ticket: t.Any = None) -> dict[str, t.Any]:
        for warning in outcome.warnings:
            self.module.warn(warning)
        if outcome.changed and not differences.changed:
            # A control server with the old protocol only does not say what was there.
            differences.compare("session", "there, or perhaps there", None)
        return {
            "changed": differences.changed,
            "action": outcome.action.value,
            "session": self._shown(outcome.session),
            "ticket": str(ticket) if ticket else None,
            "differences": list(outcome.differences),
            "diff": differences.diff,
        }

    def _compare(self, outcome: t.Any) -> Differences:
        which = self.params["name"] or self.params["uid"] or self.ticket
        differences = Differences(f"session {which} at {self.params['control_server']}")
        differences.compare_all(wished_facts(outcome.before), wished_facts(outcome.after))
        differences.compare("not_as_wished", list(outcome.differences) or None, None)
        return differences

    def _shown(self, session: t.Any) -> dict[str, t.Any] | None:
        shown = as_result(session, self.name)
        if shown and self.uid_is_made_up:
            shown["uid"] = None
        return shown


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("name", "uid")],
        required_one_of=[("name", "uid", "ticket")],
        required_if=[("state", "present", ("direction",))],
    )
    report(module, _Session(module).converge)


if __name__ == "__main__":
    main()
