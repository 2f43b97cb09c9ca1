"""The demo's applications, as processes, over a loopback connection without gateways, and over one that does harm."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scistream.addresses import Endpoint
from scistream.demo.applications import Ends
from scistream.demo.leash import leashed
from scistream.demo.measurement import measure
from scistream.demo.traffic import Outcome, Progress, stream
from scistream.demo.wire import CHUNK
from scistream.errors import Code, SciStreamError

HOST = "127.0.50.2"
PATIENCE = 20.0


def _quiet(progress: Progress) -> None:
    assert progress.bytes >= 0


def _sent(
    target: Endpoint, source: int | Path, entry_point: Endpoint | None = None, silence: float = PATIENCE
) -> Outcome:
    return stream(Ends(target, entry_point or target), source=source, silence=silence, tell=_quiet)


@pytest.fixture
def target() -> Endpoint:
    return _free_address()


def _free_address() -> Endpoint:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return Endpoint(HOST, probe.getsockname()[1])


def test_frames_arrive_whole(target: Endpoint) -> None:
    heard: list[Progress] = []
    outcome = stream(Ends(target, target), source=5, silence=PATIENCE, tell=heard.append)
    assert outcome.whole
    assert (outcome.bytes, outcome.messages) == (5 * CHUNK, 5)
    assert all(progress.total == 5 * CHUNK for progress in heard)


def test_no_two_frames_are_equal(target: Endpoint) -> None:
    one, two = _sent(target, 1), _sent(_free_address(), 2)
    assert one.digest_sent != two.digest_sent


@pytest.mark.parametrize("length", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_a_file_of_any_length_arrives_whole(target: Endpoint, tmp_path: Path, length: int) -> None:
    file = tmp_path / "a file with spaces"
    file.write_bytes(os.urandom(length))
    outcome = _sent(target, file)
    assert outcome.bytes == length
    assert outcome.digest_received == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_changed_byte_is_found(target: Endpoint) -> None:
    with _harmful(target, lambda data, before: _flipped(data, 3_000_000 - before)) as entry_point:
        with pytest.raises(SciStreamError, match="were sent") as caught:
            _sent(target, 2, entry_point)
        assert caught.value.code is Code.STREAM_DAMAGED
        assert caught.value.facts["sent"] == caught.value.facts["received"] == 2 * CHUNK
        assert caught.value.facts["digest_sent"] != caught.value.facts["digest_received"]


def test_a_stream_that_stops_is_given_up_with_what_was_seen_last(target: Endpoint) -> None:
    with _harmful(target, lambda data, before: data if before < CHUNK + 1_000_000 else b"") as entry_point:
        with pytest.raises(
            SciStreamError, match=r"the stream took longer than 1 s; last seen: .* bytes after"
        ) as caught:
            _sent(target, 20, entry_point, silence=1.0)
        assert caught.value.code is Code.DEADLINE


def test_a_target_that_is_in_use_is_told_in_the_receivers_words(target: Endpoint) -> None:
    with socket.create_server((target.host, target.port)):
        with pytest.raises(SciStreamError, match=r"the receiver ended .*Address already in use") as caught:
            _sent(target, 1)
        assert caught.value.code is Code.APPLICATION_FAILED


def test_a_file_that_vanished_is_told_in_the_senders_words(target: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(SciStreamError, match=r"the sender ended .*No such file or directory") as caught:
        _sent(target, tmp_path / "gone")
    assert caught.value.code is Code.APPLICATION_FAILED


def test_nothing_runs_after_a_failure(target: Endpoint, tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(SciStreamError):
        _sent(target, tmp_path / "gone")
    assert set(psutil.Process().children(recursive=True)) == before


def test_iperf3_measures_a_path(target: Endpoint) -> None:
    measured = measure(Ends(target, target), seconds=1, connections=2)
    assert measured.connections == 2
    assert measured.bytes > 0
    assert measured.gbps > 0


def test_iperf3s_server_listens_on_the_targets_address_alone(target: Endpoint) -> None:
    seen: list[str] = []

    def look() -> None:
        deadline = time.monotonic() + PATIENCE
        while not seen and time.monotonic() < deadline:
            listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
            seen.extend(one.laddr.ip for one in listening if one.laddr.port == target.port)

    watcher = threading.Thread(target=look)
    watcher.start()
    measure(Ends(target, target), seconds=1, connections=1)
    watcher.join()
    assert seen == [HOST]


def test_iperf3_without_a_path_says_so(target: Endpoint) -> None:
    with pytest.raises(SciStreamError, match="Connection refused") as caught:
        measure(Ends(target, _free_address()), seconds=1, connections=1)
    assert caught.value.code is Code.APPLICATION_FAILED


def test_an_application_ends_with_the_process_that_started_it() -> None:
    program = (
        "import subprocess, sys, time; from scistream.demo.leash import leashed;"
        "sleeper = [sys.executable, '-c', 'print(1, flush=True); import time; time.sleep(600)'];"
        "child = subprocess.Popen(leashed(sleeper), stdout=subprocess.PIPE); child.stdout.readline();"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        child = psutil.Process(int(runner.stdout.readline()))
        runner.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], timeout=PATIENCE)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_program_that_is_not_there_is_named() -> None:
    done = subprocess.run(leashed(["no-such-program"]), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (127, "cannot run no-such-program: No such file or directory\n")


def _flipped(data: bytes, position: int) -> bytes:
    if not 0 <= position < len(data):
        return data
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@contextmanager
def _harmful(target: Endpoint, harm: Callable[[bytes, int], bytes]) -> Iterator[Endpoint]:
    """An entry point whose way to the target is harmed: by the data, and how many bytes went before them."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_relay, args=(server, target, harm), daemon=True).start()
        yield Endpoint(HOST, server.getsockname()[1])


def _relay(server: socket.socket, target: Endpoint, harm: Callable[[bytes, int], bytes]) -> None:
    near, _address = server.accept()
    with near, socket.create_connection((target.host, target.port)) as far:
        threading.Thread(target=_copy, args=(far, near, lambda data, _before: data), daemon=True).start()
        _copy(near, far, harm)


def _copy(source: socket.socket, sink: socket.socket, harm: Callable[[bytes, int], bytes]) -> None:
    before = 0
    try:
        while data := source.recv(1 << 20):
            sink.sendall(harm(data, before))
            before += len(data)
    except OSError:
        return
