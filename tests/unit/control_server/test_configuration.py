from __future__ import annotations

from pathlib import Path

import pytest

from scistream.addresses import PortRange
from scistream.control_server.configuration import Settings, Surroundings, load
from scistream.errors import Code, ExitCode, SciStreamError

HERE = Path("/somewhere")


def settings(options=None, environment=None, config=None) -> Settings:
    return load(options or {}, Surroundings(HERE, environment or {}), config=config)


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "s2cs.toml"
        path.write_text(text)
        return path

    return write


def refused(*arguments, **more) -> SciStreamError:
    with pytest.raises(SciStreamError) as raised:
        settings(*arguments, **more)
    return raised.value


def test_the_defaults_are_those_of_the_deployed_tool():
    found = settings()
    assert str(found.address) == "0.0.0.0:5000"
    assert (str(found.port_range), found.type, found.ssl, found.hello_timeout) == ("5100-5200", "haproxy", True, 180)
    assert (found.server_crt, found.server_key) == (HERE / "server.crt", HERE / "server.key")
    assert found.state_directory == Path.home() / ".scistream"


def test_the_order_is_file_environment_option(toml):
    config = toml('port = 1\nport_range = "1-2"\ntype = "nginx"\n')
    found = settings({"port": "3", "type": None}, {"SCISTREAM_PORT": "2", "SCISTREAM_PORT_RANGE": "3-4"}, config)
    assert (found.port, found.port_range, found.type) == (3, PortRange(3, 4), "nginx")


def test_an_empty_variable_says_nothing():
    assert settings(environment={"SCISTREAM_PORT": ""}).port == 5000


def test_relative_paths_start_where_they_were_written(toml, tmp_path):
    config = toml('server_crt = "certificates/a.crt"\nstate_directory = "state"\n')
    found = settings({"server_key": "b.key", "log_file": "s2cs.log"}, config=config)
    assert found.server_crt == tmp_path / "certificates" / "a.crt"
    assert found.state_directory == tmp_path / "state"
    assert (found.server_key, found.log_file) == (HERE / "b.key", HERE / "s2cs.log")


@pytest.mark.parametrize("word", ["Haproxy", "HAPROXY", "HaproxySubprocess"])
def test_u48_the_engines_case_does_not_matter(word):
    assert settings({"type": word}).type == "haproxy"


def test_u47_an_unknown_engine_is_an_error_that_lists_them():
    error = refused({"type": "socat"})
    assert error.code is Code.ENGINE_UNKNOWN
    assert "there is no engine 'socat'" in str(error)
    assert "haproxy, nginx, stunnel" in str(error)


@pytest.mark.parametrize(("word", "meant"), [("False", False), ("false", False), ("0", False), ("True", True)])
def test_truth_values_are_words(word, meant):
    assert settings({"ssl": word}).ssl is meant


@pytest.mark.parametrize(
    "case",
    [
        ({"port": "x"}, {}, "", "port", "x", "option --port"),
        ({"listener_ip": "gateway"}, {}, "", "listener_ip", "gateway", "option --listener-ip"),
        ({"control_ip": "gateway"}, {}, "", "control_ip", "gateway", "option --control-ip"),
        ({}, {"SCISTREAM_PORT": "70000"}, "", "port", "70000", "SCISTREAM_PORT"),
        ({}, {}, "ssl = 'maybe'", "ssl", "maybe", "s2cs.toml"),
        ({}, {}, "prot = 5000", "prot", "5000", "s2cs.toml"),
        ({}, {}, "hello_timeout = 0", "hello_timeout", "0", "s2cs.toml"),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_source(toml, case):
    options, environment, text, key, value, source = case
    error = refused(options, environment, toml(text))
    assert error.code is Code.BAD_CONFIGURATION
    assert error.exit_code is ExitCode.BAD_INPUT
    assert str(error).startswith(f"{key} = {value!r} in ")
    assert source in str(error)


def test_an_unknown_key_lists_the_known_ones(toml):
    assert ": no such key; the keys are listener_ip, control_ip, port," in str(refused(config=toml("prot = 1")))


@pytest.mark.parametrize("text", ["200-100", "0-10", "a-b", "1-70000"])
def test_a_port_range_that_makes_no_sense_is_refused(text):
    assert refused({"port_range": text}).code is Code.BAD_PORT_RANGE


@pytest.mark.parametrize("text", ["port 5000", "\xff"])
def test_a_file_that_is_no_toml_is_refused(tmp_path, text):
    path = tmp_path / "s2cs.toml"
    path.write_bytes(text.encode("latin-1"))
    error = refused(config=path)
    assert error.code is Code.CONFIGURATION_UNREADABLE
    assert str(path) in str(error)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    error = refused(config=tmp_path / "none.toml")
    assert error.code is Code.CONFIGURATION_UNREADABLE
    assert "No such file" in str(error)


def test_braces_in_a_files_name_are_letters(tmp_path):
    path = tmp_path / "{option}.toml"
    path.write_text("port = 0")
    assert "{option}.toml" in str(refused(config=path))


@pytest.mark.parametrize(("written", "meant"), [("[::1]", "::1"), ("::", "::"), ("127.0.0.1", "127.0.0.1")])
def test_ipv6_addresses_with_and_without_brackets(written, meant):
    assert settings({"listener_ip": written}).listener_ip == meant


def test_the_control_port_is_where_the_entry_points_are_unless_it_is_said():
    here = {"listener_ip": "192.0.2.7", "port": "22450"}
    assert str(settings(here).address) == str(settings(here | {"control_ip": ""}).address) == "192.0.2.7:22450"
    apart = settings(here | {"control_ip": "[::1]"})
    assert (apart.listener_ip, str(apart.address)) == ("192.0.2.7", "[::1]:22450")
    assert apart.digest() != settings(here).digest()
    assert "--control-ip=::1" in apart.arguments()


@pytest.mark.parametrize(
    ("listens", "control", "is_called"),
    [
        ("192.0.2.7", "", True),
        ("0.0.0.0", "", False),  # noqa: S104 - told, never listened on
        ("0.0.0.0", "192.0.2.7", True),  # noqa: S104
        ("192.0.2.7", "0.0.0.0", False),  # noqa: S104
        # Through SSH it is called by the name of the SSH host.
        ("192.0.2.7", "127.0.0.1", False),
        ("127.0.0.1", "", True),
    ],
)
def test_a_certificate_is_for_the_address_where_clients_call_it_by_that(listens, control, is_called):
    assert settings({"listener_ip": listens, "control_ip": control}).is_called_by_address is is_called


def test_u13_authentication_is_off_only_by_name():
    with pytest.raises(SciStreamError, match="--insecure-no-auth") as raised:
        settings().check_authentication()
    assert (raised.value.code, raised.value.exit_code) == (Code.AUTHENTICATION_UNDECIDED, ExitCode.AUTHENTICATION)
    settings({"insecure_no_auth": True}).check_authentication()
    settings({"compat": True}).check_authentication()


ON = {"client_id": "gateway", "client_secret": "hunter2"}


def test_a_client_id_and_its_secret_turn_authentication_on():
    found = settings({**ON, "provider": "https://idp.example/realms/beam"})
    found.check_authentication()
    assert (found.authenticates, found.authentication) == (True, "token introspection (idp.example)")
    assert found.demanded_audience == "gateway"
    assert found.demanded_scope == "https://auth.globus.org/scopes/gateway/scistream"
    others = settings({**ON, "audience": "beam", "scope": "2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f"})
    assert others.demanded_audience == "beam"
    assert others.demanded_scope == "https://auth.globus.org/scopes/2c8d9f3e-0b1a-4c5d-8e7f-6a5b4c3d2e1f/scistream"
    assert settings({**ON, "compat": True}).authenticates


def test_u13_an_empty_client_secret_counts_as_asking_with_compat_only():
    settings({"client_id": "gateway", "client_secret": "", "compat": True}).check_authentication()
    with pytest.raises(SciStreamError) as raised:
        settings({"client_id": "gateway", "client_secret": ""}).check_authentication()
    assert raised.value.code is Code.AUTHENTICATION_UNDECIDED
    assert "client_id and client_secret" in raised.value.remedy


@pytest.mark.parametrize("compat", [False, True])
def test_a_secret_and_no_authentication_contradict_each_other(compat):
    with pytest.raises(
        SciStreamError, match="by a client secret, and to let everybody in, by insecure_no_auth"
    ) as raised:
        settings({**ON, "insecure_no_auth": True, "compat": compat}).check_authentication()
    assert (raised.value.code, raised.value.exit_code) == (Code.AUTHENTICATION_CONTRADICTORY, ExitCode.BAD_INPUT)


def test_a_secret_without_a_client_id_is_no_silent_nothing():
    with pytest.raises(SciStreamError, match="client_secret is nothing without it") as raised:
        settings({"client_secret": "hunter2", "compat": True}).check_authentication()
    assert (raised.value.code, raised.value.facts["key"]) == (Code.BAD_CONFIGURATION, "client_id")


def test_u19_a_client_secret_is_never_shown():
    found = settings(ON)
    assert "hunter2" not in f"{found!r} {found} {found.arguments()} {found.model_dump_json()}"


def test_u19_a_bad_client_secret_is_not_told(toml):
    path = toml("client_secret = 12345")
    path.chmod(0o600)
    error = refused(config=path)
    assert error.code is Code.BAD_CONFIGURATION
    assert "12345" not in str(error)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_u19_a_secret_in_a_file_that_is_not_its_owners_alone_is_refused(toml, mode):
    path = toml('client_id = "gateway"\nclient_secret = "hunter2"\n')
    path.chmod(mode)
    error = refused(config=path)
    assert (error.code, error.exit_code) == (Code.SECRET_READABLE, ExitCode.BAD_INPUT)
    assert f"{path}, which is not for its owner alone (mode {mode:04o})" in str(error)
    assert f"chmod 600 {path}" in error.remedy
    assert "hunter2" not in str(error)
    path.chmod(0o600)
    assert settings(config=path).authenticates


def test_a_file_without_a_secret_may_be_read_by_all(toml):
    path = toml('client_id = "gateway"\nclient_secret = ""\n')
    path.chmod(0o644)
    assert settings(config=path).client_id == "gateway"


def test_u19_a_systemd_credential_stands_between_file_and_environment(toml, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "client_id").write_text("from-systemd\n")
    (credentials / "client_secret").write_text(" from-systemd \n")
    path = toml('client_id = "from-file"\nclient_secret = "from-file"\n')
    path.chmod(0o600)
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    found = settings(environment=environment, config=path)
    assert (found.client_id, found.client_secret.get_secret_value()) == ("from-systemd", "from-systemd")
    found = settings(environment=environment | {"SCISTREAM_CLIENT_SECRET": "from-environment"}, config=path)
    assert (found.client_id, found.client_secret.get_secret_value()) == ("from-systemd", "from-environment")
    (credentials / "client_secret").unlink()
    assert settings(environment=environment, config=path).client_secret.get_secret_value() == "from-file"


def test_the_private_key_is_taken_from_where_systemd_put_it(toml, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "server_key").write_text("a key")
    path = toml('server_crt = "/etc/server.crt"\nserver_key = "/etc/server.key"\n')
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    found = settings(environment=environment, config=path)
    assert (str(found.server_crt), found.server_key) == ("/etc/server.crt", credentials / "server_key")
    found = settings(environment=environment | {"SCISTREAM_SERVER_KEY": "/other.key"}, config=path)
    assert str(found.server_key) == "/other.key"


def test_a_credential_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "client_secret").mkdir()
    error = refused(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (error.code, error.facts["path"]) == (Code.CONFIGURATION_UNREADABLE, str(tmp_path / "client_secret"))


@pytest.mark.parametrize("key", ["provider", "introspection_url"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://idp.example", "tokens travel over https:// only, or http:// on this host itself"),
        ("https://u:p@idp.example", "it has a user, a query or a fragment in it"),
        ("idp", "it is no web address"),
    ],
)
def test_tokens_go_nowhere_without_tls(key, url, words):
    error = refused({key: url})
    assert (error.code, error.facts["key"], error.facts["reason"]) == (Code.BAD_CONFIGURATION, key, words)


def test_the_arguments_of_a_start_in_the_background_have_the_same_digest():
    found = settings({"compat": True, "lease": "60", "operators": "olga, bob"})
    words = dict(word.removeprefix("--").partition("=")[::2] for word in found.arguments())
    again = {key.replace("-", "_"): value or True for key, value in words.items()}
    for one, other in ((found, settings(again)), (settings(), settings({"lease": "0", "longest_lease": "0"}))):
        assert one.digest() == other.digest()


def test_what_authentication_is_in_force_is_in_the_digest():
    base = {"client_id": "gateway", "compat": True}
    assert settings(base).digest() != settings({**base, "client_secret": "hunter2"}).digest()


def test_the_arguments_give_the_same_settings_again():
    found = settings({"listener_ip": "::1", "ssl": "False", "insecure_no_auth": True, "log_file": "x", "verbose": True})
    words = dict(word.removeprefix("--").partition("=")[::2] for word in found.arguments())
    again = {key.replace("-", "_"): value or True for key, value in words.items() if key != "client-id"}
    assert load(again, Surroundings(Path("/elsewhere"), {})) == found


def test_u13_the_environments_compat_is_for_the_clients_words_and_turns_nothing_off(toml):
    for found in (settings(environment={"SCISTREAM_COMPAT": "1"}), settings(config=toml("compat = false"))):
        with pytest.raises(SciStreamError) as raised:
            found.check_authentication()
        assert raised.value.code is Code.AUTHENTICATION_UNDECIDED
    settings(config=toml("compat = true")).check_authentication()


_TIMES = ("hello_timeout", "lease", "longest_lease", "quarantine")
_REASON = "it has to be a number of seconds, or a time such as 90s, 30m, 8h or 1h30m"


@pytest.mark.parametrize(("text", "seconds"), [("1m30s", 90), ("90", 90), ("0.5", 0.5), ("1H", 3600), ("7s", 7)])
def test_times_are_said_as_s2uc_has_them(toml, text, seconds):
    for found in (
        settings(dict.fromkeys(_TIMES, text)),
        settings(environment={f"SCISTREAM_{key.upper()}": text for key in _TIMES}),
        settings(config=toml("".join(f'{key} = "{text}"\n' for key in _TIMES))),
        settings(config=toml("".join(f"{key} = {seconds}\n" for key in _TIMES))),
    ):
        assert [getattr(found, key) for key in _TIMES] == [seconds] * 4


def test_no_end_is_a_word_or_0():
    for text in ("unlimited", "0", 0):
        found = settings({"lease": text, "longest_lease": text, "quarantine": 0})
        assert (found.lease, found.longest_lease, found.quarantine) == (0, 0, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": "x"}, "it has to be a whole number"),
        ({"port": "5000.5"}, "it has to be a whole number"),
        ({"port": "70000"}, "it has to be at most 65535"),
        ({"port": "0"}, "it has to be at least 1"),
        ({"hello_timeout": "long"}, _REASON),
        ({"hello_timeout": "unlimited"}, _REASON),
        ({"quarantine": "Unlimited"}, _REASON),
        ({"quarantine": "2h"}, "it has to be at most 3600"),
        ({"lease": "soon"}, _REASON + "; without an end: unlimited"),
        ({"lease": "99999d"}, _REASON),
        ({"lease": "1.2.3"}, _REASON),
        ({"longest_lease": "-1"}, "it has to be at least 0"),
        ({"hello_timeout": "-1"}, "it has to be greater than 0"),
        ({"ssl": "maybe"}, "it has to be true or false"),
        ({"client_id": 7}, "it has to be a text"),
        ({"server_crt": 7}, "it has to be a path"),
        ({"listener_ip": "gateway"}, "it is not an IP address of this host"),
    ],
)
def test_what_is_wanted_is_said_in_our_words(options, words):
    error = refused(options)
    assert error.facts["reason"].startswith(words)
    assert "Input should" not in str(error)


def test_the_digest_is_that_of_all_settings_but_the_secret():
    digest = settings().digest()
    assert settings({"port_range": "5100-5200"}).digest() == digest
    on = {"client_id": "gateway", "client_secret": "hunter2"}
    assert settings(on).digest() == settings({**on, "client_secret": "hunter3"}).digest()
    others = ({"port_range": "5100-5201"}, {"hello_timeout": 181}, {"log_file": "x"}, {"insecure_no_auth": True})
    assert len({digest, *(settings(other).digest() for other in others)}) == 5


@pytest.mark.parametrize(
    ("value", "words"),
    [("a\0b", "a path holds no null character"), ("~no-such-user-here/x", "there is no such user")],
)
def test_a_path_that_cannot_be_one_is_named(value, words):
    error = refused({"state_directory": value})
    assert (error.code, error.facts["key"], error.facts["reason"]) == (Code.BAD_CONFIGURATION, "state_directory", words)
    assert error.facts["source"] == "option --state-directory"


def test_a_file_that_lies_too_deep_is_refused_in_words(toml):
    path = toml("port = " + "[" * 20_000 + "]" * 20_000)
    with pytest.raises(SciStreamError, match="too deep") as raised:
        settings(config=path)
    assert raised.value.code is Code.CONFIGURATION_UNREADABLE
