"""What people read: tables that fit, units, cards."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from scistream.addresses import Endpoint
from scistream.cli.tables import card, event_line, server_card, session_table, spell_bytes
from scistream.client import Session, SessionEvent, Traffic
from scistream.client.facts import read_facts
from scistream.protocol import operations_pb2 as wire
from scistream.terms import Direction, Uid

_UID = Uid("7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48")
_ENTRY_POINTS = ("192.168.110.211:51000", "192.168.110.211:51001")
_TARGETS = (Endpoint("192.168.210.111", 47000),)
_NOW = 1_800_000_000.0
_SESSION = replace(
    Session.untold(_UID, Direction.OUTBOUND, _ENTRY_POINTS, _TARGETS, 2, 0),
    engine="haproxy",
    encryption="none",
    owner="NO_AUTH",
    opened=_NOW - 7500,
    lease_expires=_NOW + 21300,
    traffic=Traffic(3, 12, 1_250_000_000, 40),
)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (1_250_000_000, "1.25 GB"),
        (43 * 10**12, "43.0 TB"),
        (2 * 10**17, "200 PB"),
    ],
)
def test_bytes_are_told_with_three_figures(number: int, words: str) -> None:
    assert spell_bytes(number) == words


def test_what_is_piped_is_a_line_a_session_and_whole() -> None:
    head, first, second = session_table(
        [_SESSION, replace(_SESSION, state="failed")], now=_NOW, width=None
    ).splitlines()
    columns = "UID DIRECTION STATE ENGINE ENCRYPTION AGE LEASE OPEN BYTES OWNER PATHS"
    assert head.split() == columns.split()
    paths = "192.168.110.211:51000 -> 192.168.210.111:47000, 192.168.110.211:51001 -> 192.168.210.111:47000"
    figures = ["active", "haproxy", "NOT ENCRYPTED", "2h05m", "5h55m", "3", "1.25 GB", "NO_AUTH", paths]
    assert re.split(r"  +", first) == [_UID, "outbound", *figures]
    assert "failed" in second
    assert "\x1b" not in first + second


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_fits_its_terminal_and_cuts_no_uid_and_no_address(width: int) -> None:
    lines = _STYLE.sub("", session_table([_SESSION], now=_NOW, width=width)).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in (_UID, *_ENTRY_POINTS, "192.168.210.111:47000", "active", "outbound", "NO_AUTH", "1.25 GB"):
        assert word in text


def test_words_of_a_control_server_are_no_markup() -> None:
    hostile = replace(_SESSION, owner="[red]nobody[/red] :smile:", engine="[bold]")
    table = session_table([hostile], now=_NOW, width=None)
    assert "[red]nobody[/red] :smile:" in table
    assert "[bold]" in table


def test_a_card_tells_everything_that_is_known() -> None:
    told = card(replace(_SESSION, state="failed", failure="haproxy ended", restarts=2, rate=7), now=_NOW)
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in told.splitlines() if not line.startswith(" "))
    assert facts["session"] == _UID
    assert facts["failure"] == "haproxy ended"
    assert facts["connections"] == "3 open, 12 in all"
    assert facts["bytes"] == "1.25 GB to the targets, 40 B from them"
    assert facts["lease"].endswith("(5h55m left)")
    assert (facts["restarts"], facts["rate"]) == ("2", "7 kb/s")
    assert facts["owner"] == "NO_AUTH: this control server authenticates nobody"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, {"encryption": "NOT ENCRYPTED", "transport": "tcp"}),
        ({"encryption": "legacy-psk"}, {"encryption": "NOT ENCRYPTED (legacy-psk)"}),
        (
            {"encryption": "tls", "traffic": Traffic()},
            {"encryption": "tls", "cipher": "not negotiated yet", "peer": "not negotiated yet"},
        ),
        (
            {"encryption": "tls", "traffic": Traffic(0, 1, 7, 7)},
            {"cipher": "not told by this engine here, or no", "peer": "not told by this engine here, or no"},
        ),
        (
            {"encryption": "tls", "cipher": "TLS_AES_128_GCM_SHA256", "peer": "inbound abc"},
            {"cipher": "TLS_AES_128_GCM_SHA256", "peer": "inbound abc"},
        ),
        (
            {"transport": "udp", "sources": ("192.0.2.0/24", "::1/128"), "half_close": True},
            {"transport": "udp", "sources": "192.0.2.0/24, ::1/128", "half-close": "every byte is kept"},
        ),
        ({"warnings": ("one is", "two are")}, {"warnings": "one is\n              two are"}),
    ],
)
def test_u02_a_card_tells_how_the_bytes_are_protected(changes: dict[str, Any], told: dict[str, str]) -> None:
    lines = card(replace(_SESSION, **changes), now=_NOW)
    for name, words in told.items():
        assert re.search(rf"^{name} +{re.escape(words)}", lines, re.MULTILINE), lines
    if not changes:
        assert "cipher" not in lines


@pytest.mark.parametrize("width", [None, 80, 200])
def test_u02_a_list_marks_what_is_not_encrypted(width: int | None) -> None:
    sessions = [replace(_SESSION, encryption=word) for word in ("none", "legacy-psk", "tls", "tls-psk", "")]
    text = session_table(sessions, now=_NOW, width=width)
    assert text.count("NOT ENCRYPTED") == 2
    assert text.count("NOT ENCRYPTED (legacy-psk)") == 1
    assert ("\x1b[1;31mNOT ENCRYPTED" in text) == (width is not None)


def test_a_card_leaves_out_what_is_not_there() -> None:
    told = card(replace(_SESSION, lease_expires=0.0), now=_NOW)
    names = [line.split("  ")[0] for line in told.splitlines()]
    assert {"failure", "restarts", "rate", "refused peers", "idle since"}.isdisjoint(names)
    assert re.search("^lease +no end$", told, re.MULTILINE)


def test_u13_a_server_that_authenticates_nobody_says_so() -> None:
    facts = wire.ServerFacts(version="0.1.0", authentication="NO_AUTH", engine="haproxy", warnings=["one", "two"])
    told = server_card("gateway.example:5000", read_facts(facts), now=_NOW)
    assert "NO_AUTH: whoever reaches it may do everything" in told
    assert re.search(r"^warnings +one\n +two$", told, re.MULTILINE)


def test_an_event_is_one_line() -> None:
    line = event_line(SessionEvent(_NOW, "released", replace(_SESSION, state="released"), "the lease ended"))
    assert f"released   {_UID} outbound NOT ENCRYPTED  192.168.110.211:51000 -> " in line
    assert line.endswith(": the lease ended")
    encrypted = replace(_SESSION, state="failed", encryption="tls")
    assert " failed  192.168" in event_line(SessionEvent(_NOW, "lost", encrypted))
    assert "\n" not in line
