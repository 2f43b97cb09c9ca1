"""Files are there whole or not at all, and nothing temporary stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from scistream import atomic_files
from scistream.client import names
from scistream.errors import Code, SciStreamError


def _fail(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_written_is_private_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("an older one")
    atomic_files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    atomic_files.write(path, b"public", 0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_published_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        with atomic_files.prepare(path, content) as temporary:
            atomic_files.publish(temporary, path)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic_files.write(path, b"old")
    monkeypatch.setattr(os, "fsync", _fail)
    with pytest.raises(SciStreamError, match="No space left on device") as caught:
        atomic_files.write(path, b"new")
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_site_secret_that_cannot_be_written_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", _fail)
    with pytest.raises(SciStreamError) as caught:
        names.site_secret(tmp_path / "site.secret")
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_missing_is_named_and_told(tmp_path: Path) -> None:
    with pytest.raises(SciStreamError) as caught:
        atomic_files.write(tmp_path / "none" / "file", b"")
    assert str(tmp_path / "none" / "file") in str(caught.value)
    assert "Make the directory" in str(caught.value)
