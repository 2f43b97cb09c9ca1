"""Logins at an identity provider: authorization code with PKCE (RFC 7636), refresh, revocation (RFC 7009)."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from scistream.auth.asking import Answer, Asker
from scistream.auth.providers import Endpoints, find_endpoints, is_globus
from scistream.client.token_store import StoredToken
from scistream.errors import Code, SciStreamError

__all__ = ["Login", "begin", "finish", "refresh", "revoke"]

# Where the browser goes with the code: Globus shows it on a page of its own; elsewhere it stands in the address of a
# page that this host does not serve (RFC 8252, section 7.3).
_GLOBUS_PAGE: Final = "/v2/web/auth-code"
_LOCAL_PAGE: Final = "http://127.0.0.1/"
# An error as RFC 6749 has them; other words are not repeated, they could hold anything.
_ERROR: Final = re.compile(r"[a-z_]{1,40}")
_OFFLINE: Final = "offline_access"


@dataclass(frozen=True)
class Login:
    """A login that waits for its code; `url` is what the user's browser opens."""

    url: str
    scope: str
    provider: str
    client_id: str
    redirect_url: str
    token_endpoint: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)


async def begin(asker: Asker, provider: str, client_id: str, scope: str, redirect_url: str = "") -> Login:
    """Make the address that the user logs in at.

    Raises:
        SciStreamError: PROVIDER_UNAVAILABLE, LOGIN_FAILED.
    """
    async with asker.deadline():
        endpoints = await find_endpoints(asker, provider)
    if not (endpoints.authorization and endpoints.token):
        raise _failed(provider, scope, "it names no endpoints for it")
    page = redirect_url or (provider.rstrip("/") + _GLOBUS_PAGE if is_globus(provider) else _LOCAL_PAGE)
    state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(64)
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": page,
        "scope": _asked(scope, endpoints),
        "state": state,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
    }
    if is_globus(provider):
        # Globus's word for a refresh token.
        query["access_type"] = "offline"
    url = f"{endpoints.authorization}?{urlencode(query)}"
    return Login(url, scope, provider, client_id, page, endpoints.token, state, verifier)


async def finish(asker: Asker, login: Login, words: str, now: Callable[[], float] = time.time) -> StoredToken:
    """Make a token of the code, or of the whole address that the browser was sent to.

    Raises:
        SciStreamError: LOGIN_FAILED, PROVIDER_UNAVAILABLE.
    """
    form = {
        "grant_type": "authorization_code",
        "code": _code(login, words.strip()),
        "redirect_uri": login.redirect_url,
        "client_id": login.client_id,
        "code_verifier": login.verifier,
    }
    asked = now()
    async with asker.deadline():
        answer = await asker.post(login.token_endpoint, form)
    wanted = StoredToken(login.scope, login.provider, login.client_id, access_token="")
    return _taken(wanted, answer, asked)


async def refresh(asker: Asker, token: StoredToken, now: Callable[[], float] = time.time) -> StoredToken:
    """A new token for an old one (U17); the refresh token may be a new one too.

    Raises:
        SciStreamError: LOGIN_WANTED where the login has ended, PROVIDER_UNAVAILABLE.
    """
    form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token, "client_id": token.client_id}
    asked = now()
    async with asker.deadline():
        endpoints = await find_endpoints(asker, token.provider)
        answer = await asker.post(endpoints.token, form)
    if answer.status in {400, 401}:
        raise SciStreamError(Code.LOGIN_WANTED, scope=token.scope)
    return _taken(token, answer, asked)


async def revoke(asker: Asker, token: StoredToken) -> None:
    """Have a login ended at the provider.

    Raises:
        SciStreamError: PROVIDER_UNAVAILABLE, also where it offers no revocation or refuses.
    """
    async with asker.deadline():
        endpoint = (await find_endpoints(asker, token.provider)).revocation
        if not endpoint:
            raise asker.failure("it offers no revocation")
        # The refresh token first: with it gone, nothing new can be made.
        for hint in ("refresh_token", "access_token"):
            if value := getattr(token, hint):
                form = {"token": value, "token_type_hint": hint, "client_id": token.client_id}
                answer = await asker.post(endpoint, form)
                if answer.status != 200:
                    raise asker.failure(f"it does not revoke ({_error(answer)})")


def _asked(scope: str, endpoints: Endpoints) -> str:
    words = scope.split()
    return " ".join([*words, _OFFLINE] if endpoints.offers_offline and _OFFLINE not in words else words)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _code(login: Login, words: str) -> str:
    if "code=" not in words and "error=" not in words:
        if not words:
            raise _failed(login.provider, login.scope, "no code was given")
        return words
    query = {key: values[-1] for key, values in parse_qs(urlsplit(words).query or words).items()}
    if query.get("state") != login.state:
        raise _failed(login.provider, login.scope, "that address belongs to another login")
    if "code" not in query:
        raise _failed(login.provider, login.scope, _known(query.get("error")))
    return query["code"]


def _taken(wanted: StoredToken, answer: Answer, asked: float) -> StoredToken:
    """The token that was wanted, out of an answer; Globus has one for each service, beside the first."""
    if answer.status != 200:
        raise _failed(wanted.provider, wanted.scope, _error(answer))
    for body in _offered(answer.body):
        if set(wanted.scope.split()) <= set(str(body.get("scope", wanted.scope)).split()):
            return _filled(wanted, body, asked)
    raise _failed(wanted.provider, wanted.scope, "the token that it gave is for something else")


def _offered(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield body
    others = body.get("other_tokens")
    yield from (other for other in others if isinstance(other, dict)) if isinstance(others, list) else ()


def _filled(wanted: StoredToken, body: Mapping[str, Any], asked: float) -> StoredToken:
    access, again, seconds = body.get("access_token"), body.get("refresh_token"), body.get("expires_in")
    bearer = str(body.get("token_type", "bearer")).lower() == "bearer"
    if not (bearer and isinstance(access, str) and access.isascii() and access.isprintable() and access):
        raise _failed(wanted.provider, wanted.scope, "its answer holds no token that can be used")
    return dataclasses.replace(
        wanted,
        access_token=access,
        refresh_token=again if isinstance(again, str) and again else wanted.refresh_token,
        expires=asked + seconds if isinstance(seconds, int | float) and seconds > 0 else None,
    )


def _error(answer: Answer) -> str:
    return f"HTTP status {answer.status}, {_known(answer.body.get('error'))}"


def _known(error: object) -> str:
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else "without a reason"


def _failed(provider: str, scope: str, reason: str) -> SciStreamError:
    return SciStreamError(Code.LOGIN_FAILED, provider=provider, scope=scope, reason=reason)
