"""Identity providers: where one is asked what. Globus Auth is known; others tell it themselves (RFC 8414, OIDC)."""

from __future__ import annotations

import dataclasses
import ipaddress
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from scistream.auth.asking import Asker

__all__ = ["GLOBUS", "Endpoints", "find_endpoints", "host_of", "is_globus", "is_loopback", "parse_scope", "parse_url"]

GLOBUS: Final = "https://auth.globus.org"

# Below the issuer's address. The first is RFC 8414's, which goes between the host and the issuer's path.
_METADATA: Final = "/.well-known/oauth-authorization-server"
_OIDC_METADATA: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Endpoints:
    """Where a provider is asked; what it does not have is empty. `offers_offline` is OIDC's scope `offline_access`."""

    authorization: str = ""
    token: str = ""
    introspection: str = ""
    revocation: str = ""
    offers_offline: bool = False


def parse_url(text: str) -> str:
    """Check the address of a provider: https, or http on this host itself; nothing in it that could be a secret.

    Raises:
        ValueError: in words for a user.
    """
    try:
        parts = urlsplit(text.strip())
        parts.port  # noqa: B018 - it is read to be judged
    except ValueError:
        raise ValueError("it is no web address") from None
    if not text.isascii() or not text.isprintable() or " " in text.strip() or not parts.hostname:
        raise ValueError("it is no web address")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("tokens travel over https:// only, or http:// on this host itself")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it has a user, a query or a fragment in it")
    return text.strip()


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this host itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url: str) -> str:
    """The host in an address that `parse_url` took."""
    return urlsplit(url).hostname or ""


def parse_scope(text: str) -> str:
    """A scope as providers spell it: a Globus client id alone stands for the scope of its control server."""
    word = text.strip()
    try:
        client_id = str(uuid.UUID(word))
    except ValueError:
        return word
    return f"{GLOBUS}/scopes/{client_id}/scistream" if client_id == word.lower() else word


def is_globus(provider: str) -> bool:
    """Whether it is Globus Auth, which has its endpoints where it has always had them."""
    host = host_of(provider)
    return host.startswith("auth.") and host.endswith(".globus.org")


async def find_endpoints(asker: Asker, provider: str) -> Endpoints:
    """Where a provider is asked.

    Raises:
        SciStreamError: PROVIDER_UNAVAILABLE.
    """
    issuer = provider.rstrip("/")
    if is_globus(issuer):
        return _globus(issuer)
    parts = urlsplit(issuer)
    for url in (_below(parts, _METADATA + parts.path), _below(parts, parts.path + _OIDC_METADATA)):
        answer = await asker.get(url)
        if answer.status == 200:
            return _read(asker, answer.body, issuer)
    raise asker.failure("it does not tell where it is asked (RFC 8414)")


def _globus(issuer: str) -> Endpoints:
    base = f"{issuer}/v2/oauth2"
    return Endpoints(f"{base}/authorize", f"{base}/token", f"{base}/token/introspect", f"{base}/token/revoke")


def _below(parts: SplitResult, path: str) -> str:
    return parts._replace(path=path).geturl()


def _read(asker: Asker, body: Mapping[str, Any], issuer: str) -> Endpoints:
    # Another's metadata under this address would send tokens and secrets there (RFC 8414, section 3.3).
    if str(body.get("issuer", "")).rstrip("/") != issuer:
        raise asker.failure("its metadata is another issuer's")
    names = (field.name for field in dataclasses.fields(Endpoints) if field.name != "offers_offline")
    endpoints = {name: _endpoint(asker, body.get(f"{name}_endpoint")) for name in names}
    scopes = body.get("scopes_supported")
    return Endpoints(**endpoints, offers_offline=isinstance(scopes, list) and "offline_access" in scopes)


def _endpoint(asker: Asker, value: object) -> str:
    if value in {None, ""}:
        return ""
    try:
        return parse_url(str(value))
    except ValueError as error:
        raise asker.failure(f"one of its endpoints cannot be used: {error}") from None
