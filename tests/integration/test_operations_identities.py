"""What people who are told apart see of one another: in a watch, in the audit file, in what the server says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from identity_provider import IdentityProvider
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA
from scistream.protocol import control_pb2 as old
from scistream.protocol import operations_pb2 as wire

WAIT = 30
SCOPE = "https://auth.globus.org/scopes/gateway/scistream"
TARGET = "127.0.0.1:9"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider("127.0.20.92") as running:
        running.clients["gateway"] = "a-secret"
        yield running


@pytest.fixture
def server(control_server_factory, provider, tmp_path) -> Any:
    """It knows olga as its operator, and records in `audit`."""
    config = tmp_path / "s2cs.toml"
    known = f'client_id = "gateway"\nclient_secret = "a-secret"\nprovider = "{provider.issuer}"\n'
    config.write_text(f'{known}operators = ["olga"]\naudit_file = "audit"\n')
    config.chmod(0o600)
    server = control_server_factory(start=False)
    server.command.remove("--insecure-no-auth")
    server.command.append(f"--config={config}")
    return server.start()


@pytest.fixture
def bearing(provider) -> Callable[[str], tuple[tuple[str, str], ...]]:
    tokens: dict[str, str] = {}

    def make(name: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", tokens.setdefault(name, provider.issue(name, scope=SCOPE))),)

    return make


def code_of(raised: pytest.ExceptionInfo[grpc.RpcError]) -> Code:
    found = SciStreamError.from_wire(dict(raised.value.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    return found.code


def register(server, uid: str, metadata) -> None:
    stub = server.control()
    reply = stub.req.future(old.Request(uid=uid, role="PROD", num_conn=1), metadata=metadata, timeout=WAIT)
    stub.hello(old.Hello(uid=uid, role="PROD", prod_listeners=[TARGET]), metadata=metadata, timeout=WAIT)
    reply.result()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_u12_a_watch_tells_the_owner_and_the_operator_and_nobody_else(server, bearing):
    def watch(name: str, **request: str):
        call = server.operations().WatchSessions(
            wire.WatchSessionsRequest(**request), metadata=bearing(name), timeout=WAIT
        )
        call.initial_metadata()
        return call

    alice, bob, olga = watch("alice"), watch("bob", uid="hers"), watch("olga")
    register(server, "hers", bearing("alice"))
    register(server, "his", bearing("bob"))
    server.control().release(old.Release(uid="hers"), metadata=bearing("alice"), timeout=WAIT)
    server.control().release(old.Release(uid="his"), metadata=bearing("bob"), timeout=WAIT)

    def life(uid: str, owner: str) -> list[tuple[str, str, str]]:
        return [(uid, owner, kind) for kind in ("requested", "registered", "released")]

    def told(call, number: int) -> list[tuple[str, str, str]]:
        events = [next(call) for _ in range(number)]
        return [(event.session.uid, event.session.owner, event.kind) for event in events]

    assert sorted(told(olga, 6)) == sorted(life("hers", "alice") + life("his", "bob"))
    assert told(alice, 3) == life("hers", "alice")
    server.end()
    # The end is the first thing that bob is told; alice heard nothing of his.
    for call in (bob, alice):
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        assert code_of(raised) is Code.CONTROL_SERVER_ENDING


def test_u34_the_audit_file_tells_owners_others_and_strangers_apart(server, bearing, tmp_path):
    register(server, "hers", bearing("alice"))
    control, operations = server.control(), server.operations()
    with pytest.raises(grpc.RpcError) as raised:
        control.release(old.Release(uid="hers"), metadata=bearing("bob"), timeout=WAIT)
    assert code_of(raised) is Code.NOT_OWNER
    with pytest.raises(grpc.RpcError) as raised:
        next(operations.WatchSessions(wire.WatchSessionsRequest(), metadata=(("authorization", "made-up"),)))
    refused = code_of(raised)
    operations.RenewSession(wire.RenewSessionRequest(uid="hers", lease=60), metadata=bearing("olga"), timeout=WAIT)
    acts = [(line["who"], line["action"], line["owner"], line["outcome"]) for line in lines(tmp_path / "audit")]
    assert sorted(acts[:2]) == [("alice", "hello", "alice", "OK"), ("alice", "req", "alice", "OK")]
    assert acts[2:] == [
        ("bob", "release", "", "NOT_OWNER"),
        ("", "WatchSessions", "", str(refused)),
        ("olga", "RenewSession", "alice", "OK"),
    ]
    assert "made-up" not in (tmp_path / "audit").read_text()


def test_who_asks_is_told_who_they_are_taken_for_and_who_has_no_token_is_refused(server, bearing):
    operations, message = server.operations(), wire.CheckAuthenticationRequest()
    found = operations.CheckAuthentication(message, metadata=bearing("olga"), timeout=WAIT)
    assert (found.owner, found.is_operator, found.scope) == ("olga", True, SCOPE)
    assert SCOPE in found.scopes
    assert found.authentication != "NO_AUTH"
    with pytest.raises(grpc.RpcError) as raised:
        operations.CheckAuthentication(message, timeout=WAIT)
    assert code_of(raised) is Code.AUTHENTICATION_REQUIRED
