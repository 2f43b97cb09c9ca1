"""What a verifier makes of a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from scistream.terms import NO_AUTH

__all__ = ["Identity", "NoAuthentication", "Verifier"]


@dataclass(frozen=True)
class Identity:
    """Somebody whom a control server knows.

    `subject` is the stable name that sessions have as owner, `scopes` what the token is good for, `expires` is in
    seconds since the epoch, or None where it is not known. `username` is for people to read, and decides nothing.
    """

    subject: str
    scopes: tuple[str, ...] = ()
    expires: float | None = None
    username: str = ""


class Verifier(Protocol):
    """One way of telling who calls."""

    name: str
    """How it shows in every status: `NO_AUTH`, or the method's name."""
    scope: str
    """What a token has to be for; empty where none is asked for."""

    async def verify(self, token: str | None, host: str = "") -> Identity:
        """Who has the token; None where the call carried none. `host` is where it comes from, for fairness alone.

        Raises:
            SciStreamError: AUTHENTICATION_REQUIRED, TOKEN_REFUSED, PROVIDER_UNAVAILABLE.
        """


class NoAuthentication:
    """Everybody is the same one, whatever the token: only where the operator said so by name."""

    name = NO_AUTH
    scope = ""

    async def verify(self, token: str | None, host: str = "") -> Identity:
        """See `Verifier.verify`."""
        del token, host
        return Identity(NO_AUTH)
