"""Stunnel: TLS 1.3 between the two gateways, both sides authenticated by the session's key (U01, U02, U05).

The inbound side is the TLS server. It has no certificate, so that nobody without the key completes a handshake. The
outbound side is the TLS client, and there a key alone is not enough: a TLS 1.3 server may answer the offered key with
a certificate, and a client that verifies none takes it for the peer. So the client verifies certificates against a
trust anchor that never signed any and whose key is gone.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from scistream.addresses import Endpoint
from scistream.engines.base import Engine, Installation, Plan, SecretText, fill
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption

__all__ = ["Stunnel"]

# What stunnel says while it reads its configuration ([ui] is the main thread), and then goes on.
_UNRESOLVED: Final = re.compile(r"LOG[0-3]\[ui\]: (Error resolving .*)")


class Stunnel(Engine):
    """Stunnel.

    Not for applications that half-close: the direction that ends second may lose its last bytes, whatever the settings
    (U72; dataplane reference, "Whole bytes"). One-way use, and both ways with a common end, are whole.
    """

    name: ClassVar[str] = "stunnel"
    title: ClassVar[str] = "Stunnel"
    program: ClassVar[str] = "stunnel4"
    other_programs: ClassVar[tuple[str, ...]] = ("stunnel",)
    version_argument: ClassVar[str] = "-version"
    packages: ClassVar[tuple[str, ...]] = ("stunnel4",)
    encryption: ClassVar[Encryption] = Encryption.TLS_PSK

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """One service a route, the key in a file of its own, and the client's trust anchor."""
        if plan.key is None:
            raise SciStreamError(Code.SESSION_KEY_MISSING, uid=plan.uid, engine=self.title)
        client = plan.direction is Direction.OUTBOUND
        files: dict[Path, str] = {
            plan.path("conf"): fill("stunnel.conf.j2", plan=plan, client=client, address=_address),
            plan.path("psk"): SecretText(f"{plan.uid}:{plan.key.hex()}\n"),
        }
        return files | ({plan.path("ca"): _nobodys_certificate()} if client else {})

    def check_command(self, plan: Plan, installation: Installation) -> list[str] | None:
        """None: stunnel has no checker, it stops at once where it dislikes something."""
        return None

    def start_command(self, plan: Plan, installation: Installation) -> list[str]:
        """One process, a thread a connection."""
        return [str(installation.program), str(plan.path("conf"))]

    def complaint(self, words: str) -> str | None:
        """A target's name that does not resolve."""
        # It leaves a name that does not resolve for later, connection by connection.
        found = _UNRESOLVED.search(words)
        return found.group(1) if found else None


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
