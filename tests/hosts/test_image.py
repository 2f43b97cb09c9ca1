"""What is made once is whole, made by one at a time, and made anew when its recipe changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hosts import HostsError, image, require
from hosts.programs import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group(__name__)]

_TESTS = Path(__file__).parents[1]
_WAIT = 30.0
# Makes two files, with a pause between them that ends when somebody writes a third.
_MAKER = """
import os, sys, time
from hosts import image
def make(into, say):
    (into / "first").write_text("1")
    say("making")
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    (into / "second").write_text("2")
print(image._cached("trial", ["recipe"], lambda text: print(text, flush=True), make), flush=True)
"""


def _maker(cache: Path, go: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _MAKER, str(go)],
        env=os.environ | {"PYTHONPATH": str(_TESTS), "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_is_half_made_is_never_used(tmp_path):
    first = _maker(tmp_path, tmp_path / "go")
    assert _said(first) == "making"
    first.kill()
    first.communicate()
    assert [each.suffix for each in (tmp_path / "scistream" / "hosts").glob("trial-*")] == [".part"]
    (tmp_path / "go").touch()
    said, _ = _maker(tmp_path, tmp_path / "go").communicate(timeout=_WAIT)
    made = Path(said.splitlines()[-1])
    assert sorted(each.name for each in made.iterdir()) == ["first", "second"]
    assert not list(made.parent.glob("*.part"))


def test_the_second_waits_for_the_first_and_makes_nothing(tmp_path):
    first, second = (_maker(tmp_path, tmp_path / "go") for _ in range(2))
    assert {_said(first), _said(second)} == {"making", "Waiting for another one who makes the hosts' image"}
    (tmp_path / "go").touch()
    ends = {process.communicate(timeout=_WAIT)[0] for process in (first, second)}
    assert len(ends) == 1


def test_another_recipe_has_another_name():
    assert image._name("base", ["systemd"]) != image._name("base", ["systemd", "sshd"])


@pytest.fixture
def able() -> None:
    require()


@pytest.mark.usefixtures("able")
def test_a_program_that_fails_is_told_with_its_last_words():
    said: list[str] = []
    with pytest.raises(HostsError, match=r"^The trial cannot be made: sh ended with 7 and said: I: step E: no way$"):
        image._build(["sh", "-c", "echo I: step; echo E: no way >&2; exit 7"], said.append, "The trial")
    assert said == ["The trial: sh begins", "The trial: step"]


@pytest.mark.usefixtures("able")
def test_what_a_program_has_started_ends_with_who_made_it(tmp_path):
    code = "from hosts import image; image._build(['sh', '-c', 'echo I: begun; sleep 4321'], print, 'The trial')"
    process = subprocess.Popen(
        [sys.executable, "-uc", code],
        env=os.environ | {"PYTHONPATH": str(_TESTS), "TRIAL": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert [_said(process), _said(process)] == ["The trial: sh begins", "The trial: begun"]
    assert _running(tmp_path)
    process.kill()
    process.communicate()
    assert until(lambda: not _running(tmp_path), _WAIT)


def _running(place: Path) -> list[str]:
    """Processes that have inherited this test's word."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"TRIAL={place}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append(directory.name)
        except OSError:
            continue
    return found
