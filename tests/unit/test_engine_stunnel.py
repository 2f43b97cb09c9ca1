"""What Stunnel is told in each of its three forms, and what its log tells."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Plan, Route
from scistream.engines.base import Feature, Handshake, Installation
from scistream.engines.host import Host
from scistream.engines.stunnel_log import handshake
from scistream.errors import Code, SciStreamError
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import MOCK_UID, Direction, Encryption, Transport, Uid

STUNNEL = ENGINES["stunnel"]
UID = Uid("bd9f1a7e-04d7-11f0-b44c-946dae415862")
KEY = bytes(range(SESSION_KEY_SIZE))
HERE = Installation(Path("/usr/bin/stunnel4"), "5.68", host=Host(4, 65536, 64 << 20, must_stay_root=False))
FORMS = [Encryption.TLS_PSK, Encryption.TLS, Encryption.LEGACY_PSK]


def make_plan(encryption: Encryption, direction: Direction = Direction.INBOUND, uid: str = UID) -> Plan:
    routes = (Route(Endpoint("127.0.10.1", 21000), Endpoint("192.0.2.7", 5074)),)
    return Plan(Uid(uid), direction, routes, Path("/state"), uid, KEY, encryption=encryption)


def files(plan: Plan) -> dict[str, str]:
    return {path.name.removeprefix(f"{plan.uid}."): text for path, text in STUNNEL.render(plan, HERE).items()}


def settings(plan: Plan) -> list[str]:
    return [line for line in files(plan)["conf"].splitlines() if line and not line.startswith(";")]


def test_u02_certificates_tls_1_3_and_the_other_gateways_name() -> None:
    for direction, other in ((Direction.INBOUND, "outbound"), (Direction.OUTBOUND, "inbound")):
        told = settings(make_plan(Encryption.TLS, direction))
        assert {"sslVersionMin = TLSv1.3", "verifyChain = yes", "requireCert = yes"} <= set(told)
        assert {f"cert = {UID}.pem", f"CAfile = {UID}.ca", f"checkHost = {other}.{UID}.scistream"} <= set(told)
        assert ("client = yes" in told) == (direction is Direction.OUTBOUND)
        assert not any(line.startswith(("PSK", "ciphers ")) for line in told)


def test_u01_the_deployed_form_names_every_suite_and_no_anonymous_one() -> None:
    told = settings(make_plan(Encryption.LEGACY_PSK))
    assert "ciphers = PSK-NULL-SHA256:PSK-NULL-SHA384:PSK-NULL-SHA" in told
    assert "sslVersion = TLSv1.2" in told
    assert "securityLevel = 0" in told
    assert "client = yes" not in told


def test_the_deployed_form_has_the_deployed_key_and_needs_no_other() -> None:
    plan = dataclasses.replace(make_plan(Encryption.LEGACY_PSK, Direction.OUTBOUND), key=None)
    assert files(plan)["psk"] == "client1:bd9f1a7e04d711f0b44c946dae415862\n"
    assert "PSKidentity = client1" in settings(plan)
    assert set(files(plan)) == {"conf", "psk"}


@pytest.mark.parametrize("encryption", [Encryption.TLS_PSK, Encryption.TLS])
def test_u06_stunnel_carries_nothing_without_a_key(encryption: Encryption) -> None:
    with pytest.raises(SciStreamError, match=r"no key came with session bd9f1a7e.*Stunnel") as caught:
        files(dataclasses.replace(make_plan(encryption), key=None))
    assert caught.value.code is Code.SESSION_KEY_MISSING


@pytest.mark.parametrize("encryption", FORMS)
def test_u06_the_published_uid_carries_nothing(encryption: Encryption) -> None:
    with pytest.raises(
        SciStreamError, match=f"cannot have encryption {encryption.value}: this uid never has"
    ) as caught:
        files(make_plan(encryption, uid=MOCK_UID))
    assert caught.value.code is Code.UID_PUBLISHED


@pytest.mark.parametrize(
    ("uid", "is_long_enough"), [("ab" * 15, False), ("ab" * 16, True), ("x" * 15, False), ("x" * 16, True)]
)
def test_a_uid_too_short_for_a_deployed_key_is_refused(uid: str, is_long_enough: bool) -> None:
    plan = make_plan(Encryption.LEGACY_PSK, uid=uid)
    if is_long_enough:
        assert files(plan)["psk"] == f"client1:{uid}\n"
        return
    with pytest.raises(SciStreamError, match="this one has fewer than 16 bytes") as caught:
        files(plan)
    assert caught.value.code is Code.ENGINE_CANNOT


@pytest.mark.parametrize(
    ("change", "words"),
    [({"encryption": Encryption.NONE}, "nothing unencrypted"), ({"transport": Transport.UDP}, "TCP only")],
)
def test_what_it_does_not_carry_is_refused_by_name(change: dict[str, object], words: str) -> None:
    with pytest.raises(SciStreamError, match=words) as caught:
        files(dataclasses.replace(make_plan(Encryption.TLS_PSK), **change))  # type: ignore[arg-type]
    assert caught.value.code is Code.ENGINE_CANNOT


@pytest.mark.parametrize("encryption", FORMS)
def test_no_secret_is_in_the_configuration(encryption: Encryption) -> None:
    made = files(make_plan(encryption, Direction.OUTBOUND))
    assert KEY.hex() not in made["conf"] + made.get("ca", "")
    assert "PRIVATE" not in made["conf"] + made.get("ca", "")
    assert KEY.hex() not in repr({key: text for key, text in made.items() if key != "conf"})


@pytest.mark.parametrize("encryption", FORMS)
def test_u44_no_form_has_a_time_out_that_cuts(encryption: Encryption) -> None:
    told = settings(make_plan(encryption))
    assert {"TIMEOUTidle = 2073600", "TIMEOUTclose = 2073600", "socket = r:SO_KEEPALIVE=1"} <= set(told)
    assert {"debug = info", "syslog = no", "sessionResume = no"} <= set(told)


def test_u72_every_session_says_what_it_may_lose() -> None:
    words = "half-closed connections may lose their last bytes: those of the direction that ends second"
    assert STUNNEL.cannot[Feature.HALF_CLOSE] == words
    for encryption in FORMS:
        assert words in STUNNEL.warnings(encryption, Transport.TCP)


def test_u02_the_deployed_form_warns_that_it_encrypts_nothing() -> None:
    warnings = STUNNEL.warnings(Encryption.LEGACY_PSK, Transport.TCP)
    assert any("nothing is encrypted" in each and "is no secret" in each for each in warnings)
    assert not any("nothing is encrypted" in each for each in STUNNEL.warnings(Encryption.TLS, Transport.TCP))


def line(connection: object, words: str, level: int = 6) -> str:
    return f"2026.11.23 05:47:36 LOG{level}[{connection}]: {words}\n"


def connection(number: int, proof: str, suite: str = "TLSv1.3 ciphersuite: TLS_AES_128_GCM_SHA256") -> list[str]:
    return [
        line(number, f"Service [route-1] accepted connection from 127.0.0.1:{50000 + number}", 5),
        line(number, proof, 5),
        line(number, "TLS accepted: new session negotiated"),
        line(number, f"{suite} (128-bit encryption)"),
    ]


INBOUND_KEY = 'Key configured for PSK identity "one"'
OUTBOUND_KEY = 'PSK client configured for identity "two"'
ONE = Handshake("TLS_AES_128_GCM_SHA256", "whoever has the key of one")
TWO = Handshake("TLS_AES_128_GCM_SHA256", "whoever has the key of two")
LEGACY = Handshake("PSK-NULL-SHA256", "whoever has the key of one")
CERTIFICATE = "Certificate accepted at depth=0: O=SciStream inbound gateway, CN=three"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (connection(0, INBOUND_KEY), ONE),
        (connection(0, OUTBOUND_KEY), TWO),
        (connection(0, CERTIFICATE), Handshake("TLS_AES_128_GCM_SHA256", "O=SciStream inbound gateway, CN=three")),
        ([*connection(0, INBOUND_KEY), *connection(1, OUTBOUND_KEY)[:3]], ONE),
        ([*connection(1, INBOUND_KEY)[:2], *connection(11, OUTBOUND_KEY)], TWO),
        (connection(0, INBOUND_KEY, "TLSv1.2 ciphersuite: PSK-NULL-SHA256"), LEGACY),
        # The beginning of its lines is in a log that was put aside.
        (connection(0, INBOUND_KEY)[2:], Handshake("TLS_AES_128_GCM_SHA256")),
        # Refused: the identity is named before the key is tried.
        ([*connection(0, INBOUND_KEY)[:2], line(0, "SSL_accept: error:0A0000FD: binder does not verify", 3)], None),
        ([line("ui", "Configuration successful", 5)], None),
        ([], None),
    ],
)
def test_what_the_last_connection_agreed_on(tmp_path: Path, lines: list[str], told: Handshake | None) -> None:
    log = tmp_path / "log"
    log.write_text("".join(lines))
    assert handshake([log, tmp_path / "none"]) == told
    # The log that was put aside tells where the new one does not.
    assert handshake([tmp_path / "none", log]) == told


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "".join(each for number in range(2000) for each in connection(number, f'{INBOUND_KEY[:-4]}{number}"'))
    )
    assert handshake([log]) == Handshake("TLS_AES_128_GCM_SHA256", "whoever has the key of 1999")
