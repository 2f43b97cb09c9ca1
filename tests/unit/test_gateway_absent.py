"""What roles make and take away with others' things beside it: theirs, and nothing of the site's."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from scistream.control_server.ballast import Ballast
from scistream.control_server.restoring import _JOURNAL
from scistream.control_server.salvage import open_journal
from scistream.control_server.state_directory import StateDirectory, log_of

_ROLES = Path(__file__).parents[2] / "roles"
_ROLE = _ROLES / "control_server"
_OWN = yaml.safe_load((_ROLE / "vars/main.yml").read_text())["control_server_own_files"]


def is_own(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _OWN)


def test_all_that_the_control_server_writes_goes(tmp_path: Path) -> None:
    (tmp_path / _JOURNAL).write_text("damaged")
    with StateDirectory(tmp_path):
        journal, _ = open_journal(tmp_path / _JOURNAL, "boot")
        Ballast(tmp_path / "journal.ballast").fill()
        log_of(tmp_path).touch()
        found = {path.name for path in tmp_path.iterdir()}
        journal.close()
    assert any(".damaged-" in name for name in found)
    assert {name for name in found if not is_own(name)} == set()


@pytest.mark.parametrize(
    "name", ["journal.md", "journal.sqlite3.bak", "s2cs.toml", "s2cs.lock.old", "s2cs.log.1", "notes"]
)
def test_what_is_called_alike_stays(name: str) -> None:
    assert not is_own(name)


def test_the_role_goes_by_these_names() -> None:
    tasks = yaml.safe_load((_ROLE / "tasks/absent.yml").read_text())
    patterns = [task["ansible.builtin.find"]["patterns"] for task in tasks if "ansible.builtin.find" in task]
    assert patterns == ["{{ control_server_own_files }}"]


def tasks_of(path: Path) -> Iterator[dict[str, Any]]:
    """A file's tasks, those in blocks too."""
    waiting = list(yaml.safe_load(path.read_text()))
    while waiting:
        task = waiting.pop(0)
        waiting += task.get("block", []) + task.get("rescue", [])
        yield task


def words_of(task: dict[str, Any]) -> list[str]:
    """What a task runs."""
    return [str(word) for word in task.get("ansible.builtin.command", {}).get("argv", [])]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a file away")
def test_the_audit_is_given_to_root_and_no_link_in_it_is_followed(tmp_path: Path) -> None:
    audit, other = tmp_path / "audit", tmp_path / "other"
    for directory in (audit, other):
        directory.mkdir()
        (directory / "file").touch()
        os.chown(directory / "file", 65534, 65534)
        os.chown(directory, 65534, 65534)
    (audit / "to_file").symlink_to(other / "file")
    (audit / "to_directory").symlink_to(other)
    (words,) = (words_of(task) for task in tasks_of(_ROLE / "tasks/host_absent.yml") if "chown" in words_of(task))
    for is_change in (True, False):
        done = subprocess.run([*words[:-1], audit], capture_output=True, check=True)
        assert bool(done.stdout) is is_change
    assert {path.lstat().st_uid for path in (audit, *audit.iterdir())} == {0}
    assert {path.lstat().st_uid for path in (other, other / "file")} == {65534}


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("certificates/tasks/present.yml", 0o700),
        ("user_client/tasks/present.yml", 0o700),
        ("monitoring/tasks/shared.yml", 0o755),
    ],
)
def test_directories_above_are_everybodys_to_enter_whatever_the_umask(tmp_path: Path, path: str, mode: int) -> None:
    (words,) = (words_of(task) for task in tasks_of(_ROLES / path) if "--parents" in words_of(task))
    words = [re.sub("{{ .*mode }}", "0700", word) for word in words[:-1]]
    subprocess.run([*words, tmp_path / "above" / "it"], check=True, umask=0o077, capture_output=True)
    assert stat.S_IMODE((tmp_path / "above").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "above" / "it").stat().st_mode) == mode


def test_a_directory_that_cannot_go_stays_and_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tasks = [
        task for path in _ROLES.glob("*/tasks/**/*.yml") for task in tasks_of(path) if words_of(task)[:1] == ["rmdir"]
    ]
    assert len(tasks) == 6
    # A place where a disk is, which root alone is told of.
    busy = [Path("/proc")] if os.geteuid() == 0 else []
    for path in (tmp_path, tmp_path / "file", *busy):
        clean = {**os.environ, "LC_ALL": "C"}
        said = subprocess.run(["/bin/rmdir", path], capture_output=True, text=True, check=False, env=clean).stderr
        for task in tasks:
            (allowed,) = re.findall(r"stderr is not search\('(.*)'\)", " ".join(task["failed_when"]))
            assert re.search(allowed, said)


def test_what_tells_that_something_was_kept_goes_first() -> None:
    (task,) = yaml.safe_load((_ROLE / "tasks/forgotten.yml").read_text())
    # The mark is in the unit, and in the configuration where there is none.
    assert task["loop"][:2] == ["{{ control_server_unit }}", "s2cs.toml"]
