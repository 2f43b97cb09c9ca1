from __future__ import annotations

import stat
import threading
import uuid
from pathlib import Path

import pytest

from scistream.client.names import default_site_secret, parse_name, site_secret, uid_of
from scistream.errors import Code, SciStreamError
from scistream.terms import parse_uid

_SECRET = bytes(range(32))


def test_one_name_gives_one_uid_that_is_a_uuid_of_version_8() -> None:
    uid = uid_of("beamline 7", _SECRET)
    assert uid == uid_of("beamline 7", _SECRET) == parse_uid(uid)
    assert uuid.UUID(uid).version == 8
    assert uuid.UUID(uid).variant == uuid.RFC_4122


def test_the_uid_is_the_one_that_other_versions_must_give_too() -> None:
    # Fixed for good: another value would lose every named session at an upgrade.
    assert uid_of("beamline 7", _SECRET) == "ae56fdaa-a67f-89d4-be1c-92a64382906c"


def test_other_names_and_other_sites_give_other_uids() -> None:
    uids = {uid_of("a", _SECRET), uid_of("b", _SECRET), uid_of("a", bytes(32))}
    assert len(uids) == 3


def test_what_looks_the_same_is_the_same_name() -> None:
    assert uid_of("Zu\u0308rich", _SECRET) == uid_of("Z\u00fcrich", _SECRET)


@pytest.mark.parametrize("name", ["", "x" * 129, "two\nlines", " padded", "bell\a"])
def test_a_bad_name_is_told(name: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        parse_name(name)
    assert caught.value.code is Code.BAD_NAME
    assert "1 to 128 printable characters" in str(caught.value)


def test_the_site_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "config" / "scistream" / "site.secret"
    secret = site_secret(path)
    assert len(secret) == 32
    assert secret == site_secret(path) == site_secret(path, create=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["site.secret"]


def test_who_makes_the_site_secret_at_the_same_time_gets_the_same(tmp_path: Path) -> None:
    path, secrets = tmp_path / "site.secret", set()
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        secrets.add(site_secret(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 1


def test_a_missing_site_secret_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(SciStreamError) as caught:
        site_secret(tmp_path / "none", create=False)
    assert caught.value.code is Code.SITE_SECRET_UNREADABLE
    assert str(tmp_path / "none") in str(caught.value)


@pytest.mark.parametrize("content", ["", "f" * 63, "z" * 64, "f" * 64 + "\n\n"])
def test_a_damaged_site_secret_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "site.secret"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SciStreamError) as caught:
        site_secret(path)
    assert caught.value.code is Code.SITE_SECRET_UNREADABLE
    assert not content or content not in str(caught.value)


def test_the_default_place_follows_the_xdg_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_site_secret() == tmp_path / "scistream" / "site.secret"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_site_secret() == tmp_path / ".config" / "scistream" / "site.secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_site_secret_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.secret"
    site_secret(path)
    path.chmod(mode)
    with pytest.raises(SciStreamError) as caught:
        site_secret(path)
    assert caught.value.code is Code.SITE_SECRET_UNREADABLE
    assert f"chmod 600 {path}" in str(caught.value)
