"""Who calls this control server, by its settings."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from scistream.auth import Identity, NoAuthentication, Verifier
from scistream.control_server.configuration import Settings
from scistream.terms import HOST_OPERATOR

if TYPE_CHECKING:
    from scistream.auth.introspection import Demands

__all__ = ["HostOperator", "authentication", "operators"]


class HostOperator:
    """A `Verifier` that knows one caller more: whoever read the secret in the state directory.

    That is the user of the control server on its own host, who can end it and read its journal anyway: their commands
    (`s2cs status`) need no token of the provider's.
    """

    def __init__(self, verifier: Verifier, secret: str) -> None:
        self.name = verifier.name
        self.scope = verifier.scope
        self._verifier = verifier
        self._secret = secret.encode()

    async def verify(self, token: str | None, host: str = "") -> Identity:
        """See `Verifier.verify`."""
        if token is not None and hmac.compare_digest(token.encode(), self._secret):
            return Identity(HOST_OPERATOR)
        return await self._verifier.verify(token, host)


@contextlib.asynccontextmanager
async def authentication(settings: Settings, host_secret: str) -> AsyncIterator[Verifier]:
    """The verifier that the settings ask for; `host_secret` lies beside the lock of the state directory."""
    if not settings.authenticates:
        yield NoAuthentication()
        return
    # Late: they load an HTTP client, which a control server without authentication starts sooner without.
    from scistream.auth.asking import Asker  # noqa: PLC0415
    from scistream.auth.introspection import DEADLINE, TokenIntrospection  # noqa: PLC0415
    from scistream.auth.providers import host_of, is_loopback  # noqa: PLC0415

    demands = _demands(settings)
    direct = is_loopback(host_of(demands.introspection_url or demands.provider))
    async with Asker(demands.provider, seconds=DEADLINE, direct=direct) as asker:
        yield HostOperator(TokenIntrospection(demands, asker), host_secret)


def operators(settings: Settings) -> tuple[str, ...]:
    """The subjects who may see and change everybody's sessions."""
    return (*settings.operators, HOST_OPERATOR)


def _demands(settings: Settings) -> Demands:
    from scistream.auth.introspection import Demands  # noqa: PLC0415

    return Demands(
        provider=settings.provider,
        client_id=settings.client_id,
        client_secret=settings.client_secret.get_secret_value(),
        audience=settings.demanded_audience,
        scope=settings.demanded_scope,
        introspection_url=settings.introspection_url,
    )
