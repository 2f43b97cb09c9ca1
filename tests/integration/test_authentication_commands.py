"""Logging in, and what the commands do with a login: `s2uc`, `appctrl` and `s2cs` as users and operators call them."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from ansible_runs import run_play
from identity_provider import IdentityProvider
from scistream import certificates

WAIT = 60
# Another worker's processes are looked at as well; they may have their own in a command line.
SECRET = f"the-gateways-own-secret-{os.getpid()}"
GATEWAY = "2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f"
SCOPE = f"https://auth.globus.org/scopes/{GATEWAY}/scistream"
OTHER = "https://auth.globus.org/scopes/11111111-2222-3333-4444-555555555555/scistream"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider("127.0.20.90", audience=GATEWAY) as running:
        running.clients |= {GATEWAY: SECRET, "native-app": ""}
        yield running


@dataclass
class User:
    """Somebody with a home and a working directory of their own; `output` is all that their commands ever printed."""

    name: str
    home: Path
    environment: dict[str, str]
    output: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.home / "work"

    @property
    def store(self) -> Path:
        return self.home / "config" / "scistream" / "tokens.json"

    def stored(self) -> dict[str, dict[str, Any]]:
        return {token["scope"]: token for token in json.loads(self.store.read_text())["tokens"]}

    def change(self, **values: Any) -> None:
        """Let the stored tokens be otherwise."""
        body = json.loads(self.store.read_text())
        body["tokens"] = [token | values for token in body["tokens"]]
        self.store.write_text(json.dumps(body))

    def run(self, tool: str, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", f"scistream.cli.{tool}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.environment | environment,
            timeout=WAIT,
            check=False,
        )
        self.output += [result.stdout, result.stderr]
        assert result.returncode == code, result.stderr + result.stdout
        return result

    def log_in(
        self, provider: IdentityProvider, *words: str, answer: Callable[[str], str] = str, code: int = 0
    ) -> tuple[str, str]:
        """Log in as a person does: open the address, paste what the browser shows."""
        command = [sys.executable, "-m", "scistream.cli.s2uc", "login", *words]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self.environment,
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            asked = []
            while not asked or not asked[-1].startswith("http"):
                asked.append(process.stderr.readline())
                assert asked[-1], f"it ended without an address: {asked}"
            process.stdin.write(answer(provider.log_in(asked[-1].strip(), self.name)) + "\n")
            process.stdin.close()
            err = "".join([*asked, process.stderr.read()])
            out = process.stdout.read()
        self.output += [out, err]
        assert process.returncode == code, err
        return out, err


@pytest.fixture
def user_factory(tmp_path, free_environment) -> Callable[[str], User]:
    def make(name: str) -> User:
        home = tmp_path / name
        (home / "work").mkdir(parents=True)
        environment = {**free_environment, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
        return User(name, home, environment)

    return make


@pytest.fixture
def alice(user_factory) -> User:
    return user_factory("alice")


@pytest.fixture
def here(provider) -> tuple[str, ...]:
    """How somebody logs in here for the first time."""
    return ("--provider", provider.issuer, "--client-id", "native-app", "--scope", GATEWAY)


@pytest.fixture
def secret_in_the_environment(monkeypatch) -> None:
    """Of the control server, not of the users."""
    monkeypatch.setenv("SCISTREAM_CLIENT_SECRET", SECRET)


@pytest.fixture
def gateway(control_server_factory, provider, tmp_path) -> Callable[..., Any]:
    """A control server that asks the provider."""

    def make(more: str = "", **options: Any) -> Any:
        config = tmp_path / "s2cs.toml"
        text = f'client_id = "{GATEWAY}"\nclient_secret = "{SECRET}"\nprovider = "{provider.issuer}"\n{more}\n'
        config.write_text(text)
        config.chmod(0o600)
        server = control_server_factory(start=False, **options)
        server.command.remove("--insecure-no-auth")
        server.command += [f"--config={config}", "--verbose"]
        return server.start()

    return make


def channel(server: Any) -> tuple[str, ...]:
    return ("--s2cs", server.endpoint, "--server-cert", str(server.certificate))


def inbound(server: Any, target: str) -> tuple[str, ...]:
    host, _, port = target.rpartition(":")
    return ("inbound-request", *channel(server), "--remote-ip", host, "--receiver-ports", port, "--json")


@pytest.mark.parametrize("pasted", ["address", "code"])
def test_a_login_stores_a_token_and_a_second_one_changes_nothing(alice, provider, here, pasted):
    def answer(page: str) -> str:
        return page if pasted == "address" else page.partition("code=")[2].partition("&")[0]

    out, err = alice.log_in(provider, *here, answer=answer)
    assert f"You are logged in for {SCOPE}." in out
    assert "The token lasts until" in out
    assert "Open this address in a browser" in err
    token = alice.stored()[SCOPE]
    assert (token["provider"], token["client_id"]) == (provider.issuer, "native-app")
    before = alice.store.read_bytes()
    again = alice.run("s2uc", "login", "--scope", GATEWAY)
    assert f"You are logged in already for {SCOPE}." in again.stdout
    assert alice.store.read_bytes() == before
    # The provider and the client id are as they were the last time.
    alice.log_in(provider, "--scope", GATEWAY, "--force")
    assert alice.store.read_bytes() != before


def test_u18_tokens_lie_in_the_users_own_directory_for_them_alone(alice, provider, here):
    alice.log_in(provider, *here)
    assert alice.store.stat().st_mode & 0o777 == 0o600
    assert alice.store.parent.stat().st_mode & 0o777 == 0o700
    assert list(alice.directory.iterdir()) == []
    alice.store.chmod(0o640)
    refused = alice.run("s2uc", "check-auth", code=3)
    assert "it is not for its owner alone (mode 0640)" in refused.stderr
    assert refused.stderr.endswith("[BAD_TOKEN_STORE]\n")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda page: "mistyped", "HTTP status 400, invalid_grant"),
        (lambda page: "", "no code was given"),
        (lambda page: page.partition("&state=")[0], "that address belongs to another login"),
        (lambda page: page.replace("code=", "error=access_denied&x="), "access_denied"),
    ],
)
def test_a_login_that_fails_says_why_and_stores_nothing(alice, provider, here, answer, words):
    _, err = alice.log_in(provider, *here, answer=answer, code=3)
    assert f"the login at {provider.issuer} failed: {words}" in err
    assert err.endswith("[LOGIN_FAILED]\n")
    assert not alice.store.exists()


def test_a_login_without_a_client_id_names_what_is_missing(alice, provider):
    refused = alice.run("s2uc", "login", "--scope", GATEWAY, code=2)
    assert "--client-id ID, or SCISTREAM_LOGIN_CLIENT_ID in the environment" in refused.stderr
    refused = alice.run("s2uc", "login", "--scope", GATEWAY, "--provider", "http://idp.example", code=2)
    assert "tokens travel over https:// only" in refused.stderr


def test_a_provider_that_is_down_is_no_endless_wait(alice, provider, here):
    provider.stop()
    refused = alice.run("s2uc", "login", *here, code=6)
    assert f"the identity provider {provider.issuer} could not be asked: no connection" in refused.stderr


def test_check_auth_asks_the_server_whom_it_takes_a_user_for(alice, provider, here, gateway):
    server = gateway()
    nobody = alice.run("s2uc", "check-auth", *channel(server), code=3)
    assert f"Log in: s2uc login --scope {SCOPE}" in nobody.stderr
    assert "[AUTHENTICATION_REQUIRED]" in nobody.stderr
    alice.log_in(provider, *here)
    for spelling in ("--s2cs", "--ip"):
        words = (spelling, *channel(server)[1:])
        told = alice.run("s2uc", "check_auth", *words, "--scope", GATEWAY).stdout
        assert f"The control server {server.endpoint} takes you for alice (alice@facility.example)." in told
        assert f"by token introspection (127.0.20.90); it wants a token for {SCOPE}" in told
    # It was named for this control server above.
    facts = json.loads(alice.run("s2uc", "check-auth", *channel(server), "--json").stdout)
    assert (facts["owner"], facts["is_operator"], facts["scopes"]) == ("alice", False, [SCOPE])
    local = json.loads(alice.run("s2uc", "check-auth", "--scope", GATEWAY, "--json").stdout)
    assert [(token["scope"], token["is_good"], token["is_refreshed"]) for token in local["tokens"]] == [
        (SCOPE, True, True)
    ]
    assert local["tokens"][0]["control_servers"] == [server.endpoint]
    assert alice.run("s2uc", "check-auth", "--scope", OTHER, code=3).stderr.endswith("[LOGIN_WANTED]\n")


def test_check_auth_at_a_server_that_lets_everybody_in(alice, control_server_factory):
    server = control_server_factory()
    told = alice.run("s2uc", "check-auth", *channel(server)).stdout
    assert "lets everybody in (NO_AUTH): no token is needed there" in told


def test_u12_u15_two_users_and_one_gateway(user_factory, provider, here, gateway, echo_target):
    server = gateway()
    alice, bob = user_factory("alice"), user_factory("bob")
    for user in (alice, bob):
        user.log_in(provider, *here, "--s2cs", server.endpoint)
    asked = alice.run("s2uc", *inbound(server, echo_target.endpoint))
    uid = json.loads(asked.stdout)["session"]["uid"]
    assert f"{uid} {server.endpoint} *** PROD" in asked.stderr
    for words in (("release", uid), ("drain", uid), ("renew", uid, "--lease", "60")):
        refused = bob.run("s2uc", *words, *channel(server), code=3)
        assert refused.stderr.endswith("[NOT_OWNER]\n")
    registered = bob.run(
        "appctrl", "create-appctrl", uid, server.endpoint, "NO_AUTH", "PROD", *channel(server)[2:], code=3
    )
    assert registered.stderr.endswith("[NOT_OWNER]\n")
    alice.run("s2uc", "release", uid, *channel(server))
    tokens = [
        token[key] for user in (alice, bob) for token in user.stored().values() for key in token if "_token" in key
    ]
    assert len(tokens) == 4
    shown = "".join([*alice.output, *bob.output, server.words()])
    assert not [token for token in tokens if token in shown]


def test_a_token_goes_to_no_control_server_that_it_was_not_named_for(alice, provider, here, gateway):
    """With one login only: who runs another control server could use it at the one that it is for."""
    server = gateway()
    out, _ = alice.log_in(provider, *here)
    assert "It is sent where --scope names it" in out
    refused = alice.run("s2uc", "list", *channel(server), code=3)
    assert f"then add --scope {SCOPE} to the command once" in refused.stderr
    assert refused.stderr.endswith("[AUTHENTICATION_REQUIRED]\n")
    assert alice.run("s2uc", "list", *channel(server), "--scope", GATEWAY).stdout.startswith("No sessions of yours")
    alice.run("s2uc", "list", *channel(server))
    told = alice.run("s2uc", "login", "--scope", GATEWAY, "--s2cs", "b.example").stdout
    assert f"Without --scope it is sent to {server.endpoint}, b.example:5000." in told
    alice.log_in(provider, "--scope", GATEWAY, "--force")
    alice.run("s2uc", "list", *channel(server))
    # To log out forgets it.
    alice.run("s2uc", "logout")
    alice.log_in(provider, *here)
    alice.run("s2uc", "list", *channel(server), code=3)


def test_u16_a_release_names_its_scope(alice, provider, here, gateway, echo_target):
    server = gateway()
    alice.log_in(provider, *here)
    alice.log_in(provider, "--provider", provider.issuer, "--scope", OTHER)
    # Nobody says which.
    assert "[AUTHENTICATION_REQUIRED]" in alice.run("s2uc", *inbound(server, echo_target.endpoint), code=3).stderr
    asked = alice.run("s2uc", *inbound(server, echo_target.endpoint), "--scope", GATEWAY)
    uid = json.loads(asked.stdout)["session"]["uid"]
    wrong = alice.run("s2uc", "release", uid, *channel(server), "--scope", OTHER, code=3)
    assert f"Authentication token is invalid for scope {SCOPE}: it lacks the scope {SCOPE}" in wrong.stderr
    alice.run("s2uc", "release", uid, *channel(server), "--scope", GATEWAY)


def test_u17_a_token_that_has_expired_is_refreshed_and_its_successor_stored(alice, provider, here, gateway):
    server = gateway()
    alice.log_in(provider, *here, "--s2cs", server.endpoint)
    first = alice.stored()[SCOPE]
    provider.tokens.pop(first["access_token"])
    alice.change(expires=1.0)
    assert json.loads(alice.run("s2uc", "check-auth", *channel(server), "--json").stdout)["owner"] == "alice"
    second = alice.stored()[SCOPE]
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    assert alice.store.stat().st_mode & 0o777 == 0o600
    # The successor is used as it is, and is good for a refresh of its own.
    alice.change(expires=1.0)
    alice.run("s2uc", "check-auth", *channel(server))
    # A login that the provider ended cannot be refreshed.
    provider.refresh_tokens.clear()
    alice.change(expires=1.0)
    ended = alice.run("s2uc", "check-auth", *channel(server), "--scope", GATEWAY, code=3)
    assert f"log in: s2uc login --scope {SCOPE}" in ended.stderr.replace("Log", "log")
    assert ended.stderr.endswith("[LOGIN_WANTED]\n")


def test_u17_commands_at_once_refresh_a_token_once(alice, provider, here, gateway):
    server = gateway()
    alice.log_in(provider, *here, "--s2cs", server.endpoint)
    alice.change(expires=1.0)
    before = provider.asked.count("/token")
    command = [sys.executable, "-m", "scistream.cli.s2uc", "check-auth", *channel(server)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=alice.environment)
        for _ in range(4)
    ]
    for process in running:
        out, err = process.communicate(timeout=WAIT)
        assert process.returncode == 0, out + err
    assert provider.asked.count("/token") == before + 1


def test_a_token_in_the_environment_goes_before_the_stored_one(alice, provider, here, gateway):
    server = gateway()
    alice.log_in(provider, *here)
    token = provider.issue("bob", scope=SCOPE)
    warned = alice.run("s2uc", "login", "--scope", GATEWAY, SCISTREAM_TOKEN=token).stderr
    assert "SCISTREAM_TOKEN is set, and goes before what is stored here" in warned
    facts = json.loads(alice.run("s2uc", "check-auth", *channel(server), "--json", SCISTREAM_TOKEN=token).stdout)
    assert facts["owner"] == "bob"


def test_of_two_gateways_the_environments_token_goes_to_the_one_that_it_is_named_for(provider, gateway, tmp_path):
    token = provider.issue("olga", scope=SCOPE)
    servers = {"ours": gateway(), "theirs": gateway(address="127.0.20.92")}
    asked = [
        {"name": name, "control_server": server.endpoint, "server_certificate": str(server.certificate)}
        for name, server in servers.items()
    ]
    environment = {"SCISTREAM_TOKEN": token}
    named = environment | {"SCISTREAM_TOKEN_FOR": servers["ours"].endpoint}
    ask = {"scistream.core.gateways_info": {"gateways": asked}}
    tasks = [{"name": "several", **ask, "environment": environment}, {"name": "named", **ask, "environment": named}]
    run = run_play(tasks, directory=tmp_path)
    assert _answers(run.named("several")) == {"ours": "AUTHENTICATION_REQUIRED", "theirs": "AUTHENTICATION_REQUIRED"}
    assert _answers(run.named("named")) == {"ours": "told", "theirs": "AUTHENTICATION_REQUIRED"}
    assert "The token in SCISTREAM_TOKEN was not sent to " in run.output
    assert token not in json.dumps([one.values for one in run.results])


def _answers(result):
    return {one["name"]: one["failure"]["code"] if one["failure"] else "told" for one in result["gateways"]}


def test_what_asks_a_provider_is_loaded_where_one_is_asked_only(alice):
    for module in ("scistream.cli.s2uc", "scistream.cli.s2cs", "scistream.control_server.server"):
        told = subprocess.run(
            [sys.executable, "-c", f"import {module}, sys; print('httpx' in sys.modules)"],
            capture_output=True,
            text=True,
            env=alice.environment,
            check=True,
        )
        assert told.stdout == "False\n"


def test_a_stored_token_travels_unasked_over_tls_only(alice, provider, here, gateway):
    server = gateway(ssl=False)
    alice.log_in(provider, *here, "--s2cs", server.endpoint)
    plain = ("--s2cs", server.endpoint, "--ssl=False")
    assert "[AUTHENTICATION_REQUIRED]" in alice.run("s2uc", "check-auth", *plain, code=3).stderr
    refused = alice.run("s2uc", "check-auth", *plain, "--scope", GATEWAY, code=2).stderr
    assert f"a token would go to the control server {server.endpoint} in plain text, and nothing was sent" in refused
    assert "say --insecure-plain-text-token" in refused
    in_environment = alice.run("s2uc", "check-auth", *plain, SCISTREAM_TOKEN="one", code=2).stderr
    assert "[TOKEN_IN_PLAIN_TEXT]" in in_environment
    assert "/introspect" not in provider.asked
    told = alice.run("s2uc", "check-auth", *plain, "--scope", GATEWAY, "--insecure-plain-text-token")
    assert "takes you for alice" in told.stdout
    assert "--ssl=False: tokens travel as plain text" in server.words()


def test_a_logout_forgets_and_revokes(alice, provider, here):
    alice.log_in(provider, *here)
    alice.log_in(provider, "--provider", provider.issuer, "--scope", OTHER)
    first = alice.stored()[SCOPE]
    told = alice.run("s2uc", "logout", "--scope", GATEWAY)
    assert told.stdout == f"The token for {SCOPE} is forgotten.\n"
    assert list(alice.stored()) == [OTHER]
    assert first["access_token"] not in provider.tokens
    assert first["refresh_token"] not in provider.refresh_tokens
    facts = json.loads(alice.run("s2uc", "logout", "--json").stdout)
    assert facts == {"forgotten": [OTHER], "not_revoked": []}
    assert not alice.store.exists()
    assert provider.tokens == {}
    assert alice.run("s2uc", "logout").stdout == "There was none.\n"


def test_a_logout_says_what_it_could_not_revoke(alice, provider, here):
    alice.log_in(provider, *here)
    provider.stop()
    told = alice.run("s2uc", "logout")
    assert f"The token for {SCOPE} is forgotten." in told.stdout
    assert "forgotten here, and perhaps not at the provider" in told.stderr
    assert "no connection" in told.stderr
    assert not alice.store.exists()


def test_a_logout_gets_rid_of_a_store_that_cannot_be_used(alice, provider, here):
    alice.log_in(provider, *here)
    alice.store.write_text("{")
    assert alice.run("s2uc", "check-auth", code=3).stderr.endswith("[BAD_TOKEN_STORE]\n")
    assert "it is damaged" in alice.run("s2uc", "logout").stderr
    assert not alice.store.exists()


@pytest.fixture
def operated(tmp_path, user_factory) -> Iterator[tuple[User, tuple[str, ...]]]:
    """An operator, with a certificate, and the words of their commands."""
    olga = user_factory("olga")
    now = datetime.datetime.now(datetime.UTC)
    pair = (olga.directory / "server.crt", olga.directory / "server.key")
    certificates.issue(*pair, names=["127.0.20.23"], days=1, ca=None, now=now)
    place = f"--state-directory={tmp_path / 'state'}"
    yield olga, ("--listener-ip=127.0.20.23", "--port=22950", "--port-range=22960-22969", place)
    olga.run("s2cs", "stop", "--release", place)


def _everybodys_command_lines() -> str:
    found = []
    for process in psutil.process_iter():
        try:
            found += process.cmdline()
        except psutil.Error:
            continue
    return "\n".join(found)


@pytest.mark.parametrize("source", ["file", "environment", "credential"])
def test_u13_u19_a_start_in_the_background_hands_the_secret_over_and_nobody_sees_it(
    operated, provider, tmp_path, source
):
    olga, words = operated
    (olga.directory / "client_id").write_text(GATEWAY)
    (olga.directory / "client_secret").write_text(SECRET + "\n")
    config = olga.directory / "s2cs.toml"
    config.write_text(f'provider = "{provider.issuer}"\n')
    config.chmod(0o600)
    environment = {
        "file": {},
        "environment": {"SCISTREAM_CLIENT_ID": GATEWAY, "SCISTREAM_CLIENT_SECRET": SECRET},
        "credential": {"CREDENTIALS_DIRECTORY": str(olga.directory)},
    }[source]
    if source == "file":
        config.write_text(f'{config.read_text()}client_id = "{GATEWAY}"\nclient_secret = "{SECRET}"\n')
    words = (*words, "--config=s2cs.toml")
    checked = olga.run("s2cs", "check", *words, **environment)
    assert f"token introspection (127.0.20.90): tokens for {GATEWAY}, good for {SCOPE}" in checked.stdout
    assert provider.asked == []
    olga.run("s2cs", "start", *words, **environment)
    status = olga.run("s2cs", "status", words[3])
    assert "TLS, token introspection (127.0.20.90), sessions: 0" in status.stdout
    place = tmp_path / "state"
    log = (place / "s2cs.log").read_text()
    assert "NO_AUTH" not in log
    assert "authentication='token introspection (127.0.20.90)'" in log
    here = ("--s2cs", "127.0.20.23:22950", "--server-cert", "server.crt")
    token = provider.issue("alice", scope=SCOPE)
    told = olga.run("s2uc", "check-auth", *here, SCISTREAM_TOKEN=token).stdout
    assert "takes you for alice (" in told
    assert SECRET not in _everybodys_command_lines()
    pid = int(status.stdout.split()[2].strip(","))
    assert SECRET not in "\n".join(psutil.Process(pid).environ().values())
    assert SECRET not in "".join([log, *olga.output])
    host_secret = json.loads((place / "s2cs.lock").read_text().splitlines()[1])["host_secret"]
    assert (place / "s2cs.lock").stat().st_mode & 0o777 == 0o600
    assert host_secret
    assert host_secret not in "".join([log, *olga.output])


def test_u19_a_secret_can_come_on_the_input(operated, provider):
    olga, words = operated
    words = (*words, f"--provider={provider.issuer}", f"--client-id={GATEWAY}", "--client-secret=-")
    command = [sys.executable, "-m", "scistream.cli.s2cs", "check", *words]
    for given, code in ((SECRET, 0), ("", 2)):
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, cwd=olga.directory, env=olga.environment, check=False
        )
        assert done.returncode == code, done.stderr
        assert ("token introspection" in done.stdout) is (code == 0)
        # With the deployed defaults, an empty secret must not turn authentication off.
        assert ("nothing came there" in done.stderr) is (code == 2)


def test_u13_u19_a_secret_on_the_command_line_is_taken_with_compat_only_and_warned_of(operated, provider):
    olga, words = operated
    words = (*words, f"--provider={provider.issuer}", f"--client-id={GATEWAY}", f"--client-secret={SECRET}")
    assert olga.run("s2cs", "start", *words, code=2).stderr.endswith("[SECRET_EXPOSED]\n")
    started = olga.run("s2cs", "start", *words, "--compat")
    assert "warning: a client secret stands on the command line" in started.stderr
    assert "token introspection (127.0.20.90)" in olga.run("s2cs", "status", words[3]).stdout
    # The one in the background has it from its input.
    assert SECRET not in _everybodys_command_lines()
    assert SECRET not in "".join(olga.output)


def test_u13_an_empty_secret_is_no_authentication_only_with_compat(operated):
    olga, words = operated
    words = (*words, f"--client-id={GATEWAY}", "--client-secret=")
    assert olga.run("s2cs", "start", *words, code=3).stderr.endswith("[AUTHENTICATION_UNDECIDED]\n")
    olga.run("s2cs", "start", *words, "--compat")
    assert ", NO_AUTH, " in olga.run("s2cs", "status", words[3]).stdout


def test_u13_two_answers_to_one_question_are_refused(operated):
    olga, words = operated
    words = (*words, f"--client-id={GATEWAY}", "--insecure-no-auth")
    refused = olga.run("s2cs", "start", *words, code=2, SCISTREAM_CLIENT_SECRET=SECRET)
    assert refused.stderr.endswith("[AUTHENTICATION_CONTRADICTORY]\n")
    assert SECRET not in refused.stderr


@pytest.mark.usefixtures("secret_in_the_environment")
def test_no_secret_reaches_a_data_server(alice, provider, here, gateway, echo_target):
    server = gateway()
    alice.log_in(provider, *here, "--s2cs", server.endpoint)
    alice.run("s2uc", *inbound(server, echo_target.endpoint))
    (data_server, *_) = server.data_servers()
    assert "PATH" in data_server.environ()
    assert SECRET not in "\n".join(data_server.environ().values())
    assert os.environ["SCISTREAM_CLIENT_SECRET"] == SECRET
