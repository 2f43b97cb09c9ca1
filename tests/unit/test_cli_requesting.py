"""What the words of a command line ask for: encryption, the ticket that is at hand, and what they contradict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from scistream.addresses import Endpoint, parse_networks
from scistream.cli import s2uc
from scistream.client import SessionRequest, Ticket, kept_ticket, place_for, tickets
from scistream.errors import Code, SciStreamError
from scistream.terms import MOCK_UID, Direction, Encryption, Transport, Uid

_UID = Uid("abc")
_ENTRY_POINTS = (Endpoint("192.0.2.7", 5100),)
_KEY = bytes(range(32))

Asked = Callable[..., SessionRequest]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """What a command line asks for; `defaults` is a file s2uc.toml."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    found: list[SessionRequest] = []
    monkeypatch.setattr(s2uc, "_open", lambda request, options, wait=None: found.append(request))

    def ask(*words: str, defaults: str = "") -> SessionRequest:
        config = tmp_path / "s2uc.toml"
        config.write_text(defaults)
        done = CliRunner().invoke(s2uc.command, ["--config", str(config), *words], standalone_mode=False)
        if done.exception:
            raise done.exception
        return found.pop()

    return ask


def _keep(path: Path | None = None, **changes: Any) -> Path:
    facts = {"key": _KEY, "encryption": Encryption.TLS_PSK} | changes
    place = path or place_for(_UID)
    assert place
    tickets.write(place, Ticket(_UID, "", _ENTRY_POINTS, 1, Endpoint("a.example", 5000), _ENTRY_POINTS, **facts))
    return place


def _refusal(asked: Asked, code: Code, *words: str, **more: str) -> str:
    with pytest.raises(SciStreamError) as caught:
        asked(*words, **more)
    assert caught.value.code is code
    return str(caught.value)


@pytest.mark.parametrize("command", ["inbound-request", "prod-req"])
def test_u02_a_session_is_encrypted_unless_somebody_says_otherwise(asked: Asked, command: str) -> None:
    assert asked(command).encryption is Encryption.TLS
    assert asked(command, "--encryption", "none").encryption is Encryption.NONE
    assert asked(command, "--encryption=TLS").encryption is Encryption.TLS
    assert asked(command, "--legacy-psk").encryption is Encryption.LEGACY_PSK


def test_wishes_are_those_of_the_command_line(asked: Asked) -> None:
    words = ["--encryption=none", "--transport=udp", "--sources", "192.0.2.7,2001:db8::/32", "--half-close", "--rate=7"]
    request = asked("inbound-request", *words)
    assert request.sources == parse_networks("192.0.2.7,2001:db8::/32")
    assert (request.transport, request.half_close, request.rate) == (Transport.UDP, True, 7)
    plain = asked("inbound-request")
    assert (plain.transport, plain.sources, plain.half_close, plain.rate) == (Transport.TCP, (), False, 0)
    assert "has host bits set" in _refusal(asked, Code.BAD_SOURCES, "inbound-request", "--sources", "192.0.2.7/24")
    _refusal(asked, Code.UDP_UNENCRYPTED, "inbound-request", "--transport=udp")


def test_a_users_own_defaults_count(asked: Asked) -> None:
    defaults = 'encryption = "none"\nsources = "192.0.2.0/24"\nhalf-close = true\n[prod-req]\nencryption = "tls"\n'
    request = asked("inbound-request", defaults=defaults)
    assert (request.encryption, request.half_close) == (Encryption.NONE, True)
    assert request.sources == parse_networks("192.0.2.0/24")
    assert asked("prod-req", defaults=defaults).encryption is Encryption.TLS
    words = _refusal(asked, Code.BAD_CONFIGURATION, "inbound-request", defaults='encryption = "rot13"')
    assert "'rot13' is not one of 'tls', 'none'" in words


@pytest.mark.parametrize("command", ["inbound-request", "prod-req"])
@pytest.mark.parametrize("words", [(), ("--encryption=tls",), ("--legacy-psk",)])
def test_u06_the_mock_uid_is_never_encrypted_and_that_is_said_early(
    asked: Asked, command: str, words: tuple[str, ...]
) -> None:
    told = _refusal(asked, Code.UID_PUBLISHED, command, "--mock", "True", *words)
    assert "is the fixed one of --mock, which is published" in told
    assert "Leave --mock out for a uid of its own, or say --encryption none" in told
    assert asked(command, "--mock", "--encryption", "none").uid == MOCK_UID


def test_u06_an_outbound_end_of_the_mock_uid_is_refused_likewise(asked: Asked) -> None:
    _refusal(asked, Code.UID_PUBLISHED, "outbound-request", MOCK_UID, "192.0.2.7:5100")
    request = asked("outbound-request", MOCK_UID, "192.0.2.7:5100", "--encryption", "none")
    assert (request.uid, request.key) == (MOCK_UID, None)


def test_u06_nothing_is_kept_for_a_uid_that_is_everybodys(asked: Asked) -> None:
    mock, server = Uid(MOCK_UID), Endpoint("a.example", 5000)
    assert place_for(mock) is None
    tickets.write(tickets.place_of(mock), Ticket(mock, "", _ENTRY_POINTS, 1, server, _ENTRY_POINTS, _KEY))
    assert kept_ticket(mock) is None
    request = asked("outbound-request", mock, "192.0.2.7:5100", "--encryption", "none")
    assert (request.key, request.other_is_ours) == (None, False)


def test_the_ticket_that_was_kept_is_found_by_the_uid(asked: Asked) -> None:
    _keep()
    by_words = asked("outbound-request", _UID, "198.51.100.1:7000,198.51.100.1:7001")
    assert (by_words.key, by_words.encryption) == (_KEY, Encryption.TLS_PSK)
    # Where they are said, the listeners count: a relay may stand between.
    assert by_words.targets == (Endpoint("198.51.100.1", 7000), Endpoint("198.51.100.1", 7001))
    assert by_words.connections == 2
    alone = asked("outbound-request", _UID)
    assert (alone.targets, alone.key, alone.direction) == (_ENTRY_POINTS, _KEY, Direction.OUTBOUND)


def test_listeners_win_over_a_tickets_entry_points(asked: Asked, tmp_path: Path) -> None:
    path = str(_keep(tmp_path / "t.json"))
    for words in (["198.51.100.1:7000"], [_UID, "198.51.100.1:7000"]):
        request = asked("outbound-request", *words, "--ticket", path)
        assert (request.targets, request.key) == ((Endpoint("198.51.100.1", 7000),), _KEY)
    for words in ([], [_UID]):
        assert asked("outbound-request", *words, "--ticket", path).targets == _ENTRY_POINTS
    with pytest.raises(click.UsageError, match="The ticket is of session abc, and other was said"):
        asked("outbound-request", "other", "192.0.2.7:1", "--ticket", path)


def test_without_its_ticket_an_encrypted_stream_is_refused_with_what_to_type(asked: Asked) -> None:
    told = _refusal(asked, Code.SESSION_KEY_MISSING, "outbound-request", _UID, "192.0.2.7:5100")
    assert "Take the ticket from whoever opened the inbound end (~/.local/state/scistream/tickets/abc" in told
    assert "s2uc outbound-request --ticket FILE" in told
    for word in (["--encryption", "none"], ["--legacy-psk"]):
        assert asked("outbound-request", _UID, "192.0.2.7:5100", *word).key is None


def test_what_contradicts_the_ticket_is_refused(asked: Asked) -> None:
    words = ["outbound-request", _UID]
    _keep()
    _refusal(asked, Code.ENCRYPTION_MISMATCH, *words, "--encryption", "none")
    _refusal(asked, Code.LEGACY_PSK_REFUSED, *words, "--legacy-psk")
    _refusal(asked, Code.TRANSPORT_MISMATCH, *words, "--transport", "udp")
    # A user's own default is for sessions of which nothing is known.
    assert asked(*words, defaults='encryption = "none"').encryption is Encryption.TLS_PSK
    _keep(key=None, encryption=Encryption.NONE)
    assert asked(*words).encryption is Encryption.NONE
    _refusal(asked, Code.ENCRYPTION_MISMATCH, *words, "--encryption", "tls")
    _refusal(asked, Code.ENCRYPTION_MISMATCH, *words, defaults='encryption = "tls"')


_LEGACY_DEFAULT = "legacy-psk = true"


def test_u01_legacy_psk_goes_with_the_ticket_of_a_deployed_end_where_it_is_said(asked: Asked) -> None:
    place = str(_keep(key=None, encryption=Encryption.LEGACY_PSK, deployed=True))
    for words in ([_UID], ["--ticket", place]):
        for said, defaults in (["--legacy-psk"], ""), ([], _LEGACY_DEFAULT):
            request = asked("outbound-request", *words, *said, defaults=defaults)
            assert (request.encryption, request.other_is_ours) == (Encryption.LEGACY_PSK, False)
        for defaults in ("", 'encryption = "none"'):
            told = _refusal(asked, Code.LEGACY_PSK_UNASKED, "outbound-request", *words, defaults=defaults)
            assert "say --legacy-psk as well" in told


@pytest.mark.parametrize(
    ("defaults", "said", "taken"),
    [
        (_LEGACY_DEFAULT, "--encryption=tls", Encryption.TLS),
        (_LEGACY_DEFAULT, "--encryption=none", Encryption.NONE),
        ('encryption = "none"', "--legacy-psk", Encryption.LEGACY_PSK),
        ('encryption = "tls"', "--legacy-psk", Encryption.LEGACY_PSK),
    ],
)
def test_the_command_lines_word_wins_over_the_files(asked: Asked, defaults: str, said: str, taken: Encryption) -> None:
    assert asked("inbound-request", said, defaults=defaults).encryption is taken
    assert asked("outbound-request", _UID, "192.0.2.7:1", "--encryption=none", defaults=_LEGACY_DEFAULT).key is None


@pytest.mark.parametrize(("words", "defaults"), [(["--legacy-psk", "--encryption=tls"], ""), ([], "both")])
def test_two_wishes_of_one_place_are_refused(asked: Asked, words: list[str], defaults: str) -> None:
    both = f'{_LEGACY_DEFAULT}\nencryption = "none"' if defaults else ""
    with pytest.raises(click.UsageError, match="--legacy-psk and --encryption are two wishes; say one of them"):
        asked("inbound-request", *words, defaults=both)


@pytest.mark.parametrize("encryption", [Encryption.NONE, Encryption.TLS, Encryption.TLS_PSK])
def test_what_a_ticket_says_wins_over_a_users_defaults(asked: Asked, encryption: Encryption) -> None:
    _keep(key=_KEY if encryption.needs_key else None, encryption=encryption)
    for defaults in (_LEGACY_DEFAULT, 'encryption = "none"', 'transport = "udp"'):
        request = asked("outbound-request", _UID, defaults=defaults)
        assert (request.encryption, request.transport) == (encryption, Transport.TCP)
    _keep(key=None, encryption=Encryption.NONE, transport=Transport.UDP)
    assert asked("outbound-request", _UID, defaults='transport = "tcp"').transport is Transport.UDP
    _refusal(asked, Code.TRANSPORT_MISMATCH, "outbound-request", _UID, "--transport=tcp")


def test_u02_who_wrote_tls_down_is_not_given_less_by_a_ticket(asked: Asked) -> None:
    _keep(key=None, encryption=Encryption.NONE)
    _refusal(asked, Code.ENCRYPTION_MISMATCH, "outbound-request", _UID, defaults='encryption = "tls"')
    assert asked("outbound-request", _UID, "--encryption=none", defaults='encryption = "tls"').key is None
