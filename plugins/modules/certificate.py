#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Certificates and certificate authorities of a facility
version_added: 0.1.0
description:
  - Issues a certificate with its private key, self-signed or signed by a facility's own authority, or the authority
    itself.
  - Issues it anew only where it is missing, near its end, made for other names or by another authority, or where the
    private key is not its own.
  - Private keys are EC P-256 and readable by their owner only.
  - The file of an authority can hold several. The first one signs, and clients that pin the file trust all of them. One
    that is issued anew leaves the one before it there, behind itself, until O(succession=finished).
options:
  path:
    description:
      - The certificate (PEM, mode 0644). Its directory has to be there.
    type: path
    required: true
  private_key_path:
    description:
      - Its private key (PEM, mode 0600).
    type: path
    required: true
  names:
    description:
      - Host names and IP addresses that clients call the server by. They become its alternative names.
      - For an authority, its one name, which a later run does not change.
      - Required if O(state=present).
    type: list
    elements: str
  days:
    description:
      - Days for which a new certificate is good. One that an authority signs ends with the authority at the latest.
    type: int
    default: 365
  renew_before_days:
    description:
      - Days before its end from which a certificate is issued anew.
      - Has to be smaller than O(days).
    type: int
    default: 30
  warn_before_days:
    description:
      - Days before its end from which the task warns, where it issues nothing. V(0) for never.
      - Right for an authority, which others pin, and which is not to be issued anew without their knowing.
    type: int
    default: 0
  is_ca:
    description:
      - Issue a certificate authority, which signs other certificates and serves no connections.
    type: bool
    default: false
  ca_path:
    description:
      - Certificate of the authority that signs. Without it, the certificate is self-signed.
    type: path
  ca_private_key_path:
    description:
      - Private key of the authority that signs.
    type: path
  force:
    description:
      - Issue it anew also where it is good, as a rotation does.
    type: bool
    default: false
  succession:
    description:
      - How far the change from an authority to the next one shall have come. Without it, nothing is changed about that.
      - V(announced) makes the next authority (C(ca.next.crt) and C(ca.next.key) for C(ca.crt) and C(ca.key)), and has
        it trusted by those who pin O(path). It signs nothing yet.
      - V(switched) lets it sign from now on. The one before it stays trusted, and its private key is gone. Changes
        nothing where none was announced.
      - V(finished) takes the one before it out of O(path). Refused as long as it is needed for a certificate (C(*.crt))
        beside it.
    type: str
    choices: [announced, switched, finished]
  state:
    description:
      - Whether certificate and private key shall be there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  idempotent:
    support: partial
    details:
      - With O(force=true), every run issues another one.
extends_documentation_fragment:
  - scistream.core.attributes
  - scistream.core.library
seealso:
  - module: scistream.core.certificate_info
  - ref: ansible_collections.scistream.core.certificates_role
    description: A facility's authority and its gateways' certificates, from the inventory.
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: A certificate that vouches for itself
  scistream.core.certificate:
    path: server.crt
    private_key_path: server.key
    names: [gateway.example.org, 192.0.2.7]

- name: A facility's authority, for ten years
  scistream.core.certificate:
    path: ca.crt
    private_key_path: ca.key
    is_ca: true
    names: [Facility A]
    days: 3650

- name: A gateway's certificate, signed by the facility's authority
  scistream.core.certificate:
    path: gateway.crt
    private_key_path: gateway.key
    names: [gateway.example.org, 192.0.2.7]
    ca_path: ca.crt
    ca_private_key_path: ca.key

- name: The next authority, for those who pin this one to fetch in time
  scistream.core.certificate:
    path: ca.crt
    private_key_path: ca.key
    is_ca: true
    names: [Facility A]
    days: 3650
    succession: announced

- name: Certificate and private key are gone
  scistream.core.certificate:
    path: server.crt
    private_key_path: server.key
    state: absent
"""

RETURN = r"""
certificate:
  description:
    - The certificate as it is after the task. V(null) if O(state=absent).
    - In check mode, what a real run would issue. Facts that only the issuing makes are V(null) then.
  returned: success
  type: dict
  contains:
    path:
      description: The certificate.
      returned: success
      type: str
      sample: /etc/scistream/server.crt
    private_key_path:
      description: Its private key.
      returned: success
      type: str
      sample: /etc/scistream/server.key
    subject:
      description: Whom it was issued to.
      returned: success
      type: str
      sample: CN=gateway.example.org,O=SciStream
    names:
      description: Host names and addresses that it vouches for. Empty for an authority.
      returned: success
      type: list
      elements: str
      sample: [gateway.example.org, 192.0.2.7]
    not_before:
      description: When it begins to be good (ISO 8601).
      returned: success
      type: str
      sample: "2026-11-22T22:00:00+00:00"
    not_after:
      description: When it ends (ISO 8601).
      returned: success
      type: str
      sample: "2027-11-22T23:00:00+00:00"
    is_ca:
      description: Whether it is an authority.
      returned: success
      type: bool
      sample: false
    issuer:
      description: Who issued it.
      returned: success
      type: str
      sample: CN=Facility A,O=SciStream certificate authority
    fingerprint:
      description: SHA-256 of the certificate.
      returned: success
      type: str
      sample: 1f9d3c0a5f7e4b6a8c2d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b
    self_signed:
      description: Whether it vouches for itself.
      returned: success
      type: bool
      sample: false
reasons:
  description: Why the certificate was issued, or would be. Empty where it was good.
  returned: success
  type: list
  elements: str
  sample: [names]
trusted:
  description:
    - SHA-256 of the certificates that clients trust who pin O(path), the one that signs first.
    - Empty for what is no authority, and in check mode without what is to be issued.
  returned: success
  type: list
  elements: str
  sample: [1f9d3c0a5f7e4b6a8c2d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b]
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg).
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the error.
      returned: failure
      type: str
      sample: CERTIFICATE_UNREADABLE
    details:
      description: The facts of the error, by name.
      returned: failure
      type: dict
      sample: {"path": "server.crt", "reason": "it holds no whole PEM certificate", "what": "certificate"}
    seen:
      description: What was seen.
      returned: failure
      type: str
      sample: "server.crt cannot be read as a certificate: it holds no whole PEM certificate"
    cause:
      description: The likely cause.
      returned: failure
      type: str
      sample: it is not PEM, it is damaged, or this user may not read it
    remedy:
      description: What to do next.
      returned: failure
      type: str
      sample: "check the file with: openssl x509 -in server.crt -noout -text"
"""

import contextlib
import datetime
import fcntl
import os
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import refused, report
from ansible_collections.scistream.core.plugins.module_utils._differences import Differences
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._pairs import (
    ITSELF,
    KEY_MODE,
    OWN_KEY,
    Pair,
    day,
    is_there,
    octal,
)

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "path": {"type": "path", "required": True},
    "private_key_path": {"type": "path", "required": True, "no_log": False},
    "names": {"type": "list", "elements": "str"},
    "days": {"type": "int", "default": 365},
    "renew_before_days": {"type": "int", "default": 30},
    "warn_before_days": {"type": "int", "default": 0},
    "is_ca": {"type": "bool", "default": False},
    "ca_path": {"type": "path"},
    "ca_private_key_path": {"type": "path", "no_log": False},
    "force": {"type": "bool", "default": False},
    "succession": {"type": "str", "choices": ["announced", "switched", "finished"]},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

# What is to be issued, in a diff.
_NEXT = "the next one"
_SOON = "The {what} {path} ends in {days} days, on {date}."


class _Certificate:
    """One certificate and its private key: as they are, and as the task wants them."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = params = module.params
        self.certificates = load(module, "scistream.certificates")
        self.errors = load(module, "scistream.errors")
        self.pair = Pair(module, params["path"], params["private_key_path"])
        self.authority = Pair(module, params["ca_path"], params["ca_private_key_path"]) if params["ca_path"] else None
        self.authorities = self.certificates.Authorities(self.pair.path, self.pair.key)
        self.now = datetime.datetime.now(datetime.timezone.utc)
        self.differences = Differences(f"certificate {self.pair.path}")

    def converge(self) -> dict[str, t.Any]:
        """Bring it into its state; alone, where several hosts of a play have one authority."""
        with self._locked():
            return self.absent() if self.params["state"] == "absent" else self.present()

    def present(self) -> dict[str, t.Any]:
        """Issue it where the one that is there does not do."""
        self._check()
        current = self.pair.read("path")
        found = self.pair.found(current, self.authority) if current else {}
        self.differences.compare_all(found, self._wanted(current))
        reasons = self._reasons(current)
        if reasons == ["force"]:
            self.differences.compare("fingerprint", current.fingerprint, _NEXT)
        facts = self._facts(current)
        if reasons:
            facts = self._predict() if self.module.check_mode else self._facts(self._issue(self.pair, self.authority))
        if self.differences.changed and not reasons and not self.module.check_mode:
            self.pair.key.chmod(KEY_MODE)
        if self.params["succession"] and not reasons:
            facts = self._succeed() or facts
        self._warn(facts)
        return self._result(facts, reasons)

    def absent(self) -> dict[str, t.Any]:
        """Remove what is there."""
        for name, path in (("certificate", self.pair.path), ("private_key", self.pair.key)):
            left = self.differences.compare(name, str(path) if is_there(path) else None, None)
            if left and not self.module.check_mode:
                path.unlink()
        return self._result(None, [])

    def _succeed(self) -> dict[str, t.Any] | None:
        """Take the step that was asked for; what signs then, where there was something left to do."""
        authorities, step = self.authorities, self.certificates.Step(self.params["succession"])
        if not authorities.lacks(step):
            return None
        foreseen = [each or _NEXT for each in authorities.foreseen(step)]
        self.differences.compare("trusted", list(authorities.trusted()), foreseen)
        signs = self.pair
        if not self.module.check_mode:
            authorities.take(step, name=self.params["names"][0], days=self.params["days"], now=self.now)
        elif step is self.certificates.Step.SWITCHED:
            signs = Pair(self.module, authorities.successor.certificate, authorities.successor.key)
        return {**self._facts(signs.read("path")), "path": str(self.pair.path)}

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        try:
            directory = os.open(self.pair.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Nothing to protect; issuing says what is wrong.
            yield
            return
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _check(self) -> None:
        params = self.params
        if params["is_ca"] and self.authority:
            raise self.errors.SciStreamError(
                self.errors.Code.UNSUPPORTED_HERE,
                what="an authority below another authority",
                reason="is_ca and ca_path were given",
                alternative="leave one of the two out",
            )
        if params["succession"] and not params["is_ca"]:
            raise refused(self.module, "succession", "an authority has a successor, and is_ca was not given")
        if not params["names"]:
            raise refused(self.module, "names", "a certificate without a name or address vouches for nobody")
        if params["is_ca"] and len(params["names"]) != 1:
            raise refused(self.module, "names", "an authority has one name")
        if not 0 <= params["renew_before_days"] < params["days"]:
            reason = f"it has to be 0 or more, and less than days ({params['days']})"
            raise refused(self.module, "renew_before_days", reason)

    def _wanted(self, current: t.Any) -> dict[str, t.Any]:
        # An authority's name is what it was when it was issued; others trust it by its key.
        keeps_names = self.params["is_ca"] and current is not None
        return {
            "is_ca": self.params["is_ca"],
            "names": sorted(current.names if keeps_names else self._names()),
            "not_after": day(self._end() if current is None or self._ends_soon(current) else current.not_after),
            "private_key": OWN_KEY,
            "private_key_mode": octal(self.pair.safe_mode),
            "signed_by": str(self.authority.path) if self.authority else ITSELF,
        }

    def _names(self) -> set[str]:
        if self.params["is_ca"]:
            return set(self.params["names"])
        parse = load(self.module, "scistream.addresses").parse_host
        return {parse(name).removesuffix(".") for name in self.params["names"]}

    def _reasons(self, current: t.Any) -> list[str]:
        """Why it is issued; a private key that others can read is closed, and no reason."""
        if current is None:
            return ["missing"]
        found = [name for name in self.differences.names if name != "private_key_mode"]
        return found or (["force"] if self.params["force"] else [])

    def _end(self) -> datetime.datetime:
        """When a certificate that is issued now ends."""
        authority = self.authority and self.authority.read("ca_path")
        # More days than a calendar has are for the library to refuse.
        end = self.now + datetime.timedelta(days=min(self.params["days"], 10**6))
        return min(end, authority.not_after) if authority else end

    def _ends_soon(self, current: t.Any) -> bool:
        if current.not_after - self.now >= datetime.timedelta(days=self.params["renew_before_days"]):
            return False
        # One that ends with its authority would be issued on every run, and never last longer.
        return day(self._end()) > day(current.not_after)

    def _issue(self, pair: Pair, authority: Pair | None) -> t.Any:
        days, names = self.params["days"], self.params["names"]
        if self.params["is_ca"]:
            self.certificates.Authorities(pair.path, pair.key).replace(name=names[0], days=days, now=self.now)
            return pair.read("path")
        signer = (authority.path, authority.key) if authority else None
        return self.certificates.issue(pair.path, pair.key, names=names, days=days, ca=signer, now=self.now)

    def _predict(self) -> dict[str, t.Any]:
        """What would be issued. It is, in a place that is gone right after, so that what fails then fails now."""
        authority = self.authority if self.authority and is_there(self.authority.path) else None
        with tempfile.TemporaryDirectory() as directory:
            trial = Pair(self.module, f"{directory}/certificate", f"{directory}/private_key")
            facts = self._facts(self._issue(trial, authority))
        unknown: dict[str, t.Any] = {"fingerprint": None}
        if self.authority and authority is None:
            self.module.warn(f"The authority {self.authority.path} is not there yet; a real run needs it.")
            unknown |= {"issuer": None, "self_signed": False}
        return {**facts, "path": str(self.pair.path), **unknown}

    def _warn(self, facts: dict[str, t.Any]) -> None:
        end = datetime.datetime.fromisoformat(facts["not_after"])
        days = (end - self.now).days
        if days < self.params["warn_before_days"]:
            what = "certificate authority" if facts["is_ca"] else "certificate"
            date = self.certificates.spell_time(end)
            self.module.warn(_SOON.format(what=what, path=self.pair.path, days=days, date=date))

    def _facts(self, facts: t.Any) -> t.Any:
        return facts and {**facts.as_dict(), "private_key_path": str(self.pair.key)}

    def _result(self, facts: dict[str, t.Any] | None, reasons: list[str]) -> dict[str, t.Any]:
        trusted = list(self.authorities.trusted()) if facts and facts["is_ca"] else []
        return {
            "changed": self.differences.changed,
            "certificate": facts,
            "reasons": reasons,
            "trusted": trusted,
            "diff": self.differences.diff,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_if=[("state", "present", ("names",))],
        required_together=[("ca_path", "ca_private_key_path")],
    )
    report(module, _Certificate(module).converge)


if __name__ == "__main__":
    main()
