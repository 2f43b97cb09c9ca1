from __future__ import annotations

import errno
import functools
import os
import stat
from pathlib import Path

import pytest

from scistream.control_server.appending import LineFile
from scistream.errors import Code, SciStreamError


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir())}


def test_u62_it_is_made_for_its_owner_alone_and_goes_on_where_it_was(tmp_path):
    for line in ("one\n", "two\n"):
        file = LineFile(tmp_path / "log")
        assert file.add(line)
        file.close()
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
    assert texts(tmp_path) == {"log": "one\ntwo\n"}


def test_a_full_one_is_put_aside_and_the_oldest_goes(tmp_path):
    file = LineFile(tmp_path / "log", size=8, generations=2)
    for number in range(7):
        file.add(f"n-{number}\n")
    assert texts(tmp_path) == {"log": "n-6\n", "log.1": "n-4\nn-5\n", "log.2": "n-2\nn-3\n"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_line_that_is_larger_than_the_file_is_written_all_the_same(tmp_path):
    file = LineFile(tmp_path / "log", size=4, generations=1)
    for line in ("a\n", "longer than that\n", "b\n"):
        assert file.add(line)
    assert texts(tmp_path) == {"log": "b\n", "log.1": "longer than that\n"}


@pytest.mark.parametrize("move", [lambda path: path.rename(path.with_suffix(".old")), Path.unlink])
def test_who_else_turns_it_is_heeded(tmp_path, move):
    file = LineFile(tmp_path / "log")
    file.add("one\n")
    move(tmp_path / "log")
    file.add("two\n")
    assert texts(tmp_path)["log"] == "two\n"


def test_where_it_cannot_be_turned_it_grows(tmp_path, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    file = LineFile(tmp_path / "log", size=4, generations=1)
    monkeypatch.setattr(Path, "rename", refuse)
    for line in ("one\n", "two\n", "three\n"):
        assert file.add(line)
    assert texts(tmp_path) == {"log": "one\ntwo\nthree\n"}
    monkeypatch.undo()
    file.add("four\n")
    assert texts(tmp_path) == {"log": "four\n", "log.1": "one\ntwo\nthree\n"}
    assert file.lost == 0


def test_a_full_disk_loses_whole_lines_counts_them_and_ends_nothing(tmp_path, monkeypatch):
    write = os.write

    def full(room: int, descriptor: int, data: bytes) -> int:
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:room])

    file = LineFile(tmp_path / "log")
    file.add("one\n")
    for room in (0, 2):
        monkeypatch.setattr(os, "write", functools.partial(full, room))
        assert not file.add("lost\n")
    monkeypatch.undo()
    assert file.add("two\n")
    assert texts(tmp_path) == {"log": "one\ntwo\n"}
    assert file.lost == 2


def test_after_its_end_nothing_is_written_anywhere(tmp_path):
    file = LineFile(tmp_path / "log")
    file.close()
    with (tmp_path / "another").open("wb"):
        assert not file.add("one\n")
    assert texts(tmp_path) == {"another": "", "log": ""}


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/dev/null"), os.mkfifo])
def test_what_is_no_file_of_its_own_is_refused(tmp_path, make):
    make(tmp_path / "log")
    with pytest.raises(SciStreamError) as raised:
        LineFile(tmp_path / "log")
    assert raised.value.code is Code.FILE_UNWRITABLE
