"""Roles by themselves on real hosts, over SSH and without a way out: engines, certificates, the kernel's values.

One set of hosts for all of them: each test leaves its host as it was.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import ROOT, Run, run_play
from hosts import Host, Hosts, require
from scistream import certificates

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    require()
    with Hosts(tmp_path_factory.mktemp("hosts") / "place") as made:
        yield made


def _role(name: str) -> dict[str, Any]:
    return {"ansible.builtin.import_role": {"name": f"scistream.core.{name}"}}


def _changes(run: Run) -> set[str]:
    return {one.task for one in run.results if one.changed}


def _assert_fine(run: Run) -> None:
    assert run.code == 0, run.output
    assert {one.outcome for one in run.results} <= {"ok", "skipped"}


def _sentence(run: Run) -> str:
    """What the play ended with; what was rescued before is none of it."""
    return str([one["msg"] for one in run.results if one.outcome == "failed"][-1])


# The role data_server.

# Until its input ends.
_HOLD = """
import fcntl, sys
with open("/var/lib/dpkg/lock-frontend", "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
_INSTALLED = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Package} ${Version}\\n"]


@dataclass(frozen=True)
class Gateway:
    """One of them, and what is run on it."""

    host: Host
    ssh_config: Path
    directory: Path

    def role(self, *options: str, user: str = "operator", **variables: Any) -> Run:
        # A test's own home is too long a path for a socket.
        sockets = str(self.ssh_config.parent / "cp")
        reach = {"ansible_user": user, "ansible_ssh_common_args": f"-F {self.ssh_config}"}
        reach["ansible_control_path_dir"] = sockets
        words = ["-i", f"{self.host.name},", *options, "-e", json.dumps(reach | variables)]
        return run_play([_role("data_server")], directory=self.directory, options=words, hosts="all")

    def packages(self) -> set[str]:
        return {line for line in self.host.run(_INSTALLED).stdout.splitlines() if line.startswith("ii ")}

    def says(self, *command: str) -> str:
        return self.host.run(command, check=False).stdout.strip()


@pytest.fixture
def gateway(hosts: Hosts, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that has after the test what it had before."""
    made = Gateway(hosts["gateway_b"], hosts.ssh_config, tmp_path)
    before = made.packages()
    yield made
    left = sorted(line.split()[1] for line in made.packages() - before)
    if left:
        made.host.run(["apt-get", "purge", "--yes", *left])
    made.host.run(["rm", "-rf", "/var/lib/scistream-data-server"])


def assert_walks(gateway: Gateway, **variables: Any) -> list[Run]:
    """Predicted, done, and nothing is left to do."""
    runs = [gateway.role(*options, **variables) for options in (["--check"], [], ["--check"], [])]
    assert [run.code for run in runs] == [0, 0, 0, 0], "\n".join(run.output for run in runs)
    assert [run.changed(gateway.host.name) > 0 for run in runs] == [True, True, False, False]
    return runs


def test_engines_come_by_ssh_and_go_without_a_trace(gateway: Gateway) -> None:
    before, etc = gateway.packages(), gateway.says("find", "/etc", "-newer", "/proc/1/cmdline")
    assert_walks(gateway, scistream_engines=["haproxy", "nginx", "stunnel", "nftables"])
    for service in ("haproxy", "nginx", "stunnel4", "nftables"):
        assert gateway.says("systemctl", "is-enabled", service) != "enabled"
        assert gateway.says("systemctl", "is-active", service) != "active"
    assert gateway.says("ss", "-Hltn", "sport = :80") == ""
    assert gateway.host.run(["test", "-e", "/usr/sbin/policy-rc.d"], check=False).returncode == 1
    assert_walks(gateway, scistream_state="absent")
    assert gateway.packages() == before
    assert gateway.says("ls", "/var/lib/scistream-data-server") == ""
    assert "haproxy" not in gateway.says("find", "/etc", "-newer", "/proc/1/cmdline").replace(etc, "")


def test_a_directory_of_packages_does_without_sources(gateway: Gateway, hosts: Hosts) -> None:
    sources = "/etc/apt/sources.list.d/packages.list"
    lists = gateway.says("ls", "--full-time", "/var/lib/apt/lists")
    offline = {"data_server_packages_directory": str(hosts.packages), "scistream_engines": ["haproxy"]}
    gateway.host.run(["mv", sources, "/root/packages.list"])
    try:
        assert_walks(gateway, **offline)
        names = {line.split()[1] for line in gateway.packages()}
        assert "haproxy" in names
        assert not {"nginx", "stunnel4", "iperf3"} & names
        assert gateway.says("ls", "/var/lib/scistream-data-server") == "packages.json"
        assert gateway.says("ls", "--full-time", "/var/lib/apt/lists") == lists
        part = gateway.directory / "part"
        part.mkdir()
        for path in hosts.packages.glob("*.deb"):
            if not path.name.startswith("nginx-common_"):
                shutil.copy(path, part)
        run = gateway.role(data_server_packages_directory=str(part), scistream_engines=["nginx"])
    finally:
        gateway.host.run(["mv", "/root/packages.list", sources])
    assert run.code == 2, run.output
    told = _sentence(run)
    assert re.match(r"gateway_b: the packages .*nginx.* cannot be installed: the package files in", told)
    assert "lack what they depend on; put those beside them" in told
    assert "nginx-common" in told
    assert gateway.role(scistream_state="absent").code == 0


def test_what_the_site_needs_by_now_stays(gateway: Gateway) -> None:
    assert gateway.role(scistream_engines=["haproxy"], data_server_extra_packages=["nginx"]).code == 0
    gateway.host.run(["apt-get", "install", "--yes", "--no-install-recommends", "libnginx-mod-stream"])
    run = gateway.role(scistream_state="absent")
    assert run.code == 0, run.output
    assert run.named("Say which packages stay, since others need them")["msg"] == (
        "gateway_b keeps nginx: other packages need them by now, and they are the site's own to remove."
    )
    names = {line.split()[1] for line in gateway.packages()}
    assert {"nginx", "libnginx-mod-stream"} <= names
    assert "haproxy" not in names


def test_troubles_of_the_host_are_told_in_a_sentence(gateway: Gateway, hosts: Hosts) -> None:
    no_root = gateway.role(user="scientist")
    assert "gateway_b lacks the packages haproxy. Installing them needs root, and this user is" in _sentence(no_root)

    with gateway.host.popen(
        ["python3", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        locked = gateway.role(data_server_lock_timeout=2)
        holder.stdin.close()
    assert "another program has been installing packages there for 2 seconds" in _sentence(locked)

    unknown = gateway.role(data_server_extra_packages=["no-such-package"])
    assert "no source of the gateway has all of them" in _sentence(unknown)
    assert "no-such-package" in _sentence(unknown)

    place = "/var/lib/scistream-data-server"
    gateway.host.run(["mkdir", place])
    gateway.host.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place])
    try:
        full = gateway.role(data_server_packages_directory=str(hosts.packages))
    finally:
        gateway.host.run(["umount", place])
        gateway.host.run(["rmdir", place])
    assert "there is no room for them" in _sentence(full)
    assert gateway.role().code == 0


# The role certificates.

_PLACED = ("/etc/scistream/server.crt", "/etc/scistream/server.key")


def test_two_bare_hosts_get_pairs_of_the_systems_and_lose_them_again(hosts: Hosts, tmp_path: Path) -> None:
    gateways = {name: hosts[name] for name in ("gateway_a", "gateway_b")}
    # As inventory/example has it: what Ansible calls a host by is not what it is called by on the controller.
    variables = {
        "ansible_user": "operator",
        "ansible_ssh_common_args": f"-F {hosts.ssh_config}",
        "ansible_control_path_dir": str(hosts.place / "cp"),
        "scistream_certificates_directory": str(tmp_path / "controller"),
        "scistream_control_server": "{{ ansible_host }}:5000",
    }
    inventory = tmp_path / "hosts.yml"
    addresses = {name: {"ansible_host": host.addresses["ssh"]} for name, host in gateways.items()}
    inventory.write_text(json.dumps({"gateways": {"hosts": addresses}}))

    def run(*options: str, **more: Any) -> Run:
        words = ["-i", str(inventory), *options, "-e", json.dumps(variables | more)]
        return run_play([_role("certificates")], directory=tmp_path, options=words, hosts="gateways")

    predicted, done, again = (run(*more) for more in (["--check"], [], []))
    for each in (predicted, done, again):
        _assert_fine(each)
        assert "PRIVATE KEY" not in each.output
    # Each of the two would issue the authority that they share, and the first one does.
    assert _changes(predicted) == _changes(done)
    assert _changes(again) == set()
    for name, host in gateways.items():
        listed = host.run(["stat", "-c", "%U:%G %a %n", "/etc/scistream", *_PLACED]).stdout.splitlines()
        assert listed == ["root:root 755 /etc/scistream", f"root:root 644 {_PLACED[0]}", f"root:root 600 {_PLACED[1]}"]
        own = certificates.read(tmp_path / "controller" / f"{name}.crt")
        assert set(own.names) == {name, host.addresses["ssh"]}
        assert host.run(["cat", _PLACED[1]], user="operator", check=False).returncode == 1
    gone, again = run(scistream_state="absent"), run(scistream_state="absent")
    _assert_fine(gone)
    assert _changes(again) == set()
    for host in gateways.values():
        assert host.run(["ls", "/etc/scistream"], check=False).returncode == 2


# The role tuning.


def test_a_real_host_keeps_its_values_over_a_reboot_and_gets_its_own_back(tmp_path: Path, hosts: Hosts) -> None:
    names = ["net.ipv4.tcp_mtu_probing", "net.ipv4.tcp_rmem", "net.ipv4.tcp_congestion_control"]
    host = hosts["compute"]

    def seen() -> list[str]:
        told = host.run(["sysctl", "-n", *names]).stdout
        return [" ".join(line.split()) for line in told.splitlines()]

    allowed = host.run(["cat", "/proc/sys/net/ipv4/tcp_allowed_congestion_control"]).stdout.split()

    def run(*options: str, **variables: Any) -> Run:
        own = {
            "tuning_congestion_control": allowed[-1],
            "scistream_ssh_config": str(hosts.ssh_config),
            # The name of a socket is short.
            "ansible_control_path_dir": str(hosts.place / "cp"),
            "tuning_rtt_ms": 10,
            "tuning_bandwidth_gbps": 10,
        }
        words = ["-i", str(ROOT / "inventory/example"), "-e", json.dumps(own | variables), *options]
        return run_play([_role("tuning")], directory=tmp_path, options=words, hosts="compute")

    before = seen()
    done = run(scistream_tuning=True)
    assert done.code == 0, done.output
    wanted = ["1", "4096 131072 25034752", allowed[-1]]
    assert seen() == wanted
    again = run(scistream_tuning=True)
    assert (again.code, _changes(again)) == (0, set()), again.output
    host.reboot()
    assert seen() == wanted
    gone = run(scistream_tuning=False)
    assert gone.code == 0, gone.output
    assert seen() == before
    left = ["/etc/sysctl.d/90-scistream.conf", "/etc/modules-load.d/scistream.conf", "/var/lib/scistream-tuning"]
    assert host.run(["ls", "-d", *left], check=False).stdout == ""
