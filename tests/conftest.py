"""What holds for all tests.

`make test` runs them on several workers at once (`WORKERS`), where the kernel permits it. Each worker is a process in a
network of its own (`own_network.py`): addresses and ports, abstract sockets, rules of nftables and the named network
namespaces of one never meet those of another. Elsewhere they run one after the other, as with `PYTEST="-n 0"`.

A test has to know this:
    - Another test runs at the same time, in the same files, processes, users and cgroups. Write below `tmp_path`; look
      for processes by what is this test's alone (a pid, `tmp_path` in the command line), not by a program's name; a
      cgroup's or a user's name needs something of one's own in it (`tmp_path.name`, the pid).
    - There is no way out of the network. What needs one (a package index, apt) is marked `outer_network`: it runs in
      the machine's own network, one test after the other on one worker, and uses addresses by processes that it
      starts only. gRPC channels of the test's own process would stay in the wrong network with their threads.
    - A time limit (`pytest.mark.timeout`) is for tests that take long: the longest of them are started first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from own_network import OwnNetwork, can_be_had

# More than the processors of a small machine: tests wait as much as they work.
WORKERS = 4
_OUTER = "outer_network"
_network = pytest.StashKey[OwnNetwork]()

# How long an example takes says more of what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`."""
    return WORKERS if can_be_had() else 0


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[_network] = OwnNetwork()
    elif config.getoption("numprocesses", None) and not can_be_had():
        raise pytest.UsageError("The kernel gives this user no further network for each worker: use -n 0.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if item.get_closest_marker(_OUTER):
            item.add_marker(pytest.mark.xdist_group(_OUTER))
    items.sort(key=_limit, reverse=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests of one group build on each other, and share hosts: better none of them than some on each worker."""
    if not session.config.getoption("loadgroup", None):
        return
    grouped = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group")]
    apart = [nodeid for nodeid in grouped if "@" not in nodeid]
    if apart:
        raise RuntimeError(f"{apart[0]}: pytest-xdist does not keep its group together with this pytest.")


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    network = item.config.stash.get(_network, None)
    if network is None or not item.get_closest_marker(_OUTER):
        return (yield)
    with network.outer():
        return (yield)


@pytest.fixture(autouse=True, scope="session")
def heeded_signals() -> Iterator[None]:
    """Programs under test heed Ctrl-C and a closing terminal, also where the tests run in a script's background.

    There, a shell has both ignored, and what is ignored stays so across exec.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
