"""Ends in the midst of something: releases that are cut off, data servers that keep dying, starts that failed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator

import grpc
import psutil
import pytest

from lives import WAIT, Calls, Stream, counting_target, error_of, kill, wait_until
from scistream.errors import Code
from scistream.protocol import operations_pb2 as wire

NOWHERE = "no-such-host.invalid:1"
# An Nginx with a process beside it that heeds SIGTERM when it is told so for the second time.
SLOW = """#!/bin/sh
case "$*" in *.conf*) sh -c 'trap "trap - TERM" TERM; while :; do sleep 1; done' slow & esac
exec {program} "$@"
"""


@pytest.fixture
def target():
    with counting_target() as running:
        yield running


@pytest.fixture
def slow_nginx(tmp_path, monkeypatch):
    """The data servers of control servers that are started now take their time to end."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    place = tmp_path / "bin"
    place.mkdir()
    (place / "nginx").write_text(SLOW.format(program=program))
    (place / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


def name_of(process: psutil.Process) -> str:
    """Its command line, empty where it ended by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def slow_ones(server) -> int:
    return sum("slow" in name_of(process) for process in server.data_servers())


def test_a_release_that_is_cut_off_by_a_kill_is_finished_at_the_next_start(
    control_server_factory, slow_nginx, target, is_free
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", target.endpoint)
    (other,) = calls.open("two", target.endpoint)
    stream = Stream(other)
    release = calls._threads.submit(calls.release, "one")
    # Its Nginx is gone and what runs beside that is not: the release is under way.
    wait_until(lambda: not any("one.conf" in name_of(process) for process in server.data_servers()))
    server.end(signal.SIGKILL)
    assert not release.done() or release.exception() is not None
    assert slow_ones(server) == 2
    stream.goes_on()

    server.start()
    wait_until(lambda: calls.states() == {"two": "active"})
    assert slow_ones(server) == 1
    assert server.files("one") == []
    assert is_free(entry_point)
    release.exception()
    for process in server.data_servers():
        if "slow" in name_of(process):
            kill(process)
    stream.goes_on()
    sent = stream.end()
    wait_until(lambda: sent in target.received)


def seen_next(watch: Iterator[wire.Event], kind: str) -> wire.Event:
    return next(event for event in watch if event.kind == kind)


def test_one_that_keeps_dying_is_started_ever_more_rarely_and_failure_names_the_next_try(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(engine="nginx")
    calls = Calls(server)
    (entry_point,) = calls.open("one", echo_target.endpoint)
    watch = calls.operations.WatchSessions(wire.WatchSessionsRequest(uid="one"), timeout=WAIT)
    seen_next(watch, "there")
    for restarts, pause in enumerate((0, 1, 2)):
        for process in server.data_servers():
            kill(process)
        lost = seen_next(watch, "lost")
        assert (lost.session.state, lost.session.restarts) == ("failed", restarts)
        assert "(signal SIGKILL)" in lost.session.failure
        back = seen_next(watch, "restarted")
        assert (back.session.state, back.session.restarts, back.session.failure) == ("active", restarts + 1, "")
        # It is the least that passes: how long a start takes is another matter.
        assert back.time - lost.time >= pause
        (words,) = re.findall(r"\(it is started again at (\d\d:\d\d:\d\d) UTC\)", lost.session.failure)
        # In whole seconds; the event is written a little after the words.
        assert moment(words, lost.time) in range(int(lost.time) + pause - 1, int(back.time) + 1)
    watch.cancel()
    assert round_trip(entry_point, b"still there") == b"still there"


def moment(words: str, now: float) -> int:
    """The seconds since the epoch of a time of day that is at most some hours away."""
    hours, minutes, seconds = map(int, words.split(":"))
    midnight = int(now) // 86400 * 86400
    named = midnight + hours * 3600 + minutes * 60 + seconds
    return named if named > now - 43200 else named + 86400


@pytest.mark.timeout(40)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_failed_start_of_which_nobody_hears_again_gives_its_ports_back(
    control_server_factory, target, is_free, restarted
):
    options = ("--hello-timeout=1.5", "--quarantine=0")
    server = control_server_factory(engine="haproxy", port_range="22100-22101", options=options)
    calls = Calls(server)
    entry_points = calls.register("one", NOWHERE, number=2)
    with pytest.raises(grpc.RpcError) as raised:
        calls.update("one", NOWHERE)
    assert error_of(raised.value).code is Code.TARGET_UNRESOLVED
    if restarted:
        server.end(signal.SIGKILL)
        server.start()
    wait_until(lambda: calls.states() == {})
    assert calls.facts().ports_free == 2
    assert all(map(is_free, entry_points))
    # They are given to others.
    assert sorted(calls.open("two", target.endpoint, number=2)) == sorted(entry_points)
