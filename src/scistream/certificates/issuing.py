"""Issue certificates: self-signed, or signed by a site's CA.

Keys are EC P-256, in PKCS #8 and mode 0600 from their first byte on. A pair is written whole: both files beside their
places first, then moved in, the key before the certificate. A crash in between leaves a pair that `judge` refuses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scistream import atomic_files
from scistream.addresses import parse_host
from scistream.certificates.reading import CertificateFacts, judge, load_certificate, load_key, read, unreadable
from scistream.errors import Code, SciStreamError

__all__ = ["issue", "issue_ca"]

# Clocks of two facilities differ; a certificate shall be good everywhere from its first minute on.
_CLOCK_SKEW: Final = timedelta(hours=1)
_MAX_DAYS: Final = 36500
# X.520, ub-common-name.
_MAX_COMMON_NAME: Final = 64
_ORGANISATION: Final = "SciStream"
_CA_ORGANISATION: Final = "SciStream certificate authority"


@dataclass(frozen=True)
class _Authority:
    """Who signs: a CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def issue_ca(certificate: Path, key: Path, *, name: str, days: int, now: datetime) -> CertificateFacts:
    """Make a certificate authority, good for signing leaves only, `days` days from `now` on.

    Raises:
        SciStreamError: BAD_CONFIGURATION, FILE_UNWRITABLE.
    """
    if not name.isprintable() or not 1 <= len(name) <= _MAX_COMMON_NAME:
        _refuse(certificate, "name", name, f"a CA's name has 1 to {_MAX_COMMON_NAME} printable characters")
    end = _end(certificate, days, now)
    own = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(_CA_ORGANISATION, name)
    builder = _builder(subject, subject, own, own.public_key(), now - _CLOCK_SKEW, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    _write_pair(certificate, key, builder.sign(own, hashes.SHA256()), own)
    return read(certificate)


def issue(  # noqa: PLR0913 - a pair, its names and its life
    certificate: Path, key: Path, *, names: Sequence[str], days: int, ca: tuple[Path, Path] | None, now: datetime
) -> CertificateFacts:
    """Make a control server's certificate and key: self-signed, or signed by a CA's (certificate, key).

    Args:
        certificate: where the certificate goes, mode 0644.
        key: where the private key goes, mode 0600.
        names: host names and IP addresses that clients use, at least one.
        days: how long it is good for; it never outlives its CA.
        ca: the CA's certificate and private key, or None for a self-signed one, which is its own trust root.
        now: the present time, with a zone.

    Raises:
        SciStreamError: BAD_ADDRESS, BAD_CONFIGURATION, FILE_UNWRITABLE; CERTIFICATE_* where the CA cannot be used.
    """
    hosts = _canonical(certificate, names)
    end = _end(certificate, days, now)
    own = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(_ORGANISATION, hosts[0][:_MAX_COMMON_NAME])
    authority = _authority(ca, now) if ca else None
    start = now - _CLOCK_SKEW
    if authority is None:
        builder = _builder(subject, subject, own, own.public_key(), start, end)
    else:
        issuer = authority.certificate
        start, end = max(start, issuer.not_valid_before_utc), min(end, issuer.not_valid_after_utc)
        builder = _builder(subject, issuer.subject, own, authority.key.public_key(), start, end)
    signer = authority.key if authority else own
    _write_pair(certificate, key, _leaf(builder, hosts).sign(signer, hashes.SHA256()), own)
    return read(certificate)


def _refuse(certificate: Path, key: str, value: object, reason: str) -> None:
    source = f"the request for certificate {certificate}"
    raise SciStreamError(Code.BAD_CONFIGURATION, key=key, value=value, source=source, reason=reason)


def _canonical(certificate: Path, names: Sequence[str]) -> tuple[str, ...]:
    # Alternative names have no trailing dot (RFC 5280, 4.2.1.6).
    hosts = tuple(dict.fromkeys(parse_host(name).removesuffix(".") for name in names))
    if not hosts:
        _refuse(certificate, "names", "", "a certificate without a name or address vouches for nobody")
    return hosts


def _end(certificate: Path, days: int, now: datetime) -> datetime:
    if not 1 <= days <= _MAX_DAYS:
        _refuse(certificate, "days", days, f"it is not a number from 1 to {_MAX_DAYS}")
    return now + timedelta(days=days)


def _subject(organisation: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(  # noqa: PLR0913, PLR0917 - a certificate has that many parts
    subject: x509.Name,
    issuer: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, own.public_key(), x509.random_serial_number(), start, end)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)


def _leaf(builder: x509.CertificateBuilder, hosts: Sequence[str]) -> x509.CertificateBuilder:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(ca: tuple[Path, Path], now: datetime) -> _Authority:
    path, key_path = ca
    if not judge(path, now=now, key=key_path).is_ca:
        raise unreadable(path, "CA certificate", "it is the certificate of a server, not of a CA")
    key = load_key(key_path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise unreadable(key_path, "CA's private key", "it is not an EC key")
    return _Authority(load_certificate(path, "--ca"), key)


def _write_pair(certificate: Path, key: Path, signed: x509.Certificate, own: ec.EllipticCurvePrivateKey) -> None:
    if certificate.absolute() == key.absolute():
        _refuse(certificate, "private_key_path", str(key), "certificate and private key need a file each")
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with (
        atomic_files.prepare(key, secret) as new_key,
        atomic_files.prepare(certificate, signed.public_bytes(serialization.Encoding.PEM), 0o644) as new_certificate,
    ):
        atomic_files.move(new_key, key)
        atomic_files.move(new_certificate, certificate)
