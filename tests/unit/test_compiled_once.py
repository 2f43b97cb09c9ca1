"""What the integration tests' Pythons do with modules out of zip files (tests/compiled_once)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[1] / "compiled_once/sitecustomize.py"
_IMPORT = "import thing; print(thing.told()); print(thing.told.__code__.co_filename)"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The directory for PYTHONPATH: a copy, whose cache is the test's own."""
    directory = tmp_path / "tests/compiled_once"
    directory.mkdir(parents=True)
    shutil.copy(_FILE, directory)
    return directory


def _told(python: Path, archive: Path, source: str) -> list[str]:
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("thing.py", source)
    environment = os.environ | {"PYTHONPATH": f"{python}:{archive}"}
    done = subprocess.run([sys.executable, "-c", _IMPORT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_source_is_compiled_once_and_says_where_it_is_from(tmp_path: Path, python: Path) -> None:
    source = "def told():\n    return 'one'\n"
    kept = tmp_path / ".cache/compiled"
    for archive in (tmp_path / "a.zip", tmp_path / "b.zip"):
        assert _told(python, archive, source) == ["one", f"{archive}/thing.py"]
        assert len(list(kept.iterdir())) == 1
    # It is read, and not only written.
    (code,) = kept.iterdir()
    other = next(iter(set(_kept_after(tmp_path, python, source.replace("one", "two"))) - {code}))
    code.write_bytes(other.read_bytes())
    assert _told(python, tmp_path / "a.zip", source)[0] == "two"


def _kept_after(tmp_path: Path, python: Path, source: str) -> list[Path]:
    assert _told(python, tmp_path / "a.zip", source)[0] == "two"
    return list((tmp_path / ".cache/compiled").iterdir())


def test_what_was_kept_by_halves_is_compiled_anew(tmp_path: Path, python: Path) -> None:
    source = "def told():\n    return 'one'\n"
    _told(python, tmp_path / "a.zip", source)
    (code,) = (tmp_path / ".cache/compiled").iterdir()
    whole = code.read_bytes()
    code.write_bytes(whole[: len(whole) // 2])
    assert _told(python, tmp_path / "a.zip", source)[0] == "one"
    assert code.read_bytes() == whole
