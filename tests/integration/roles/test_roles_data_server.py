"""Role data_server by real runs of Ansible: it looks first, asks for root only to install, and leaves no service on."""

from __future__ import annotations

import base64
import json
import os
import re
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
    """What the play ended with; what was rescued before is none of it."""
    return str([one["msg"] for one in run.results if one.outcome == "failed"][-1])


def test_installed_engines_need_no_root_and_change_nothing(tmp_path: Path) -> None:
    run = run_role(tmp_path, scistream_engines=["haproxy", "nftables", "nginx", "stunnel"])
    assert run.code == 0, run.output
    assert not any(one.changed for one in run.results)
    ran = [one.task for one in run.results if one.outcome == "ok" and not one.task.startswith("Validating arguments")]
    assert ran == [
        "Know the distribution",
        "See which distribution the gateway runs",
        "Read what the distribution calls things",
        "Bring the packages into their state",
        "See which packages are there",
        "See that each engine's program runs",
    ]


def release(**facts: str) -> dict[str, Any]:
    """A host's /etc/os-release, as the role reads it."""
    text = "".join(f'{key}="{value}"\n' for key, value in facts.items())
    return {"data_server_os_release": {"content": base64.b64encode(text.encode()).decode()}}


def test_an_unknown_distribution_is_told_in_a_sentence(tmp_path: Path) -> None:
    run = run_role(tmp_path, **release(ID="alpine", PRETTY_NAME="Alpine Linux v3.19"))
    assert run.code == 2
    assert sentence(run) == (
        "facility_a runs Alpine Linux v3.19, whose packages the role data_server does not know: it installs them on "
        "Debian, Ubuntu and the Red Hat family. Put the engines haproxy into place there yourself, set "
        "data_server_engines: [] for this host, and run it again."
    )
    assert "a system that does not tell its name" in sentence(run_role(tmp_path, **release()))


@pytest.mark.parametrize(
    ("facts", "program"),
    [
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "dpkg-query"),
        ({"ID": "raspbian", "ID_LIKE": "debian"}, "dpkg-query"),
        ({"ID": "fedora"}, "rpm"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "rpm"),
    ],
)
def test_a_distribution_is_known_by_what_it_is_made_of(tmp_path: Path, facts: dict[str, str], program: str) -> None:
    run = run_role(tmp_path, **release(**facts))
    assert str(run.named("See which packages are there")["cmd"]).lstrip("['").startswith(program)
    if not shutil.which(program):
        assert f"and {program} does not answer there" in sentence(run)


def test_an_engine_that_is_too_old_is_told_with_both_versions(tmp_path: Path) -> None:
    run = run_role(tmp_path, data_server_oldest={"haproxy": "99.1"})
    assert run.code == 2
    assert re.search(r"facility_a: haproxy is 2\.\d+\.\d+ there, and data_server_engines needs 99\.1", sentence(run))


def test_a_package_that_is_in_no_file_is_named_before_anything_is_copied(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("installing needs root, and that is told first")
    (tmp_path / "other-package_1.0_all.deb").touch()
    more = {"data_server_extra_packages": ["no-such-package", "other-package"]}
    run = run_role(tmp_path, data_server_packages_directory=str(tmp_path), **more)
    assert run.code == 2
    told = sentence(run)
    assert (
        "lacks the packages no-such-package, other-package, and of these no-such-package is in no package file" in told
    )
    assert f"data_server_packages_directory, {tmp_path} on the controller" in told
    assert not any(one.changed for one in run.results)


def test_nothing_is_removed_that_this_role_did_not_install(tmp_path: Path) -> None:
    run = run_role(tmp_path, scistream_state="absent", data_server_directory=str(tmp_path / "nothing"))
    assert run.code == 0, run.output
    assert not any(one.changed for one in run.results)
    assert shutil.which("haproxy", path="/usr/sbin:/usr/bin")


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
