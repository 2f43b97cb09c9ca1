"""The whole demo, as `make demo` runs it: to its end, interrupted, killed, and where it cannot run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scistream.demo.remains import look

ROOT = Path(__file__).resolve().parents[2]
# More than any test waits for: these streams are always interrupted.
ENDLESS = "100000"

pytestmark = pytest.mark.timeout(180)


class Running:
    """A demo that runs, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def read_until(self, pattern: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if re.search(pattern, line):
                return
        pytest.fail(f"it ended before it said {pattern!r}:\n{self.said}")

    def read_to_end(self) -> int:
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait()


def _command(state: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "scistream.demo", "--state-directory", str(state), *options]


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in {"ENGINE", "DATA", "FRAMES"}}


@contextmanager
def _demo(state: Path, *options: str) -> Iterator[Running]:
    with subprocess.Popen(
        _command(state, *options),
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.communicate()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "demo"


def test_an_empty_file_goes_through_and_nothing_is_left(state: Path, tmp_path: Path) -> None:
    """The smallest stream that there is; the big ones are `make demo`'s, which CI runs with each engine."""
    empty = tmp_path / "an {{ 'odd' }} name's file"
    empty.touch()
    with _demo(state, "--engine", "stunnel", "--data", str(empty)) as demo:
        assert demo.read_to_end() == 0, demo.said
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert f"SHA-256 sent      {digest}" in demo.said
    assert f"SHA-256 received  {digest}, the same" in demo.said
    assert re.search(r"iperf3 +[1-9]\d+ bytes", demo.said)
    assert str(empty) in demo.said
    assert "Nothing is left behind" in demo.said
    assert not look(state)


def test_an_interrupt_while_bytes_flow_cleans_up(state: Path) -> None:
    with _demo(state, "--frames", ENDLESS) as demo:
        demo.read_until("nothing is encrypted")
        demo.process.send_signal(signal.SIGINT)
        assert demo.read_to_end() == 130, demo.said
    assert "SIGINT: ending the demo" in demo.said
    assert "Traceback" not in demo.said
    assert not look(state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_very_beginning_cleans_up(state: Path, number: signal.Signals) -> None:
    with _demo(state) as demo:
        demo.read_until("Provision")
        demo.process.send_signal(number)
        assert demo.read_to_end() == 130, demo.said
    assert f"{number.name}: ending the demo" in demo.said
    assert not look(state)


def test_a_second_interrupt_is_answered_and_does_not_stop_the_cleaning(state: Path) -> None:
    with _demo(state, "--frames", ENDLESS) as demo:
        demo.read_until("Issue the gateway's certificate")
        demo.process.send_signal(signal.SIGINT)
        demo.read_until("ending the demo")
        demo.process.send_signal(signal.SIGINT)
        assert demo.read_to_end() == 130, demo.said
    assert "Still cleaning up" in demo.said
    assert not look(state)


def test_a_reader_that_goes_away_ends_it_and_it_cleans_up(state: Path) -> None:
    with _demo(state, "--frames", ENDLESS) as demo:
        demo.read_until("Open the outbound session")
        assert demo.process.stdout is not None
        demo.process.stdout.close()
        assert demo.process.wait() == 130
    assert not look(state)


def test_what_a_killed_demo_left_is_taken_away_by_the_next(state: Path) -> None:
    with _demo(state, "--frames", ENDLESS) as demo:
        demo.read_until("nothing is encrypted")
        playbook = psutil.Process(demo.process.pid).children()
        control_servers = [one for one in psutil.process_iter() if _is_control_server(one, state)]
        demo.process.kill()
        demo.process.wait()
    # The driver takes Ansible with it. Control servers and data servers go on, as they should; then the former die too.
    _gone, alive = psutil.wait_procs(playbook, timeout=30)
    assert not alive
    assert len(control_servers) == 2
    for one in control_servers:
        one.kill()
    assert "haproxy" in str(look(state))
    with _demo(state, "--frames", "1") as following:
        assert following.read_to_end() == 0, following.said
    assert "An earlier demo left" in following.said
    assert not look(state)


def test_a_second_demo_names_the_first_and_leaves_it_alone(state: Path, tmp_path: Path) -> None:
    with _demo(state, "--frames", ENDLESS) as first:
        first.read_until("Provision")
        with _demo(tmp_path / "second") as second:
            assert second.read_to_end() == 4
        assert f"a demo already runs on this machine (pid {first.process.pid})" in second.said
        assert "[DEMO_RUNNING]" in second.said
        assert not (tmp_path / "second").exists()
        assert first.process.poll() is None


def test_an_address_that_is_in_use_is_told_before_anything_is_started(state: Path) -> None:
    with socket.create_server(("127.0.2.1", 5000)), _demo(state) as demo:
        assert demo.read_to_end() == 4
        assert re.search(rf"127\.0\.2\.1:5000 is listened on by \S+ \(pid {os.getpid()}\)", demo.said)
        assert "[DEMO_PORTS_IN_USE]" in demo.said
        assert "Provision" not in demo.said
    assert not state.exists()


def test_a_step_that_fails_is_told_and_everything_is_cleaned_up(state: Path) -> None:
    with _demo(state) as demo:
        demo.read_until("Provision")
        with socket.create_server(("127.0.2.1", 5074)):
            demo.read_until("Address already in use")
        assert demo.read_to_end() == 1, demo.said
    assert "the receiver ended" in demo.said
    assert "[APPLICATION_FAILED]" in demo.said
    assert "The demo failed, see above." in demo.said
    assert not look(state)


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _is_control_server(process: psutil.Process, state: Path) -> bool:
    words = _words(process)
    return "scistream.cli.s2cs" in words and any(str(state) in word for word in words)
