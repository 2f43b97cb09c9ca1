"""Role data_server by real runs of Ansible: it looks first, asks for root only to install, and leaves no service on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import ROOT, Run, run_play

_ROLE = {"ansible.builtin.import_role": {"name": "scistream.core.data_server"}}
_INVENTORY = ["-i", str(ROOT / "inventory/local"), "--limit", "facility_a"]
_NOBODY = "65534"
# Small, with a service that its package enables, and nothing that anybody on a test machine would miss.
_PACKAGE = "tinyproxy"


def run_role(directory: Path, *options: str, **variables: Any) -> Run:
    words = [*_INVENTORY, *options, "-e", json.dumps(variables)]
    return run_play([_ROLE], directory=directory, options=words, hosts="gateways")


def sentence(run: Run) -> str:
    return str(next(one["msg"] for one in run.results if one.outcome == "failed"))


def test_installed_engines_need_no_root_and_change_nothing(tmp_path: Path) -> None:
    run = run_role(tmp_path, scistream_engines=["haproxy", "nftables", "nginx", "stunnel"])
    assert run.code == 0, run.output
    assert not any(one.changed for one in run.results)
    ran = [one.task for one in run.results if one.outcome == "ok" and not one.task.startswith("Validating arguments")]
    assert ran == ["See which packages are there", "See that each engine's program runs"]


def test_check_mode_says_what_would_be_installed(tmp_path: Path) -> None:
    run = run_role(tmp_path, "--check", data_server_extra_packages=["no-such-package"])
    assert run.code == 0, run.output
    told = run.named("Say what a real run installs")
    assert told.changed
    command = "sudo apt-get update && sudo apt-get install --no-install-recommends no-such-package"
    assert told["msg"] == command
    assert [one.task for one in run.results if one.changed] == [told.task]


def test_a_program_that_does_not_run_is_named(tmp_path: Path) -> None:
    broken = {"haproxy": {"packages": ["haproxy"], "version_command": ["haproxy", "--no-such-option"]}}
    run = run_role(tmp_path, data_server_catalogue=broken)
    assert run.code == 2
    assert "facility_a: haproxy is installed and does not run: haproxy --no-such-option says" in sentence(run)
    assert "sudo apt-get install --reinstall haproxy" in sentence(run)


def test_an_unknown_engine_lists_the_known_ones(tmp_path: Path) -> None:
    run = run_role(tmp_path, scistream_engines=["squid"])
    assert run.code == 2
    assert "haproxy, nftables, nginx, stunnel" in sentence(run)
    assert "squid" in sentence(run)


def tell(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the system, and return what it said."""
    return subprocess.run(words, check=False, capture_output=True, text=True, **more)


@pytest.fixture
def unprivileged() -> Iterator[list[str]]:
    """The first words of a command line that runs Ansible as a user who is not root."""
    if os.geteuid() != 0:
        if shutil.which("sudo") and tell("sudo", "-n", "true").returncode == 0:
            pytest.skip("this user is not root, and has sudo without a password")
        yield ["env", f"ANSIBLE_CONFIG={ROOT}/ansible.cfg", sys.executable]
        return
    home = tempfile.mkdtemp(prefix="scistream-nobody-")
    os.chown(home, int(_NOBODY), int(_NOBODY))
    libraries = str(Path(next(path for path in sys.path if path.endswith("site-packages"))))
    environment = [f"HOME={home}", f"PYTHONPATH={libraries}", f"ANSIBLE_CONFIG={ROOT}/ansible.cfg", "LANG=C.UTF-8"]
    command = [
        "setpriv",
        f"--reuid={_NOBODY}",
        f"--regid={_NOBODY}",
        "--clear-groups",
        "env",
        "-i",
        "PATH=/usr/bin:/bin",
    ]
    command += [*environment, "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3"]
    try:
        trial = [*command, "-c", "import ansible.cli, sys; sys.exit(sys.version_info[:2] < (3, 11))"]
        if tell(*trial, cwd="/").returncode != 0:
            pytest.skip("the distribution's own Python cannot run Ansible as another user here")
        yield command
    finally:
        shutil.rmtree(home)


def test_without_root_and_sudo_the_packages_and_the_command_are_named(unprivileged: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="scistream-play-") as directory:
        Path(directory).chmod(0o755)
        play = Path(directory) / "play.yml"
        python = unprivileged[-1]
        play.write_text(
            json.dumps([{"hosts": "gateways", "vars": {"ansible_python_interpreter": python}, "tasks": [_ROLE]}])
        )
        words = ["-m", "ansible", "playbook", str(play), *_INVENTORY]
        extra = json.dumps({"data_server_extra_packages": ["no-such-package"]})
        fine = tell(*unprivileged, *words, cwd=directory)
        refused = tell(*unprivileged, *words, "-e", extra, cwd=directory)
    assert fine.returncode == 0, fine.stdout
    assert refused.returncode == 2
    told = " ".join(refused.stdout.split())
    assert "facility_a lacks the packages no-such-package. Installing them needs root, and this user is" in told
    assert "sudo apt-get update && sudo apt-get install --no-install-recommends no-such-package" in told


@pytest.fixture
def package() -> Iterator[str]:
    """A package that is not installed, and is not after the test either."""
    if not os.environ.get("SCISTREAM_TEST_PACKAGES") or os.geteuid() != 0:
        pytest.skip("installs a package: set SCISTREAM_TEST_PACKAGES=1, as root, on a machine that may be changed")
    before = _installed()
    try:
        yield _PACKAGE
    finally:
        new = sorted(_installed() - before)
        assert tell("apt-get", "purge", "--yes", *new).returncode == 0


def _installed() -> set[str]:
    shown = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Package}\\n"]
    return {line[3:] for line in tell(*shown).stdout.splitlines() if line.startswith("ii ")}


def _policy() -> bytes | None:
    path = Path("/usr/sbin/policy-rc.d")
    return path.read_bytes() if path.exists() else None


@pytest.mark.outer_network
def test_a_package_is_installed_and_its_service_neither_runs_nor_is_enabled(tmp_path: Path, package: str) -> None:
    variables = {"data_server_extra_packages": [package], "data_server_package_services": {package: package}}
    policy = _policy()
    runs = [run_role(tmp_path, *options, **variables) for options in (["--check"], [], ["--check"], [])]
    assert [run.code for run in runs] == [0, 0, 0, 0], runs[1].output
    assert [run.changed("facility_a") > 0 for run in runs] == [True, True, False, False]
    assert package in _installed()
    assert tell("systemctl", "is-enabled", package).stdout.strip() == "disabled"
    assert tell("pgrep", "-x", package).returncode == 1
    assert _policy() == policy
