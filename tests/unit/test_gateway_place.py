"""Where root makes the state directory, and why it does not elsewhere, in words."""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

_PLACE = Path(__file__).parents[2] / "roles/control_server/files/place.py"
# Somebody else than root and the user of the control server.
_NOBODY = 65534

_spec = importlib.util.spec_from_file_location("place", _PLACE)
assert _spec
assert _spec.loader
place = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(place)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of others are root's to make")


def wrong(path: Path | str, user: str = "") -> str:
    """What is wrong with a place for the user who runs the tests, or for another."""
    found: str = place.hindrance(str(path), user or pwd.getpwuid(os.getuid()).pw_name)
    return found


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A link to a directory; another than root owns it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    if os.geteuid() == 0:
        os.lchown(tmp_path / "link", _NOBODY, _NOBODY)
    return tmp_path / "link"


def test_a_place_below_directories_of_root_and_of_the_user_is_taken(tmp_path: Path) -> None:
    assert wrong(tmp_path / "not" / "there") == ""
    assert wrong("/usr/nothing-is-here") == ""
    (tmp_path / "state").mkdir()
    assert wrong(tmp_path / "state") == ""
    (tmp_path / "state" / "lost+found").mkdir()
    assert wrong(f"/{tmp_path}/./state/", "nobody" if os.geteuid() == 0 else "") == ""


def test_what_is_roots_and_holds_something_stays_roots() -> None:
    # The script as roles run it.
    command = [sys.executable, "-I", "-", "//etc/.", "nobody"]
    said = subprocess.run(command, stdin=_PLACE.open(), capture_output=True, text=True, check=True).stdout
    assert said.startswith("/etc is root's, with ")
    assert said.endswith(" and more in it\n")
    assert wrong("/", "nobody").startswith("/ is root's, with ")


def test_a_place_is_named_from_the_top_and_straight() -> None:
    assert wrong("state") == "state does not begin with /"
    assert wrong("~/state") == "~/state does not begin with /"
    assert wrong("/var/lib/../../etc") == "/var/lib/../../etc has .. in it"


def test_a_link_on_the_way_is_roots(linked: Path) -> None:
    owner = pwd.getpwuid(linked.lstat().st_uid).pw_name
    assert wrong(linked / "state") == f"{linked} is a link, and {owner}'s"
    # Debian's, to /run.
    assert wrong("/var/run/nothing-is-here") == ""


@needs_root
def test_a_link_in_a_links_target_is_roots_too(linked: Path) -> None:
    (linked.parent / "first").symlink_to(linked)
    assert wrong(linked.parent / "first" / "state") == f"{linked} is a link, and nobody's"
    (linked.parent / "second").symlink_to(f"../{linked.parent.name}/link/..")
    assert wrong(linked.parent / "second" / "state") == f"{linked} is a link, and nobody's"


@needs_root
def test_a_link_leads_somewhere(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("not/there")
    assert wrong(tmp_path / "nowhere" / "state") == f"{tmp_path}/nowhere is a link that leads nowhere"
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    assert wrong(tmp_path / "one" / "state").endswith(" is a link that leads in a circle")


def test_the_end_is_no_link_whoever_owns_it(linked: Path) -> None:
    assert wrong(linked) == f"{linked} is a link, to real"
    assert wrong("/var/run") == "/var/run is a link, to /run"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        assert wrong(path) == f"{tmp_path}/file is no directory"


def test_nobody_else_owns_the_way_or_may_write_into_it(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert wrong(tmp_path / "open" / "state") == f"others may write into {tmp_path}/open (mode 0777)"
    (tmp_path / "open").chmod(0o1777)
    assert wrong(tmp_path / "open" / "state") == ""


@needs_root
def test_a_directory_of_anothers_is_named_with_its_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, _NOBODY, _NOBODY)
    assert wrong(tmp_path / "state") == f"{tmp_path} is nobody's"
    os.chown(tmp_path, 4242, 4242)
    assert wrong(tmp_path / "state") == f"{tmp_path} is 4242's"


def test_a_name_that_no_disk_takes_has_a_sentence() -> None:
    name = "x" * 300
    assert wrong(f"/{name}") == f"/{name} cannot be looked at (File name too long)"
