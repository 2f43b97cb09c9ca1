from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scistream.durations import parse_duration, spell_duration
from scistream.errors import Code, SciStreamError
from scistream.terms import MAX_LEASE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("8h", 28800), ("1h30m", 5400), (" 2D ", 172800), ("unlimited", 0)],
)
def test_a_duration_is_read_as_people_say_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-1", "nan", "inf", "soon", "30m8h", "8 h", "1e12", "9999999d", "٣"])
def test_what_is_no_duration_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        parse_duration(text)
    assert caught.value.code is Code.BAD_LEASE
    assert "30m, 8h or 1h30m" in caught.value.seen


@given(st.integers(1, int(MAX_LEASE)))
def test_a_whole_number_of_seconds_is_taken_as_it_is(seconds: int) -> None:
    assert parse_duration(str(seconds)) == parse_duration(f"{seconds}s") == seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (0, "0s"), (59.4, "59s"), (60, "1m00s"), (125, "2m05s"), (3600, "1h00m"), (86400 * 12 + 1, "12d00h")],
)
def test_a_duration_is_told_in_two_units(seconds: float, words: str) -> None:
    assert spell_duration(seconds) == words
