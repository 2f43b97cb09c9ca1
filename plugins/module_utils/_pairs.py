# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A certificate and its private key, as they are on disk. Only reads."""

from __future__ import annotations

import datetime
import pathlib
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._library import load

__all__ = ["ITSELF", "KEY_MODE", "OWN_KEY", "Pair", "day", "is_there", "octal"]

KEY_MODE = 0o600
# Who signed, and whose key it is, in a diff's words.
ITSELF = "itself"
OWN_KEY = "its own"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Pair:
    """The files of one certificate.

    Args:
        module: for the library.
        path: of the certificate.
        key: path of the private key.
    """

    def __init__(self, module: AnsibleModule, path: str | pathlib.Path, key: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        self.key = pathlib.Path(key)
        self._certificates = load(module, "scistream.certificates")
        self._reading = load(module, "scistream.certificates.reading")
        self._errors = load(module, "scistream.errors")
        self._exceptions = load(module, "cryptography.exceptions")

    def read(self, option: str) -> t.Any:
        """What the certificate says, as scistream.certificates.CertificateFacts; None where there is none.

        Raises:
            SciStreamError: CERTIFICATE_UNREADABLE.
        """
        return self._certificates.read(self.path, option=option) if is_there(self.path) else None

    def found(self, facts: t.Any, authority: Pair | None) -> dict[str, t.Any]:
        """The facts that a wish can be compared by.

        Raises:
            SciStreamError: CERTIFICATE_UNREADABLE.
        """
        return {
            "is_ca": facts.is_ca,
            "names": sorted(facts.names),
            "not_after": day(facts.not_after),
            "private_key": self._key_state(facts),
            "private_key_mode": octal(self.mode),
            "signed_by": self._signer(facts, authority),
        }

    @property
    def mode(self) -> int | None:
        """The private key's mode; None where there is none."""
        return stat.S_IMODE(self.key.stat().st_mode) if is_there(self.key) else None

    @property
    def safe_mode(self) -> int:
        """The private key's mode, or the one that it should have."""
        mode = self.mode
        return KEY_MODE if mode is None or mode & _OTHERS else mode

    def _key_state(self, facts: t.Any) -> str:
        states = {
            self._errors.Code.CERTIFICATE_MISSING: "missing",
            self._errors.Code.CERTIFICATE_KEY_MISMATCH: "of another certificate",
        }
        try:
            # Whether the certificate is good now is another question.
            self._certificates.judge(self.path, now=facts.not_before, key=self.key)
        except self._errors.SciStreamError as error:
            if error.code not in states:
                raise
            return states[error.code]
        return OWN_KEY

    def _signer(self, facts: t.Any, authority: Pair | None) -> str:
        if authority and is_there(authority.path) and self._is_signed_by(authority):
            return str(authority.path)
        return ITSELF if facts.self_signed else facts.issuer

    def _is_signed_by(self, authority: Pair) -> bool:
        issuer = self._reading.load_certificate(authority.path, "ca_path")
        try:
            self._reading.load_certificate(self.path, "path").verify_directly_issued_by(issuer)
        except (self._exceptions.InvalidSignature, TypeError, ValueError):
            return False
        return True


def is_there(path: pathlib.Path) -> bool:
    """Whether there is something of that name, a dangling link included."""
    return path.exists() or path.is_symlink()


def day(moment: datetime.datetime) -> str:
    """To the day: the prediction of a run and the run show the same."""
    return moment.date().isoformat()


def octal(mode: int | None) -> str | None:
    """A mode as people write it."""
    return None if mode is None else f"{mode:04o}"
