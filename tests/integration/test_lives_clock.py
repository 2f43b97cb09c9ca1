"""A control server whose time of day is set, forward and back: no session ends of it, and each lease when it is due."""

from __future__ import annotations

import os
import signal

import pytest

from lives import Calls, Stream, counting_target, wait_until
from scistream.protocol import LEASE_METADATA

# Seconds; longer than the lease that it must not end.
JUMP = 5 * 3600
LEASE = 3600
# A clock for one program: Python runs this before the program, which then has no other time of day. The kernel's own is
# the whole machine's, and there is no namespace for it.
CLOCK = """
import time
from pathlib import Path

_place, _real = Path({place!r}), time.time
time.time = lambda: _real() + float(_place.read_text())
"""


@pytest.fixture
def set_clock(tmp_path, monkeypatch):
    """Sets the time of day of the control servers that are started now, some seconds from what it is."""
    directory = tmp_path / "clock"
    directory.mkdir()
    place = directory / "seconds"
    (directory / "sitecustomize.py").write_text(CLOCK.format(place=str(place)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH")))))

    def set_to(seconds: int) -> None:
        # Whole at any time: somebody may read it in this moment.
        place.with_suffix(".new").write_text(str(seconds))
        place.with_suffix(".new").replace(place)

    set_to(0)
    return set_to


def lease(seconds: int) -> tuple:
    return ((LEASE_METADATA, str(seconds)),)


def opened_for(calls: Calls, uid: str, target: str, seconds: int) -> list[str]:
    entry_points = calls.register(uid, target, metadata=lease(seconds))
    calls.update(uid, target)
    return entry_points


@pytest.mark.parametrize("jump", [JUMP, -JUMP])
def test_a_clock_that_is_set_neither_ends_nor_lengthens_a_session(control_server_factory, set_clock, jump):
    with counting_target() as target:
        server = control_server_factory(engine="nginx")
        calls = Calls(server)
        (entry_point,) = opened_for(calls, "long", target.endpoint, LEASE)
        opened_for(calls, "short", target.endpoint, 2)
        stream = Stream(entry_point)
        before = calls.session("long")
        set_clock(jump)
        calls.open("ever", target.endpoint)
        # That it has jumped is seen of those that are new.
        assert abs(calls.session("ever").opened - before.opened - jump) < LEASE
        # It ends in its time, and at its end all leases are looked at.
        wait_until(lambda: "short" not in calls.states())
        assert calls.states() == {"long": "active", "ever": "active"}

        server.end(signal.SIGKILL)
        stream.goes_on()
        server.start()
        opened_for(calls, "short", target.endpoint, 1)
        wait_until(lambda: "short" not in calls.states())
        assert calls.states() == {"long": "active", "ever": "active"}
        after = calls.session("long")
        assert after.restarts == 0
        # The end that is told moves with the clock that tells it.
        assert abs(after.lease_expires - before.lease_expires - jump) < LEASE
        stream.goes_on()
        sent = stream.end()
        wait_until(lambda: sent in target.received)
