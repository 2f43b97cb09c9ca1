"""The wire: .proto files written from the protocol reference, the code made of them, and the metadata's names."""

from __future__ import annotations

from typing import Final

__all__ = [
    "AUTHORIZATION",
    "DIRECTION_METADATA",
    "ENCRYPTION_METADATA",
    "ERROR_METADATA",
    "HALF_CLOSE_METADATA",
    "LEASE_METADATA",
    "PEER_ENGINE_METADATA",
    "PORTS_METADATA",
    "RATE_METADATA",
    "SESSION_KEY_METADATA",
    "SESSION_KEY_SIZE",
    "SOURCES_METADATA",
    "TRANSPORT_METADATA",
]

# What the deployed client sends on every call: the bare token.
AUTHORIZATION: Final = "authorization"
# On `hello` and `release`: which direction of the uid is meant, where a control server has both.
DIRECTION_METADATA: Final = "scistream-direction"
# On `req`: seconds that the session shall last, as text.
LEASE_METADATA: Final = "scistream-lease"
# On `req`: the ports of the entry points, with commas between, where the caller chooses them (U53).
PORTS_METADATA: Final = "scistream-ports"
# On `req`: kb/s as text, where the user asked for a rate. The wire's own field is no sign of it: deployed clients send
# their default with every request.
RATE_METADATA: Final = "scistream-rate"
# On `req`: what shall protect the bytes between the gateways, a word of `terms.Encryption`. Whoever leaves it out is a
# deployed client, which knows of no encryption.
ENCRYPTION_METADATA: Final = "scistream-encryption"
# On `req`: tcp or udp; tcp where it is left out.
TRANSPORT_METADATA: Final = "scistream-transport"
# On `req`: the networks whose hosts may connect, with commas between; all where it is left out.
SOURCES_METADATA: Final = "scistream-sources"
# On `req`: "1" where the application half-closes its connections, and has to get every byte all the same.
HALF_CLOSE_METADATA: Final = "scistream-half-close"
# On `req` of an outbound session: the engine of the inbound gateway, where its control server told it.
PEER_ENGINE_METADATA: Final = "scistream-peer-engine"
# On `update`: the key that the two gateways of a stream share. Both control channels are authenticated and encrypted.
SESSION_KEY_METADATA: Final = "scistream-session-key-bin"
# Bytes: 256 bits (U05).
SESSION_KEY_SIZE: Final = 32
# In the trailing metadata of a failed call: the error of the catalogue, as JSON.
ERROR_METADATA: Final = "scistream-error-bin"
