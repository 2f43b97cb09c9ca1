from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from scistream.demo.command import demo
from scistream.demo.driver import Wanted, only_demo
from scistream.demo.remains import LISTENERS
from scistream.errors import Code, ExitCode, SciStreamError

ROOT = Path(__file__).resolve().parents[2]


def _refused(*arguments: str) -> SciStreamError:
    with pytest.raises(SciStreamError) as caught:
        demo.main(args=list(arguments), standalone_mode=False)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    return caught.value


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may start a demo: in this directory there is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("ENGINE", "DATA", "FRAMES"):
        monkeypatch.delenv(name, raising=False)


def test_u47_an_unknown_engine_is_answered_with_the_known_ones() -> None:
    error = _refused("--engine", "squid")
    assert error.code is Code.ENGINE_UNKNOWN
    assert "there is no engine 'squid'" in str(error)
    assert "haproxy, nginx, stunnel" in str(error)


def test_the_environment_of_make_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "squid")
    assert _refused().code is Code.ENGINE_UNKNOWN


def test_u48_the_case_of_an_engine_does_not_matter() -> None:
    assert _refused("--engine", "StunnelSubprocess").code is Code.FILE_UNREADABLE


def test_a_missing_file_is_named_before_anything_is_started() -> None:
    error = _refused("--data", "no/such file.h5")
    assert error.code is Code.FILE_UNREADABLE
    assert "no/such file.h5 cannot be read: there is no such file" in str(error)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert "it is not a regular file" in str(_refused("--data", str(tmp_path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0)
    assert "permission denied" in str(_refused("--data", str(tmp_path / "secret")))


@pytest.mark.parametrize("frames", ["0", "-1", "many", "1000001", "1.5", "²"])
def test_a_wrong_number_of_frames_is_refused(frames: str) -> None:
    error = _refused(f"--frames={frames}")
    assert error.code is Code.BAD_CONFIGURATION
    assert "1 to 1000000" in str(error)


def test_outside_of_a_checkout_it_says_so() -> None:
    error = _refused()
    assert error.code is Code.FILE_UNREADABLE
    assert "run the demo in the checkout" in str(error)


def test_what_is_wanted_travels_in_the_environment() -> None:
    assert Wanted("nginx", 3, Path("/data/{{ x }}.h5")).environment() == {
        "ENGINE": "nginx",
        "SCISTREAM_DEMO_FRAMES": "3",
        "SCISTREAM_DEMO_DATA": "/data/{{ x }}.h5",
    }


def test_two_demos_at_once_the_second_names_the_first() -> None:
    name = f"\0scistream-demo-of-test-{os.getpid()}"
    with only_demo(name):
        with pytest.raises(SciStreamError) as caught, only_demo(name):
            pass
        assert caught.value.code is Code.DEMO_RUNNING
        assert f"(pid {os.getpid()})" in str(caught.value)
    with only_demo(name):
        pass


def test_the_addresses_that_are_proved_free_are_those_of_the_inventory() -> None:
    hosts = yaml.safe_load((ROOT / "inventory/local/hosts.yml").read_text())["gateways"]["hosts"]
    variables = yaml.safe_load((ROOT / "inventory/local/group_vars/gateways.yml").read_text())
    first, last = map(int, variables["scistream_port_range"].split("-"))
    ports = {variables["scistream_control_port"], *range(first, last + 1)}
    addresses = {facts["scistream_address"] for facts in hosts.values()}
    assert {(host, port) for host in addresses for port in ports} <= {(one.host, one.port) for one in LISTENERS}


def test_the_targets_of_the_playbook_are_proved_free_too() -> None:
    plays = yaml.safe_load((ROOT / "playbooks/demo.yml").read_text())
    tasks = [
        task for play in plays for task in play.get("tasks", []) if "targets" in task.get("scistream.core.session", {})
    ]
    ports = {int(target.rpartition(":")[2]) for task in tasks for target in task["scistream.core.session"]["targets"]}
    assert len(ports) == 2
    assert ports <= {one.port for one in LISTENERS}
