"""A real identity provider on loopback: authorization with PKCE, tokens, refresh, introspection, revocation, discovery.

    with IdentityProvider("127.0.20.90") as provider:
        provider.clients["gateway"] = "its secret"
        token = provider.issue("alice", scope="scistream", audience="gateway")

It checks what a provider has to check: clients by their secrets, codes by their verifiers, refresh tokens once.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

# Seconds that a slow answer takes at most: longer than anybody waits, and the test's end cuts it short.
_SLOW = 30


@dataclass
class Grant:
    """What a user let a client have."""

    subject: str
    client_id: str
    scope: str
    challenge: str = ""
    redirect_url: str = ""


@dataclass
class IdentityProvider:
    """The provider and its switches.

    `mood`: "well", "slow", "error" (500), "nonsense", "huge" or "packed", for everything but discovery. `audience` is
    whom the tokens of logins are for. `questions` counts introspections, `asked` names the paths of all requests.
    """

    host: str
    audience: str = "gateway"
    certificate: tuple[Path, Path] | None = None
    discovery: str = "/.well-known/oauth-authorization-server"
    mood: str = "well"
    seconds: float = 3600
    clients: dict[str, str] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    user: str = "alice"
    questions: int = 0
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = dict[str, dict[str, Any]]()
        self.refresh_tokens = dict[str, Grant]()
        self.codes = dict[str, Grant]()
        self.connections = list[socket.socket]()
        self.port = 0
        self._woken = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def issuer(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Be there; again, at the same port."""
        self._woken.clear()
        provider = self

        class Handler(_Handler):
            pass

        Handler.provider = provider
        server = ThreadingHTTPServer((self.host, self.port), Handler)
        server.daemon_threads = True
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Be gone: connections are refused."""
        self._woken.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def issue(self, subject: str, *, scope: str, audience: str | None = None, **claims: Any) -> str:
        """A token that introspection knows; claims go over its own."""
        token = secrets.token_urlsafe(24)
        now = time.time()
        facts = {
            "active": True,
            "sub": subject,
            "username": f"{subject}@facility.example",
            "scope": scope,
            "aud": [audience or self.audience],
            "iss": self.issuer,
            "exp": int(now + self.seconds),
            "nbf": int(now),
        }
        self.tokens[token] = {key: value for key, value in (facts | claims).items() if value is not None}
        return token

    def log_in(self, url: str, user: str = "alice") -> str:
        """What a browser does with the address of a login: the page's address that it is sent to."""
        query = {key: values[-1] for key, values in parse_qs(urlsplit(url).query).items()}
        assert urlsplit(url)._replace(query="").geturl() == f"{self.issuer}/authorize"
        assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
        assert query["client_id"] in self.clients
        code = secrets.token_urlsafe(12)
        self.codes[code] = Grant(
            user, query["client_id"], query["scope"], query["code_challenge"], query["redirect_uri"]
        )
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """Status and body of an answer; None for no body."""
        self.asked.append(path)
        if path == self.discovery:
            return 200, self._metadata()
        if self.mood == "slow":
            self._woken.wait(_SLOW)
        if self.mood == "error":
            return 500, {"error": "server_error", "error_description": f"no luck with {form.get('token')}"}
        answers = {"/token": self._token, "/introspect": self._introspect, "/revoke": self._revoke}
        answers["/v2/oauth2/token/introspect"] = self._introspect
        return answers[path](form, authorization) if path in answers else (404, None)

    def _metadata(self) -> dict[str, Any]:
        names = {"authorization": "authorize", "token": "token", "introspection": "introspect", "revocation": "revoke"}
        endpoints = {f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in names.items()}
        return {"issuer": self.issuer} | {key: url for key, url in endpoints.items() if key not in self.without}

    def _introspect(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        self.questions += 1
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if not secret or self.clients.get(name) != secret:
            return 401, {"error": "invalid_client"}
        facts = self.tokens.get(form["token"], {"active": False})
        return 200, facts if facts.get("exp", time.time() + 1) > time.time() else {"active": False}

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        if form["grant_type"] == "refresh_token":
            grant = self.refresh_tokens.pop(form["refresh_token"], None)
        else:
            grant = self.codes.pop(form["code"], None)
            if grant and not self._proves(form, grant):
                grant = None
        if grant is None or grant.client_id != form["client_id"]:
            return 400, {"error": "invalid_grant"}
        refresh = secrets.token_urlsafe(24)
        self.refresh_tokens[refresh] = grant
        access = self.issue(grant.subject, scope=grant.scope)
        body = {"access_token": access, "token_type": "Bearer", "scope": grant.scope, "expires_in": int(self.seconds)}
        return 200, body | {"refresh_token": refresh}

    def _proves(self, form: dict[str, str], grant: Grant) -> bool:
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return challenge == grant.challenge and form["redirect_uri"] == grant.redirect_url

    def _revoke(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        self.tokens.pop(form["token"], None)
        self.refresh_tokens.pop(form["token"], None)
        return 200, None


class _Handler(BaseHTTPRequestHandler):
    provider: IdentityProvider
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.provider.connections.append(self.connection)

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self._reply({key: values[-1] for key, values in parse_qs(body, keep_blank_values=True).items()})

    def _reply(self, form: dict[str, str]) -> None:
        path = urlsplit(self.path).path
        status, body = self.provider.answer(path, form, self.headers.get("authorization", ""))
        content = b"" if body is None else json.dumps(body).encode()
        mood = "well" if path == self.provider.discovery else self.provider.mood
        content = {"nonsense": b'{"active": "maybe"}', "huge": b" " * (1 << 20)}.get(mood, content)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        if mood == "packed":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Say nothing."""
