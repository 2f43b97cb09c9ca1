from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scistream.addresses import parse_host
from scistream.certificates import issue, issue_ca, judge, read
from scistream.errors import Code, SciStreamError

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)

# What makes a name a mistyped IPv4 address: a last label that is a number, decimal or hexadecimal.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_host_names = (
    st.lists(_labels, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: not _NUMBER.fullmatch(name.split(".")[-1]))
)
_hosts = st.one_of(_host_names, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))


def _self_signed(directory: Path, *names: str, days: int = 30) -> tuple[Path, Path]:
    pair = directory / "server.crt", directory / "server.key"
    issue(*pair, names=names or ("gateway.example.org",), days=days, ca=None, now=NOW)
    return pair


def _site_ca(directory: Path, *, days: int = 300, now: datetime = NOW) -> tuple[Path, Path]:
    pair = directory / "ca.crt", directory / "ca.key"
    issue_ca(*pair, name="A facility", days=days, now=now)
    return pair


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _failing(code: Code) -> pytest.RaisesExc[SciStreamError]:
    return pytest.RaisesExc(SciStreamError, check=lambda error: error.code is code)


def test_a_self_signed_certificate_says_what_it_was_told(tmp_path: Path) -> None:
    pair = tmp_path / "server.crt", tmp_path / "server.key"
    facts = issue(*pair, names=["127.0.1.1", "Gateway.example.org", "::1"], days=30, ca=None, now=NOW)
    assert facts.names == ("127.0.1.1", "gateway.example.org", "::1")
    assert facts.not_before == NOW - timedelta(hours=1)
    assert facts.not_after == NOW + timedelta(days=30)
    assert facts.self_signed
    assert not facts.is_ca
    assert facts.subject == facts.issuer
    assert facts == read(pair[0])


def test_a_leaf_of_a_ca_names_its_issuer_and_is_none_itself(tmp_path: Path) -> None:
    ca = _site_ca(tmp_path)
    facts = issue(tmp_path / "a.crt", tmp_path / "a.key", names=["127.0.1.1"], days=30, ca=ca, now=NOW)
    assert facts.issuer == read(ca[0]).subject
    assert (facts.is_ca, facts.self_signed) == (False, False)
    assert (read(ca[0]).is_ca, read(ca[0]).self_signed) == (True, True)


def test_keys_are_readable_by_their_owner_alone_and_certificates_by_all(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    ca_certificate, ca_key = _site_ca(tmp_path)
    assert [_mode(path) for path in (key, ca_key, certificate, ca_certificate)] == [0o600, 0o600, 0o644, 0o644]


def test_a_key_is_never_wider_than_0600_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _certificate, key = _self_signed(tmp_path)
    finally:
        os.umask(before)
    assert _mode(key) == 0o600


def test_nothing_is_left_beside_the_pair(tmp_path: Path) -> None:
    pair = _self_signed(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(pair)


def test_the_key_is_ec_p256_in_pkcs8(tmp_path: Path) -> None:
    _certificate, path = _self_signed(tmp_path)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"


def test_a_second_issue_replaces_both_and_gives_another_serial_number(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    first = read(certificate).fingerprint
    _self_signed(tmp_path)
    assert judge(certificate, now=NOW, key=key).fingerprint != first


def test_a_leaf_never_outlives_its_ca(tmp_path: Path) -> None:
    ca = _site_ca(tmp_path, days=10)
    facts = issue(tmp_path / "a.crt", tmp_path / "a.key", names=["a"], days=30, ca=ca, now=NOW)
    assert facts.not_after == read(ca[0]).not_after


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(_hosts, min_size=1, max_size=6))
def test_it_answers_to_each_of_its_names_and_to_no_other(tmp_path: Path, names: list[str]) -> None:
    certificate, key = _self_signed(tmp_path, *names)
    facts = read(certificate)
    assert facts.names == tuple(dict.fromkeys(parse_host(name) for name in names))
    for name in names:
        assert judge(certificate, now=NOW, host=name.upper(), key=key) == facts
    with _failing(Code.CERTIFICATE_WRONG_NAME):
        judge(certificate, now=NOW, host="another.invalid")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(st.text(max_size=20), _hosts))
def test_a_name_is_an_address_or_refused_and_then_nothing_is_written(tmp_path: Path, name: str) -> None:
    pair = tmp_path / "x.crt", tmp_path / "x.key"
    if _is_address(name):
        issue(*pair, names=[name], days=1, ca=None, now=NOW)
        assert judge(pair[0], now=NOW, host=name, key=pair[1]).names == (parse_host(name).removesuffix("."),)
    else:
        with _failing(Code.BAD_ADDRESS):
            issue(*pair, names=[name], days=1, ca=None, now=NOW)
        assert not list(tmp_path.iterdir())
    for path in pair:
        path.unlink(missing_ok=True)


def _is_address(name: str) -> bool:
    try:
        parse_host(name)
    except SciStreamError:
        return False
    return True


def test_a_name_longer_than_a_common_name_may_be_is_whole_among_the_names(tmp_path: Path) -> None:
    name = ".".join(["a" * 60, "b" * 60, "org"])
    certificate, _key = _self_signed(tmp_path, name)
    assert read(certificate).names == (name,)


def test_a_trailing_dot_makes_no_difference(tmp_path: Path) -> None:
    certificate, _key = _self_signed(tmp_path, "gateway.example.org.")
    assert judge(certificate, now=NOW, host="gateway.example.org.").names == ("gateway.example.org",)


def test_no_name_at_all_is_refused(tmp_path: Path) -> None:
    with _failing(Code.BAD_CONFIGURATION) as caught:
        issue(tmp_path / "x.crt", tmp_path / "x.key", names=[], days=1, ca=None, now=NOW)
    assert "vouches for nobody" in str(caught.value)


@pytest.mark.parametrize("days", [0, -1, 36501, 10**12])
def test_days_out_of_range_are_refused(tmp_path: Path, days: int) -> None:
    with _failing(Code.BAD_CONFIGURATION) as caught:
        _self_signed(tmp_path, days=days)
    assert "1 to 36500" in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_a_ca_needs_a_name(tmp_path: Path, name: str) -> None:
    with _failing(Code.BAD_CONFIGURATION):
        issue_ca(tmp_path / "ca.crt", tmp_path / "ca.key", name=name, days=1, now=NOW)


def test_one_file_for_both_is_refused(tmp_path: Path) -> None:
    with _failing(Code.BAD_CONFIGURATION) as caught:
        issue(tmp_path / "x", tmp_path / "x", names=["a"], days=1, ca=None, now=NOW)
    assert "a file each" in str(caught.value)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with _failing(Code.FILE_UNWRITABLE) as caught:
        _self_signed(tmp_path / "nowhere")
    assert "nowhere/server.key cannot be written: No such file or directory" in str(caught.value)


def test_a_key_path_that_is_a_directory_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "server.key").mkdir()
    with _failing(Code.FILE_UNWRITABLE):
        _self_signed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["server.key"]


def test_a_crash_between_key_and_certificate_is_found(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    old = certificate.read_bytes()
    _self_signed(tmp_path)
    certificate.write_bytes(old)
    with _failing(Code.CERTIFICATE_KEY_MISMATCH) as caught:
        judge(certificate, now=NOW, key=key)
    assert f"the private key {key} does not belong to the certificate {certificate}" in str(caught.value)


def test_an_expired_certificate_is_named_with_its_last_day(tmp_path: Path) -> None:
    certificate, _key = _self_signed(tmp_path, days=30)
    assert judge(certificate, now=NOW + timedelta(days=30))
    with _failing(Code.CERTIFICATE_EXPIRED) as caught:
        judge(certificate, now=NOW + timedelta(days=30, seconds=1))
    assert "expired on 2026-06-03 12:30 UTC" in str(caught.value)


def test_a_clock_that_is_an_hour_late_still_accepts_it(tmp_path: Path) -> None:
    certificate, _key = _self_signed(tmp_path)
    assert judge(certificate, now=NOW - timedelta(minutes=60))
    with _failing(Code.CERTIFICATE_NOT_YET_VALID) as caught:
        judge(certificate, now=NOW - timedelta(minutes=61))
    assert "valid only from 2026-05-04 11:30 UTC" in str(caught.value)


def test_a_wrong_name_is_answered_with_the_right_ones(tmp_path: Path) -> None:
    certificate, _key = _self_signed(tmp_path, "gateway.example.org", "192.0.2.1")
    with _failing(Code.CERTIFICATE_WRONG_NAME) as caught:
        judge(certificate, now=NOW, host="192.0.2.2")
    assert "is for gateway.example.org, 192.0.2.1, and the control server was called 192.0.2.2" in str(caught.value)


def test_a_wildcard_is_no_match(tmp_path: Path) -> None:
    certificate = tmp_path / "wild.crt"
    _write_foreign(certificate, x509.SubjectAlternativeName([x509.DNSName("*.example.org")]))
    with _failing(Code.CERTIFICATE_WRONG_NAME):
        judge(certificate, now=NOW, host="gateway.example.org")


def test_a_certificate_without_alternative_names_answers_to_nothing(tmp_path: Path) -> None:
    certificate = tmp_path / "bare.crt"
    _write_foreign(certificate)
    assert read(certificate).names == ()
    with _failing(Code.CERTIFICATE_WRONG_NAME) as caught:
        judge(certificate, now=NOW, host="gateway.example.org")
    assert "is for no name or address" in str(caught.value)


def test_a_ca_vouches_for_any_host(tmp_path: Path) -> None:
    certificate, key = _site_ca(tmp_path)
    assert judge(certificate, now=NOW, host="gateway.example.org", key=key).is_ca


def test_ipv6_is_compared_as_an_address(tmp_path: Path) -> None:
    certificate, _key = _self_signed(tmp_path, "2001:db8::1")
    assert judge(certificate, now=NOW, host="2001:0DB8:0:0::0001")


def test_a_missing_certificate_names_the_option(tmp_path: Path) -> None:
    with _failing(Code.CERTIFICATE_MISSING) as caught:
        read(tmp_path / "server.crt", option="--server-crt")
    assert f"there is no certificate {tmp_path}/server.crt" in str(caught.value)
    assert "--server-crt" in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    key.unlink()
    with _failing(Code.CERTIFICATE_MISSING) as caught:
        judge(certificate, now=NOW, key=key)
    assert f"there is no private key {key}" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff" * 99]
)
def test_what_is_no_certificate_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.crt"
    path.write_bytes(content)
    with _failing(Code.CERTIFICATE_UNREADABLE) as caught:
        read(path)
    assert f"{path} cannot be read as a certificate" in str(caught.value)


def test_a_directory_is_unreadable(tmp_path: Path) -> None:
    with _failing(Code.CERTIFICATE_UNREADABLE) as caught:
        read(tmp_path)
    assert "Is a directory" in str(caught.value)


def test_a_damaged_key_is_unreadable_and_never_quoted(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    lines = key.read_text().splitlines()
    key.write_text("\n".join([lines[0], lines[1][:-8], *lines[2:]]))
    with _failing(Code.CERTIFICATE_UNREADABLE) as caught:
        judge(certificate, now=NOW, key=key)
    assert "no whole PEM private key" in str(caught.value)
    assert lines[1][:16] not in str(caught.value)


def test_an_encrypted_key_is_said_to_be_so(tmp_path: Path) -> None:
    certificate, path = _self_signed(tmp_path)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with _failing(Code.CERTIFICATE_UNREADABLE) as caught:
        judge(certificate, now=NOW, key=path)
    assert "it is encrypted" in str(caught.value)


def test_a_server_certificate_signs_nothing(tmp_path: Path) -> None:
    pair = _self_signed(tmp_path)
    with _failing(Code.CERTIFICATE_UNREADABLE) as caught:
        issue(tmp_path / "a.crt", tmp_path / "a.key", names=["a"], days=1, ca=pair, now=NOW)
    assert "the certificate of a server, not of a CA" in str(caught.value)
    assert not (tmp_path / "a.key").exists()


def test_an_expired_ca_signs_nothing(tmp_path: Path) -> None:
    ca = _site_ca(tmp_path, days=1)
    with _failing(Code.CERTIFICATE_EXPIRED) as caught:
        issue(tmp_path / "a.crt", tmp_path / "a.key", names=["a"], days=1, ca=ca, now=NOW + timedelta(days=2))
    assert str(ca[0]) in str(caught.value)


def test_a_ca_with_an_rsa_key_is_refused_by_name(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate, key_path = tmp_path / "ca.crt", tmp_path / "ca.key"
    _write_foreign(certificate, x509.BasicConstraints(ca=True, path_length=None), key=key)
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with _failing(Code.CERTIFICATE_UNREADABLE) as caught:
        issue(tmp_path / "a.crt", tmp_path / "a.key", names=["a"], days=1, ca=(certificate, key_path), now=NOW)
    assert "it is not an EC key" in str(caught.value)


def test_facts_as_plain_data(tmp_path: Path) -> None:
    certificate, _key = _self_signed(tmp_path, "gateway.example.org")
    plain = read(certificate).as_dict()
    assert plain["names"] == ["gateway.example.org"]
    assert plain["not_after"] == "2026-06-03T12:30:00+00:00"
    assert plain["path"] == str(certificate)


def _write_foreign(
    path: Path,
    *extensions: x509.ExtensionType,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> None:
    """A certificate as others make them."""
    own = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example.org")])
    start, end = NOW - timedelta(days=1), NOW + timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, own.public_key(), x509.random_serial_number(), start, end)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    path.write_bytes(builder.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
