"""The protocol of a login: what is asked for, and which answers are believed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from scistream.auth.asking import Asker
from scistream.client.login import Login, begin, finish, refresh, revoke
from scistream.client.token_store import StoredToken
from scistream.errors import Code, SciStreamError

GLOBUS = "https://auth.globus.org"
ISSUER = "https://idp.example"
SCOPE = f"{GLOBUS}/scopes/gateway/scistream"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "scopes_supported": ["openid", "offline_access"],
}
GOOD = {"access_token": "access", "refresh_token": "again", "expires_in": 60, "token_type": "Bearer", "scope": SCOPE}


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


class Provider:
    """A provider in memory."""

    def __init__(self, name: str = GLOBUS) -> None:
        self.name = name
        self.status = 200
        self.body: Any = dict(GOOD)
        self.forms: list[dict[str, str]] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if "/.well-known/" in request.url.path:
            return httpx.Response(200, content=_parts(json.dumps(METADATA).encode()))
        self.forms.append({key: values[-1] for key, values in parse_qs(request.content.decode()).items()})
        return httpx.Response(self.status, content=_parts(json.dumps(self.body).encode()))

    def run(self, use: Callable[[Asker], Any]) -> Any:
        async def inside() -> Any:
            async with Asker(self.name, seconds=5, transport=httpx.MockTransport(self.answer)) as asker:
                return await use(asker)

        return asyncio.run(inside())

    def begun(self, redirect_url: str = "") -> Login:
        return self.run(lambda asker: begin(asker, self.name, "native-app", SCOPE, redirect_url))

    def finished(self, login: Login, words: str = "code") -> StoredToken:
        return self.run(lambda asker: finish(asker, login, words, lambda: 100.0))


def query(login: Login) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(urlsplit(login.url).query).items()}


def refused(call: Callable[..., object], *arguments: object) -> SciStreamError:
    with pytest.raises(SciStreamError) as raised:
        call(*arguments)
    return raised.value


def test_a_login_at_globus_asks_for_a_code_with_a_proof_and_for_a_refresh_token():
    login = Provider().begun()
    asked = query(login)
    assert login.url.startswith(f"{GLOBUS}/v2/oauth2/authorize?")
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", "native-app", SCOPE)
    assert (asked["redirect_uri"], asked["access_type"]) == (f"{GLOBUS}/v2/web/auth-code", "offline")
    digest = hashlib.sha256(login.verifier.encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert asked["code_challenge_method"] == "S256"
    assert 43 <= len(login.verifier) <= 128
    assert login.verifier not in login.url + repr(login)


def test_no_two_logins_share_a_proof():
    one, other = Provider().begun(), Provider().begun()
    assert one.verifier != other.verifier
    assert one.state != other.state


def test_a_login_elsewhere_asks_as_openid_has_it():
    asked = query(Provider(ISSUER).begun())
    assert (asked["redirect_uri"], asked["scope"]) == ("http://127.0.0.1/", f"{SCOPE} offline_access")
    assert query(Provider(ISSUER).begun("https://page.example/"))["redirect_uri"] == "https://page.example/"


def test_a_code_becomes_a_token_with_its_proof():
    provider = Provider()
    login = provider.begun()
    assert provider.finished(login, " code\n") == StoredToken(SCOPE, GLOBUS, "native-app", "access", "again", 160.0)
    assert provider.forms == [
        {
            "grant_type": "authorization_code",
            "code": "code",
            "redirect_uri": f"{GLOBUS}/v2/web/auth-code",
            "client_id": "native-app",
            "code_verifier": login.verifier,
        }
    ]


def test_of_several_tokens_the_one_that_was_asked_for_is_taken():
    provider = Provider()
    provider.body = GOOD | {"scope": "openid", "access_token": "of openid", "other_tokens": [7, GOOD]}
    assert provider.finished(provider.begun()).access_token == "access"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": 400, "body": {"error": "invalid_grant"}}, "HTTP status 400, invalid_grant"),
        ({"status": 400, "body": {"error": "s3cret Code"}}, "HTTP status 400, without a reason"),
        ({"status": 400, "body": []}, "HTTP status 400, without a reason"),
        ({"body": GOOD | {"scope": "openid"}}, "the token that it gave is for something else"),
        ({"body": GOOD | {"access_token": ""}}, "its answer holds no token that can be used"),
        ({"body": GOOD | {"access_token": 7}}, "its answer holds no token that can be used"),
        ({"body": GOOD | {"access_token": "a\nb"}}, "its answer holds no token that can be used"),
        ({"body": GOOD | {"token_type": "mac"}}, "its answer holds no token that can be used"),
        ({"body": {}}, "its answer holds no token that can be used"),
    ],
)
def test_an_answer_that_is_no_token_is_said_to_be_none(change, reason):
    provider = Provider()
    login = provider.begun()
    for key, value in change.items():
        setattr(provider, key, value)
    error = refused(provider.finished, login)
    assert (error.code, error.facts["reason"]) == (Code.LOGIN_FAILED, reason)
    assert "s3cret" not in str(error)


def test_an_address_of_another_login_is_not_taken():
    provider = Provider(ISSUER)
    login = provider.begun()
    good = f"http://127.0.0.1/?code=x&state={login.state}"
    assert provider.finished(login, good).access_token == "access"
    for words in (good + "x", "http://127.0.0.1/?code=x", "?code=x&state=y"):
        assert refused(provider.finished, login, words).facts["reason"] == "that address belongs to another login"
    denied = f"http://127.0.0.1/?error=access_denied&state={login.state}"
    assert refused(provider.finished, login, denied).facts["reason"] == "access_denied"
    assert len(provider.forms) == 1


def test_a_provider_without_endpoints_for_a_login_is_told(monkeypatch):
    monkeypatch.delitem(METADATA, "token_endpoint")
    assert refused(Provider(ISSUER).begun).facts["reason"] == "it names no endpoints for it"


def test_u17_a_refresh_keeps_the_name_of_the_login():
    provider = Provider()
    old = StoredToken(SCOPE, GLOBUS, "native-app", "old", "again", 1.0)
    new = provider.run(lambda asker: refresh(asker, old, lambda: 100.0))
    assert (new.scope, new.client_id, new.access_token, new.expires) == (SCOPE, "native-app", "access", 160.0)
    provider.status, provider.body = 400, {"error": "invalid_grant"}
    error = refused(provider.run, lambda asker: refresh(asker, old, lambda: 100.0))
    assert error.code is Code.LOGIN_WANTED


def test_a_provider_that_cannot_revoke_is_told():
    token = StoredToken(SCOPE, ISSUER, "native-app", "old", "again", 1.0)
    error = refused(Provider(ISSUER).run, lambda asker: revoke(asker, token))
    assert (error.code, error.facts["reason"]) == (Code.PROVIDER_UNAVAILABLE, "it offers no revocation")
    provider = Provider()
    provider.status, provider.body = 403, {"error": "access_denied"}
    here = StoredToken(SCOPE, GLOBUS, "native-app", "old", "again", 1.0)
    error = refused(provider.run, lambda asker: revoke(asker, here))
    assert error.facts["reason"] == "it does not revoke (HTTP status 403, access_denied)"
