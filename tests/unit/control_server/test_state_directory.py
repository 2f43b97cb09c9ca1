from __future__ import annotations

import os
import stat

import pytest

from scistream.control_server.state_directory import Announcement, StateDirectory, read_announcement
from scistream.errors import Code, SciStreamError


def test_it_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "some" / "state"
    with StateDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((path / "s2cs.lock").stat().st_mode) == 0o600


def test_a_second_holder_is_told_who_the_first_is(tmp_path):
    pauses = []
    with (
        StateDirectory(tmp_path),
        pytest.raises(SciStreamError, match=f"held by the control server with pid {os.getpid()}") as raised,
    ):
        StateDirectory(tmp_path, sleep=pauses.append)
    assert raised.value.code is Code.STATE_DIRECTORY_TAKEN
    # A reader of the announcement holds the lock for a moment, so it is tried for half a second.
    assert sum(pauses) == pytest.approx(0.5)


def test_the_holder_says_who_it_is_until_it_lets_go(tmp_path):
    assert read_announcement(tmp_path) is None
    said = Announcement(os.getpid(), "127.0.20.1:5000", "haproxy", "NO_AUTH", "-----BEGIN", "127.0.20.1")
    with StateDirectory(tmp_path) as directory:
        assert read_announcement(tmp_path) == Announcement(os.getpid())
        directory.announce(said)
        assert read_announcement(tmp_path) == said
        assert (tmp_path / "s2cs.lock").read_text().splitlines()[0] == str(os.getpid())
        directory.announce(Announcement(os.getpid()))
        assert read_announcement(tmp_path) == Announcement(os.getpid())
    assert read_announcement(tmp_path) is None
    with StateDirectory(tmp_path):
        pass


def test_a_directory_that_is_not_there_is_held_by_nobody(tmp_path):
    assert read_announcement(tmp_path / "none") is None


def test_a_directory_that_others_may_write_into_is_refused_and_left_as_it_is(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(SciStreamError, match=r"others may write into it \(mode 0777\)") as raised:
        StateDirectory(tmp_path)
    assert raised.value.code is Code.BAD_CONFIGURATION
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777


def test_a_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(SciStreamError, match="File exists") as raised:
        StateDirectory(path)
    assert raised.value.code is Code.FILE_UNWRITABLE
