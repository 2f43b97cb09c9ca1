"""The certificates of one session: an authority that both its gateways make out of the session's key, and their leaves.

No facility trusts another's authority for this, and nothing but the session's key goes over the wire. The private key
of the session's authority is derived from that key, so each gateway has it and issues its own leaf, for its own role;
each trusts this one authority and no other. The two authority certificates differ in their serial numbers and have the
same subject and key, and that is what a verifier compares.

All keys are EC P-256: every OpenSSL that speaks TLS 1.3 takes them, in FIPS mode too, where 3.0 has no Ed25519.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, Direction, Encryption, Uid

__all__ = ["LIFETIME", "RENEWAL", "Leaf", "SessionAuthority", "gateway_name"]

LIFETIME: Final = datetime.timedelta(days=90)
"""How long a gateway's certificate is good for."""
RENEWAL: Final = datetime.timedelta(days=30)
"""How old a gateway's certificate is when the next one takes its place."""

# A session may live for years, and the two facilities' clocks differ.
_EPOCH: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_NEVER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_CLOCK_SKEW: Final = datetime.timedelta(days=1)
_LABEL: Final = b"scistream session certificate authority, P-256, 1\0"
_CURVE: Final = ec.SECP256R1()
# FIPS 186-5, A.2.1: 64 bits more than the order has, so that its remainder is no more likely to be small than large.
_SEED_SIZE: Final = 48
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# RFC 1035, 2.3.4: a uid may be one character longer.
_LONGEST_LABEL: Final = 63
_AUTHORITY: Final = "SciStream session authority"
_USAGE: Final = {
    Direction.INBOUND: ExtendedKeyUsageOID.SERVER_AUTH,
    Direction.OUTBOUND: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True)
class Leaf:
    """What a gateway shows to the other one, as PEM: its certificate, and the private key of it."""

    certificate: str
    private_key: str = field(repr=False)


@dataclass(frozen=True)
class SessionAuthority:
    """Who vouches for the two gateways of a session, for nobody else, and to nobody else."""

    uid: Uid
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def derive(cls, session_key: bytes, uid: Uid) -> Self:
        """The authority of a session.

        Raises:
            SciStreamError: UID_PUBLISHED, where the uid is the one of `--mock`: it never has a key (U06).
        """
        if uid == MOCK_UID:
            raise SciStreamError(Code.UID_PUBLISHED, uid=uid, encryption=Encryption.TLS.value)
        seed = HKDF(hashes.SHA256(), _SEED_SIZE, salt=None, info=_LABEL + uid.encode()).derive(session_key)
        return cls(uid, ec.derive_private_key(int.from_bytes(seed) % (_ORDER - 1) + 1, _CURVE))

    def certificate(self) -> str:
        """The authority's certificate as PEM: good for leaves only, whatever the clock says."""
        name = _name(_AUTHORITY, self.uid)
        builder = _builder(name, name, self.key, self.key, _EPOCH, _NEVER)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return _pem(builder.add_extension(_key_usage(signs_certificates=True), critical=True), self.key)

    def issue(self, direction: Direction, now: datetime.datetime) -> Leaf:
        """A certificate for the gateway at one end, with a private key that nobody had before.

        It is good from a day before `now` on, for LIFETIME, and in the role of that end only: the inbound gateway
        answers TLS, the outbound one calls.
        """
        own = ec.generate_private_key(_CURVE)
        start = now - _CLOCK_SKEW
        name = _name(f"SciStream {direction.value} gateway", self.uid)
        builder = _builder(_name(_AUTHORITY, self.uid), name, own, self.key, start, now + LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([_USAGE[direction]]), critical=True)
        names = x509.SubjectAlternativeName([x509.DNSName(gateway_name(self.uid, direction))])
        builder = builder.add_extension(names, critical=False)
        secret = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Leaf(_pem(builder, self.key), secret.decode())


def gateway_name(uid: Uid, direction: Direction) -> str:
    """The name in a gateway's certificate: `inbound.UID.scistream`. It is not in the DNS, and resolves to nothing."""
    labels = (direction.value, uid[:_LONGEST_LABEL], uid[_LONGEST_LABEL:], "scistream")
    return ".".join(filter(None, labels)).lower()


def _name(organisation: str, common_name: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def _builder(  # noqa: PLR0913, PLR0917 - a certificate has that many parts
    issuer: x509.Name,
    subject: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, own.public_key(), x509.random_serial_number(), start, end)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    # By the key alone: the two ends' authorities have different serial numbers.
    by_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(by_key, critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(builder: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey) -> str:
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
