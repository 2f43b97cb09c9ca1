#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_info
short_description: What a certificate says, until when it is good, and what is wrong with it
version_added: 0.1.0
description:
  - Reads a certificate, and tells all that would keep a control server or its clients from using it.
  - What is wrong is no error of the task, nor is a certificate that is not there. RV(problems) tells it.
  - Warns of a certificate that ends soon, and of a private key that others can read.
options:
  path:
    description:
      - The certificate (PEM). What follows the first certificate in the file counts as part of the chain.
    type: path
    required: true
  private_key_path:
    description:
      - Its private key. Without it, the key is not looked at.
    type: path
  chain_path:
    description:
      - The authorities above it (PEM), from the one that issued it to the root.
      - Without it, the certificate has to vouch for itself, or to come from a public authority.
    type: path
  names:
    description:
      - Host names and IP addresses that it has to vouch for. A wildcard in it stands for one label.
    type: list
    elements: str
    default: []
  warn_before_days:
    description:
      - Days before its end from which it ends soon.
    type: int
    default: 30
extends_documentation_fragment:
  - scistream.core.attributes.info
  - scistream.core.library
seealso:
  - module: scistream.core.certificate
  - ref: ansible_collections.scistream.core.certificates_role
    description: A facility's authority and its gateways' certificates, from the inventory, or the site's own files.
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: See until when a certificate is good
  scistream.core.certificate_info:
    path: server.crt
  register: server

- name: Stop where it ends within two weeks
  ansible.builtin.assert:
    that: server.days_left >= 14

- name: See whether a control server can serve with what the site's authority sent
  scistream.core.certificate_info:
    path: gateway.example.org.crt
    private_key_path: gateway.example.org.key
    chain_path: site-authorities.crt
    names: [gateway.example.org, 192.0.2.7]
  register: sent

- name: Stop where it cannot
  ansible.builtin.assert:
    that: sent.problems | length == 0
    fail_msg: "{{ sent.problems | map(attribute='sentence') | join(' ') }}"

- name: Be warned half a year before the authority ends, which others have copies of
  scistream.core.certificate_info:
    path: ca.crt
    warn_before_days: 180
"""

RETURN = r"""
certificate:
  description: The certificate. V(null) where there is none that can be read.
  returned: success
  type: dict
  contains:
    path:
      description: The certificate.
      returned: success
      type: str
      sample: /etc/scistream/server.crt
    private_key_path:
      description: Its private key, as it was given.
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
days_left:
  description: Whole days until it ends, below 0 where it has ended. V(null) without a certificate.
  returned: success
  type: int
  sample: 213
ends_soon:
  description: Whether it ends within O(warn_before_days), or has ended.
  returned: success
  type: bool
  sample: false
trusted:
  description: Of an authority, SHA-256 of all certificates in its file, which clients trust that pin the file.
  returned: success
  type: list
  elements: str
  sample: []
problems:
  description: All that is wrong with it.
  returned: success
  type: list
  elements: dict
  contains:
    part:
      description: What it is about, V(certificate), V(private_key), V(chain) or V(names).
      returned: success
      type: str
      sample: names
    code:
      description: Stable code of the error.
      returned: success
      type: str
      sample: CERTIFICATE_WRONG_NAME
    sentence:
      description: What was seen, the likely cause, and what to do next.
      returned: success
      type: str
      sample: >-
        the certificate server.crt is for a.example, and the control server was called b.example. The subject
        alternative names lack the name or address that clients use. Call it by one of its names, or issue a
        certificate that has b.example among its names.
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg).
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the error.
      returned: failure
      type: str
      sample: BAD_CONFIGURATION
    details:
      description: The facts of the error, by name.
      returned: failure
      type: dict
      sample: {"key": "warn_before_days", "reason": "it has to be 0 or more", "value": "-1"}
    seen:
      description: What was seen.
      returned: failure
      type: str
      sample: "warn_before_days = '-1' in the task's parameters cannot be used: it has to be 0 or more"
    cause:
      description: The likely cause.
      returned: failure
      type: str
      sample: the configuration holds a wrong key or value
    remedy:
      description: What to do next.
      returned: failure
      type: str
      sample: correct warn_before_days in the task's parameters
"""

import datetime
import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._control import refused, report
from ansible_collections.scistream.core.plugins.module_utils._library import load
from ansible_collections.scistream.core.plugins.module_utils._pairs import Pair, octal

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "path": {"type": "path", "required": True},
    "private_key_path": {"type": "path", "no_log": False},
    "chain_path": {"type": "path"},
    "names": {"type": "list", "elements": "str", "default": []},
    "warn_before_days": {"type": "int", "default": 30},
}

_SOON = "The certificate {path} ends in {days} days, on {date}: have it renewed before."
_EXPOSED = "Others can read the private key {path} (mode {mode}): chmod 600 {path}; and replace it where they did."


class _Certificate:
    """One certificate, with what belongs to it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.certificates = load(module, "scistream.certificates")
        self.errors = load(module, "scistream.errors")
        self.path = pathlib.Path(module.params["path"])
        self.key = pathlib.Path(module.params["private_key_path"]) if module.params["private_key_path"] else None
        self.now = datetime.datetime.now(datetime.timezone.utc)

    def look(self) -> dict[str, t.Any]:
        """Read, and nothing else."""
        if self.params["warn_before_days"] < 0:
            raise refused(self.module, "warn_before_days", "it has to be 0 or more")
        problems, facts = [self._problem(fault) for fault in self._faults()], self._read()
        days = (facts.not_after - self.now).days if facts else None
        ends_soon = days is not None and days < self.params["warn_before_days"]
        self._warn(facts, days if ends_soon else None)
        return {
            "changed": False,
            "certificate": facts and {**facts.as_dict(), "private_key_path": self.params["private_key_path"]},
            "days_left": days,
            "ends_soon": ends_soon,
            "trusted": self._trusted(facts),
            "problems": problems,
        }

    def _faults(self) -> t.Any:
        chain, names = self.params["chain_path"], self.params["names"]
        chain_path = pathlib.Path(chain) if chain else None
        return self.certificates.inspect(self.path, now=self.now, key=self.key, chain=chain_path, names=names)

    def _problem(self, fault: t.Any) -> dict[str, str]:
        return {"part": fault.part.value, "code": fault.error.code.value, "sentence": str(fault.error)}

    def _read(self) -> t.Any:
        try:
            return self.certificates.read(self.path, option="path")
        except self.errors.SciStreamError:
            # It is among the problems.
            return None

    def _trusted(self, facts: t.Any) -> list[str]:
        is_ca = facts is not None and facts.is_ca
        return list(self.certificates.Authorities(self.path, self.path).trusted()) if is_ca else []

    def _warn(self, facts: t.Any, days: int | None) -> None:
        # Of one that has ended, the problems tell.
        if days is not None and facts.not_after > self.now:
            date = self.certificates.spell_time(facts.not_after)
            self.module.warn(_SOON.format(path=self.path, days=days, date=date))
        if self.key is not None and self.key.exists():
            pair = Pair(self.module, str(self.path), str(self.key))
            if pair.mode != pair.safe_mode:
                self.module.warn(_EXPOSED.format(path=self.key, mode=octal(pair.mode)))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    report(module, _Certificate(module).look)


if __name__ == "__main__":
    main()
