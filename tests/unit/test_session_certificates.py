"""The certificates of a session: whom they vouch for, in which role, and that each end can make them alone."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from scistream.certificates.sessions import LIFETIME, RENEWAL, Leaf, SessionAuthority, gateway_name
from scistream.client.comparison import Wish
from scistream.client.requests import SessionRequest
from scistream.client.tickets import new_key
from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, Direction, Encryption, Uid

UID = Uid("bd9f1a7e-04d7-11f0-b44c-946dae415862")
KEY = bytes(range(32))
NOW = datetime.datetime(2031, 5, 17, 12, 0, tzinfo=datetime.UTC)
PURPOSES = {Direction.INBOUND: "sslserver", Direction.OUTBOUND: "sslclient"}


def authority(key: bytes = KEY, uid: Uid = UID) -> SessionAuthority:
    return SessionAuthority.derive(key, uid)


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def verifies(directory: Path, root: str, leaf: Leaf, purpose: str, at: datetime.datetime = NOW) -> bool:
    """What the data servers' own library says, with no other authority to fall back on."""
    (directory / "ca").write_text(root)
    (directory / "leaf").write_text(leaf.certificate)
    nothing_else = ["-no-CAfile", "-no-CApath", "-no-CAstore", "-x509_strict"]
    moment = ["-attime", str(int(at.timestamp()))]
    files = ["-CAfile", str(directory / "ca"), str(directory / "leaf")]
    command = ["openssl", "verify", *nothing_else, "-purpose", purpose, *moment, *files]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("role", list(Direction))
@pytest.mark.parametrize("other", list(Direction))
def test_u01_a_leaf_is_good_in_its_own_role_and_no_other(tmp_path: Path, role: Direction, other: Direction) -> None:
    leaf = authority().issue(role, NOW)
    # Made at the other end, out of the same key.
    assert verifies(tmp_path, authority().certificate(), leaf, PURPOSES[other]) == (role is other)


@pytest.mark.parametrize("role", list(Direction))
def test_u01_another_sessions_leaf_is_good_for_nothing(tmp_path: Path, role: Direction) -> None:
    for stranger in (authority(uid=Uid("another")), authority(key=bytes(32)), authority(key=KEY[:-1] + b"\0")):
        assert not verifies(tmp_path, authority().certificate(), stranger.issue(role, NOW), PURPOSES[role])


def test_u01_a_self_made_authority_with_the_same_names_vouches_for_nobody(tmp_path: Path) -> None:
    impostor = SessionAuthority(UID, ec.generate_private_key(ec.SECP256R1()))
    assert certificate(impostor.certificate()).subject == certificate(authority().certificate()).subject
    assert not verifies(tmp_path, authority().certificate(), impostor.issue(Direction.INBOUND, NOW), "sslserver")


def test_the_same_key_makes_the_same_authority_and_every_certificate_another(tmp_path: Path) -> None:
    one, two = certificate(authority().certificate()), certificate(authority().certificate())
    assert one.public_key() == two.public_key()
    assert one.subject == two.subject
    first, second = (authority().issue(Direction.INBOUND, NOW) for _ in range(2))
    assert certificate(first.certificate).public_key() != certificate(second.certificate).public_key()
    assert certificate(first.certificate).serial_number != certificate(second.certificate).serial_number


def test_the_derivation_stays_as_it_is() -> None:
    """Two releases of this software have to come to the same key, here worked out with hmac alone."""
    expected = "8adf997aefd38e6d2d9018761c02005acbd0e55f00786acfc4ee254c1161ea0f"
    assert f"{authority().key.private_numbers().private_value:064x}" == expected


def test_the_authority_signs_leaves_only_and_is_good_for_long() -> None:
    made = certificate(authority().certificate())
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert made.not_valid_before_utc.year == 2000
    assert made.not_valid_after_utc.year == 9999


def test_a_leaf_has_its_own_key_and_a_short_life_that_began_yesterday() -> None:
    leaf = authority().issue(Direction.OUTBOUND, NOW)
    made = certificate(leaf.certificate)
    assert load_pem_private_key(leaf.private_key.encode(), None).public_key() == made.public_key()
    assert made.public_key() != authority().key.public_key()
    assert made.not_valid_before_utc == NOW - datetime.timedelta(days=1)
    assert made.not_valid_after_utc == NOW + LIFETIME
    assert RENEWAL * 2 < LIFETIME
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert list(usage.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("days", [0, 60, 89])
def test_facilities_whose_clocks_differ_by_hours_agree(tmp_path: Path, days: int) -> None:
    leaf = authority().issue(Direction.INBOUND, NOW)
    for hours in (-23, 23):
        moment = NOW + datetime.timedelta(days=days, hours=hours)
        assert verifies(tmp_path, authority().certificate(), leaf, "sslserver", moment)


@pytest.mark.parametrize("uid", ["a", "-", "A-" * 32, "x" * 63, "x" * 64, str(UID)])
def test_names_fit_whatever_the_uid(tmp_path: Path, uid: str) -> None:
    made = authority(uid=Uid(uid))
    leaf = made.issue(Direction.INBOUND, NOW)
    assert verifies(tmp_path, made.certificate(), leaf, "sslserver")
    name = gateway_name(Uid(uid), Direction.INBOUND)
    assert name.startswith("inbound.")
    assert name.endswith(".scistream")
    assert name.replace(".", "") == f"inbound{uid}scistream".lower()
    assert max(map(len, name.split("."))) <= 63
    found = certificate(leaf.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.value.get_values_for_type(x509.DNSName) == [name]


def test_private_keys_do_not_show_themselves() -> None:
    made = authority()
    leaf = made.issue(Direction.INBOUND, NOW)
    assert "PRIVATE" in leaf.private_key
    assert "PRIVATE" not in repr(leaf)
    assert f"{made.key.private_numbers().private_value:x}" not in repr(made)
    assert "key" not in repr(made)


def test_u06_the_published_uid_of_mock_never_has_an_authority() -> None:
    with pytest.raises(SciStreamError, match="this uid never has a key") as caught:
        authority(uid=Uid(MOCK_UID))
    assert caught.value.code is Code.UID_PUBLISHED


@pytest.mark.parametrize("direction", list(Direction))
def test_u06_a_session_of_mock_is_refused_encryption_and_gets_no_key_without(direction: Direction) -> None:
    for key in (None, KEY):
        with pytest.raises(SciStreamError) as caught:
            SessionRequest(Uid(MOCK_UID), direction, (), 1, key=key)
        assert caught.value.code is Code.UID_PUBLISHED
    plain = SessionRequest(Uid(MOCK_UID), direction, (), 1, encryption=Encryption.NONE)
    assert Wish(plain).keyed_request.sent_key is None


def test_u06_keys_are_random_and_come_from_no_uid() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    assert {len(new_key()) for _ in range(10)} == {32}
