"""A control server that asks a real identity provider who calls: what opens the door, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from identity_provider import IdentityProvider
from scistream.errors import SciStreamError
from scistream.protocol import ERROR_METADATA, control_pb2, operations_pb2
from scistream.protocol import control_pb2 as wire

WAIT = 30
# Another worker's processes are looked at as well; they may have their own in a command line.
SECRET = f"the-gateways-own-secret-{os.getpid()}"
MADE_UP = f"made-up-token-{os.getpid()}"
SCOPE = "https://auth.globus.org/scopes/gateway/scistream"
DEPLOYED = f"Authentication token is invalid for scope {SCOPE}"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider("127.0.20.90") as running:
        running.clients["gateway"] = SECRET
        yield running


@pytest.fixture
def guarded(control_server_factory, provider, tmp_path) -> Callable[..., Any]:
    """A control server that asks the provider; its secret comes from its configuration file."""

    def make(*, secret: str = SECRET, more: str = "", **options: Any) -> Any:
        config = tmp_path / "s2cs.toml"
        config.write_text(
            f'client_id = "gateway"\nclient_secret = "{secret}"\nprovider = "{provider.issuer}"\n{more}\n'
        )
        config.chmod(0o600)
        server = control_server_factory(start=False, **options)
        server.command.remove("--insecure-no-auth")
        server.command += [f"--config={config}", "--verbose"]
        return server.start()

    return make


def bearing(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", token),)


def owned(server: Any, token: str | None) -> list[str]:
    """The uids that the bearer of a token sees."""
    stub = server.operations()
    reply = stub.ListSessions(operations_pb2.ListSessionsRequest(), metadata=bearing(token), timeout=WAIT)
    return [session.uid for session in reply.sessions]


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, SciStreamError]:
    """Status, words and error of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    trailing = dict(raised.value.trailing_metadata())
    error = SciStreamError.from_wire(trailing[ERROR_METADATA])
    assert error is not None
    return raised.value.code(), raised.value.details(), error


def opened(server: Any, uid: str, token: str, target: str) -> list[str]:
    """A session that runs, and its entry points."""
    control, metadata = server.control(), bearing(token)
    answer = control.req.future(wire.Request(uid=uid, role="PROD", num_conn=1), metadata=metadata, timeout=WAIT)
    control.hello(wire.Hello(uid=uid, role="PROD", prod_listeners=[target]), metadata=metadata, timeout=WAIT)
    entry_points = list(answer.result(WAIT).listeners)
    update = wire.UpdateTargets(uid=uid, role="PROD", remote_listeners=[target])
    control.update(update, metadata=metadata, timeout=WAIT)
    return entry_points


CALLS: dict[str, Callable[[Any, str, Any], object]] = {
    "req": lambda server, uid, metadata: server.control().req(
        wire.Request(uid=uid, role="PROD", num_conn=1), metadata=metadata, timeout=WAIT
    ),
    "hello": lambda server, uid, metadata: server.control().hello(
        wire.Hello(uid=uid, role="PROD", prod_listeners=["127.0.0.1:1"]), metadata=metadata, timeout=WAIT
    ),
    "update": lambda server, uid, metadata: server.control().update(
        wire.UpdateTargets(uid=uid, role="PROD", remote_listeners=["127.0.0.1:1"]), metadata=metadata, timeout=WAIT
    ),
    "release": lambda server, uid, metadata: server.control().release(
        wire.Release(uid=uid), metadata=metadata, timeout=WAIT
    ),
    "DescribeSession": lambda server, uid, metadata: server.operations().DescribeSession(
        operations_pb2.DescribeSessionRequest(uid=uid), metadata=metadata, timeout=WAIT
    ),
    "RenewSession": lambda server, uid, metadata: server.operations().RenewSession(
        operations_pb2.RenewSessionRequest(uid=uid, lease=60), metadata=metadata, timeout=WAIT
    ),
    "DrainSession": lambda server, uid, metadata: server.operations().DrainSession(
        operations_pb2.DrainSessionRequest(uid=uid), metadata=metadata, timeout=WAIT
    ),
    "WatchSessions": lambda server, uid, metadata: next(
        server.operations().WatchSessions(operations_pb2.WatchSessionsRequest(uid=uid), metadata=metadata, timeout=WAIT)
    ),
}
# What changes a session that is there. A `req` finds the uid taken.
CHANGES = ("hello", "update", "release", "RenewSession", "DrainSession")


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "BEARER  {} "])
def test_u14_a_token_is_taken_raw_and_as_bearer(guarded, provider, form):
    server = guarded()
    assert owned(server, form.format(provider.issue("alice", scope=SCOPE))) == []


def test_u11_who_is_not_known_learns_nothing_of_what_is_there(guarded, provider, echo_target):
    server = guarded()
    opened(server, "secret-one", provider.issue("alice", scope=SCOPE), echo_target.endpoint)
    for call in CALLS.values():
        for token in (None, "INVALID_TOKEN", "made-up", "Bearer made-up"):
            answers = {
                (code, words)
                for uid in ("secret-one", "no-such", "../x", "")
                for code, words, _ in [
                    refusal(lambda uid=uid, call=call, token=token: call(server, uid, bearing(token)))
                ]
            }
            ((code, words),) = answers
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert DEPLOYED in words
            assert "secret-one" not in words
            assert "made-up" not in words


_METHODS = [
    (method.full_name.rpartition(".")[0], method.name, method.server_streaming)
    for file in (control_pb2.DESCRIPTOR, operations_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
]


def test_u11_no_method_of_any_service_forgets_to_ask_who_calls(guarded):
    server = guarded()
    assert len(_METHODS) >= 15
    channel = server.channel()
    for service, name, streams in _METHODS:
        for request in (b"", b"\x0a\x04beam", *(() if streams else (b"\xff",))):
            path, raw = f"/{service}/{name}", {"metadata": bearing("made-up"), "timeout": WAIT}
            code, words, error = refusal(
                lambda path=path, raw=raw, request=request, streams=streams: (
                    next(channel.unary_stream(path)(request, **raw))
                    if streams
                    else channel.unary_unary(path)(request, **raw)
                )
            )
            assert (path, code, error.code) == (path, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REFUSED")
            assert DEPLOYED in words


def test_u12_only_its_owner_or_an_operator_uses_a_session(guarded, provider, echo_target, round_trip):
    server = guarded(more='operators = ["olga"]')
    alice, bob, olga = (provider.issue(name, scope=SCOPE) for name in ("alice", "bob", "olga"))
    (entry_point,) = opened(server, "hers", alice, echo_target.endpoint)
    for name in CHANGES:
        code, words, error = refusal(lambda name=name: CALLS[name](server, "hers", bearing(bob)))
        assert (name, code, error.code) == (name, grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")
        assert "session hers belongs to somebody else" in words
        assert "alice" not in words
    assert (owned(server, alice), owned(server, bob), owned(server, olga)) == (["hers"], [], ["hers"])
    assert round_trip(entry_point, b"still hers") == b"still hers"
    CALLS["release"](server, "hers", bearing(olga))
    assert owned(server, alice) == []


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"scope": "openid"}, f"it lacks the scope {SCOPE}"),
        ({"aud": ["another"]}, "it is for another"),
        ({"exp": 1}, "it is not active"),
        ({"active": False}, "it is not active"),
        ({"iss": "https://evil.example"}, "https://evil.example issued it"),
    ],
)
def test_a_token_for_something_else_is_refused_in_the_guides_words(guarded, provider, claims, reason):
    server = guarded()
    token = provider.issue("alice", **{"scope": SCOPE, **claims})
    code, words, error = refusal(lambda: owned(server, token))
    assert (code, error.code) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REFUSED")
    assert words.startswith(f"{DEPLOYED}: {reason}. ")
    assert f"s2uc login --scope {SCOPE}" in words


def test_u20_a_provider_that_is_down_is_no_service_for_those_whom_nobody_knows_yet(
    guarded, provider, echo_target, round_trip
):
    server = guarded()
    alice, bob = provider.issue("alice", scope=SCOPE), provider.issue("bob", scope=SCOPE)
    (entry_point,) = opened(server, "hers", alice, echo_target.endpoint)
    provider.stop()
    assert owned(server, alice) == ["hers"]
    code, words, error = refusal(lambda: owned(server, bob))
    assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert f"the identity provider {provider.issuer} could not be asked: no connection" in words
    assert round_trip(entry_point, b"goes on") == b"goes on"
    provider.start()
    assert owned(server, bob) == []


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("slow", "it did not answer within 5 s"),
        ("error", "it answers with HTTP status 500"),
        ("nonsense", "it does not say whether the token is active"),
        ("huge", "its answer is longer than 65536 bytes"),
        ("packed", "its answer is packed"),
    ],
)
def test_u20_a_provider_that_is_not_well_is_never_an_open_door(guarded, provider, mood, reason):
    server = guarded()
    token = provider.issue("alice", scope=SCOPE)
    provider.mood = mood
    code, words, error = refusal(lambda: owned(server, token))
    assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert reason in words
    provider.mood = "well"
    assert owned(server, token) == []


def test_a_control_server_with_a_wrong_secret_says_that_it_is_its_own_fault(guarded, provider):
    server = guarded(secret="mistyped")
    code, words, _ = refusal(lambda: owned(server, provider.issue("alice", scope=SCOPE)))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "it does not accept this control server's client id and secret (HTTP status 401)" in words
    assert "mistyped" not in words + server.words()


def test_many_calls_with_one_token_are_one_question(guarded, provider):
    server = guarded()
    token, channel = provider.issue("alice", scope=SCOPE), server.operations()
    request = operations_pb2.ListSessionsRequest()
    calls = [channel.ListSessions.future(request, metadata=bearing(token), timeout=WAIT) for _ in range(40)]
    assert all(list(call.result().sessions) == [] for call in calls)
    assert provider.questions == 1


def test_whom_the_server_takes_a_caller_for(guarded, provider):
    server = guarded(more='operators = ["olga"]')
    request = operations_pb2.CheckAuthenticationRequest()
    for name, is_operator in (("alice", False), ("olga", True)):
        token = provider.issue(name, scope=f"openid {SCOPE}")
        facts = server.operations().CheckAuthentication(request, metadata=bearing(token), timeout=WAIT)
        assert (facts.owner, facts.is_operator, facts.scope) == (name, is_operator, SCOPE)
        assert facts.authentication == "token introspection (127.0.20.90)"
        assert list(facts.scopes) == ["openid", SCOPE]
        assert facts.expires == provider.tokens[token]["exp"]


def test_another_issuer_over_tls_by_its_openid_metadata(
    control_server_factory, certificate_factory, tmp_path, monkeypatch
):
    files = certificate_factory("127.0.20.91")
    oidc = "/.well-known/openid-configuration"
    pair = (files.certificate, files.key)
    with IdentityProvider("127.0.20.91", certificate=pair, discovery=oidc, audience="beam") as provider:
        provider.clients["gateway"] = SECRET
        monkeypatch.setenv("SSL_CERT_FILE", str(files.certificate))
        monkeypatch.setenv("SCISTREAM_CLIENT_ID", "gateway")
        monkeypatch.setenv("SCISTREAM_CLIENT_SECRET", SECRET)
        server = control_server_factory(start=False)
        server.command.remove("--insecure-no-auth")
        server.command += [f"--provider={provider.issuer}", "--audience=beam", "--scope=scistream"]
        server.start()
        assert owned(server, provider.issue("alice", scope="scistream")) == []
        assert "/introspect" in provider.asked
        # A data server gets this environment.
        assert SECRET not in _environment_of_children(server)


def _environment_of_children(server: Any) -> str:
    return " ".join(" ".join(process.environ().values()) for process in server.data_servers())


def test_a_provider_with_a_foreign_certificate_is_not_believed(
    control_server_factory, certificate_factory, monkeypatch
):
    files = certificate_factory("127.0.20.91")
    with IdentityProvider("127.0.20.91", certificate=(files.certificate, files.key)) as provider:
        provider.clients["gateway"] = SECRET
        monkeypatch.setenv("SCISTREAM_CLIENT_SECRET", SECRET)
        server = control_server_factory(start=False)
        server.command.remove("--insecure-no-auth")
        server.command += [f"--provider={provider.issuer}", "--client-id=gateway"]
        server.start()
        code, words, _ = refusal(lambda: owned(server, provider.issue("alice", scope=SCOPE)))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "CERTIFICATE_VERIFY_FAILED" in words
        assert provider.questions == 0


def test_no_token_and_no_secret_is_in_any_file_log_or_command_line(guarded, provider, echo_target, tmp_path):
    server = guarded(more='operators = ["olga"]\naudit_file = "audit"\nlog_format = "json"')
    tokens = {name: provider.issue(name, scope=SCOPE) for name in ("alice", "bob")}
    tokens["lacking"] = provider.issue("alice", scope="openid")
    opened(server, "hers", tokens["alice"], echo_target.endpoint)
    refusal(lambda: CALLS["release"](server, "hers", bearing(tokens["bob"])))
    refusal(lambda: owned(server, f"Bearer {tokens['lacking']}"))
    provider.mood = "error"
    refusal(lambda: owned(server, MADE_UP))
    secrets = [SECRET, MADE_UP, *tokens.values()]
    config = tmp_path / "s2cs.toml"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != config]
    assert any(path.name == "words" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with_arguments = _read(command)
        assert not [secret for secret in secrets if secret.encode() in with_arguments], command


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
