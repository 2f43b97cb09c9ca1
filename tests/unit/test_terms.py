"""The words, and the old words at the edges."""

from __future__ import annotations

import pytest

from scistream.errors import Code, SciStreamError
from scistream.terms import MAX_LEASE, Direction, parse_connections, parse_direction, parse_lease, parse_rate, parse_uid


@pytest.mark.parametrize("word", ["inbound", "PROD", "prod", " Inbound "])
def test_old_and_new_words_for_inbound(word: str) -> None:
    assert parse_direction(word) is Direction.INBOUND


def test_direction_has_its_wire_role() -> None:
    assert {direction: direction.role for direction in Direction} == {
        Direction.INBOUND: "PROD",
        Direction.OUTBOUND: "CONS",
    }


@pytest.mark.parametrize("word", ["", "PRODUCER", "cons\n!"])
def test_u35_a_role_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(SciStreamError, match="is not a direction") as caught:
        parse_direction(word)
    assert caught.value.code is Code.BAD_ROLE


@pytest.mark.parametrize("uid", ["a", "4f8583bc-a4d3-11ee-9fd6-034d1fcbd7c3", "x" * 64])
def test_uids(uid: str) -> None:
    assert parse_uid(uid) == uid


@pytest.mark.parametrize("uid", ["", "../x", "a/b", "a.b", "x" * 65, "a\n", "a\x00", "ü", "a b", "..", "a_b"])
def test_u08_a_uid_is_never_a_path(uid: str) -> None:
    with pytest.raises(SciStreamError, match="is not a uid") as caught:
        parse_uid(uid)
    assert caught.value.code is Code.BAD_UID


@pytest.mark.parametrize("number", [0, -1, 1025, 10**6])
def test_u26_connections_have_bounds(number: int) -> None:
    with pytest.raises(SciStreamError, match=f"{number} connections") as caught:
        parse_connections(number)
    assert caught.value.code is Code.BAD_CONNECTIONS


def test_bounds_themselves_are_allowed() -> None:
    assert [parse_connections(number) for number in (1, 1024)] == [1, 1024]
    assert parse_rate(1) == 1


@pytest.mark.parametrize(
    "text", ["1_0", "1_000.5", " 10", "10 ", "+10", "\u0661\u0660", "0x10", "nan", "-1", "", "0.5"]
)
def test_a_lease_is_a_number_as_people_write_it(text: str) -> None:
    with pytest.raises(SciStreamError) as raised:
        parse_lease(text)
    assert (raised.value.code, raised.value.facts["lease"]) == (Code.BAD_LEASE, repr(text))


@pytest.mark.parametrize("seconds", [0.0, 1.0, 90.5, MAX_LEASE])
def test_a_lease_is_read_as_clients_write_it(seconds: float) -> None:
    assert parse_lease(str(seconds)) == parse_lease(f"{seconds:g}") == seconds


@pytest.mark.parametrize("rate", [0, -10000, 2**31])
def test_rate_has_bounds(rate: int) -> None:
    with pytest.raises(SciStreamError, match=f"{rate} kb/s"):
        parse_rate(rate)
