"""The truth table: one place for what engines can do, and the same sentence wherever it is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from scistream.engines import ENGINES, guarding
from scistream.engines.abilities import Wishes, abilities, protection, require
from scistream.engines.base import Feature
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def able(monkeypatch):
    """Engines on a host where nothing is missing."""
    for engine in ENGINES.values():
        monkeypatch.setattr(type(engine), "shortfall", lambda self: "")
        monkeypatch.setattr(type(engine), "locate", lambda self: None)
    return ENGINES


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
def test_the_table_says_what_the_engine_declares(engine):
    has = set(engine.encryptions)
    assert (Feature.PLAIN in engine.cannot) is (Encryption.NONE not in has)
    assert (Feature.TLS in engine.cannot) is has.isdisjoint({Encryption.TLS, Encryption.TLS_PSK})
    assert (Feature.LEGACY_PSK in engine.cannot) is (Encryption.LEGACY_PSK not in has)
    assert (Feature.UDP in engine.cannot) is (Transport.UDP not in engine.transports)
    assert all(words and words[0].islower() and not words.endswith(".") for words in engine.cannot.values())


@pytest.mark.parametrize(
    ("name", "wishes", "feature"),
    [
        ("haproxy", Wishes(encryption=Encryption.NONE, transport=Transport.UDP), Feature.UDP),
        ("stunnel", Wishes(encryption=Encryption.NONE), Feature.PLAIN),
        ("stunnel", Wishes(encryption=Encryption.TLS, half_close=True), Feature.HALF_CLOSE),
        ("stunnel", Wishes(encryption=Encryption.TLS, peer="nginx"), Feature.TLS_WITH_NGINX),
        ("nftables", Wishes(encryption=Encryption.TLS), Feature.TLS),
        ("haproxy", Wishes(encryption=Encryption.LEGACY_PSK), Feature.LEGACY_PSK),
    ],
)
def test_u63_u72_what_an_engine_cannot_do_is_refused_with_its_line_of_the_table(able, name, wishes, feature):
    engine = able[name]
    with pytest.raises(SciStreamError) as caught:
        require(engine, wishes)
    told = next(each for each in abilities(engine) if each.feature is feature)
    assert not told.can
    assert (caught.value.code, caught.value.facts["reason"]) == (Code.ENGINE_CANNOT, told.words)


def test_u57_a_rate_is_refused_with_what_this_host_lacks(able, monkeypatch):
    monkeypatch.setattr(type(able["haproxy"]), "rate_shortfall", lambda self: "no tc here")
    with pytest.raises(SciStreamError) as caught:
        require(able["haproxy"], Wishes(encryption=Encryption.NONE, rate=True))
    assert caught.value.facts["reason"] == "no tc here"
    monkeypatch.setattr(type(able["haproxy"]), "rate_shortfall", lambda self: "")
    require(able["haproxy"], Wishes(encryption=Encryption.NONE, rate=True))


def test_u03_a_source_list_that_the_kernel_would_keep_is_refused_with_what_this_host_lacks(able, monkeypatch):
    stunnel, wishes = able["stunnel"], Wishes(encryption=Encryption.TLS, sources=True)
    monkeypatch.setattr(guarding, "missing", lambda: "no nft here")
    with pytest.raises(SciStreamError) as caught:
        require(stunnel, wishes)
    assert (caught.value.code, caught.value.facts["reason"]) == (Code.ENGINE_CANNOT, "no nft here")
    assert next(each.words for each in abilities(stunnel) if each.feature is Feature.SOURCES) == "no nft here"
    # The others have lists of their own.
    for name in ("haproxy", "nginx"):
        require(able[name], wishes)
    monkeypatch.setattr(guarding, "missing", lambda: "")
    require(stunnel, wishes)


def test_an_engine_that_cannot_work_here_at_all_refuses_everything_with_that(able, monkeypatch):
    monkeypatch.setattr(type(able["nftables"]), "shortfall", lambda self: "no forwarding")
    with pytest.raises(SciStreamError) as caught:
        require(able["nftables"], Wishes(encryption=Encryption.NONE))
    assert caught.value.facts["reason"] == "no forwarding"
    assert {each.words for each in abilities(able["nftables"])} == {"no forwarding"}


def test_udp_is_never_promised_to_be_encrypted(able):
    with pytest.raises(SciStreamError) as caught:
        require(able["nginx"], Wishes(encryption=Encryption.TLS, transport=Transport.UDP))
    assert "UDP goes unencrypted" in caught.value.seen
    require(able["nginx"], Wishes(encryption=Encryption.NONE, transport=Transport.UDP))


@pytest.mark.parametrize(
    ("name", "asked", "direction", "given"),
    [
        ("haproxy", Encryption.TLS, Direction.INBOUND, Encryption.TLS),
        ("stunnel", Encryption.TLS, Direction.INBOUND, Encryption.TLS_PSK),
        # The outbound end is told what the inbound one has.
        ("haproxy", Encryption.TLS, Direction.OUTBOUND, Encryption.TLS),
        ("stunnel", Encryption.TLS_PSK, Direction.OUTBOUND, Encryption.TLS_PSK),
        ("nginx", Encryption.NONE, Direction.OUTBOUND, Encryption.NONE),
    ],
)
def test_what_tls_means_is_the_inbound_engines_to_say(name, asked, direction, given):
    assert protection(ENGINES[name], asked, direction) is given


def test_u72_an_outbound_engine_that_does_not_work_with_every_other_one_has_to_be_told_which_it_is():
    stunnel, asked = ENGINES["stunnel"], (Encryption.TLS, Direction.OUTBOUND)
    assert protection(stunnel, *asked, "haproxy") is Encryption.TLS
    with pytest.raises(SciStreamError) as caught:
        protection(stunnel, *asked)
    assert caught.value.code is Code.ENGINE_CANNOT
    words = "Stunnel cannot do what was asked: which engine the inbound gateway has was not told; the last bytes"
    assert caught.value.seen.startswith(words)
    # Of one that it works with in other ways, too.
    assert protection(stunnel, Encryption.TLS_PSK, Direction.OUTBOUND) is Encryption.TLS_PSK


def test_an_outbound_engine_without_the_inbound_ones_encryption_says_so():
    with pytest.raises(SciStreamError) as caught:
        protection(ENGINES["haproxy"], Encryption.TLS_PSK, Direction.OUTBOUND)
    assert caught.value.seen.endswith("the inbound gateway's encryption is tls-psk, and this has no such thing")


def test_the_page_shows_the_table_as_it_is():
    # Where it does not: python tools/engines_page.py
    spec = importlib.util.spec_from_file_location("engines_page", ROOT / "tools" / "engines_page.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = (ROOT / "docs" / "engines.md").read_text()
    assert page._drawn(text) == text
