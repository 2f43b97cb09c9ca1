"""Hosts come and go without a trace, also when who makes them or takes them down is killed at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hosts import Hosts, HostsError, cgroups, require
from hosts.leftovers import leftovers
from hosts.plan import HostPlan, Plan
from hosts.programs import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group(__name__)]

_TESTS = Path(__file__).parents[1]
# A network of its own: these hosts have the addresses of others.
_APART = ["unshare", "--net"]
_WAIT = 60.0
_HOLDER = """
import sys, time
from pathlib import Path
from hosts import Hosts
with Hosts(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    require()
    yield tmp_path / "place"
    Hosts(tmp_path / "place").down()


def _begun(words: Sequence[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["/usr/bin/env", *_APART, sys.executable, *words],
        env=os.environ | {"PYTHONPATH": str(_TESTS)},
        stdin=subprocess.DEVNULL,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def _command(place: Path, *words: str) -> subprocess.Popen[str]:
    return _begun(["-m", "hosts", f"--place={place}", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _killed(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    try:
        assert until(lambda: reached() or process.poll() is not None, _WAIT)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.communicate()


def _up(place: Path, *words: str) -> None:
    process = _command(place, "up", *words)
    said, _ = process.communicate(timeout=_WAIT)
    assert process.returncode == 0, said


def _console(plan: Plan, host: HostPlan) -> str:
    console = plan.console(host)
    return console.read_text() if console.exists() else ""


_MOMENTS: dict[str, Callable[[Plan], bool]] = {
    "a directory": lambda plan: plan.place.exists(),
    "keys": lambda plan: plan.ssh_config.exists(),
    "switches": lambda plan: Path("/run/netns", plan.switches).exists(),
    "a supervisor": lambda plan: any(plan.console(host).exists() for host in plan.hosts),
    "a network": lambda plan: Path("/run/netns", f"{plan.prefix}-compute").exists(),
    "a control group": lambda plan: bool(cgroups.groups_left(plan)),
    "processes": lambda plan: len(cgroups.pids(plan)) > 20,
    "a login": lambda plan: any("multi-user" in _console(plan, host) for host in plan.hosts),
}


@pytest.mark.parametrize("moment", _MOMENTS)
def test_nothing_is_left_of_an_up_that_was_killed(place, moment):
    plan = Plan.at(place)
    _killed(_command(place, "up"), lambda: _MOMENTS[moment](plan))
    Hosts(place).down()
    assert leftovers(plan) == []
    assert not place.exists()


@pytest.mark.parametrize("moment", ["at once", "a host is off", "all are off", "networks are gone"])
def test_nothing_is_left_of_a_down_that_was_killed(place, moment):
    _up(place)
    plan = Plan.found(place)
    network = Path("/run/netns", plan.switches)
    reached = {
        "at once": lambda: True,
        "a host is off": lambda: not all(Path("/run/netns", plan.namespace(host)).exists() for host in plan.hosts),
        "all are off": lambda: not any(Path("/run/netns", plan.namespace(host)).exists() for host in plan.hosts),
        "networks are gone": lambda: not network.exists(),
    }
    _killed(_command(place, "down"), reached[moment])
    Hosts(place).down()
    assert leftovers(plan) == []
    assert not place.exists()


def test_up_takes_down_what_was_there_and_down_can_be_said_twice(place):
    _killed(_command(place, "up"), Plan.at(place).ssh_config.exists)
    _up(place)
    _up(place)
    for _ in range(2):
        process = _command(place, "down")
        assert process.communicate(timeout=_WAIT)[0] == "Nothing is left of the hosts.\n"
    assert leftovers(Plan.at(place)) == []


def test_an_up_that_is_interrupted_takes_down_what_it_has_made(place):
    for number in (signal.SIGINT, signal.SIGTERM):
        process = _command(place, "up")
        assert until(lambda: bool(cgroups.groups_left(Plan.at(place))), _WAIT)
        process.send_signal(number)
        process.communicate(timeout=_WAIT)
        assert process.returncode != 0
        assert leftovers(Plan.at(place)) == []


def test_hosts_of_a_process_go_with_it_also_when_it_is_killed(place):
    process = _begun(["-c", _HOLDER, str(place)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert leftovers(Plan.at(place))
    process.kill()
    process.communicate()
    assert until(lambda: leftovers(Plan.at(place)) == [] and not place.exists(), _WAIT)


def test_a_down_waits_for_its_turn(place):
    up = _command(place, "up")
    assert until(Plan.at(place).ssh_config.exists, _WAIT)
    Hosts(place).down()
    said, _ = up.communicate(timeout=_WAIT)
    assert up.returncode == 0, said
    assert leftovers(Plan.at(place)) == []


def test_light_hosts_stand_beside_the_four(place):
    _up(place, "--more=2")
    assert list(Hosts.found(place)) == ["instrument", "gateway_a", "gateway_b", "compute", "fleet_01", "fleet_02"]
    assert Hosts.found(place)["fleet_02"].addresses == {"ssh": "198.18.10.102"}


def test_there_is_a_sentence_for_what_cannot_be(tmp_path):
    with pytest.raises(HostsError, match="without spaces, quotes, colons and commas"):
        Hosts(tmp_path / "a place")
    with pytest.raises(HostsError, match="151 more hosts are not possible: name a number up to 150"):
        Hosts(tmp_path, more=151)
    with pytest.raises(HostsError, match=r"There are no hosts at .*: `python -m tests.hosts up` makes them"):
        Hosts.found(tmp_path / "nothing")
