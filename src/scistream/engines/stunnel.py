"""Stunnel: TLS 1.3 between the two gateways, both sides authenticated by the session's key (U01, U02, U05).

The inbound side is the TLS server. It has no certificate, so that nobody without the key completes a handshake. The
outbound side is the TLS client, and there a key alone is not enough: a TLS 1.3 server may answer the offered key with
a certificate, and a client that verifies none takes it for the peer. So the client verifies certificates against a
trust anchor that never signed any and whose key is gone.
"""

from __future__ import annotations

import datetime
import ipaddress
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
from scistream.engines.traffic import Count, Peer, Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption

__all__ = ["Stunnel"]

# A line of a connection's thread, `2026.11.23 02:26:25 LOG5[16]: Service [route-1] accepted connection from ::1:5400`.
_LINE: Final = re.compile(r"LOG\d\[(\d+)\]: (.*)")
_ACCEPTED: Final = re.compile(r"Service \[.*\] accepted connection from (.+):(\d+)$")
_CONNECTED: Final = re.compile(r"Service \[.*\] connected remote server from (.+):(\d+)$")
_ENDED: Final = re.compile(r"Connection (?:closed|reset|reset/closed): (\d+) byte\(s\) sent to TLS, (\d+) byte")
_REFUSED: Final = re.compile(r"SSL_(?:accept|connect): ")
_TAKEN: Final = "LOG5[ui]: Configuration successful"
_NOT_TAKEN: Final = re.compile(r"LOG3\[ui\]: (Failed to reload .*|Binding service .* failed)")
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
    error_mark: ClassVar[str] = "LOG3[ui]"
    rebinds: ClassVar[bool] = True
    ledger: ClassVar[str] = "log"

    def render(self, plan: Plan, installation: Installation) -> Mapping[Path, str]:
        """One service a route, the key in a file of its own, and the client's trust anchor."""
        if plan.key is None:
            raise SciStreamError(Code.SESSION_KEY_MISSING, uid=plan.uid, engine=self.title)
        files: dict[Path, str] = {
            plan.path("conf"): _configuration(plan),
            plan.path("psk"): SecretText(f"{plan.uid}:{plan.key.hex()}\n"),
        }
        return files | ({plan.path("ca"): _nobodys_certificate()} if _is_client(plan) else {})

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

    def deaf(self, plan: Plan, installation: Installation) -> str:
        """One service that listens on a Unix socket in the state directory: stunnel has to have an entry point."""
        del installation
        return _configuration(plan, deaf=True)

    def reloaded(self, words: str) -> bool:
        """It says that it took the configuration, and afterwards whether it could bind."""
        if refusal := _NOT_TAKEN.search(words):
            raise SciStreamError(
                Code.ENGINE_CANNOT, engine=self.title, reason=f"{refusal.group(1)}: {self.rejection(words)}"
            )
        return _TAKEN in words

    def count(self, plan: Plan, line: str, accepted: dict[str, list[Peer]]) -> Count:
        """A line of its log; a number stands for the connection in all of its lines."""
        found = _LINE.search(line)
        if found is None:
            return Count(Traffic())
        thread, words = found.groups()
        if begun := _ACCEPTED.match(words):
            accepted[thread] = [_peer(begun)]
        elif connected := _CONNECTED.match(words):
            accepted.setdefault(thread, []).append(_peer(connected))
        elif ended := _ENDED.match(words):
            return Count(_carried(plan, *map(int, ended.groups())), accepted.pop(thread, ()))
        return Count(Traffic(refused_peers=int(_REFUSED.match(words) is not None)))

    def is_plain_at_target(self, plan: Plan) -> bool:
        """The inbound side is the TLS server."""
        return not _is_client(plan)


def _peer(found: re.Match[str]) -> Peer:
    return ipaddress.ip_address(found.group(1)), int(found.group(2))


def _configuration(plan: Plan, *, deaf: bool = False) -> str:
    return fill("stunnel.conf.j2", plan=plan, client=_is_client(plan), address=_address, deaf=deaf)


def _is_client(plan: Plan) -> bool:
    return plan.direction is Direction.OUTBOUND


def _carried(plan: Plan, to_tls: int, to_socket: int) -> Traffic:
    there, back = (to_tls, to_socket) if _is_client(plan) else (to_socket, to_tls)
    return Traffic(0, 1, there, back)


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
