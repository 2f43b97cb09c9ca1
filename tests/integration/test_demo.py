"""The whole demo, as `make demo` runs it: to its end, interrupted, killed, and where it cannot run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scistream.demo.namespaces import inside
from scistream.demo.network import Network
from scistream.demo.remains import look

ROOT = Path(__file__).resolve().parents[2]
# More than any test waits for: these streams are always interrupted.
ENDLESS = "100000"
# What stands below the drawing.
BYTES_FLOW = "TLS 1.3, with certificates"
PLAIN_BYTES_FLOW = "nothing is encrypted on the way"

pytestmark = pytest.mark.timeout(180)
needs_hosts = pytest.mark.usefixtures("root")


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
def root() -> None:
    """The demo of nftables builds network namespaces."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("network namespaces are root's")


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
    assert re.search(r"inbound +TLS_\w+ with \S", demo.said)
    assert str(empty) in demo.said
    assert "Nothing is left behind" in demo.said
    assert not look(state)


@needs_hosts
def test_nftables_is_shown_between_hosts_and_nothing_is_left(state: Path) -> None:
    with _demo(state, "--engine", "nftables", "--frames", "4") as demo:
        demo.read_until(PLAIN_BYTES_FLOW)
        hosts = _hosts(demo, state)
        assert demo.read_to_end() == 0, demo.said
    assert "│ 198.18.1.2:5100" in demo.said
    assert "encryption none was asked for" in demo.said
    assert re.search(r"SHA-256 received  [0-9a-f]{64}, the same", demo.said)
    assert re.search(r"iperf3 +[1-9]\d+ bytes", demo.said)
    assert "inbound   nothing was encrypted, as asked for" in demo.said
    assert "no process and no rule on one of them" in demo.said
    assert "The four hosts are gone" in demo.said
    assert not look(state)
    assert not _held(hosts)


@needs_hosts
def test_an_interrupt_while_the_kernel_forwards_leaves_no_host(state: Path) -> None:
    with _demo(state, "--engine", "nftables", "--frames", ENDLESS) as demo:
        demo.read_until(PLAIN_BYTES_FLOW)
        hosts = _hosts(demo, state)
        demo.process.send_signal(signal.SIGINT)
        assert demo.read_to_end() == 130, demo.said
    assert "no process and no rule on one of them" in demo.said
    assert not look(state)
    assert not _held(hosts)


@needs_hosts
def test_a_killed_demo_takes_its_hosts_along_and_the_next_removes_its_files(state: Path) -> None:
    with _demo(state, "--engine", "nftables", "--frames", ENDLESS) as demo:
        demo.read_until(PLAIN_BYTES_FLOW)
        hosts = _hosts(demo, state)
        keeper = _keeper(state)
        demo.process.kill()
        demo.process.wait()
    psutil.wait_procs([keeper], timeout=30)
    assert not _held(hosts)
    assert not any(_is_control_server(one, state) for one in psutil.process_iter())
    with _demo(state, "--engine", "nftables") as following:
        following.read_until("Provision")
        following.process.send_signal(signal.SIGINT)
        assert following.read_to_end() == 130, following.said
    assert "An earlier demo left" in following.said
    assert "✗" not in following.said.partition("Prepare the demo")[0]
    assert not look(state)


@needs_hosts
def test_what_is_left_on_a_host_is_named(state: Path) -> None:
    with Network(str(state)) as network:
        hosts = tuple(host.namespace for host in network.hosts)
        assert not look(state, (), hosts)
        gateway = network.outbound_gateway
        gateway.run(["nft", "add table inet left_over"])
        sleeper = gateway.popen(["sleep", "1000"])
        with gateway.entered():
            listener = socket.create_server((gateway.addresses[0], 5100))
        with listener:
            left = look(state, (), hosts)
        assert left.rules == ("rules of nft table inet left_over",)
        assert left.processes == (f"process {sleeper.pid} (sleep 1000)",)
        assert len(left.ports) == 1
        assert left.ports[0].startswith("198.18.1.2:5100 is listened on by")
        assert not left.files
    sleeper.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="a right can be taken from root only; without root, it is missing anyway")
def test_nftables_without_root_is_refused_in_a_sentence(state: Path) -> None:
    lesser = ["setpriv", "--bounding-set=-sys_admin", *_command(state, "--engine", "nftables")]
    done = subprocess.run(lesser, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    assert "It takes root" in done.stderr
    assert "[NETWORK_UNAVAILABLE]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not state.exists()


def test_an_interrupt_while_bytes_flow_cleans_up(state: Path) -> None:
    with _demo(state, "--frames", ENDLESS) as demo:
        demo.read_until(BYTES_FLOW)
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
        demo.read_until(BYTES_FLOW)
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


def _keeper(state: Path) -> psutil.Process:
    found = [one for one in psutil.process_iter() if {"scistream.demo.namespaces", str(state)} <= set(_words(one))]
    assert len(found) == 1
    return found[0]


def _hosts(demo: Running, state: Path) -> set[int]:
    """The inodes of its network namespaces."""
    keeper = Path(f"/proc/{_keeper(state).pid}/fd")
    links = [str(descriptor.readlink()) for descriptor in keeper.iterdir()]
    found = {int(link[5:-1]) for link in links if link.startswith("net:[")}
    assert len(found) == 4, demo.said
    return found


def _held(hosts: set[int]) -> list[str]:
    """What still holds one of the namespaces: processes in it, and descriptors."""
    names = {f"net:[{inode}]" for inode in hosts}
    descriptors = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(descriptor.readlink()) in names:
                descriptors.append(str(descriptor))
    return [*map(str, inside(hosts)), *descriptors]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _is_control_server(process: psutil.Process, state: Path) -> bool:
    words = _words(process)
    return "scistream.cli.s2cs" in words and any(str(state) in word for word in words)
