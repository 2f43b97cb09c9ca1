"""The keeper of an SSH connection: what it loads, what it leaves where it cannot be had."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scistream.addresses import Endpoint
from scistream.errors import Code, SciStreamError
from scistream.hops import reaching
from scistream.hops.keeper import Keeper

_TARGET = Endpoint("127.0.0.1", 5000)

# What it prints: whether it is loaded before it is needed, and what an SSH configuration says that needs it.
_LOADS = """
import sys
from pathlib import Path
from scistream.hops import keeper
keeper._spare("invoke")
from scistream.hops import connecting
from scistream.hops.configuration import Configuration
from scistream.hops.via import Via
print("invoke.runners" in sys.modules)
via = Via.parse("ssh://somebody@gateway.example")
print(Configuration(Path(sys.argv[1])).look_up(via).port, "invoke.runners" in sys.modules)
"""


def test_what_is_for_match_exec_alone_is_loaded_for_that_alone(tmp_path: Path) -> None:
    file = tmp_path / "config"
    done = []
    for condition in ("host gateway.example", 'exec "test -e /etc/passwd"'):
        file.write_text(f"Match {condition}\n  Port 2222\n")
        words = [sys.executable, "-c", _LOADS, str(file)]
        done.append(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split())
    assert done == [["False", "2222", "False"], ["False", "2222", "True"]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "0123456789abcdef"
    for name in ("", ".0123456789ab", ".ba9876543210"):
        (tmp_path / f"{path.name}{name}").touch()
    (tmp_path / "another").touch()
    return path


def test_a_keeper_that_cannot_start_leaves_nothing_and_nothing_of_a_killed_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SciStreamError) as caught:
        reaching._start(place)
    assert caught.value.code is Code.INTERNAL
    assert "(/bin/false -m scistream.hops.keeper: 1)" in str(caught.value)
    assert [path.name for path in place.parent.iterdir()] == ["another"]


def test_a_keeper_that_takes_too_long_is_given_up(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "another"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(reaching, "_START", 0.2)
    with pytest.raises(SciStreamError) as caught:
        reaching._start(place)
    assert caught.value.code is Code.DEADLINE
    assert "the start of the process that keeps SSH connections took longer than 0.2 s" in str(caught.value)
    assert [path.name for path in place.parent.iterdir()] == ["another"]


def test_a_way_that_has_no_room_is_told_and_the_connection_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A socket's path has 107 bytes at most, and a worker's directory has a long name.
    monkeypatch.chdir(tmp_path)
    place = Path("here/0123456789abcdef")
    place.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        keeper = Keeper(listener)
        place.unlink()
        place.parent.rmdir()
        with pytest.raises(SciStreamError) as caught:
            keeper._door(None, _TARGET)  # type: ignore[arg-type] - no byte gets that far
    assert caught.value.code is Code.SSH_DIRECTORY_UNSAFE
    assert f"{place.parent}: No such file or directory" in str(caught.value)
    assert keeper._failure is None


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(SciStreamError) as caught:
        reaching.reach(reaching.Via.parse("ssh://gateway.example"), _TARGET, timeout=1.0)
    assert caught.value.code is Code.SSH_CONFIGURATION_BAD
    assert "this user has no home directory; name one by HOME in the environment" in str(caught.value)
