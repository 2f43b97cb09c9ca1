"""One authority after the other: who signs, who is trusted, and which step is refused."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scistream.certificates import Authorities, Step, issue, issue_ca, read
from scistream.errors import Code, SciStreamError

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    own = Authorities(tmp_path / "ca.crt", tmp_path / "ca.key")
    issue_ca(own.certificate, own.key, name="A facility", days=300, now=NOW)
    return own


def leaf(authorities: Authorities, name: str = "gateway") -> Path:
    path = authorities.certificate.parent / f"{name}.crt"
    issue(path, path.with_suffix(".key"), names=[name], days=30, ca=(authorities.certificate, authorities.key), now=NOW)
    return path


def take(authorities: Authorities, step: Step) -> tuple[str, ...]:
    """Take a step that lacks, as it was foreseen; whom clients trust then."""
    assert authorities.lacks(step)
    foreseen = authorities.foreseen(step)
    authorities.take(step, name="A facility", days=300, now=NOW)
    assert not authorities.lacks(step)
    trusted = authorities.trusted()
    assert all(one in {"", other} for one, other in zip(foreseen, trusted, strict=True))
    return trusted


def refusal(authorities: Authorities, step: Step) -> str:
    with pytest.raises(SciStreamError) as caught:
        authorities.lacks(step)
    assert caught.value.code is Code.AUTHORITY_STILL_NEEDED
    return str(caught.value)


def test_old_and_new_are_trusted_until_the_new_one_has_signed_everything(authorities: Authorities) -> None:
    (old,) = authorities.trusted()
    leaf(authorities)
    assert not authorities.lacks(Step.SWITCHED)
    assert not authorities.lacks(Step.FINISHED)
    _old, new = announced = take(authorities, Step.ANNOUNCED)
    assert announced == (old, new)
    assert "does not sign yet" in refusal(authorities, Step.FINISHED)
    assert take(authorities, Step.SWITCHED) == (new, old)
    assert "gateway.crt beside it would not be trusted any more" in refusal(authorities, Step.FINISHED)
    leaf(authorities)
    assert take(authorities, Step.FINISHED) == (new,)
    assert sorted(path.name for path in authorities.certificate.parent.iterdir()) == [
        "ca.crt",
        "ca.key",
        "gateway.crt",
        "gateway.key",
    ]


def test_the_switched_one_signs_and_its_key_is_the_owners_alone(authorities: Authorities) -> None:
    take(authorities, Step.ANNOUNCED)
    assert stat.S_IMODE(authorities.successor.key.stat().st_mode) == 0o600
    take(authorities, Step.SWITCHED)
    assert stat.S_IMODE(authorities.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(authorities.certificate.stat().st_mode) == 0o644
    assert read(leaf(authorities)).issuer == read(authorities.certificate).subject


def test_a_second_announcement_finds_the_first(authorities: Authorities) -> None:
    announced = take(authorities, Step.ANNOUNCED)
    authorities.take(Step.ANNOUNCED, name="A facility", days=300, now=NOW)
    assert authorities.trusted() == announced


def test_an_announcement_that_was_cut_short_is_completed(authorities: Authorities) -> None:
    before = authorities.certificate.read_bytes()
    announced = take(authorities, Step.ANNOUNCED)
    authorities.certificate.write_bytes(before)
    assert take(authorities, Step.ANNOUNCED) == announced


def test_one_that_is_replaced_stays_trusted_as_long_as_it_is_good(authorities: Authorities) -> None:
    (old,) = authorities.trusted()
    authorities.replace(name="A facility", days=300, now=NOW)
    new, kept = authorities.trusted()
    assert (kept, new != old) == (old, True)
    authorities.replace(name="A facility", days=300, now=NOW + timedelta(days=301))
    assert old not in authorities.trusted()


def test_the_announced_one_is_who_replaces(authorities: Authorities) -> None:
    old, new = take(authorities, Step.ANNOUNCED)
    authorities.replace(name="A facility", days=300, now=NOW)
    assert authorities.trusted() == (new, old)
