"""Upgrades of gateways in service: to versions that do not start or lose a session, and runs that are cut off.

One connection runs from the instrument's host to the compute host all the while, and at the end every byte has come
out. The tests go on from each other.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hosts.programs import until
from hosts.sites import ROOT, Site, entry_point_in
from library_wheels import OFFLINE, make_library_wheel, make_wheels

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group(__name__)]

_UNIT = "scistream-control-server.service"
_TARGET = ("198.18.13.10", "5074")
_WAIT = 60.0
# What systemd-analyze gives, of 10, less is better.
_MOST_EXPOSED = 2.5
# Runs a command until a line with these words, and kills it and all that it has started there.
_CUTTER = """
import psutil, subprocess, sys
child = psutil.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True)
for line in child.stdout:
    if sys.argv[1] in line:
        started = child.children(recursive=True)
        for process in (child, *started):
            process.kill()
        sys.exit(0)
sys.exit("it came to its end")
"""
# The files are written; the next thing is the start. A plain process is ended before.
_BEFORE_THE_START = ": Say what a real run starts]"
_BEFORE_THE_END = ": Look whether the control server runs]"

# Changes of one file of the library: what stands there, and what comes in its place.
_DOES_NOT_START = (
    "control_server/server.py",
    "    certificate = judge(settings)\n",
    "    raise SystemExit('s2cs: error: this version does not start')\n",
)
_CANNOT_BE_RUN = ("cli/s2cs.py", "import os\n", "raise SystemExit('s2cs: error: this version cannot be run')\n")
_SHOWS_ONE_SESSION = (
    "control_server/restoring.py",
    "    registry.take_over(sessions)\n",
    "    registry.take_over(sessions[:1])\n",
)
_FORGETS_A_SESSION = (
    "control_server/restoring.py",
    "    with _naming_survivors(",
    """    import sqlite3

    forgetting = sqlite3.connect(directory / _JOURNAL)
    forgetting.execute("DELETE FROM sessions WHERE opened = (SELECT max(opened) FROM sessions)")
    forgetting.commit()
    forgetting.close()
    with _naming_survivors(""",
)


@dataclass
class Versions:
    """Wheels of the library, of any version and with any fault."""

    site: Site
    directory: Path

    def wheel(self, version: str, change: tuple[str, str, str] | None = None) -> Path:
        path = self.directory / f"scistream-{version}-py3-none-any.whl"
        if path.exists():
            return path
        copy = self.directory / version
        shutil.copytree(self.site.checkout / "src/scistream", copy)
        if change is not None:
            name, before, after = change
            text = (copy / name).read_text()
            assert before in text
            (copy / name).write_text(text.replace(before, after, 1))
        return make_library_wheel(self.directory, version, copy)

    def command(self, playbook: str, wheel: Path, *words: str) -> str:
        """What the operator types to bring a version."""
        told = {
            "library_source": str(wheel),
            "library_controller_directory": str(self.directory / "wheelhouses"),
            "control_server_start_timeout": 3,
        }
        environment = OFFLINE | {"PIP_FIND_LINKS": str(self.directory)}
        return shlex.join(
            [
                *("env", *(f"{key}={value}" for key, value in environment.items())),
                *("ansible-playbook", "-i", "inventory/example", f"playbooks/{playbook}.yml"),
                *("-e", json.dumps(told), *words),
            ]
        )

    def upgrade(self, wheel: Path, *words: str, code: int = 0) -> str:
        return " ".join(self.site.type(self.command("upgrade", wheel, *words), code=code).split())

    def provision(self, wheel: Path, *words: str, code: int = 0) -> str:
        return " ".join(self.site.type(self.command("provision", wheel, *words), code=code).split())

    def cut(self, playbook: str, wheel: Path, *words: str, at: str = _BEFORE_THE_START) -> None:
        """A run whose controller is gone between the files and the start."""
        cutter = shlex.join([sys.executable, "-c", _CUTTER, at])
        self.site.type(f"{cutter} {self.command(playbook, wheel, *words)}")


@dataclass
class Flow:
    """One connection through the stream, whose bytes are counted at both ends."""

    site: Site
    entry_point: str
    ends: list[subprocess.Popen[str]] = field(default_factory=list)

    def begin(self) -> None:
        program = ROOT / "extensions/molecule/shared/files/flow.py"
        for name in ("compute", "instrument"):
            self.site.hosts[name].copy(program, "flow.py", user="scientist")
        self._start("compute", "receive", *_TARGET, "flow.ready")
        ready = ["test", "-e", "flow.ready"]
        receiver = self.site.hosts["compute"]
        assert until(lambda: receiver.run(ready, user="scientist", check=False).returncode == 0, _WAIT)
        host, _, port = self.entry_point.rpartition(":")
        self._start("instrument", "send", host, port, "0", "flow.enough")

    def _start(self, name: str, *words: str) -> None:
        command = ["python3", "flow.py", *words]
        self.ends.append(self.site.hosts[name].popen(command, user="scientist", stdout=subprocess.PIPE, text=True))

    def runs(self) -> bool:
        return [end.poll() for end in self.ends] == [None, None]

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was received, and what was sent."""
        self.site.hosts["instrument"].run(["touch", "flow.enough"], user="scientist")
        sent, received = (json.loads(end.communicate(timeout=_WAIT)[0]) for end in reversed(self.ends))
        return received, sent


@pytest.fixture(scope="module")
def versions(bare_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    directory = tmp_path_factory.mktemp("wheels")
    make_wheels(directory)
    return Versions(bare_site, directory)


@pytest.fixture(scope="module")
def flow(versions: Versions) -> Iterator[Flow]:
    """Two gateways of version 0.1.0 with two streams, one of which carries bytes from now on."""
    versions.provision(versions.wheel("0.1.0"), "--limit", "gateways")
    ends = "-e stream_from=gateway_a -e stream_to=gateway_b"
    opened = [
        versions.site.type(
            f"ansible-playbook -i inventory/example playbooks/open_stream.yml {ends} -e stream_name={name} "
            f"-e stream_targets=198.18.13.10:{port}"
        )
        for name, port in (("flow", 5074), ("idle", 5075))
    ]
    found = Flow(versions.site, entry_point_in(opened[0]))
    try:
        found.begin()
        yield found
    finally:
        for end in found.ends:
            end.kill()
            end.wait()


def told(site: Site, gateway: str) -> dict[str, Any]:
    """What the control server says of itself."""
    command = ["/usr/local/bin/s2cs", "status", "--state-directory", "/var/lib/scistream", "--json"]
    return dict(json.loads(site.hosts[gateway].run(command).stdout))


def is_of(site: Site, gateway: str) -> tuple[str, int]:
    """Version and number of sessions of the control server that runs."""
    found = told(site, gateway)
    return found["version"], found["sessions"]


def data_servers(site: Site) -> dict[str, list[str]]:
    """The process ids of what carries the bytes, by gateway."""
    command = ["pgrep", "--uid", "scistream", "haproxy"]
    return {name: site.hosts[name].run(command).stdout.split() for name in ("gateway_a", "gateway_b")}


def left(site: Site, gateway: str) -> str:
    """What an upgrade has kept for the way back."""
    return site.hosts[gateway].run(["find", "/etc/scistream", "-name", "*.before"]).stdout


@pytest.fixture
def whole(flow: Flow) -> Iterator[None]:
    """The test cuts no connection, and no data server ends."""
    before = data_servers(flow.site)
    assert all(len(found) >= 2 for found in before.values())
    yield
    assert flow.runs()
    assert data_servers(flow.site) == before


@pytest.fixture
def untouched(flow: Flow) -> Iterator[None]:
    """The test does nothing to the second gateway."""

    def seen() -> tuple[Any, str]:
        files = ["find", "/opt/scistream", "/etc/scistream", "-maxdepth", "2", "-printf", "%p %l %T@\n"]
        return told(flow.site, "gateway_b")["pid"], flow.site.hosts["gateway_b"].run(files).stdout

    before = seen()
    yield
    assert seen() == before


@pytest.mark.usefixtures("whole", "untouched")
def test_a_version_that_does_not_start_goes_back_and_stops_there(versions: Versions) -> None:
    said = versions.upgrade(versions.wheel("0.2.0", _DOES_NOT_START), code=2)
    assert (
        "gateway_a did not come from 0.1.0 to 0.2.0: gateway_a: s2cs: error: this version does not start. It runs "
        "0.1.0 again, with all its sessions (2). The gateways after it were not touched. Repair it, and run it again."
    ) in said
    assert is_of(versions.site, "gateway_a") == ("0.1.0", 2)
    assert left(versions.site, "gateway_a") == ""


@pytest.mark.usefixtures("whole", "untouched")
def test_a_version_that_cannot_even_be_asked_ends_nothing(versions: Versions) -> None:
    before = told(versions.site, "gateway_a")
    said = versions.upgrade(versions.wheel("0.2.1", _CANNOT_BE_RUN), code=2)
    assert (
        "gateway_a: the library cannot be installed in /opt/scistream: --version: s2cs: error: this version cannot be "
        "run. Repair what it says, and run it again: it is begun anew. It runs 0.1.0 again, with all its sessions (2)."
    ) in said
    assert told(versions.site, "gateway_a") == before


@pytest.mark.usefixtures("whole", "untouched")
def test_a_version_that_does_not_show_a_session_goes_back_and_all_are_there(versions: Versions) -> None:
    said = versions.upgrade(versions.wheel("0.3.0", _SHOWS_ONE_SESSION), code=2)
    assert (
        "gateway_a: the control server had 2 sessions, and has 1. It runs 0.1.0 again, with all its sessions (2)."
    ) in said
    assert is_of(versions.site, "gateway_a") == ("0.1.0", 2)


@pytest.mark.usefixtures("whole", "untouched")
def test_a_run_that_is_cut_off_leaves_what_runs_and_the_next_one_finds_the_way_back(versions: Versions) -> None:
    site = versions.site
    versions.cut("upgrade", versions.wheel("0.4.0"))
    current = site.hosts["gateway_a"].run(["/usr/local/bin/s2cs", "--version"]).stdout
    assert "0.4.0" in current, "it was not cut off where it was to be"
    assert is_of(site, "gateway_a") == ("0.1.0", 2)
    assert left(site, "gateway_a")
    # Neither the release that is current nor the files that are there are what ran.
    said = versions.upgrade(versions.wheel("0.2.0", _DOES_NOT_START), code=2)
    assert "did not come from 0.1.0 to 0.2.0" in said
    assert "It runs 0.1.0 again, with all its sessions (2)." in said
    assert is_of(site, "gateway_a") == ("0.1.0", 2)
    assert "0.1.0" in site.hosts["gateway_a"].run(["/usr/local/bin/s2cs", "--version"]).stdout


@pytest.mark.usefixtures("whole")
def test_after_a_cut_a_repaired_run_completes_on_both(versions: Versions) -> None:
    site = versions.site
    versions.cut("upgrade", versions.wheel("0.4.0"))
    said = versions.upgrade(versions.wheel("0.4.0"))
    for gateway in ("gateway_a", "gateway_b"):
        assert re.search(rf"{gateway}: 0\.1\.0 \(release \w+\) -> 0\.4\.0 \(release \w+\); sessions: 2", said)
        assert is_of(site, gateway) == ("0.4.0", 2)
        assert left(site, gateway) == ""
    again = versions.upgrade(versions.wheel("0.4.0"))
    assert "gateway_a: 0.4.0, as before; sessions: 2" in again
    assert again.count("changed=0") == 2


@pytest.mark.usefixtures("whole")
def test_neither_an_end_nor_a_kill_of_the_control_server_cuts_a_connection(flow: Flow) -> None:
    for words in (["restart"], ["kill", "--kill-whom=main", "--signal=KILL"]):
        before = told(flow.site, "gateway_a")["pid"]
        flow.site.hosts["gateway_a"].run(["systemctl", *words, _UNIT])

        def is_back(before: int = before) -> bool:
            command = ["/usr/local/bin/s2cs", "status", "--state-directory", "/var/lib/scistream", "--json"]
            done = flow.site.hosts["gateway_a"].run(command, check=False)
            return done.returncode == 0 and json.loads(done.stdout)["pid"] != before

        assert until(is_back, _WAIT)
        assert is_of(flow.site, "gateway_a") == ("0.4.0", 2)


@pytest.mark.usefixtures("whole")
def test_the_service_may_do_little_also_where_it_filters_packets(versions: Versions, flow: Flow) -> None:
    engines = json.dumps({"scistream_engines": ["haproxy", "nftables"]})
    versions.provision(versions.wheel("0.4.0"), "--limit", "gateway_b", "-e", engines)
    for gateway in ("gateway_a", "gateway_b"):
        words = flow.site.hosts[gateway].run(["systemd-analyze", "security", "--no-pager", _UNIT]).stdout
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", words)
        assert found, words
        assert float(found[1]) <= _MOST_EXPOSED


@pytest.mark.usefixtures("whole", "untouched")
def test_what_is_lost_is_told(versions: Versions) -> None:
    said = versions.upgrade(versions.wheel("0.5.0", _FORGETS_A_SESSION), code=2)
    assert (
        "gateway_a: the control server had 2 sessions, and has 1. It runs 0.4.0 again, but had 2 sessions, and has 1."
    ) in said
    assert is_of(versions.site, "gateway_a") == ("0.4.0", 1)


@pytest.mark.usefixtures("whole")
def test_where_the_version_of_before_does_not_start_either_it_says_so(versions: Versions) -> None:
    site, gateway = versions.site, versions.site.hosts["gateway_a"]
    name, before, after = _DOES_NOT_START
    installed = f"/opt/scistream/current/lib/python3.11/site-packages/scistream/{name}"
    edit = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text().replace(*sys.argv[2:], 1))"
    gateway.run(["python3", "-c", edit, installed, before, after])
    said = versions.upgrade(versions.wheel("0.2.0", _DOES_NOT_START), code=2)
    assert "It does not run with 0.4.0 either (gateway_a: s2cs: error: this version does not start)." in said
    refused = versions.upgrade(versions.wheel("0.4.1"), code=2)
    assert "There is nothing to upgrade. Bring it into service first" in refused
    versions.provision(versions.wheel("0.4.1"), "--limit", "gateway_a")
    assert is_of(site, "gateway_a") == ("0.4.1", 1)


@pytest.mark.usefixtures("whole")
def test_a_secret_that_a_cut_run_brought_is_taken_by_the_next(versions: Versions) -> None:
    secrets = versions.directory / "secrets.json"
    words = ("--limit", "gateway_a", "-e", f"@{secrets}")

    def tell(secret: str) -> None:
        given = {"client_id": "gateway", "client_secret": secret, "introspection_url": "https://198.18.10.1:9/"}
        told_of = {f"scistream_{key}": value for key, value in given.items()} | {"scistream_insecure_no_auth": False}
        secrets.write_text(json.dumps(told_of))

    tell("of-before")
    versions.provision(versions.wheel("0.4.1"), *words)
    assert handed_over(versions.site) == "of-before"
    tell("of-now")
    versions.cut("provision", versions.wheel("0.4.1"), *words)
    assert handed_over(versions.site) == "of-before"
    versions.provision(versions.wheel("0.4.1"), *words)
    assert handed_over(versions.site) == "of-now"
    assert "changed=0" in versions.provision(versions.wheel("0.4.1"), *words)


def handed_over(site: Site) -> str:
    """The secret that the control server of the first gateway has from systemd."""
    gateway = site.hosts["gateway_a"]
    pid = gateway.run(["systemctl", "show", "--property=MainPID", "--value", _UNIT]).stdout.strip()
    return gateway.run(["cat", f"/proc/{pid}/root/run/credentials/{_UNIT}/client_secret"]).stdout


@pytest.mark.usefixtures("whole", "untouched")
def test_root_gives_away_nothing_of_other_users(versions: Versions) -> None:
    gateway = versions.site.hosts["gateway_a"]
    gateway.run(["ln", "-s", "/etc", "/home/scientist/trap"], user="scientist")
    words = ("--limit", "gateway_a", "-e", "control_server_directory=/home/scientist/trap")
    said = versions.provision(versions.wheel("0.4.1"), *words, code=2)
    assert (
        "gateway_a: control_server_directory is /home/scientist/trap, and /home/scientist is scientist's. Name a "
        "directory of root's or of scistream's"
    ) in said
    assert gateway.run(["stat", "--format=%U %a", "/etc"]).stdout == "root 755\n"
    gateway.run(["ln", "-s", "/etc", "/var/lib/trap"])
    words = ("--limit", "gateway_a", "-e", "control_server_directory=/var/lib/trap")
    said = versions.provision(versions.wheel("0.4.1"), *words, code=2)
    assert "and /var/lib/trap is a link, to /etc. Name a directory" in said
    assert gateway.run(["stat", "--format=%U %a", "/etc"]).stdout == "root 755\n"


def test_every_byte_came_out_at_last(flow: Flow) -> None:
    received, sent = flow.end()
    assert sent["bytes"] > 0
    assert sent["sha256"] == sent["answer"] == received["sha256"]


def test_data_servers_do_not_stay_where_the_library_is_gone(versions: Versions, flow: Flow) -> None:
    site, gateway = versions.site, versions.site.hosts["gateway_a"]
    words = ("--limit", "gateway_a", "-e", "scistream_state=absent")
    gateway.run(["mv", "/opt/scistream/current", "/opt/scistream/aside"])
    said = versions.provision(versions.wheel("0.4.1"), *words, code=2)
    assert (
        "gateway_a: there may be sessions (state directory /var/lib/scistream), and no library in /opt/scistream to "
        "release them with: their data servers would stay. Bring it back"
    ) in said
    assert data_servers(site)["gateway_a"]
    gateway.run(["mv", "/opt/scistream/aside", "/opt/scistream/current"])
    # Another user's process that only says that it is of the library.
    release = gateway.run(["readlink", "--canonicalize", "/opt/scistream/current"]).stdout.strip()
    pretends = gateway.popen(["bash", "-c", f"exec -a {release}/bin/python sleep 300"], user="scientist")
    try:
        is_there = ["pgrep", "--full", f"{release}/bin/python"]
        assert until(lambda: gateway.run(is_there, check=False).returncode == 0, _WAIT)
        versions.provision(versions.wheel("0.4.1"), *words)
    finally:
        pretends.kill()
        pretends.wait()
    assert gateway.run(["pgrep", "haproxy"], check=False).stdout == ""
    assert gateway.run(["ls", "/opt/scistream"], check=False).returncode == 2


def test_all_of_it_without_root(versions: Versions) -> None:
    site, gateway = versions.site, versions.site.hosts["gateway_a"]
    own = {"scistream_scope": "user", "ansible_user": "scientist", "control_server_linger": False}
    words = ("--limit", "gateway_a", "-e", json.dumps(own))
    versions.provision(versions.wheel("0.1.0"), *words)
    ends = "-e stream_to=gateway_a -e stream_name=own -e stream_targets=198.18.11.10:5074"
    site.type(f"ansible-playbook -i inventory/example playbooks/open_stream.yml {ends}")

    def data_server() -> str:
        return gateway.run(["pgrep", "--uid", "scientist", "haproxy"]).stdout

    def told_to_the_user() -> tuple[str, int]:
        command = "~/.local/bin/s2cs status --json --state-directory ~/.local/state/scistream/gateway"
        found = json.loads(gateway.run(["bash", "-c", command], user="scientist").stdout)
        return found["version"], found["sessions"]

    before = data_server()
    said = versions.upgrade(versions.wheel("0.2.0", _DOES_NOT_START), *words, code=2)
    assert "s2cs: error: this version does not start. It runs 0.1.0 again, with all its sessions (1)." in said
    assert told_to_the_user() == ("0.1.0", 1)
    versions.cut("upgrade", versions.wheel("0.4.0"), *words, at=_BEFORE_THE_END)
    assert told_to_the_user() == ("0.1.0", 1)
    versions.provision(versions.wheel("0.4.0"), *words)
    assert told_to_the_user() == ("0.4.0", 1)
    assert "changed=0" in versions.provision(versions.wheel("0.4.0"), *words)
    assert data_server() == before
