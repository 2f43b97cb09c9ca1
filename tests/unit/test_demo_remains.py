"""What the demo removes is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from scistream.demo.remains import look, main, mark_directory, remove_directory
from scistream.errors import Code, SciStreamError


def test_a_directory_that_no_demo_made_is_never_removed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("ten years of work")
    for step in (mark_directory, remove_directory):
        with pytest.raises(SciStreamError, match=f"the directory {mine} is there, and no demo made it") as caught:
            step(mine)
        assert caught.value.code is Code.DEMO_DIRECTORY_FOREIGN
    assert (mine / "thesis.txt").read_text() == "ten years of work"


def test_a_demos_directory_goes_with_everything_in_it(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    mark_directory(directory)
    mark_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    (directory / "facility_a").mkdir()
    remove_directory(directory)
    remove_directory(directory)
    assert not directory.exists()


def test_files_that_are_left_are_named(tmp_path: Path) -> None:
    mark_directory(tmp_path / "demo")
    assert look(tmp_path / "demo", ports=()).files == (str(tmp_path / "demo"),)
    result = CliRunner().invoke(main, [str(tmp_path / "demo")])
    assert isinstance(result.exception, SciStreamError)
    assert str(tmp_path / "demo") in str(result.exception)
