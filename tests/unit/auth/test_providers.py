"""Where a provider is asked: Globus as it is, others as they say, nobody over plain text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from scistream.auth.asking import Asker
from scistream.auth.providers import Endpoints, find_endpoints, parse_scope, parse_url
from scistream.errors import Code, SciStreamError

ISSUER = "https://idp.example/realms/beam"
RFC_8414 = "https://idp.example/.well-known/oauth-authorization-server/realms/beam"
OIDC = "https://idp.example/realms/beam/.well-known/openid-configuration"
TOLD = {"issuer": ISSUER, "introspection_endpoint": f"{ISSUER}/introspect", "scopes_supported": ["offline_access"]}


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


def found(pages: dict[str, object], provider: str = ISSUER) -> Endpoints:
    def answer(request: httpx.Request) -> httpx.Response:
        page = pages.get(str(request.url))
        return (
            httpx.Response(404, content=_parts(b""))
            if page is None
            else httpx.Response(200, content=_parts(json.dumps(page).encode()))
        )

    async def inside() -> Endpoints:
        async with Asker(provider, seconds=5, transport=httpx.MockTransport(answer)) as asker:
            return await find_endpoints(asker, provider)

    return asyncio.run(inside())


@pytest.mark.parametrize("provider", ["https://auth.globus.org", "https://auth.globus.org/"])
def test_globus_is_not_asked_where_it_is_asked(provider):
    endpoints = found({}, provider)
    assert endpoints.introspection == "https://auth.globus.org/v2/oauth2/token/introspect"
    assert endpoints.authorization == "https://auth.globus.org/v2/oauth2/authorize"


@pytest.mark.parametrize("page", [RFC_8414, OIDC])
def test_others_tell_it_themselves(page):
    assert found({page: TOLD}) == Endpoints(introspection=f"{ISSUER}/introspect", offers_offline=True)


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ({}, "it does not tell where it is asked (RFC 8414)"),
        ({OIDC: TOLD | {"issuer": "https://evil.example"}}, "its metadata is another issuer's"),
        ({OIDC: {"introspection_endpoint": "https://x.example"}}, "its metadata is another issuer's"),
        (
            {OIDC: TOLD | {"introspection_endpoint": "http://idp.example/introspect"}},
            "one of its endpoints cannot be used: tokens travel over https:// only, or http:// on this host itself",
        ),
    ],
)
def test_metadata_that_cannot_be_trusted_is_not_used(pages, reason):
    with pytest.raises(SciStreamError) as raised:
        found(pages)
    assert (raised.value.code, raised.value.facts["reason"]) == (Code.PROVIDER_UNAVAILABLE, reason)


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example",
        "https://idp.example:8443/realms/x",
        "http://127.0.20.1:9",
        "http://[::1]:9",
        "http://localhost",
    ],
)
def test_addresses_that_tokens_may_go_to(url):
    assert parse_url(f" {url} ") == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://idp.example", "https:// only"),
        ("http://localhost.example", "https:// only"),
        ("ftp://idp.example", "https:// only"),
        ("idp.example", "no web address"),
        ("https://", "no web address"),
        ("https://idp.example:x", "no web address"),
        ("https://idp.ex ample", "no web address"),
        ("https://idp.example\n", "no web address"),
        ("https://user:secret@idp.example", "a user, a query or a fragment"),
        ("https://idp.example?key=secret", "a user, a query or a fragment"),
        ("https://idp.example#x", "a user, a query or a fragment"),
    ],
)
def test_addresses_that_they_may_not_go_to(url, words):
    with pytest.raises(ValueError, match=words) as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


def test_a_bare_client_id_is_its_control_servers_scope():
    client_id = "2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f"
    assert parse_scope(client_id.upper()) == f"https://auth.globus.org/scopes/{client_id}/scistream"
    for scope in (
        "scistream",
        "https://auth.globus.org/scopes/x/scistream",
        "openid write",
        client_id.replace("-", ""),
    ):
        assert parse_scope(scope) == scope
