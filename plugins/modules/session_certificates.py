#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: session_certificates
short_description: New certificates for sessions that run
version_added: 0.1.0
description:
  - Has the data servers of running sessions prove themselves to the other gateway with new certificates. New
    connections get them, and running ones go on.
  - A control server does so by itself, long before they end. This is for those who want it now, as after a break-in.
  - These are the certificates between two gateways. That of the control server is another one, and so is its authority.
  - Without O(name) and O(uid), it is for all of the caller's active sessions that have certificates. Those with
    pre-shared keys, and those that nothing encrypts, have none.
options:
  renew_before_days:
    description:
      - Renew only what ends within so many days. A new one is good for 90 days.
      - Without it, every one is renewed.
    type: int
attributes:
  idempotent:
    support: partial
    details:
      - Without O(renew_before_days), every run renews.
extends_documentation_fragment:
  - scistream.core.attributes
  - scistream.core.control
  - scistream.core.library
  - scistream.core.selection
seealso:
  - module: scistream.core.certificate
  - module: scistream.core.session_info
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: New certificates for all sessions of a gateway
  scistream.core.session_certificates:
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt

- name: New certificates where the old ones end within a month
  scistream.core.session_certificates:
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
    renew_before_days: 30

- name: A new certificate at one end of one stream
  scistream.core.session_certificates:
    name: beamline-7
    direction: inbound
    control_server: gateway.facility-a.example:5000
    server_certificate: facility-a.crt
"""

RETURN = r"""
sessions:
  description: The sessions that were meant, in the order of their opening.
  returned: success
  type: list
  elements: dict
  contains:
    uid:
      description: The uid, the same at both ends of a stream.
      returned: success
      type: str
      sample: 7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48
    name:
      description: The name that the task gave. V(null) without one.
      returned: success
      type: str
      sample: beamline-7
    direction:
      description: Which end of the stream, V(inbound) or V(outbound).
      returned: success
      type: str
      sample: inbound
    engine:
      description: What carries the bytes.
      returned: success
      type: str
      sample: haproxy
    renewed:
      description: Whether it has a new certificate, or would have one after a real run.
      returned: success
      type: bool
      sample: true
    certificate_expires:
      description: When its certificate ends, in seconds since the epoch. In check mode, that of the one it has.
      returned: success
      type: float
      sample: 1797980215.0
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg).
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the error.
      returned: failure
      type: str
      sample: NO_CERTIFICATES
    details:
      description: The facts of the error, by name.
      returned: failure
      type: dict
      sample: {"encryption": "none", "uid": "beam-7"}
    seen:
      description: What was seen.
      returned: failure
      type: str
      sample: "session beam-7 has no certificates that could be renewed: its encryption is none"
    cause:
      description: The likely cause.
      returned: failure
      type: str
      sample: only sessions with encryption tls prove themselves with certificates
    remedy:
      description: What to do next.
      returned: failure
      type: str
      sample: leave it as it is; a pre-shared key lasts as long as its session
"""

import datetime
import time
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
from ansible_collections.scistream.core.plugins.module_utils._sessions import (
    SELECTION_ARGUMENTS,
    chosen_direction,
    named_uid,
)

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **CONTROL_ARGUMENTS,
    **SELECTION_ARGUMENTS,
    "renew_before_days": {"type": "int"},
}

_DAY = 86_400
_NEW = "a new one"


class _Certificates:
    """The certificates of the sessions that the task means."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.client = load(module, "scistream.client")
        self.errors = load(module, "scistream.errors")
        self.terms = load(module, "scistream.terms")
        self.direction = chosen_direction(module)
        self.differences = Differences(f"certificates of sessions at {module.params['control_server']}")

    def converge(self) -> dict[str, t.Any]:
        """Renew what is to be renewed."""
        margin = self.params["renew_before_days"]
        if margin is not None and margin < 0:
            raise refused(self.module, "renew_before_days", "it has to be 0 or more")
        with self.client.connect(control_server(self.module)) as connection:
            shown = [self._renew(connection, session) for session in self._meant(connection)]
        changed, diff = self.differences.changed, self.differences.diff
        return {"changed": changed, "sessions": [each for each in shown if each], "diff": diff}

    def _meant(self, connection: t.Any) -> list[t.Any]:
        """The sessions that the task names; of all, those that have certificates.

        Raises:
            SciStreamError: UID_UNKNOWN, NO_CERTIFICATES, SESSION_NOT_ACTIVE.
        """
        uid = named_uid(self.module, create=False)
        if uid is not None:
            found = connection.describe(uid, self.direction)
            for session in found:
                self._check(session)
            return list(found)
        if self.params["name"]:
            raise refused(self.module, "name", "without a site secret, no session has a name: see site_secret")
        of_direction = (each for each in connection.list_sessions() if self.direction in (None, each.direction))
        return [each for each in of_direction if each.is_active and self._has_certificates(each)]

    def _check(self, session: t.Any) -> None:
        # As its control server says it; check mode does not ask.
        codes = self.errors.Code
        if not session.is_active:
            facts = {"state": session.state, "what": "the renewal of certificates"}
            raise self.errors.SciStreamError(codes.SESSION_NOT_ACTIVE, uid=session.uid, **facts)
        if not self._has_certificates(session):
            raise self.errors.SciStreamError(codes.NO_CERTIFICATES, uid=session.uid, encryption=session.encryption)

    def _has_certificates(self, session: t.Any) -> bool:
        return session.encryption == self.terms.Encryption.TLS.value

    def _renew(self, connection: t.Any, session: t.Any) -> dict[str, t.Any] | None:
        """One session as it is then; None where it ended meanwhile."""
        is_due = self._is_due(session)
        after = session
        if is_due and not self.module.check_mode:
            try:
                (after,) = connection.renew_certificates(session.uid, session.direction)
            except self.errors.SciStreamError as error:
                if not self._has_ended(error):
                    raise
                return None
        if is_due:
            self.differences.compare(f"{session.direction.value} {session.uid}", _until(session), _NEW)
        return {
            "uid": after.uid,
            "name": self.params["name"],
            "direction": after.direction.value,
            "engine": after.engine,
            "renewed": is_due,
            "certificate_expires": after.certificate_expires,
        }

    def _has_ended(self, error: t.Any) -> bool:
        """Whether a session that nobody named is no longer there: its user may end it at any time."""
        codes = self.errors.Code
        named = self.params["uid"] or self.params["name"]
        return not named and error.code in (codes.UID_UNKNOWN, codes.SESSION_NOT_ACTIVE)

    def _is_due(self, session: t.Any) -> bool:
        margin = self.params["renew_before_days"]
        return margin is None or session.certificate_expires - time.time() < margin * _DAY


def _until(session: t.Any) -> str:
    end = datetime.datetime.fromtimestamp(session.certificate_expires, datetime.timezone.utc)
    return f"until {end.date().isoformat()}"


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("name", "uid")],
    )
    report(module, _Certificates(module).converge)


if __name__ == "__main__":
    main()
