"""What a TLS connection to a control server trusts, for the standard library: the same as for gRPC."""

from __future__ import annotations

import ssl

from scistream.client.control_servers import ControlServer

__all__ = ["tls_context"]


def tls_context(server: ControlServer) -> ssl.SSLContext:
    """A context that believes what gRPC does.

    Raises:
        OSError: the certificate cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    # As gRPC has it: a certificate that was named is an anchor, whoever issued it.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if server.server_certificate:
        context.load_verify_locations(server.server_certificate)
    else:
        context.load_default_certs()
    return context
