"""Which releases of the library count as running: those that are there, by their whole path."""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

_LOOK = Path(__file__).parents[2] / "roles/library/files/look.py"
_RELEASE = "fda0a385a961e15b"

_spec = importlib.util.spec_from_file_location("library_look", _LOOK)
assert _spec
assert _spec.loader
look = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(look)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """This process has a file in its memory, as one has its libraries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        yield


def found(library: Path) -> list[str]:
    """The releases that are said to run."""
    running: list[str] = look.of_library(library, library / "bin")["running"]
    return running


def test_a_release_runs_that_a_process_has_files_of(tmp_path: Path) -> None:
    with mapped(tmp_path / "releases" / _RELEASE / "lib.so"):
        assert found(tmp_path) == [_RELEASE]


@pytest.mark.parametrize("name", ["evil name", "..", "not-a-digest", "{{ evil }}"])
def test_what_is_called_otherwise_is_none(tmp_path: Path, name: str) -> None:
    with mapped(tmp_path / "releases" / name / "lib.so"):
        assert found(tmp_path) == []


def test_a_path_that_ends_as_the_librarys_is_another(tmp_path: Path) -> None:
    (tmp_path / "releases" / _RELEASE).mkdir(parents=True)
    with mapped(Path(f"{tmp_path}/copy{tmp_path}/releases/{_RELEASE}/lib.so")):
        assert found(tmp_path) == []


def test_a_release_that_is_gone_runs_no_more(tmp_path: Path) -> None:
    place = tmp_path / "releases" / _RELEASE
    with mapped(place / "lib.so"):
        (place / "lib.so").unlink()
        place.rmdir()
        assert found(tmp_path) == []
