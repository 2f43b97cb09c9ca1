"""The forms of a Stunnel pair: what the two gateways prove themselves with, and what protects the bytes between them.

TLS_PSK: TLS 1.3 with the session's key. The TLS server has no certificate, so that nobody without the key completes a
handshake. For the TLS client a key alone is not enough: a TLS 1.3 server may answer the offered key with a certificate,
and a client that verifies none takes it for the peer. So the client verifies certificates against a trust anchor that
never signed any and whose key is gone.

TLS: TLS 1.3 with a certificate each way, of the session's own authority; what HAProxy and Nginx speak.

LEGACY_PSK: TLS 1.2 as the deployed pair has it. The key is the uid, which is no secret, and nothing is encrypted. Only
suites that authenticate by the key are offered and taken: the deployed list has anonymous ones before them (U01).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from scistream.addresses import Endpoint
from scistream.certificates.sessions import gateway_name
from scistream.engines.base import Engine, Plan
from scistream.engines.credentials import CIPHERSUITES, credentials
from scistream.engines.texts import SecretText, fill
from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, Direction, Encryption

__all__ = ["configuration", "is_client", "key_files"]

# Of both sides of every deployed pair.
_LEGACY_IDENTITY: Final = "client1"
# Stunnel takes no shorter key; in bytes.
_SHORTEST_KEY: Final = 16


def is_client(plan: Plan) -> bool:
    """Whether the data server is the TLS client of the two."""
    return plan.direction is Direction.OUTBOUND


def configuration(plan: Plan, *, deaf: bool = False) -> str:
    """The configuration file; `deaf`, one that accepts nothing. The plan's encryption is one of the three forms."""
    return fill(
        "stunnel.conf.j2",
        plan=plan,
        form=plan.encryption.value,
        client=is_client(plan),
        identity=_identity(plan),
        ciphersuites=CIPHERSUITES,
        peer=gateway_name(plan.uid, Direction.INBOUND if is_client(plan) else Direction.OUTBOUND),
        address=_address,
        deaf=deaf,
    )


def key_files(engine: Engine, plan: Plan) -> dict[Path, str]:
    """What the gateway proves itself and judges the other one with.

    Raises:
        SciStreamError: UID_PUBLISHED, SESSION_KEY_MISSING, ENGINE_CANNOT.
    """
    if plan.uid == MOCK_UID:
        raise SciStreamError(Code.UID_PUBLISHED, uid=plan.uid, encryption=plan.encryption.value)
    return _FILES[plan.encryption](engine, plan)


def _session_key(engine: Engine, plan: Plan) -> dict[Path, str]:
    key = plan.require_key(engine.title)
    files: dict[Path, str] = {plan.path("psk"): SecretText(f"{_identity(plan)}:{key.hex()}\n")}
    return files | ({plan.path("ca"): _nobodys_certificate()} if is_client(plan) else {})


def _deployed_key(engine: Engine, plan: Plan) -> dict[Path, str]:
    text = plan.uid.replace("-", "")
    if len(_as_stunnel_reads(text)) < _SHORTEST_KEY:
        reason = "the deployed form's key is the uid without its dashes, and this one has fewer than 16 bytes"
        raise SciStreamError(Code.ENGINE_CANNOT, engine=engine.title, reason=reason)
    return {plan.path("psk"): f"{_identity(plan)}:{text}\n"}


_FILES: Final[Mapping[Encryption, Callable[[Engine, Plan], dict[Path, str]]]] = {
    Encryption.TLS: credentials,
    Encryption.TLS_PSK: _session_key,
    Encryption.LEGACY_PSK: _deployed_key,
}


def _identity(plan: Plan) -> str:
    return _LEGACY_IDENTITY if plan.encryption is Encryption.LEGACY_PSK else plan.uid


def _as_stunnel_reads(text: str) -> bytes:
    """A key in bytes: hexadecimal where it can be read so."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return text.encode()


def _address(endpoint: Endpoint) -> str:
    """An address as stunnel reads it: the port follows the last colon, and brackets are part of a name."""
    return f"{endpoint.host}:{endpoint.port}"


def _nobodys_certificate() -> str:
    """A certificate whose private key is forgotten at once, as PEM: nothing verifies against it, ever."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scistream: no certificate is trusted")])
    # Its dates are of no account: expired or not, it vouches for nobody.
    day = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), day, day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()
