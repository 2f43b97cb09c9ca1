"""What is wrong with a certificate that the site's own authority issued: all of it, and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID

from scistream import certificates
from scistream.certificates import Part, inspect

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
NAME = "gateway.example.org"


class Site:
    """A site's public-key infrastructure: a root, an intermediate authority, and what it issued."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.middle_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self.issue("root", self.root_key, "root", self.root_key, is_ca=True)
        self.middle = self.issue("middle", self.middle_key, "root", self.root_key, is_ca=True)

    def issue(  # noqa: PLR0917 - a certificate has that many parts
        self, subject: str, key: Any, issuer: str, signer: Any, is_ca: bool = False, days: int = 300, digest: Any = None
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            _name(issuer), _name(subject), key.public_key(), 7, NOW - timedelta(days=1), NOW + timedelta(days=days)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if not is_ca:
            names = [x509.DNSName(NAME), x509.DNSName("*.facility.example")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, digest or hashes.SHA256())

    def leaf(self, key: Any = None, **more: Any) -> tuple[Path, Path]:
        """A gateway's certificate from the intermediate authority, and its key."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        path, key_path = self.directory / "gateway.crt", self.directory / "gateway.key"
        path.write_bytes(_pem(self.issue(NAME, own, "middle", self.middle_key, **more)))
        key_path.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path, key_path

    def chain(self, *certificates: x509.Certificate) -> Path:
        path = self.directory / "chain.pem"
        path.write_bytes(b"".join(map(_pem, certificates)))
        return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def found(*given: Any, **more: Any) -> list[tuple[Part, str]]:
    return [(fault.part, fault.error.code.value) for fault in inspect(*given, **{"now": NOW} | more)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_whole_chain_in_any_order_is_good(site: Site) -> None:
    path, key = site.leaf()
    for chain in ([site.middle, site.root], [site.root, site.middle]):
        assert found(path, key=key, chain=site.chain(*chain), names=[NAME, NAME.upper()]) == []


def test_the_chain_may_stand_behind_the_certificate(site: Site) -> None:
    path, _key = site.leaf()
    path.write_bytes(path.read_bytes() + _pem(site.middle))
    assert found(path, chain=site.chain(site.root)) == []


def test_a_gap_in_the_chain_names_both_sides(site: Site) -> None:
    path, _key = site.leaf()
    (fault,) = inspect(path, now=NOW, chain=site.chain(site.root))
    assert fault.part is Part.CHAIN
    assert "CN=gateway.example.org was issued by CN=middle, and no certificate of that name" in str(fault.error)
    assert found(path) == [(Part.CHAIN, "CERTIFICATE_CHAIN_BROKEN")]
    assert found(path, chain=site.chain(site.middle)) == [(Part.CHAIN, "CERTIFICATE_CHAIN_BROKEN")]


def test_one_of_the_same_name_and_another_key_does_not_close_the_gap(site: Site, tmp_path: Path) -> None:
    path, _key = site.leaf()
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    assert found(path, chain=site.chain(other.middle, other.root)) == [(Part.CHAIN, "CERTIFICATE_CHAIN_BROKEN")]


def test_a_leaf_is_no_authority_whatever_it_signed(site: Site) -> None:
    path, _key = site.leaf()
    no_authority = site.issue("middle", site.middle_key, "root", site.root_key)
    assert found(path, chain=site.chain(no_authority, site.root)) == [(Part.CHAIN, "CERTIFICATE_CHAIN_BROKEN")]


def test_an_authority_that_ended_is_told(site: Site) -> None:
    path, _key = site.leaf()
    old = site.issue("middle", site.middle_key, "root", site.root_key, is_ca=True, days=10)
    chain = site.chain(old, site.root)
    assert found(path, chain=chain) == []
    assert found(path, chain=chain, now=NOW + timedelta(days=20)) == [(Part.CHAIN, "CERTIFICATE_EXPIRED")]


def test_what_vouches_for_itself_needs_no_chain(tmp_path: Path) -> None:
    pair = tmp_path / "a.crt", tmp_path / "a.key"
    certificates.issue(*pair, names=[NAME], days=30, ca=None, now=NOW)
    assert found(pair[0], key=pair[1], names=[NAME]) == []


def test_everything_is_told_at_once(site: Site) -> None:
    path, key = site.leaf()
    other = site.directory / "other.key"
    other.write_bytes(key.read_bytes())
    site.leaf()
    assert found(path, key=other, names=["a.example", "192.0.2.7"], now=NOW + timedelta(days=400)) == [
        (Part.CERTIFICATE, "CERTIFICATE_EXPIRED"),
        (Part.PRIVATE_KEY, "CERTIFICATE_KEY_MISMATCH"),
        (Part.CHAIN, "CERTIFICATE_CHAIN_BROKEN"),
        (Part.NAMES, "CERTIFICATE_WRONG_NAME"),
        (Part.NAMES, "CERTIFICATE_WRONG_NAME"),
    ]


@pytest.mark.parametrize(
    ("name", "is_right"),
    [("a.facility.example", True), ("facility.example", False), ("a.b.facility.example", False), ("192.0.2.7", False)],
)
def test_a_wildcard_is_one_label(site: Site, name: str, is_right: bool) -> None:
    path, _key = site.leaf()
    wrong = [] if is_right else [(Part.NAMES, "CERTIFICATE_WRONG_NAME")]
    assert found(path, chain=site.chain(site.middle, site.root), names=[name]) == wrong


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "its RSA key has 1024 bits"),  # noqa: S505 - so weak
        (lambda: ec.generate_private_key(ec.SECP224R1()), "its key is on the curve secp224r1"),
        (lambda: dsa.generate_private_key(1024), "its key is of a kind that TLS does not take"),  # noqa: S505
    ],
    ids=["RSA", "EC", "DSA"],
)
def test_a_weak_key_is_told(site: Site, key: Any, words: str) -> None:
    path, key_path = site.leaf(key())
    (fault,) = inspect(path, now=NOW, key=key_path, chain=site.chain(site.middle, site.root))
    assert fault.part is Part.CERTIFICATE
    assert words in str(fault.error)


def test_a_missing_key_is_told_with_the_variable(site: Site) -> None:
    path, _key = site.leaf()
    chain = site.chain(site.middle, site.root)
    (fault,) = inspect(path, now=NOW, key=site.directory / "none.key", chain=chain)
    assert "certificates_site_private_key" in str(fault.error)


def test_a_file_that_is_none_is_the_only_thing_told(site: Site) -> None:
    (site.directory / "list.txt").write_text("milk\n")
    assert found(site.directory / "list.txt", names=[NAME]) == [(Part.CERTIFICATE, "CERTIFICATE_UNREADABLE")]
    assert found(site.directory / "none.crt", names=[NAME]) == [(Part.CERTIFICATE, "CERTIFICATE_MISSING")]


def test_a_public_root_may_be_missing(site: Site) -> None:
    from scistream.certificates import inspection

    publics = list(inspection._public_authorities())
    assert len(publics) > 50
    root = next(each for each in publics if each.not_valid_after_utc > NOW)
    path = site.directory / "public.crt"
    path.write_bytes(_pem(root))
    assert found(path, chain=path) == []
