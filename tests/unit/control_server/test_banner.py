from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
import structlog
from tests.unit.control_server.conftest import MemoryEngine

from scistream import certificates
from scistream.control_server import banner
from scistream.control_server.configuration import Surroundings, load
from scistream.terms import Encryption


@pytest.fixture
def told(site_factory):
    """What is logged for some options."""

    def tell(certificate=None, **options) -> list[str]:
        events = structlog.testing.LogCapture()
        log = structlog.wrap_logger(None, processors=[structlog.stdlib.add_log_level, events])
        settings = load({"listener_ip": "127.0.20.1", **options}, Surroundings(Path("/"), {}))
        banner.tell(settings, site_factory().engine, certificate, log)
        return [" ".join(map(str, entry.values())) for entry in events.entries]

    return tell


def test_address_engine_channel_and_authentication_are_told(told):
    ready = told()[0]
    assert all(word in ready for word in ("127.0.20.1:5000", "Memory", "5100-5200", "plain text", "NO_AUTH"))


def test_an_engine_that_is_not_installed_is_told_at_the_start(told):
    assert any("no session can start yet: Memory is not installed on this gateway" in line for line in told())


def test_compat_and_missing_authentication_are_told(told):
    lines = told(compat=True)
    assert any("--compat" in line and "authentication is off" in line for line in lines)
    assert any("NO_AUTH: everyone who reaches 127.0.20.1:5000" in line for line in lines)
    assert not any("--compat" in line for line in told(insecure_no_auth=True))


def test_u13_token_introspection_is_told_wherever_authentication_is(told):
    on = {"client_id": "gateway", "client_secret": "hunter2", "provider": "https://idp.example"}
    lines = told(**on)
    assert "token introspection (idp.example)" in lines[0]
    assert not any("NO_AUTH" in line or "authentication is off" in line for line in told(compat=True, **on))
    assert any("tokens travel as plain text" in line for line in told(ssl="False", **on))
    found = banner.announcement(load(on | {"ssl": "False"}, Surroundings(Path("/"), {})), None, "host secret")
    assert (found.authentication, found.host_secret) == ("token introspection (idp.example)", "host secret")
    assert "host secret" not in repr(found)


def test_a_plain_text_server_announces_no_certificate():
    settings = load({"ssl": "False", "listener_ip": "127.0.20.1"}, Surroundings(Path("/"), {}))
    found = banner.announcement(settings, None, "host secret")
    assert (found.pid, found.address, found.tls) == (os.getpid(), "127.0.20.1:5000", False)
    assert (found.authentication, found.host_secret) == ("NO_AUTH", "")


def test_a_certificate_without_the_address_and_a_key_that_others_can_read_are_told(told, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    pair = (tmp_path / "server.crt", tmp_path / "server.key")
    facts = certificates.issue(*pair, names=["gateway.example"], days=1, ca=None, now=now)
    settings = {"server_crt": str(pair[0]), "server_key": str(pair[1])}
    lines = told(facts, **settings)
    assert any("the certificate is for gateway.example, and this listens on 127.0.20.1" in line for line in lines)
    assert not any("private key" in line for line in lines)
    assert not any("the certificate is for" in line for line in told(facts, control_ip="127.0.0.1", **settings))
    pair[1].chmod(0o640)
    words = f"the private key {pair[1]} is not for its owner alone (mode 0640)"
    assert any(words in line for line in told(facts, **settings))


def test_a_certificate_near_its_end_is_told_and_one_far_from_it_is_not(tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    facts = certificates.issue(tmp_path / "a", tmp_path / "b", names=["gateway.example"], days=90, ca=None, now=now)
    assert not list(banner.expiry(facts, now + datetime.timedelta(days=59)))
    assert not list(banner.expiry(None, now))
    (words,) = banner.expiry(facts, now + datetime.timedelta(days=61))
    assert "valid until" in words
    assert "s2cs stop and s2cs start (streams go on)" in words


@pytest.mark.parametrize(
    ("old_clients", "words"),
    [
        ("plain", "old_clients = plain: sessions of deployed clients are not encrypted between the gateways"),
        (
            "legacy-psk",
            (
                "old_clients = legacy-psk: sessions of deployed clients are authenticated by their uid, which is no "
                "secret, and not encrypted"
            ),
        ),
    ],
)
def test_what_deployed_clients_get_is_told_where_it_is_not_encrypted(told, monkeypatch, old_clients, words):
    monkeypatch.setattr(MemoryEngine, "encryptions", tuple(Encryption))
    assert any(words in line for line in told(old_clients=old_clients))
    monkeypatch.setattr(MemoryEngine, "encryptions", (Encryption.TLS,))
    refused = f"old_clients = {old_clients}: Memory does not do that, and deployed clients are refused"
    assert any(refused in line for line in told(old_clients=old_clients))


def test_nothing_is_told_of_deployed_clients_that_are_refused_and_compat_serves_them(told):
    assert not any("old_clients" in line for line in told())
    assert not any("old_clients" in line for line in told(compat=True, old_clients="refuse"))
    assert any("old_clients = plain" in line for line in told(compat=True))


def test_targets_that_nobody_bounds_are_told(told):
    words = "every host and port that this gateway reaches may be asked for as a target; --allowed-targets narrows it"
    assert any(words in line for line in told())
    assert not any("--allowed-targets" in line for line in told(allowed_targets="198.51.100.0/24:5000-5999"))


def test_what_keeps_an_installed_engine_from_working_is_told_at_the_start(site_factory):
    engine = site_factory().engine
    engine.locate = lambda: None
    settings = load({"listener_ip": "127.0.20.1"}, Surroundings(Path("/"), {}))
    assert not any("no session can start yet" in words for words in banner.warnings(settings, engine, None))
    engine.shortfall = lambda: "this host forwards no packets"
    assert "no session can start yet: Memory: this host forwards no packets" in banner.warnings(settings, engine, None)
