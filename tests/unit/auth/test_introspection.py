"""Token introspection: what opens the door, what does not, and how long an answer holds."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scistream.auth import Identity
from scistream.auth.asking import Asker
from scistream.auth.introspection import Demands, TokenIntrospection
from scistream.auth.verdicts import Verdict, Verdicts
from scistream.clocks import Clocks
from scistream.errors import Code, ExitCode, SciStreamError
from scistream.terms import NO_AUTH

ISSUER = "https://idp.example"
SCOPE = "https://auth.globus.org/scopes/gateway/scistream"
DEMANDS = Demands(ISSUER, "gateway", "its:secret", "gateway", SCOPE, introspection_url=f"{ISSUER}/introspect")
NOW = 1_000_000.0
TOKEN = "t0ken"
GOOD = {
    "active": True,
    "sub": "alice",
    "username": "alice@facility.example",
    "scope": f"openid {SCOPE}",
    "aud": ["other", "gateway"],
    "iss": ISSUER,
    "exp": NOW + 600,
    "nbf": NOW - 600,
}


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass
class World:
    """A provider and a clock, in memory."""

    body: Any = field(default_factory=lambda: dict(GOOD))
    status: int = 200
    wall: float = NOW
    steady: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    failure: Exception | None = None
    gate: asyncio.Event | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.gate:
            await self.gate.wait()
        if self.failure:
            raise self.failure
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return httpx.Response(self.status, content=_parts(content), headers=self.headers)

    def run(self, use: Callable[[TokenIntrospection], Awaitable[Any]], demands: Demands = DEMANDS, seconds=5.0) -> Any:
        async def inside() -> Any:
            transport = httpx.MockTransport(self.answer)
            async with Asker(demands.provider, seconds=seconds, transport=transport) as asker:
                clocks = Clocks(lambda: self.wall, lambda: self.steady)
                return await use(TokenIntrospection(demands, asker, clocks))

        return asyncio.run(inside())

    def verify(self, token: str | None = TOKEN, demands: Demands = DEMANDS, seconds: float = 5.0) -> Any:
        return self.run(lambda verifier: verifier.verify(token), demands, seconds)

    def refused(self, token: str | None = TOKEN, demands: Demands = DEMANDS, seconds: float = 5.0) -> SciStreamError:
        with pytest.raises(SciStreamError) as raised:
            self.verify(token, demands, seconds)
        return raised.value


@pytest.fixture
def world() -> World:
    return World()


def test_a_good_token_is_its_subjects(world):
    found = world.verify()
    assert (found.subject, found.username, found.expires) == ("alice", "alice@facility.example", NOW + 600)
    assert SCOPE in found.scopes


def test_the_question_is_a_form_with_the_clients_name_and_secret(world):
    world.verify("tok.en-1~+/=")
    (request,) = world.requests
    assert (request.method, str(request.url)) == ("POST", f"{ISSUER}/introspect")
    assert parse_qs(request.content.decode())["token"] == ["tok.en-1~+/="]
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"gateway:its:secret").decode()


def test_no_token_is_told_which_one_is_wanted(world):
    error = world.refused(None)
    assert (error.code, error.exit_code) == (Code.AUTHENTICATION_REQUIRED, ExitCode.AUTHENTICATION)
    assert f"wants one for {SCOPE}" in str(error)
    assert f"s2uc login --scope {SCOPE}" in error.remedy
    assert error.deployed == f"Authentication token is invalid for scope {SCOPE}"
    assert world.requests == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"active": False}, "it is not active"),
        ({"exp": NOW}, "it has expired"),
        ({"nbf": NOW + 31}, "it is not valid yet"),
        ({"iss": "https://evil.example"}, "https://evil.example issued it"),
        ({"aud": ["other"]}, "it is for other"),
        ({"aud": "other"}, "it is for other"),
        ({"aud": None}, "it is for nobody in particular"),
        ({"aud": {"gateway": 1}}, "it is for nobody in particular"),
        ({"scope": "openid"}, f"it lacks the scope {SCOPE}"),
        ({"scope": None}, f"it lacks the scope {SCOPE}"),
        ({"scope": f"{SCOPE}s x{SCOPE}"}, f"it lacks the scope {SCOPE}"),
        ({"sub": None}, "it belongs to nobody in particular"),
        ({"sub": ""}, "it belongs to nobody in particular"),
        ({"sub": "a\nb"}, "it belongs to nobody in particular"),
        ({"sub": 7}, "it belongs to nobody in particular"),
        ({"sub": NO_AUTH}, "it belongs to nobody in particular"),
        ({"sub": "HOST_OPERATOR"}, "it belongs to nobody in particular"),
    ],
)
def test_what_a_token_lacks_is_said_in_the_guides_words(world, change, reason):
    world.body |= change
    error = world.refused()
    assert (error.code, error.entry.status) == (Code.TOKEN_REFUSED, "UNAUTHENTICATED")
    assert str(error).startswith(f"Authentication token is invalid for scope {SCOPE}: {reason}. ")
    assert f"s2uc check-auth --scope {SCOPE}" in str(error)
    assert f"s2uc login --scope {SCOPE}" in str(error)


@pytest.mark.parametrize(
    "change",
    [{"exp": None}, {"nbf": None}, {"nbf": NOW + 30}, {"iss": f"{ISSUER}/"}, {"iss": None}, {"aud": "gateway"}],
)
def test_what_a_provider_need_not_say_is_not_demanded(world, change):
    world.body |= change
    assert world.verify().subject == "alice"


@pytest.mark.parametrize("token", ["a b", "tök", "a\x00b"])
def test_what_is_no_token_is_not_sent_anywhere(world, token):
    error = world.refused(token)
    assert (error.code, error.facts["reason"]) == (Code.TOKEN_REFUSED, "it has characters that no token has")
    assert token not in str(error)
    assert world.requests == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": 401}, "it does not accept this control server's client id and secret (HTTP status 401)"),
        ({"status": 403}, "it answers with HTTP status 403"),
        ({"status": 302}, "it answers with HTTP status 302"),
        ({"status": 429}, "it answers with HTTP status 429"),
        ({"status": 500}, "it answers with HTTP status 500"),
        ({"body": b"<html>t0ken</html>"}, "its answer makes no sense: it is no JSON object"),
        ({"body": b"[]"}, "its answer makes no sense: it is no JSON object"),
        ({"body": b"[" * 60000}, "its answer makes no sense: it is no JSON object"),
        ({"body": b'{"active": true, "exp": NaN}'}, "its answer makes no sense: it is no JSON object"),
        ({"body": b""}, "its answer makes no sense: it does not say whether the token is active"),
        ({"body": {"active": "true"}}, "its answer makes no sense: it does not say whether the token is active"),
        ({"body": {"active": 1}}, "its answer makes no sense: it does not say whether the token is active"),
        ({"body": GOOD | {"exp": "soon"}}, "its answer makes no sense: exp is no time"),
        ({"body": GOOD | {"exp": True}}, "its answer makes no sense: exp is no time"),
        ({"body": b'{"active": true, "exp": 1e999}'}, "its answer makes no sense: exp is no time"),
        ({"body": b" " * 65537}, "its answer is longer than 65536 bytes"),
        ({"headers": {"content-encoding": "gzip"}, "body": b"x"}, "its answer is packed, and that was not asked for"),
        ({"failure": httpx.ConnectError("[Errno 111] refused")}, "no connection: [Errno 111] refused"),
        ({"failure": httpx.RemoteProtocolError("t0ken?")}, "the connection broke (RemoteProtocolError)"),
    ],
)
def test_u20_a_provider_that_does_not_answer_is_no_open_door_and_no_verdict(world, change, reason):
    for key, value in change.items():
        setattr(world, key, value)

    async def twice(verifier):
        for _ in range(2):
            with pytest.raises(SciStreamError) as raised:
                await verifier.verify("t0ken")
            assert (raised.value.code, raised.value.entry.status) == (Code.PROVIDER_UNAVAILABLE, "UNAVAILABLE")
            assert raised.value.facts["reason"] == reason
            assert "t0ken" not in str(raised.value)
            assert "its:secret" not in str(raised.value)

    world.run(twice)
    assert len(world.requests) == 2


def test_u20_a_slow_provider_is_given_up(world):
    async def slowly(verifier):
        world.gate = asyncio.Event()
        await verifier.verify("t0ken")

    with pytest.raises(SciStreamError) as raised:
        world.run(slowly, seconds=0.01)
    assert raised.value.code is Code.PROVIDER_UNAVAILABLE
    assert raised.value.facts["reason"] == "it did not answer within 0.01 s"


def test_u20_an_answer_holds_for_thirty_seconds_while_the_provider_is_down(world):
    async def use(verifier):
        await verifier.verify("t0ken")
        world.status, world.steady, world.wall = 500, 29.9, NOW + 29.9
        assert (await verifier.verify("t0ken")).subject == "alice"
        world.steady = 30.0
        with pytest.raises(SciStreamError):
            await verifier.verify("t0ken")

    world.run(use)
    assert len(world.requests) == 2


def test_an_answer_never_holds_beyond_the_tokens_end(world):
    world.body["exp"] = NOW + 3

    async def use(verifier):
        await verifier.verify("t0ken")
        world.steady, world.wall = 2.9, NOW + 3
        with pytest.raises(SciStreamError, match="it has expired"):
            await verifier.verify("t0ken")

    world.run(use)


def test_a_clock_that_is_put_back_does_not_lengthen_an_answers_life(world):
    async def use(verifier):
        await verifier.verify("t0ken")
        world.body, world.steady, world.wall = {"active": False}, 30.0, NOW - 3600
        with pytest.raises(SciStreamError, match="it is not active"):
            await verifier.verify("t0ken")

    world.run(use)


def test_a_refusal_holds_for_five_seconds(world):
    world.body = {"active": False}

    async def use(verifier):
        for steady, active, questions in ((0, False, 1), (4.9, True, 1), (5.0, True, 2)):
            world.steady, world.body = steady, GOOD if active else {"active": False}
            answers = await asyncio.gather(verifier.verify("t0ken"), return_exceptions=True)
            assert isinstance(answers[0], SciStreamError) is (steady < 5)
            assert len(world.requests) == questions

    world.run(use)


def test_many_calls_at_once_with_one_token_are_one_question(world):
    async def use(verifier):
        world.gate = asyncio.Event()
        calls = [asyncio.create_task(verifier.verify("t0ken")) for _ in range(50)]
        await asyncio.sleep(0)
        # Who asked first goes away; the others still get their answer.
        calls[0].cancel()
        world.gate.set()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert {one.subject for one in found[1:]} == {"alice"}

    world.run(use)
    assert len(world.requests) == 1


async def _flood(verifier: TokenIntrospection, hosts: int, each: int) -> list[asyncio.Task[Identity]]:
    names = [(f"h{host}", f"made-up-{host}-{number}") for host in range(hosts) for number in range(each)]
    calls = [asyncio.create_task(verifier.verify(token, host)) for host, token in names]
    for _ in range(20):
        await asyncio.sleep(0)
    return calls


async def _reason(verifier: TokenIntrospection, token: str, host: str) -> str:
    with pytest.raises(SciStreamError) as raised:
        await verifier.verify(token, host)
    assert raised.value.code is Code.PROVIDER_UNAVAILABLE
    return raised.value.facts["reason"]


def test_u20_a_flood_of_made_up_tokens_is_turned_away(world):
    async def use(verifier):
        world.gate = asyncio.Event()
        calls = await _flood(verifier, 8, 32)
        assert await _reason(verifier, "new", "h9") == "256 new tokens wait for its answer already"
        world.gate.set()
        await asyncio.gather(*calls)

    world.run(use)


def test_u20_the_flood_of_one_host_takes_no_other_hosts_turn(world):
    async def use(verifier):
        world.gate = asyncio.Event()
        calls = await _flood(verifier, 1, 32)
        assert await _reason(verifier, "new", "h0") == "32 new tokens of this host wait for its answer already"
        other = asyncio.create_task(verifier.verify("t0ken", "h1"))
        await asyncio.sleep(0)
        world.gate.set()
        assert (await other).subject == "alice"
        await asyncio.gather(*calls)

    world.run(use)


def test_u20_tokens_that_were_good_are_asked_about_before_a_flood_of_made_up_ones(world):
    async def use(verifier):
        await verifier.verify("t0ken", "h0")
        world.steady = 31.0
        world.gate = asyncio.Event()
        calls = await _flood(verifier, 8, 32)
        # The provider answers nobody of the flood, and has heard of twelve of them.
        assert len(world.requests) == 13
        again = asyncio.create_task(verifier.verify("t0ken", "h0"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert parse_qs(world.requests[-1].content.decode())["token"] == ["t0ken"]
        world.gate.set()
        assert (await again).subject == "alice"
        await asyncio.gather(*calls)

    world.run(use)


def test_u20_a_token_that_was_refused_since_has_no_turn_of_its_own(world):
    async def use(verifier):
        await verifier.verify("t0ken", "h0")
        world.steady, world.body = 31.0, {"active": False}
        with pytest.raises(SciStreamError, match="it is not active"):
            await verifier.verify("t0ken", "h0")
        world.steady, world.gate = 40.0, asyncio.Event()
        calls = await _flood(verifier, 1, 32)
        assert await _reason(verifier, "t0ken", "h0") == "32 new tokens of this host wait for its answer already"
        world.gate.set()
        await asyncio.gather(*calls, return_exceptions=True)

    world.run(use)


def test_no_token_and_no_secret_stays_in_memory_or_shows(world):
    async def use(verifier):
        await verifier.verify("t0ken")
        return repr(vars(verifier)) + repr(vars(verifier._verdicts)) + repr(DEMANDS)

    shown = world.run(use)
    assert "t0ken" not in shown
    assert "its:secret" not in shown


def test_the_memory_of_verdicts_is_bounded_and_refusals_push_out_no_good_one():
    verdicts = Verdicts(Clocks(lambda: NOW, lambda: 0.0))
    good = Verdict(World().verify())
    verdicts.keep(b"good", good, 0.0)
    for number in range(10_000):
        verdicts.keep(str(number).encode(), Verdict(None, "it is not active"), 0.0)
    assert len(verdicts) == 4097
    assert verdicts.find(b"good") is good
    assert verdicts.find(b"0") is None


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([ISSUER, "gateway", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), _VALUES))
def test_whatever_a_provider_answers_the_door_opens_for_good_tokens_only(change):
    world = World(body=json.dumps(GOOD | change).encode())
    (found,) = world.run(lambda verifier: asyncio.gather(verifier.verify(TOKEN), return_exceptions=True))
    if isinstance(found, SciStreamError):
        assert found.code in {Code.TOKEN_REFUSED, Code.PROVIDER_UNAVAILABLE}
        return
    assert isinstance(found, Identity)
    said = GOOD | change
    assert said["active"] is True
    assert said["exp"] is None or said["exp"] > NOW
    assert "gateway" in said["aud"]
    assert SCOPE in said["scope"]
    assert (found.subject, said["iss"]) in {(said["sub"], ISSUER), (said["sub"], None)}


def test_a_scope_of_several_words_is_demanded_as_a_whole(world):
    demands = Demands(ISSUER, "gateway", "its:secret", "gateway", f"{SCOPE} write", f"{ISSUER}/introspect")
    assert world.refused(demands=demands).facts["reason"] == "it lacks the scope write"
    world.body["scope"] = [SCOPE, "write"]
    assert world.verify(demands=demands).subject == "alice"
