"""Why a control server cannot be talked to.

gRPC says UNAVAILABLE for everything from a mistyped name to an expired certificate. Only then, the port is looked at
with the standard library, step by step: name, port, TLS, certificate.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scistream import certificates
from scistream.certificates import CertificateFacts
from scistream.client.control_servers import ControlServer
from scistream.client.hop import name_to_verify, open_hop
from scistream.client.trust import tls_context
from scistream.errors import Code, SciStreamError

__all__ = ["find_fault"]

# Seconds for each step: this comes on top of a call that has failed already.
_PATIENCE: Final = 3.0
_SSH_PATIENCE: Final = 10.0
# OpenSSL, x509_vfy.h: X509_V_ERR_*.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_NAMES: Final = (62, 64)
# RFC 9113, 3.4: what a client says first, with an empty SETTINGS frame after it; 4.1: the head of a frame.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEAD: Final = 9
_SETTINGS: Final = 4


def find_fault(server: ControlServer) -> SciStreamError | None:
    """Look for the reason why `server` cannot be talked to; None where name, port, TLS and certificate are good."""
    try:
        with _connect(server) as plain:
            return _fault_in_plain_text(server, plain) if server.plain_text else _fault_in_tls(server, plain)
    except OSError as error:
        return _unreachable(server, _reason(server, error))
    except SciStreamError as error:
        # The way there is closed, or a file that was good a moment ago.
        return error


def _fault_in_tls(server: ControlServer, plain: socket.socket) -> SciStreamError | None:
    try:
        with tls_context(server).wrap_socket(plain, server_hostname=_name(server)):
            return None
    except ssl.SSLCertVerificationError as error:
        return _judged(server, error.verify_code)
    except (ssl.SSLError, ConnectionError) as error:
        return _without_tls(server, error)


def _without_tls(server: ControlServer, error: OSError) -> SciStreamError:
    with _connect(server) as plain:
        if _speaks_http2(plain):
            return SciStreamError(Code.PLAIN_TEXT_SERVER, server=str(server.address))
    return _unreachable(server, f"what answers there speaks neither TLS nor gRPC ({_words(error)})")


def _fault_in_plain_text(server: ControlServer, plain: socket.socket) -> SciStreamError | None:
    if _speaks_http2(plain):
        return None
    if _shown(server) is not None:
        return SciStreamError(Code.TLS_SERVER, server=str(server.address))
    return _unreachable(server, "what answers there does not speak gRPC")


def _connect(server: ControlServer) -> socket.socket:
    hop = open_hop(server, timeout=_SSH_PATIENCE)
    if hop is None:
        return socket.create_connection((server.address.host, server.address.port), _PATIENCE)
    with hop:
        return hop.connect(_PATIENCE)


def _name(server: ControlServer) -> str:
    """The name that was wanted of the certificate."""
    hop = open_hop(server, timeout=_SSH_PATIENCE)
    if hop is None:
        return server.address.host
    with hop:
        return name_to_verify(server, hop)


def _speaks_http2(plain: socket.socket) -> bool:
    """Whether the other side answers the preface as every HTTP/2 server does: with a SETTINGS frame."""
    try:
        plain.sendall(_PREFACE)
        head = plain.recv(_FRAME_HEAD, socket.MSG_WAITALL)
    except (ConnectionError, TimeoutError):
        return False
    return len(head) == _FRAME_HEAD and head[3] == _SETTINGS


def _judged(server: ControlServer, code: int) -> SciStreamError:
    address = str(server.address)
    trusted = str(server.server_certificate or "gRPC's list of public authorities")
    shown = _shown(server)
    if shown is None or code not in {_NOT_YET_VALID, _EXPIRED, *_WRONG_NAMES}:
        return SciStreamError(Code.CERTIFICATE_NOT_TRUSTED, server=address, path=trusted)
    if code in _WRONG_NAMES:
        names = ", ".join(shown.names) or shown.subject
        path = _which(server, shown)
        return SciStreamError(Code.CERTIFICATE_WRONG_NAME, path=path, names=names, host=server.known_as.host)
    return _out_of_time(server, shown, code)


def _out_of_time(server: ControlServer, shown: CertificateFacts, code: int) -> SciStreamError:
    """Which certificate of the chain it is: the one that was shown, or the authority's that was named."""
    now = datetime.now(UTC)
    facts, path = shown, _which(server, shown)
    if shown.not_before <= now <= shown.not_after and server.server_certificate:
        facts, path = certificates.read(server.server_certificate), str(server.server_certificate)
    if code == _EXPIRED:
        return SciStreamError(Code.CERTIFICATE_EXPIRED, path=path, date=certificates.spell_time(facts.not_after))
    return SciStreamError(Code.CERTIFICATE_NOT_YET_VALID, path=path, date=certificates.spell_time(facts.not_before))


def _which(server: ControlServer, shown: CertificateFacts) -> str:
    named = server.server_certificate
    same = named is not None and certificates.read(named).fingerprint == shown.fingerprint
    return str(named) if same else f"that {server.address} shows"


def _shown(server: ControlServer) -> CertificateFacts | None:
    """The certificate that the other side shows, believed or not; None where it speaks no TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only looked at: nothing is sent over this connection
    context.set_alpn_protocols(["h2"])
    try:
        with (
            _connect(server) as plain,
            context.wrap_socket(plain, server_hostname=server.known_as.host) as tls,
            tempfile.NamedTemporaryFile("w", suffix=".crt") as file,
        ):
            file.write(ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b""))
            file.flush()
            return certificates.read(Path(file.name))
    except (OSError, SciStreamError):
        return None


def _reason(server: ControlServer, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {server.address.host} does not resolve ({_words(error)})"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(error, TimeoutError):
        return f"no answer within {_PATIENCE:g} s"
    return _words(error)


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error.strerror or error)


def _unreachable(server: ControlServer, reason: str) -> SciStreamError:
    return SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server=str(server.address), reason=reason)
