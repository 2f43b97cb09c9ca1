"""Read certificates, and judge whether they are good: now, for a host, with a private key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from scistream.addresses import parse_host
from scistream.errors import Code, SciStreamError

__all__ = [
    "DAMAGED",
    "CertificateFacts",
    "answers_to",
    "facts_of",
    "is_authority",
    "is_issued_by",
    "judge",
    "load_certificate",
    "load_certificates",
    "load_key",
    "read",
    "spell_time",
    "unreadable",
]

DAMAGED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate that is none raises."""


@dataclass(frozen=True)
class CertificateFacts:
    """What a certificate says.

    Times are UTC; `names` are its alternative names, DNS and IP, in their order; `fingerprint` is SHA-256.
    """

    path: Path
    subject: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_ca: bool
    issuer: str
    fingerprint: str
    self_signed: bool

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data; times as ISO 8601."""
        return {
            "path": str(self.path),
            "subject": self.subject,
            "names": list(self.names),
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "is_ca": self.is_ca,
            "issuer": self.issuer,
            "fingerprint": self.fingerprint,
            "self_signed": self.self_signed,
        }


def read(path: Path, *, option: str = "--server-cert") -> CertificateFacts:
    """Read a certificate (PEM; the first one of the file).

    Args:
        path: the file.
        option: where a user names the file, for the error.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE.
    """
    return facts_of(path, load_certificate(path, option))


def judge(
    path: Path, *, now: datetime, host: str | None = None, key: Path | None = None, option: str = "--server-cert"
) -> CertificateFacts:
    """Read a certificate and say whether it is good now, for that host, with that private key.

    Names are compared whole, without wildcards. A CA without names of its own vouches for others: any host is right.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE, CERTIFICATE_NOT_YET_VALID, CERTIFICATE_EXPIRED,
            CERTIFICATE_WRONG_NAME, CERTIFICATE_KEY_MISMATCH, BAD_ADDRESS.
    """
    loaded = load_certificate(path, option)
    facts = facts_of(path, loaded)
    if now < facts.not_before:
        raise SciStreamError(Code.CERTIFICATE_NOT_YET_VALID, path=str(path), date=spell_time(facts.not_before))
    if now > facts.not_after:
        raise SciStreamError(Code.CERTIFICATE_EXPIRED, path=str(path), date=spell_time(facts.not_after))
    if host is not None and not answers_to(facts, host):
        names = ", ".join(facts.names) or "no name or address"
        raise SciStreamError(Code.CERTIFICATE_WRONG_NAME, path=str(path), names=names, host=host)
    if key is not None and _public(load_key(key).public_key()) != _public(loaded.public_key()):
        raise SciStreamError(Code.CERTIFICATE_KEY_MISMATCH, path=str(path), key_path=str(key))
    return facts


def spell_time(moment: datetime) -> str:
    """A certificate's first or last moment, in UTC, as people read it."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def unreadable(path: Path, what: str, reason: str) -> SciStreamError:
    """The error of a file that is there and is not what it should be."""
    return SciStreamError(Code.CERTIFICATE_UNREADABLE, path=str(path), what=what, reason=reason)


def _content(path: Path, what: str, option: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SciStreamError(Code.CERTIFICATE_MISSING, what=what, path=str(path), option=option) from None
    except OSError as error:
        raise unreadable(path, what, error.strerror or str(error)) from None


def load_certificate(path: Path, option: str) -> x509.Certificate:
    """The first certificate of a PEM file.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE.
    """
    try:
        return x509.load_pem_x509_certificate(_content(path, "certificate", option))
    except DAMAGED:
        raise unreadable(path, "certificate", "it holds no whole PEM certificate") from None


def load_certificates(path: Path, option: str) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM file, one at least.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(_content(path, "certificate", option)))
    except DAMAGED:
        raise unreadable(path, "certificate", "it holds no PEM certificate, or one that is not whole") from None


def load_key(path: Path) -> PrivateKeyTypes:
    """The private key of a PEM file.

    Raises:
        SciStreamError: CERTIFICATE_MISSING, CERTIFICATE_UNREADABLE.
    """
    try:
        return serialization.load_pem_private_key(_content(path, "private key", "--server-key"), None)
    except TypeError:
        raise unreadable(path, "private key", "it is encrypted, and nobody is there to type the passphrase") from None
    except DAMAGED:
        # The library's words could quote the key.
        raise unreadable(path, "private key", "it holds no whole PEM private key") from None


def facts_of(path: Path, certificate: x509.Certificate) -> CertificateFacts:
    """What a certificate that was read from `path` says.

    Raises:
        SciStreamError: CERTIFICATE_UNREADABLE.
    """
    try:
        return CertificateFacts(
            path=path,
            subject=certificate.subject.rfc4514_string(),
            names=_names(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            is_ca=is_authority(certificate),
            issuer=certificate.issuer.rfc4514_string(),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            self_signed=is_issued_by(certificate, certificate),
        )
    except DAMAGED as error:
        raise unreadable(path, "certificate", str(error)) from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may sign other certificates."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def is_issued_by(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether a certificate names another one as its issuer, and is signed with that one's key."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, *DAMAGED):
        return False
    return True


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def answers_to(facts: CertificateFacts, host: str) -> bool:
    """Whether a certificate is good for a host, by its whole name.

    Raises:
        SciStreamError: BAD_ADDRESS.
    """
    wanted = parse_host(host).removesuffix(".")
    return wanted in {name.lower() for name in facts.names} or (facts.is_ca and not facts.names)
