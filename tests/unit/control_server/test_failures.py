from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scistream.control_server.failures import in_words
from scistream.errors import Code, SciStreamError

DIRECTORY = Path("/state")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_for_which_there_is_no_room_is_a_full_directory(number):
    reason = os.strerror(number)
    for error in (
        OSError(number, reason, "/state/one.conf"),
        SciStreamError(Code.FILE_UNWRITABLE, path="/state/one.conf", reason=reason),
    ):
        told = in_words(error, DIRECTORY)
        assert told.code is Code.STATE_DIRECTORY_FULL
        assert f"the state directory /state has no room: {reason}" in str(told)


def test_another_failure_is_told_as_what_it_is():
    told = in_words(OSError(errno.EACCES, "Permission denied", "/state/one.conf"), DIRECTORY)
    assert (told.code, told.facts["path"]) == (Code.FILE_UNWRITABLE, "/state/one.conf")
    known = SciStreamError(Code.HELLO_TIMEOUT, uid="one", seconds=1.0)
    assert in_words(known, DIRECTORY) is known


def test_what_nobody_foresaw_is_internal():
    told = in_words(KeyError("x"), DIRECTORY)
    assert (told.code, told.facts["words"]) == (Code.INTERNAL, "KeyError: 'x'")
