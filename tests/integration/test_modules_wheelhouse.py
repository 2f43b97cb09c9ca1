"""Module wheelhouse, by real runs of Ansible: check, do, check again, do again; from each source, and what it refuses.

No package index is needed but in one test: `site` is a directory of wheels as a site without a way out has one, made of
what this Python has.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.scistream.core.plugins.module_utils._library_sources import pins

from ansible_runs import ROOT, Run, run_play, steps
from library_wheels import OFFLINE, make_wheels

_ACTION = "scistream.core.wheelhouse"
_LONG = 300


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of wheels, and the library's own among them."""
    directory = tmp_path_factory.mktemp("site")
    make_wheels(directory)
    return directory


def args(directory: Path, **more: Any) -> dict[str, Any]:
    return {"directory": str(directory / "wheelhouses"), **more}


def offline(site: Path) -> dict[str, str]:
    """How a site says that there is no index."""
    return OFFLINE | {"PIP_FIND_LINKS": str(site)}


def collect(directory: Path, tasks: list[dict[str, Any]], **environment: str) -> Run:
    return run_play(tasks, directory=directory, environment=environment)


@pytest.mark.timeout(_LONG)
def test_a_wheel_is_collected_once_and_then_nothing_is_done(tmp_path: Path, site: Path) -> None:
    wheel = str(site / "scistream-0.1.0-py3-none-any.whl")
    tasks = steps(_ACTION, args(tmp_path, source=wheel))
    # Who has it needs nothing more: no index, no directory.
    tasks[3]["environment"] = {"PIP_FIND_LINKS": "/nowhere"}
    run = collect(tmp_path, tasks, **offline(site))
    assert run.code == 0, run.output
    check, do, check_again, do_again = run.results
    assert [one.changed for one in run.results] == [True, True, False, False]
    assert check["diff"] == do["diff"]
    found = do["wheelhouse"]
    assert check["wheelhouse"] == found | {"size": 0, "wheels": []}
    assert check_again["wheelhouse"] == do_again["wheelhouse"] == found
    assert (found["version"], found["source"]) == ("0.1.0", f"the wheel {wheel}")
    with tarfile.open(found["path"]) as archive:
        entries = archive.getmembers()
    assert [each.name for each in entries] == found["wheels"]
    assert {(each.uid, each.uname, each.mtime) for each in entries} == {(0, "root", 0)}
    assert {name.split("-")[0].lower() for name in found["wheels"]} >= {"scistream", "grpcio", "pip", "psutil"}


@pytest.fixture
def own_library(tmp_path: Path, site: Path) -> Iterator[Path]:
    """A Python with Ansible and the library, installed from a wheel that is gone: no checkout, as at a site."""
    place = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    wheel = site / "scistream-0.1.0-py3-none-any.whl"
    shutil.unpack_archive(wheel, packages, "zip")
    with zipfile.ZipFile(wheel) as archive:
        names = [f"{name},," for name in archive.namelist()]
    (packages / "scistream-0.1.0.dist-info/RECORD").write_text("\n".join([*names, "../../../bin/s2cs,,", ""]))
    # All else is this Python's, less its own link to the checkout.
    ours = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    (packages / "ours.pth").write_text(f"{ours}\n")
    yield place / "bin/python"
    shutil.rmtree(place)


@pytest.mark.timeout(_LONG)
def test_a_library_without_its_wheel_is_put_together_again(tmp_path: Path, site: Path, own_library: Path) -> None:
    task = {
        "name": "collect",
        _ACTION: args(tmp_path),
        "vars": {"ansible_python_interpreter": str(own_library)},
    }
    run = collect(tmp_path, [task], **offline(site))
    assert run.code == 0, run.output
    found = run.named("collect")["wheelhouse"]
    assert found["source"] == "the library 0.1.0 that this Python has"
    with tarfile.open(found["path"]) as archive:
        archive.extract("scistream-0.1.0-py3-none-any.whl", tmp_path)
    with zipfile.ZipFile(tmp_path / "scistream-0.1.0-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        assert wheel.read("scistream/errors.py") == (ROOT / "src/scistream/errors.py").read_bytes()
    assert {"scistream-0.1.0.dist-info/RECORD", "scistream-0.1.0.dist-info/entry_points.txt"} <= names
    assert not [name for name in names if "bin/" in name or "__pycache__" in name]


@pytest.mark.timeout(_LONG)
@pytest.mark.outer_network
def test_a_checkout_is_built_and_leaves_no_trace_in_it(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        checkout.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    shutil.copytree(ROOT / "src/scistream", checkout / "src/scistream", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(checkout.rglob("*"))
    tasks = [{"name": "collect", _ACTION: args(tmp_path, source=str(checkout))}]
    run = collect(tmp_path, tasks)
    assert run.code == 0, run.output
    assert sorted(checkout.rglob("*")) == before
    (checkout / "src/scistream/places.py").write_text("# another version\n")
    again = collect(tmp_path, [{**tasks[0], "check_mode": True}])
    first, second = (each.named("collect")["wheelhouse"]["digest"] for each in (run, again))
    assert first != second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "/nowhere/scistream-1-py3-none-any.whl"}, "there is no such file"),
        ({"source": "/etc"}, "the directory has no pyproject.toml, or no src/scistream"),
        ({"source": "../scistream"}, "it is no directory with a pyproject.toml, no wheel file and no requirement"),
        ({"python_version": "3"}, "it is two numbers with a point between, such as 3.11"),
        ({"glibc": "new"}, "glibc = 'new' cannot be used"),
        ({"constraints": "/nowhere.txt"}, "constraints = '/nowhere.txt' cannot be used"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, options: dict[str, str], words: str) -> None:
    run = collect(tmp_path, [{"name": "collect", _ACTION: args(tmp_path, **options)}])
    failed = run.named("collect")
    assert failed.failure == "WHEELHOUSE_FAILED"
    assert words in failed["msg"]
    assert failed["msg"].endswith("and run it again.")
    assert not (tmp_path / "wheelhouses").exists()


def test_what_pip_cannot_find_is_told_with_the_next_step(tmp_path: Path, site: Path) -> None:
    asked = args(tmp_path, source="scistream == 99.0")
    run = collect(tmp_path, [{"name": "collect", _ACTION: asked}], **offline(site))
    failed = run.named("collect")
    assert failed.failure == "WHEELHOUSE_FAILED"
    assert "the requirement scistream == 99.0 cannot be collected for Python" in failed["msg"]
    assert "PIP_NO_INDEX=1 and PIP_FIND_LINKS" in failed["msg"]
    # Nothing half-made is taken for the whole.
    assert [path.name for path in (tmp_path / "wheelhouses").iterdir()] == [".lock"]


def test_a_half_made_wheelhouse_is_made_anew(tmp_path: Path, site: Path) -> None:
    task = {"name": "collect", _ACTION: args(tmp_path, source="scistream == 0.1.0")}
    first = collect(tmp_path, [task], **offline(site)).named("collect")["wheelhouse"]
    archive = Path(first["path"])
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with archive.open("r+b") as file:
        # Half of it was written.
        file.truncate(4096)
    again = collect(tmp_path, [task], **offline(site)).named("collect")
    assert again.changed
    words = f"The archive {archive} is not used, and the library is collected anew: it is not as it was collected."
    assert again["warnings"] == [words]
    assert again["wheelhouse"] == first
    assert json.loads(Path(first["path"]).with_name("wheelhouse.json").read_text())["digest"] == first["digest"]


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "wheelhouses"
    home.mkdir()
    home.chmod(0o770)
    failed = collect(tmp_path, [{"name": "collect", _ACTION: args(tmp_path)}]).named("collect")
    assert failed.failure == "WHEELHOUSE_FAILED"
    assert f"The directory {home} cannot be used: others can write it (mode 0770)" in failed["msg"]
    assert f"(chmod go-w {home}), or name another with library_controller_directory, and run it again." in failed["msg"]
    assert list(home.iterdir()) == []


def test_only_what_the_library_needs_is_a_reason_to_send_it_anew(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("# words\ngrpcio==1.85.1\nmatplotlib==1.0\nMarkupSafe==3.0.4\n")
    found = pins(file)
    assert {"grpcio==1.85.1", "MarkupSafe==3.0.4"} < set(found)
    assert not [line for line in found if line.startswith("matplotlib")]
    assert any(line.startswith("grpcio==") for line in pins(None))
