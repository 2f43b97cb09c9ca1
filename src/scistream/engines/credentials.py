"""What a data server proves itself with: the certificates of its session, as files that only its user reads."""

from __future__ import annotations

import datetime
from pathlib import Path

from scistream.certificates.sessions import SessionAuthority
from scistream.engines.base import Engine, Plan
from scistream.engines.texts import SecretText
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, Transport

__all__ = ["CIPHERSUITES", "certificate_file", "credentials", "has_certificates"]

CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""The suites of TLS 1.3 that data servers speak, the fastest first; all of them encrypt and authenticate at once."""


def has_certificates(engine: Engine, plan: Plan) -> bool:
    """Whether certificates protect what this plan carries between the gateways.

    Raises:
        SciStreamError: ENGINE_CANNOT, where the plan asks for what the engine does not do.
    """
    if plan.transport not in engine.transports or plan.encryption not in engine.encryptions:
        reason = f"it does not carry {plan.transport.value} with encryption {plan.encryption.value}"
        raise SciStreamError(Code.ENGINE_CANNOT, engine=engine.title, reason=reason)
    if plan.transport is Transport.UDP and plan.encryption is not Encryption.NONE:
        raise SciStreamError(
            Code.ENGINE_CANNOT, engine=engine.title, reason="UDP goes unencrypted between the gateways"
        )
    return plan.encryption is Encryption.TLS


def credentials(engine: Engine, plan: Plan) -> dict[Path, str]:
    """The session's authority, this gateway's certificate, and the key from which both can be made again.

    Raises:
        SciStreamError: SESSION_KEY_MISSING, UID_PUBLISHED.
    """
    key = plan.require_key(engine.title)
    return {
        plan.path("ca"): SessionAuthority.derive(key, plan.uid).certificate(),
        plan.path("pem"): certificate_file(engine, plan),
        # No data server reads it: who starts this one again does.
        plan.path("psk"): SecretText(f"{plan.uid}:{key.hex()}\n"),
    }


def certificate_file(engine: Engine, plan: Plan) -> SecretText:
    """A new certificate for this gateway, and its private key behind it.

    Raises:
        SciStreamError: SESSION_KEY_MISSING, UID_PUBLISHED.
    """
    authority = SessionAuthority.derive(plan.require_key(engine.title), plan.uid)
    leaf = authority.issue(plan.direction, datetime.datetime.now(datetime.UTC))
    return SecretText(leaf.certificate + leaf.private_key)
