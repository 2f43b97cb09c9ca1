"""What a role looks at as root where others can write: they lead it nowhere, and hold it up never."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

_FILES = Path(__file__).parents[2] / "roles/control_server/files"


def script(name: str) -> ModuleType:
    """A role's script, which runs on hosts, as a module."""
    spec = importlib.util.spec_from_file_location(name, _FILES / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


look, room = script("look"), script("room")


@contextlib.contextmanager
def process(program: str, **environment: str) -> Iterator[str]:
    """A process that says of itself what it likes; its number."""
    command = [program, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command, executable=sys.executable, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout
        started.stdout.readline()
        yield str(started.pid)
        started.communicate(b"\n")


@pytest.mark.parametrize(
    ("said", "counts"), [("4711", "4711"), ("/etc", "0"), ("../1", "0"), ("", "0"), ("47\n{}", "47"), ("4 7\n", "0")]
)
def test_who_holds_the_state_directory_is_a_number(tmp_path: Path, said: str, counts: str) -> None:
    (tmp_path / "s2cs.lock").write_text(said)
    with (tmp_path / "s2cs.lock").open() as lock:
        assert look.holder(tmp_path) == "0"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert look.holder(tmp_path) == counts


def test_a_pipe_or_a_device_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s2cs.lock")
    assert look.holder(tmp_path) == "0"
    assert look.digest(tmp_path / "s2cs.lock") == ""
    assert look.digest(Path("/dev/zero")) == ""


@pytest.mark.parametrize(
    ("program", "counts"),
    [
        ("/opt/scistream/releases/fda0a385a961e15b/bin/python", "fda0a385a961e15b"),
        ("/opt/scistream/releases/../../../etc", ""),
        ("/opt/scistream/releases/{{ evil }}/bin/python", ""),
        ("python3", ""),
    ],
)
def test_a_release_is_called_as_releases_are(program: str, counts: str) -> None:
    with process(program) as pid:
        assert look.release(pid) == counts


def test_what_a_process_was_started_with_is_a_digest() -> None:
    with process(sys.executable, SCISTREAM_STARTED_WITH="a" * 64) as pid:
        assert look.like(look.DIGEST, look.variable(pid, "SCISTREAM_STARTED_WITH")) == "a" * 64
    with process(sys.executable, SCISTREAM_STARTED_WITH="-rf /") as pid:
        assert look.like(look.DIGEST, look.variable(pid, "SCISTREAM_STARTED_WITH")) == ""


def test_a_link_is_no_state_directory_of_the_role(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    owner = (tmp_path / "real").owner()
    assert look.is_fine(tmp_path / "real", 0o700, owner)
    assert not look.is_fine(tmp_path / "link", 0o700, owner)


def test_room_is_that_of_the_disk_that_the_directory_will_be_on(tmp_path: Path) -> None:
    assert room.room(tmp_path / "not" / "there" / "yet") > 0
    assert room.room(Path("/proc/sys")) == 0


def test_the_home_of_nobody_has_no_room() -> None:
    asked = ["1:~nobody-of-this-name/state", "1:/"]
    command = [sys.executable, "-I", str(_FILES / "room.py"), *asked]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b'{"~nobody-of-this-name/state": 0}\n'
    facts = [sys.executable, "-I", str(_FILES / "look.py"), "process", asked[0][2:], asked[0][2:], asked[0][2:]]
    assert b'"state_there": false' in subprocess.run(facts, capture_output=True, check=True).stdout


def test_of_two_needs_in_one_place_the_greater_counts() -> None:
    assert room.needs(["20:/srv/a:b", "1:/srv/a:b", "3:/srv"]) == {"/srv/a:b": 20, "/srv": 3}
