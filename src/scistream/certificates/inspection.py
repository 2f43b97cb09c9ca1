"""What is wrong with a certificate that was issued elsewhere, before a control server has to serve with it.

`judge` stops at the first thing; whoever asks others for a new certificate wants to know of everything.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from scistream.addresses import parse_host
from scistream.certificates.reading import (
    DAMAGED,
    CertificateFacts,
    answers_to,
    facts_of,
    is_authority,
    is_issued_by,
    judge,
    load_certificates,
    spell_time,
)
from scistream.errors import Code, SciStreamError

__all__ = ["Fault", "Part", "inspect"]

_RSA_BITS: Final = 2048
_EC_BITS: Final = 256
_BROKEN_HASHES: Final = (hashes.MD5, hashes.SHA1)
# Where a user names a file.
_OPTION: Final = "{} (role certificates: certificates_site_{})"
# In gRPC's package: what a client goes by that is given no file.
_PUBLIC: Final = "_cython/_credentials/roots.pem"
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Part(enum.StrEnum):
    """What of a certificate a fault is about."""

    CERTIFICATE = "certificate"
    PRIVATE_KEY = "private_key"
    CHAIN = "chain"
    NAMES = "names"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where."""

    part: Part
    error: SciStreamError


@dataclass(frozen=True)
class _Link:
    """A certificate of the chain, and the file that it stands in."""

    certificate: x509.Certificate
    path: Path

    @property
    def subject(self) -> str:
        return self.certificate.subject.rfc4514_string()


def inspect(
    certificate: Path, *, now: datetime, key: Path | None = None, chain: Path | None = None, names: Iterable[str] = ()
) -> tuple[Fault, ...]:
    """All that is wrong with a certificate; nothing where it can be served with.

    Args:
        certificate: a PEM file; what follows its first certificate counts as part of the chain.
        now: the present time, with a zone.
        key: its private key. Not looked at where it is None.
        chain: the authorities above it, in any order. Without a file, and without more in the certificate's own, it
            has to come from this host's public authorities, or vouch for itself.
        names: host names and addresses that clients will call the server by. A wildcard stands for one label.
    """
    try:
        loaded = load_certificates(certificate, _OPTION.format("path", "certificate"))
        facts = facts_of(certificate, loaded[0])
    except SciStreamError as error:
        return (Fault(Part.CERTIFICATE, error),)
    leaf = _Link(loaded[0], certificate)
    checks: list[tuple[Part, Callable[[], None]]] = [
        (Part.CERTIFICATE, lambda: _check_time(leaf, now)),
        (Part.CERTIFICATE, lambda: _check_strength(leaf)),
        (Part.PRIVATE_KEY, lambda: _check_key(facts, key)),
        (Part.CHAIN, lambda: _check_chain(leaf, loaded[1:], chain, now)),
        *((Part.NAMES, lambda name=name: _check_name(facts, name)) for name in names),
    ]
    return tuple(fault for part, check in checks for fault in _faults(part, check))


def _faults(part: Part, check: Callable[[], None]) -> tuple[Fault, ...]:
    try:
        check()
    except SciStreamError as error:
        return (Fault(part, error),)
    return ()


def _check_time(link: _Link, now: datetime) -> None:
    start, end = link.certificate.not_valid_before_utc, link.certificate.not_valid_after_utc
    if now < start:
        raise SciStreamError(Code.CERTIFICATE_NOT_YET_VALID, path=str(link.path), date=spell_time(start))
    if now > end:
        raise SciStreamError(Code.CERTIFICATE_EXPIRED, path=str(link.path), date=spell_time(end))


def _check_strength(link: _Link) -> None:
    reason = _weakness(link.certificate)
    if reason:
        raise SciStreamError(Code.CERTIFICATE_WEAK, path=str(link.path), subject=link.subject, reason=reason)


def _weakness(certificate: x509.Certificate) -> str:
    key_words = _weak_key(certificate.public_key())
    if key_words:
        return key_words
    signed_with = certificate.signature_hash_algorithm
    # Nobody relies on the signature of what vouches for itself.
    if isinstance(signed_with, _BROKEN_HASHES) and certificate.issuer != certificate.subject:
        return f"it is signed with {signed_with.name.upper()}"
    return ""


def _weak_key(key: CertificatePublicKeyTypes) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"its RSA key has {key.key_size} bits" if key.key_size < _RSA_BITS else ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"its key is on the curve {key.curve.name}" if key.curve.key_size < _EC_BITS else ""
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return ""
    return "its key is of a kind that TLS does not take"


def _check_key(facts: CertificateFacts, key: Path | None) -> None:
    if key is None:
        return
    if not key.exists():
        option = _OPTION.format("private_key_path", "private_key")
        raise SciStreamError(Code.CERTIFICATE_MISSING, what="private key", path=str(key), option=option)
    # Whether the certificate is good now is told already.
    judge(facts.path, now=facts.not_before, key=key)


def _check_name(facts: CertificateFacts, name: str) -> None:
    if answers_to(facts, name) or _wildcard(name) in {own.lower() for own in facts.names}:
        return
    names = ", ".join(facts.names) or "no name or address"
    raise SciStreamError(Code.CERTIFICATE_WRONG_NAME, path=str(facts.path), names=names, host=name)


def _wildcard(name: str) -> str:
    """What a certificate says that is good for all names beside this one (RFC 6125, 6.4.3)."""
    host, dot, rest = parse_host(name).removesuffix(".").partition(".")
    return f"*.{rest}" if dot and not host.isdigit() else ""


def _check_chain(leaf: _Link, own: Sequence[x509.Certificate], chain: Path | None, now: datetime) -> None:
    """Walk from the certificate to a root, and look at every one on the way."""
    others = [_Link(each, leaf.path) for each in own]
    if chain is not None:
        others += [_Link(each, chain) for each in load_certificates(chain, _OPTION.format("chain_path", "chain"))]
    link, seen = leaf, {leaf.certificate}
    while not _is_root(link.certificate):
        issuer = next((other for other in others if _vouches(other.certificate, link.certificate)), None)
        if issuer is None or issuer.certificate in seen:
            _check_public(leaf, link, chain or leaf.path)
            return
        _check_time(issuer, now)
        _check_strength(issuer)
        link = issuer
        seen.add(issuer.certificate)


def _check_public(leaf: _Link, last: _Link, chain: Path) -> None:
    """Whether one of the public authorities, which clients go by that were told of no other, issued the last one."""
    if any(_vouches(authority, last.certificate) for authority in _public_authorities()):
        return
    issuer = last.certificate.issuer.rfc4514_string()
    facts = {"path": str(leaf.path), "subject": last.subject, "issuer": issuer, "chain": str(chain)}
    raise SciStreamError(Code.CERTIFICATE_CHAIN_BROKEN, **facts)


def _public_authorities() -> Iterator[x509.Certificate]:
    found = importlib.util.find_spec("grpc")
    places = found.submodule_search_locations if found else None
    path = Path(places[0], _PUBLIC) if places else None
    for block in _BLOCK.findall(path.read_bytes()) if path and path.exists() else ():
        # Old ones among them break today's rules; they are no affair of this certificate.
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(*DAMAGED):
            yield x509.load_pem_x509_certificate(block)


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject and is_issued_by(certificate, certificate)


def _vouches(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    return is_authority(authority) and is_issued_by(authority, certificate)
