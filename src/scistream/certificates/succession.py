"""One certificate authority after the other, without an hour in which a client trusts the wrong one.

The certificate file of an authority is what clients pin. Its first certificate signs; those behind it are trusted as
well. A successor is announced first (`ca.next.crt` and its key beside the authority's, and in the file behind its
first certificate), and signs nothing until everybody who pins the file has fetched it. Then the two change places, and
what the old one signed is issued anew. In the end the old one leaves the file.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from scistream import atomic_files
from scistream.certificates.issuing import issue_ca
from scistream.certificates.reading import is_authority, is_issued_by, judge, load_certificates
from scistream.errors import Code, SciStreamError

__all__ = ["Authorities", "Step"]

_CERTIFICATE_MODE = 0o644


class Step(enum.StrEnum):
    """How far a succession is to come."""

    ANNOUNCED = "announced"
    SWITCHED = "switched"
    FINISHED = "finished"


@dataclass(frozen=True)
class Authorities:
    """A facility's authority, with the one before it, or the one after it.

    Args:
        certificate: what clients pin; the first certificate in it signs.
        key: the private key of that first one.
    """

    certificate: Path
    key: Path

    @property
    def successor(self) -> Authorities:
        """Where the announced one lies."""
        return Authorities(_next(self.certificate), _next(self.key))

    @property
    def is_announced(self) -> bool:
        """Whether a successor waits."""
        return self.successor.certificate.exists() and self.successor.key.exists()

    def trusted(self) -> tuple[str, ...]:
        """SHA-256 of the certificates that clients trust, the one that signs first; nothing where there is no file.

        Raises:
            SciStreamError: CERTIFICATE_UNREADABLE.
        """
        return tuple(each.fingerprint(hashes.SHA256()).hex() for each in self._load())

    def lacks(self, step: Step) -> bool:
        """Whether something is left to do for a step.

        Raises:
            SciStreamError: CERTIFICATE_UNREADABLE; AUTHORITY_STILL_NEEDED where the step before it was not taken.
        """
        trusted = self.trusted()
        if step is Step.ANNOUNCED:
            return not self.is_announced or self.successor.trusted()[0] not in trusted
        if step is Step.SWITCHED:
            return self.is_announced
        if self.is_announced:
            raise self._refusal("the new one is announced, and does not sign yet")
        if len(trusted) > 1:
            self._refuse_orphans()
        return len(trusted) > 1

    def foreseen(self, step: Step) -> tuple[str, ...]:
        """What `trusted` tells after a step that lacks; an empty text for what is to be made.

        Raises:
            SciStreamError: CERTIFICATE_UNREADABLE.
        """
        trusted = self.trusted()
        if step is Step.FINISHED:
            return trusted[:1]
        following = self.successor.trusted() if self.is_announced else ("",)
        others = tuple(each for each in trusted if each not in following)
        return (*following, *others) if step is Step.SWITCHED else (*others, *following)

    def take(self, step: Step, *, name: str, days: int, now: datetime) -> None:
        """Take a step that lacks. A new authority gets the name, and is good for so many days.

        Raises:
            SciStreamError: BAD_CONFIGURATION, CERTIFICATE_*, FILE_UNWRITABLE.
        """
        if step is Step.ANNOUNCED:
            self._announce(name, days, now)
        elif step is Step.SWITCHED:
            self._switch(now)
        else:
            self._write(self._load()[:1])

    def replace(self, *, name: str, days: int, now: datetime) -> None:
        """Have another authority sign at once, the announced one where there is one; those before it stay trusted.

        Raises:
            SciStreamError: BAD_CONFIGURATION, CERTIFICATE_*, FILE_UNWRITABLE.
        """
        if self.is_announced:
            self._switch(now)
            return
        before = [each for each in self._load() if is_authority(each) and each.not_valid_after_utc > now]
        issue_ca(self.certificate, self.key, name=name, days=days, now=now)
        if before:
            self._write([*self._load(), *before])

    def _announce(self, name: str, days: int, now: datetime) -> None:
        following = self.successor
        if not self.is_announced:
            issue_ca(following.certificate, following.key, name=name, days=days, now=now)
        self._write([*self._load(), *following._load()])

    def _switch(self, now: datetime) -> None:
        following = self.successor
        judge(following.certificate, now=now, key=following.key)
        trusted = _pem([*following._load(), *self._load()])
        with (
            atomic_files.prepare(self.key, following.key.read_bytes()) as new_key,
            atomic_files.prepare(self.certificate, trusted, _CERTIFICATE_MODE) as new_certificate,
        ):
            atomic_files.move(new_key, self.key)
            atomic_files.move(new_certificate, self.certificate)
        following.certificate.unlink()
        following.key.unlink()

    def _load(self) -> tuple[x509.Certificate, ...]:
        return load_certificates(self.certificate, "path") if self.certificate.exists() else ()

    def _write(self, certificates: Sequence[x509.Certificate]) -> None:
        atomic_files.write(self.certificate, _pem(certificates), _CERTIFICATE_MODE)

    def _refuse_orphans(self) -> None:
        """Certificates beside the authority's that a client could not trace any more."""
        signer, *before = self._load()
        orphans = [path.name for path in self._leaves() if _signed(path, before) and not _signed(path, [signer])]
        if orphans:
            raise self._refusal(f"{', '.join(orphans)} beside it would not be trusted any more")

    def _refusal(self, reason: str) -> SciStreamError:
        return SciStreamError(Code.AUTHORITY_STILL_NEEDED, path=str(self.certificate), reason=reason)

    def _leaves(self) -> list[Path]:
        own = {self.certificate, self.successor.certificate}
        return sorted(set(self.certificate.parent.glob("*.crt")) - own)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.next{path.suffix}")


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in dict.fromkeys(certificates))


def _signed(path: Path, authorities: list[x509.Certificate]) -> bool:
    """Whether one of the authorities issued what lies there."""
    try:
        leaf = load_certificates(path, "path")[0]
    except SciStreamError:
        # Whatever it is, no server can serve with it.
        return False
    return any(is_issued_by(authority, leaf) for authority in authorities)
