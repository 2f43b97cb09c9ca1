"""The user's tokens: one file, theirs alone, and kept good without being asked for."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from scistream.addresses import Endpoint
from scistream.auth.asking import Asker
from scistream.client.environment_token import environment_token, withheld
from scistream.client.token_store import StoredToken, TokenStore, default_token_store
from scistream.client.tokens import Tokens, token_for
from scistream.errors import Code, ExitCode, SciStreamError

GLOBUS = "https://auth.globus.org"
ID = "2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f"
SCOPE = f"{GLOBUS}/scopes/{ID}/scistream"
NOW = 1_000_000.0
A, B = "a.example:5000", "b.example:5000"
GOOD = StoredToken(SCOPE, GLOBUS, "native-app", "access-one", "refresh-one", NOW + 600)
OLD = dataclasses.replace(GOOD, expires=NOW - 1)


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


class Provider:
    """Answers refreshes and revocations, in memory."""

    def __init__(self) -> None:
        self.status = 200
        self.body: dict[str, Any] = {"access_token": "access-two", "refresh_token": "refresh-two", "expires_in": 3600}
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        form = {key: values[-1] for key, values in parse_qs(request.content.decode()).items()}
        self.asked.append((request.url.path, form))
        return httpx.Response(self.status, content=_parts(json.dumps(self.body).encode()))

    def asker(self, provider: str) -> Asker:
        return Asker(provider, seconds=5, transport=httpx.MockTransport(self.answer))


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def store(tmp_path) -> TokenStore:
    return TokenStore(tmp_path / "config" / "scistream" / "tokens.json", sleep=lambda _: None)


@pytest.fixture
def tokens(store, provider) -> Tokens:
    return Tokens(store, provider.asker, lambda: NOW)


def refused(call, *arguments) -> SciStreamError:
    with pytest.raises(SciStreamError) as raised:
        call(*arguments)
    return raised.value


def test_u18_the_store_lies_in_the_users_configuration_and_is_theirs_alone(tokens, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert default_token_store() == tokens.store.path
    before = os.umask(0)
    try:
        tokens.keep(GOOD)
    finally:
        os.umask(before)
    directory = tokens.store.path.parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()} == {
        "tokens.json": 0o600,
        "tokens.lock": 0o600,
    }
    assert tokens.store.read() == {SCOPE: GOOD}


def test_no_store_is_no_token(store):
    assert store.read() == {}
    assert Tokens(store).find(None, A) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o660])
def test_u18_a_store_that_others_can_read_is_refused(tokens, mode):
    tokens.keep(GOOD)
    tokens.store.path.chmod(mode)
    for call in (
        tokens.store.read,
        lambda: tokens.find(None, A),
        lambda: tokens.find(SCOPE, A),
        lambda: tokens.keep(GOOD),
    ):
        error = refused(call)
        assert (error.code, error.exit_code) == (Code.BAD_TOKEN_STORE, ExitCode.AUTHENTICATION)
        assert f"it is not for its owner alone (mode {mode:04o})" in str(error)
        assert "s2uc logout" in error.remedy


def test_a_directory_that_others_can_write_into_is_refused(tokens):
    tokens.keep(GOOD)
    tokens.store.path.parent.chmod(0o770)
    assert "close it: chmod 700" in str(refused(tokens.keep, GOOD))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is damaged"),
        (b"\xff", "it is damaged"),
        (b"[]", "it is damaged"),
        (b"[" * 100_000, "it is damaged"),
        (b'{"version": 1}', "it is damaged"),
        (b'{"version": 1, "tokens": [{"scope": "x"}]}', "it is damaged"),
        (
            json.dumps({"version": 1, "tokens": [dataclasses.asdict(GOOD) | {"access_token": 7}]}).encode(),
            "it is damaged",
        ),
        (json.dumps({"version": 1, "tokens": [dataclasses.asdict(GOOD) | {"expires": "x"}]}).encode(), "it is damaged"),
        (json.dumps({"version": 1, "tokens": [dataclasses.asdict(GOOD) | {"servers": [7]}]}).encode(), "it is damaged"),
        (json.dumps({"version": 1, "tokens": [dataclasses.asdict(GOOD) | {"servers": "x"}]}).encode(), "it is damaged"),
        (b'{"version": 2, "tokens": []}', "it is of version 2, and this reads version 1"),
    ],
)
def test_a_damaged_store_is_named_and_left_as_it_is(tokens, content, reason):
    tokens.keep(GOOD)
    tokens.store.path.write_bytes(content)
    assert refused(tokens.keep, GOOD).facts == {"path": str(tokens.store.path), "reason": reason}
    assert tokens.store.path.read_bytes() == content


def test_a_link_or_a_pipe_in_the_stores_place_is_not_read(tokens, tmp_path):
    tokens.keep(GOOD)
    tokens.store.path.rename(tmp_path / "elsewhere")
    tokens.store.path.symlink_to(tmp_path / "elsewhere")
    assert refused(tokens.store.read).code is Code.BAD_TOKEN_STORE
    tokens.store.path.unlink()
    os.mkfifo(tokens.store.path, 0o600)
    assert refused(tokens.store.read).facts["reason"] == "it is not a regular file"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_another_users_store_is_not_read(tokens):
    tokens.keep(GOOD)
    os.chown(tokens.store.path, 65534, 65534)
    assert "it belongs to the user with id 65534" in str(refused(tokens.store.read))


def test_who_holds_the_lock_for_ever_is_told(store):
    pauses = []
    patient = TokenStore(store.path, sleep=pauses.append)
    with store.locked():
        error = refused(lambda: patient.locked().__enter__())
    assert "another program has held it for 30 s" in str(error)
    assert sum(pauses) == pytest.approx(30)


def test_a_lock_ends_with_who_holds_it(store):
    with pytest.raises(ZeroDivisionError), store.locked():
        1 / 0  # noqa: B018
    with store.locked(), store.path.with_suffix(".lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_no_token_is_in_what_is_printed_of_one():
    assert "access-one" not in repr(GOOD)
    assert "refresh-one" not in repr(GOOD)


def test_a_token_goes_unasked_only_where_it_was_named_before(tokens):
    tokens.keep(GOOD)
    # The only login that there is, and B could replay it at A.
    assert tokens.find(None, B) is None
    assert (tokens.find(SCOPE, A), tokens.find(None, A)) == ("access-one", "access-one")
    assert tokens.find(None, B) is None
    assert tokens.find(None, "a.example:5001") is None
    assert tokens.store.read()[SCOPE].servers == (A,)


def test_of_two_tokens_each_goes_to_its_own_control_server(tokens):
    tokens.keep(GOOD)
    tokens.keep(dataclasses.replace(GOOD, scope="other", access_token="access-other"))
    assert (tokens.find(ID, A), tokens.find("other", B)) == ("access-one", "access-other")
    assert (tokens.find(None, A), tokens.find(None, B)) == ("access-one", "access-other")


def test_a_control_server_gets_unasked_what_was_named_for_it_last(tokens):
    tokens.keep(GOOD)
    tokens.keep(dataclasses.replace(GOOD, scope="other", access_token="access-other"))
    for scope in (SCOPE, "other"):
        tokens.find(scope, A)
    assert tokens.find(None, A) == "access-other"
    assert {scope: token.servers for scope, token in tokens.store.read().items()} == {SCOPE: (), "other": (A,)}


def test_what_is_known_of_a_control_server_outlives_a_login_and_ends_with_a_logout(tokens):
    tokens.keep(GOOD)
    tokens.bind(SCOPE, A)
    tokens.keep(dataclasses.replace(GOOD, access_token="access-anew"))
    assert tokens.find(None, A) == "access-anew"
    tokens.forget(SCOPE)
    tokens.keep(GOOD)
    assert tokens.find(None, A) is None


def test_what_is_known_already_is_not_written_again(tokens):
    tokens.keep(GOOD)
    tokens.find(SCOPE, A)
    before = tokens.store.path.stat().st_ino
    tokens.find(SCOPE, A)
    assert tokens.store.path.stat().st_ino == before


def test_a_store_of_before_is_read_and_its_tokens_are_nowhere_sent_unasked(tokens):
    tokens.keep(GOOD)
    entry = {key: value for key, value in dataclasses.asdict(GOOD).items() if key != "servers"}
    tokens.store.path.write_text(json.dumps({"version": 1, "tokens": [entry]}))
    assert tokens.store.read() == {SCOPE: GOOD}
    assert (tokens.find(None, A), tokens.find(SCOPE, A), tokens.find(None, A)) == (None, "access-one", "access-one")


def test_a_token_that_was_named_is_sent_also_where_nothing_can_be_remembered(tokens, monkeypatch):
    tokens.keep(GOOD)

    def full(_):
        raise SciStreamError(Code.FILE_UNWRITABLE, path="tokens.json", reason="Read-only file system")

    monkeypatch.setattr(tokens.store, "write", full)
    assert tokens.find(SCOPE, A) == "access-one"
    assert tokens.find(None, A) is None


@pytest.mark.parametrize("leave", ["write", "logout", "logout of a damaged store"])
def test_what_a_killed_write_left_is_removed_with_its_tokens(tokens, leave):
    tokens.keep(GOOD)
    directory = tokens.store.path.parent
    left = directory / ".tokens.json.x7_k2m9a"
    left.write_text('{"access_token": "access-one"}')
    others = directory / "s2uc.toml"
    others.write_text("")
    if leave == "write":
        tokens.keep(GOOD)
    else:
        if "damaged" in leave:
            tokens.store.path.write_text("{")
        tokens.forget(None)
    assert not left.exists()
    assert others.exists()
    assert tokens.store.path.exists() is (leave == "write")


def test_u16_a_scope_that_was_named_has_to_be_there(tokens):
    error = refused(tokens.find, ID, A)
    assert (error.code, error.exit_code) == (Code.LOGIN_WANTED, ExitCode.AUTHENTICATION)
    assert f"s2uc login --scope {SCOPE}" in error.remedy


def test_u17_a_token_that_ends_is_refreshed_and_its_successors_are_stored(tokens, provider):
    tokens.keep(OLD)
    assert tokens.find(SCOPE, A) == "access-two"
    form = {"grant_type": "refresh_token", "refresh_token": "refresh-one", "client_id": "native-app"}
    assert provider.asked == [("/v2/oauth2/token", form)]
    successor = StoredToken(SCOPE, GLOBUS, "native-app", "access-two", "refresh-two", NOW + 3600, (A,))
    assert tokens.store.read() == {SCOPE: successor}
    assert tokens.find(None, A) == "access-two"
    assert len(provider.asked) == 1


def test_u17_a_refresh_token_that_is_not_replaced_stays(tokens, provider):
    del provider.body["refresh_token"]
    tokens.keep(OLD)
    assert tokens.fresh(SCOPE).refresh_token == "refresh-one"


def test_u17_who_waited_for_another_programs_refresh_does_not_refresh_again(tokens, provider, monkeypatch):
    tokens.keep(OLD)
    locked = tokens.store.locked

    def another_was_first():
        tokens.store.write({SCOPE: dataclasses.replace(GOOD, access_token="access-of-another")})
        return locked()

    monkeypatch.setattr(tokens.store, "locked", another_was_first)
    assert tokens.fresh(SCOPE).access_token == "access-of-another"
    assert provider.asked == []


@pytest.mark.parametrize(("left", "found"), [(30, "access-one"), (0, None)])
@pytest.mark.parametrize("status", [400, 401, 503])
def test_u17_a_refresh_that_fails_leaves_what_is_still_good(tokens, provider, left, found, status):
    provider.status = status
    tokens.keep(dataclasses.replace(GOOD, expires=NOW + left))
    tokens.bind(SCOPE, A)
    # Nobody named it: the control server may want none.
    assert tokens.find(None, A) == found
    if found is None:
        assert refused(tokens.find, SCOPE, A).code is (
            Code.PROVIDER_UNAVAILABLE if status == 503 else Code.LOGIN_WANTED
        )
    assert SCOPE in tokens.store.read()


def test_a_token_without_an_end_or_a_refresh_token_is_used_while_it_lasts(tokens, provider):
    tokens.keep(dataclasses.replace(GOOD, expires=None))
    assert tokens.find(SCOPE, A) == "access-one"
    tokens.keep(dataclasses.replace(GOOD, refresh_token="", expires=NOW + 1))
    assert tokens.find(SCOPE, A) == "access-one"
    tokens.keep(dataclasses.replace(OLD, refresh_token=""))
    assert refused(tokens.find, SCOPE, A).code is Code.LOGIN_WANTED
    assert provider.asked == []


def test_the_environments_token_goes_first(monkeypatch, tmp_path, store):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert token_for(None, A) is None
    with store.locked():
        store.write({SCOPE: dataclasses.replace(GOOD, expires=None)})
    assert token_for(None, A) is None
    assert token_for(ID, A) == "access-one"
    assert token_for(None, A) == "access-one"
    monkeypatch.setenv("SCISTREAM_TOKEN", "from-the-environment")
    assert token_for(None, A) == "from-the-environment"
    assert token_for("other", B) == "from-the-environment"


@pytest.mark.parametrize(
    ("named", "goes_to"),
    [
        (None, {A: True, B: True}),
        ("", {A: True, B: True}),
        (A, {A: True, B: False}),
        ("gateway.example , b.example", {A: False, B: True}),
    ],
)
def test_the_environments_token_goes_to_whom_it_is_for(monkeypatch, tmp_path, named, goes_to):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SCISTREAM_TOKEN", "from-the-environment")
    if named is not None:
        monkeypatch.setenv("SCISTREAM_TOKEN_FOR", named)
    assert {server: token_for(None, server) is not None for server in (A, B)} == goes_to


def test_where_it_is_not_for_a_control_server_the_stored_token_goes_there(monkeypatch, tmp_path, store):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with store.locked():
        store.write({SCOPE: dataclasses.replace(GOOD, expires=None)})
    monkeypatch.setenv("SCISTREAM_TOKEN", "from-the-environment")
    monkeypatch.setenv("SCISTREAM_TOKEN_FOR", B)
    assert token_for(ID, A) == "access-one"
    assert token_for(ID, B) == "from-the-environment"


def test_of_several_control_servers_none_gets_a_token_that_nobody_named_for_it(monkeypatch):
    one, other = Endpoint.parse(A), Endpoint.parse(B)
    assert withheld([one, other]) == ""
    monkeypatch.setenv("SCISTREAM_TOKEN", "from-the-environment")
    assert [environment_token(each, [one, other]) for each in (one, other)] == [None, None]
    # Both ends of a stream may be one gateway's.
    assert environment_token(one, [one, one]) == "from-the-environment"
    words = withheld([one, other])
    assert words.startswith(f"The token in SCISTREAM_TOKEN was not sent to {A}, {B}: several control servers are asked")
    assert "in SCISTREAM_TOKEN_FOR; or give each its own token" in words
    many = [Endpoint("gateway.example", port) for port in range(1, 9)]
    assert "gateway.example:5 and 3 more: several" in withheld(many)
    monkeypatch.setenv("SCISTREAM_TOKEN_FOR", B)
    assert [environment_token(each, [one, other]) for each in (one, other)] == [None, "from-the-environment"]
    assert withheld([one]) == ""


def test_a_mistake_in_whom_it_is_for_is_told_and_sends_nothing(monkeypatch):
    monkeypatch.setenv("SCISTREAM_TOKEN", "from-the-environment")
    monkeypatch.setenv("SCISTREAM_TOKEN_FOR", f"{A},https://gateway.example")
    error = refused(token_for, None, A)
    assert error.code is Code.BAD_CONFIGURATION
    said = f"SCISTREAM_TOKEN_FOR = '{A},https://gateway.example' in the environment cannot be used: "
    assert error.seen.startswith(said)
    assert "from-the-environment" not in str(error)


def test_a_logout_revokes_both_tokens_and_removes_the_file_with_the_last(tokens, provider):
    tokens.keep(GOOD)
    tokens.keep(dataclasses.replace(GOOD, scope="other", refresh_token=""))
    gone, failures = tokens.forget("other")
    assert ([token.scope for token in gone], failures) == (["other"], [])
    assert list(tokens.store.read()) == [SCOPE]
    tokens.forget(None)
    assert not tokens.store.path.exists()
    assert [(path, form["token"]) for path, form in provider.asked] == [
        ("/v2/oauth2/token/revoke", "access-one"),
        ("/v2/oauth2/token/revoke", "refresh-one"),
        ("/v2/oauth2/token/revoke", "access-one"),
    ]


def test_a_logout_that_cannot_revoke_forgets_nevertheless(tokens, provider):
    provider.status = 503
    tokens.keep(GOOD)
    gone, (failure,) = tokens.forget(None)
    assert (gone, failure.code) == ([GOOD], Code.PROVIDER_UNAVAILABLE)
    assert tokens.store.read() == {}


def test_a_logout_of_nothing_is_none(tokens):
    assert tokens.forget(None) == ([], [])
    tokens.keep(GOOD)
    assert tokens.forget("other") == ([], [])
    assert list(tokens.store.read()) == [SCOPE]


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "config").write_text("")
    error = refused(Tokens(TokenStore(Path(tmp_path / "config" / "scistream" / "tokens.json"))).keep, GOOD)
    assert error.code is Code.FILE_UNWRITABLE
