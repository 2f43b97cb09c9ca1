"""The verifier that a control server's settings ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from scistream.auth import Identity, NoAuthentication
from scistream.auth.introspection import TokenIntrospection
from scistream.control_server.authentication import HostOperator, authentication, operators
from scistream.control_server.configuration import Surroundings, load
from scistream.errors import Code, SciStreamError
from scistream.terms import HOST_OPERATOR, NO_AUTH

ON = {"client_id": "gateway", "client_secret": "hunter2", "provider": "https://idp.invalid"}


def made(use: Any, **options: Any) -> Any:
    async def inside() -> Any:
        async with authentication(load(options, Surroundings(Path("/"), {})), "host secret") as verifier:
            return await use(verifier)

    return asyncio.run(inside())


async def itself(verifier: Any) -> Any:
    return verifier


def test_u13_without_a_secret_everybody_is_the_same_one():
    assert isinstance(made(itself, insecure_no_auth=True), NoAuthentication)
    for token in (None, "host secret", "anything"):
        found = made(lambda verifier, token=token: verifier.verify(token), insecure_no_auth=True)
        assert found == Identity(NO_AUTH)


def test_with_a_secret_tokens_are_introspected_and_the_hosts_own_user_is_known():
    verifier = made(itself, **ON)
    assert isinstance(verifier, HostOperator)
    assert (verifier.name, verifier.scope) == (
        "token introspection (idp.invalid)",
        "https://auth.globus.org/scopes/gateway/scistream",
    )
    assert made(lambda verifier: verifier.verify("host secret"), **ON) == Identity(HOST_OPERATOR)
    assert isinstance(verifier._verifier, TokenIntrospection)


class Nobody:
    """A verifier that knows nobody."""

    name, scope = "none", "scope"

    async def verify(self, token: str | None, host: str = "") -> Identity:
        raise SciStreamError(Code.TOKEN_REFUSED, scope=self.scope, reason="it is not active")


@pytest.mark.parametrize("token", [None, "host secre", "host secrets", "h\xf6st", ""])
def test_nobody_else_is_the_hosts_own_user(token):
    with pytest.raises(SciStreamError, match="it is not active"):
        asyncio.run(HostOperator(Nobody(), "host secret").verify(token))


def test_the_hosts_own_user_is_an_operator_beside_the_configured_ones():
    found = operators(load({"operators": "olga, otto"}, Surroundings(Path("/"), {})))
    assert found == ("olga", "otto", HOST_OPERATOR)
