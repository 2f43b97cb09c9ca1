"""Who a caller is: a token becomes an identity, or is refused. Knows neither gRPC nor sessions."""

from __future__ import annotations

from scistream.auth.identities import Identity, NoAuthentication, Verifier

__all__ = ["Identity", "NoAuthentication", "Verifier"]
