"""Token introspection (RFC 7662): the identity provider is asked whose token it is, and what it is good for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scistream.auth.asking import Answer, Asker
from scistream.auth.identities import Identity
from scistream.auth.providers import find_endpoints, host_of
from scistream.auth.verdicts import Verdict, Verdicts
from scistream.clocks import Clocks
from scistream.errors import Code, SciStreamError, one_line
from scistream.terms import RESERVED_SUBJECTS

__all__ = ["DEADLINE", "Demands", "TokenIntrospection", "method_name"]

DEADLINE: Final = 5.0
"""Seconds that a provider has to say whether a token is good, all steps together."""

# Questions under way at once about tokens that were never good, in all and from one host: more are refused, so that a
# flood of made-up tokens fills neither memory nor provider, and keeps nobody else out.
_QUESTIONS: Final = 256
_QUESTIONS_OF_HOST: Final = 32
# Of those, so many are put to the provider at a time. The asker's other connections are left to tokens that were good.
_PUT: Final = 12
# Seconds for which the provider's clock may be ahead of ours.
_SKEW: Final = 30.0
# Seconds after which a provider is asked again where its endpoints are.
_ENDPOINTS_KEPT: Final = 3600.0
_LONGEST_SUBJECT: Final = 255
# Seconds since the epoch that nothing happens at any more.
_NO_TIME: Final = 1e15


@dataclass(frozen=True)
class Demands:
    """What a control server demands of a token, and how it shows itself to the provider.

    `introspection_url` is empty where the provider tells it itself. `scope` may be several words; all are needed.
    """

    provider: str
    client_id: str
    client_secret: str = field(repr=False)
    audience: str
    scope: str
    introspection_url: str = ""


def method_name(provider: str) -> str:
    """How this way of telling who calls shows in every status."""
    return f"token introspection ({host_of(provider)})"


class TokenIntrospection:
    """A `Verifier` that asks the provider, and believes its answer for a moment.

    Args:
        demands: what a token has to be.
        asker: how the provider is asked.
        clocks: passed in.
    """

    def __init__(self, demands: Demands, asker: Asker, clocks: Clocks | None = None) -> None:
        self.name = method_name(demands.provider)
        self.scope = demands.scope
        self._demands = demands
        self._asker = asker
        self._clocks = clocks or Clocks()
        self._verdicts = Verdicts(self._clocks)
        self._questions = dict[bytes, asyncio.Task[Verdict]]()
        # Where the questions about tokens come from that were never good.
        self._strange = dict[bytes, str]()
        self._put = asyncio.Semaphore(_PUT)
        self._endpoint = ("", 0.0)

    async def verify(self, token: str | None, host: str = "") -> Identity:
        """See `Verifier.verify`."""
        if token is None:
            raise SciStreamError(Code.AUTHENTICATION_REQUIRED, scope=self.scope)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise self._refused("it has characters that no token has")
        digest = hashlib.sha256(token.encode()).digest()
        verdict = self._verdicts.find(digest) or await self._asked_once(digest, token, host)
        if verdict.identity is None:
            raise self._refused(verdict.refusal)
        return verdict.identity

    def _refused(self, reason: str) -> SciStreamError:
        return SciStreamError(Code.TOKEN_REFUSED, scope=self.scope, reason=reason)

    async def _asked_once(self, digest: bytes, token: str, host: str) -> Verdict:
        """Many calls with one token are one question; who goes away meanwhile does not end it for the others."""
        question = self._questions.get(digest)
        if question is None:
            question = asyncio.create_task(self._asked(digest, token, host))
            self._questions[digest] = question
            question.add_done_callback(lambda _: self._questions.pop(digest, None))
        return await asyncio.shield(question)

    async def _asked(self, digest: bytes, token: str, host: str) -> Verdict:
        if self._verdicts.was_good(digest):
            async with self._asker.deadline():
                return await self._ask(digest, token)
        self._require_room(host)
        self._strange[digest] = host
        try:
            async with self._asker.deadline(), self._put:
                return await self._ask(digest, token)
        finally:
            del self._strange[digest]

    def _require_room(self, host: str) -> None:
        if list(self._strange.values()).count(host) >= _QUESTIONS_OF_HOST:
            raise self._asker.failure(f"{_QUESTIONS_OF_HOST} new tokens of this host wait for its answer already")
        if len(self._strange) >= _QUESTIONS:
            raise self._asker.failure(f"{_QUESTIONS} new tokens wait for its answer already")

    async def _ask(self, digest: bytes, token: str) -> Verdict:
        asked = self._clocks.boot()
        endpoint = await self._find_endpoint()
        form = {"token": token, "token_type_hint": "access_token"}
        basic = (self._demands.client_id, self._demands.client_secret)
        answer = await self._asker.post(endpoint, form, basic=basic)
        verdict = self._judge(self._body(answer))
        self._verdicts.keep(digest, verdict, asked)
        return verdict

    async def _find_endpoint(self) -> str:
        if self._demands.introspection_url:
            return self._demands.introspection_url
        endpoint, until = self._endpoint
        if not endpoint or until < self._clocks.boot():
            endpoint = (await find_endpoints(self._asker, self._demands.provider)).introspection
            if not endpoint:
                raise self._asker.failure("it names no introspection endpoint; introspection_url can name one")
            self._endpoint = (endpoint, self._clocks.boot() + _ENDPOINTS_KEPT)
        return endpoint

    def _body(self, answer: Answer) -> Mapping[str, Any]:
        if answer.status == 401:
            raise self._asker.failure("it does not accept this control server's client id and secret (HTTP status 401)")
        if answer.status != 200:
            raise self._asker.failure(f"it answers with HTTP status {answer.status}")
        return answer.body

    def _judge(self, body: Mapping[str, Any]) -> Verdict:
        active = body.get("active")
        if not isinstance(active, bool):
            raise self._asker.failure("its answer makes no sense: it does not say whether the token is active")
        refusal = self._refusal(body) if active else "it is not active"
        if refusal:
            return Verdict(None, refusal)
        username = body.get("username")
        identity = Identity(
            subject=str(body["sub"]),
            scopes=tuple(_words(body.get("scope"))),
            expires=self._moment(body, "exp"),
            username=one_line(username, _LONGEST_SUBJECT) if isinstance(username, str) else "",
        )
        return Verdict(identity)

    def _refusal(self, body: Mapping[str, Any]) -> str:
        """Why an active token is not good here, or nothing."""
        now, demands = self._clocks.wall(), self._demands
        expires, begins = self._moment(body, "exp"), self._moment(body, "nbf")
        audience, missing = _words(body.get("aud")), set(demands.scope.split()) - set(_words(body.get("scope")))
        issuer = body.get("iss")
        reasons = (
            (expires is not None and expires <= now, "it has expired"),
            (begins is not None and begins > now + _SKEW, "it is not valid yet"),
            (issuer is not None and str(issuer).rstrip("/") != demands.provider.rstrip("/"), f"{issuer} issued it"),
            (demands.audience not in audience, f"it is for {', '.join(audience) or 'nobody in particular'}"),
            (bool(missing), f"it lacks the scope {' '.join(sorted(missing))}"),
            (not _is_subject(body.get("sub")), "it belongs to nobody in particular"),
        )
        return next((one_line(words) for applies, words in reasons if applies), "")

    def _moment(self, body: Mapping[str, Any], key: str) -> float | None:
        value = body.get(key)
        if value is None:
            return None
        # Compared, not converted: a whole number may have a thousand digits.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _NO_TIME:
            raise self._asker.failure(f"its answer makes no sense: {key} is no time")
        return float(value)


def _words(value: object) -> list[str]:
    """One text with spaces between, or a list of texts: providers do both, for scopes and for audiences."""
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [word for word in words if isinstance(word, str)]


def _is_subject(value: object) -> bool:
    """Whether a text can be a session's owner: it stands in tables, logs and the journal."""
    if not isinstance(value, str) or value in RESERVED_SUBJECTS:
        return False
    return value.isprintable() and value == value.strip() and 0 < len(value) <= _LONGEST_SUBJECT
