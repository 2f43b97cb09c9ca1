"""What bad input gets: one sentence with the host, the variable, the cause and the next step; the other hosts are done.

Each trouble is on a host of its own, and all of them come into one play with two gateways that have none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from hosts import require
from hosts.sites import Site, commands, entry_point_in, site_at

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group(__name__)]

_FINE = ("gateway_a", "gateway_b")
_INVENTORY = "-i inventory/troubles -i inventory/example"
# All that provisioning makes on a host, in its order.
_MADE = """
ls -d /etc/scistream/* /usr/sbin/haproxy /var/lib/scistream-data-server /opt/scistream /usr/local/bin/s2cs \
    /var/lib/scistream/* /etc/systemd/system/scistream* 2>/dev/null
getent passwd scistream
true
"""


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a host.

    Args:
        host: its name.
        comes: how it gets so, as a shell of root says it.
        words: what of it is told, in this order.
        goes: how it is repaired, as the sentence says.
        variables: what the inventory says after the repair.
    """

    host: str
    comes: str
    words: tuple[str, ...]
    goes: str = "true"
    variables: dict[str, Any] = field(default_factory=dict)


_TROUBLES = (
    Trouble(
        "fleet_01",
        "for each in python3 python3.11; do mv /usr/bin/$each /usr/bin/$each.away; done",
        (
            "cannot be looked at: ",
            "python3: not found. Install Python 3.11 or newer there",
            "ansible_python_interpreter",
            "run it again",
        ),
        "for each in python3 python3.11; do mv /usr/bin/$each.away /usr/bin/$each; done",
    ),
    Trouble(
        "fleet_02",
        # An overlay has no place for a mount on a file of its lower layer's link.
        "printf 'ID=arch\\nPRETTY_NAME=\"Arch Linux\"\\n' > /root/other && mount --bind /root/other /etc/os-release",
        (
            " runs Arch Linux, whose packages the role data_server does not know",
            "Put the engines haproxy into place there yourself, set data_server_engines: [] for this host, and run it",
        ),
        "apt-get -qq install --no-install-recommends haproxy && systemctl disable --now haproxy",
        {"data_server_engines": []},
    ),
    Trouble(
        "fleet_03",
        "mount -t tmpfs -o size=8m tmpfs /opt",
        (": library_directory is /opt/scistream, where 8.00 MB are free, and the library needs", "Make room, or name"),
        "umount /opt",
    ),
    Trouble(
        "fleet_04",
        # Nobody can set a host's clock alone: whatever its users run is preloaded with another time. Not sshd, whose
        # sandbox does not bear that.
        "apt-get -qq install libfaketime && "
        "printf 'LD_PRELOAD=%s\\nFAKETIME=-2h\\n' /usr/lib/*/faketime/libfaketime.so.1 > /etc/environment && "
        "echo 'Defaults env_file=/etc/environment' > /etc/sudoers.d/clock",
        (": its clock is ", " s late by the controller's (library_clock_tolerance is 60)", "Set it (timedatectl"),
        "rm /etc/sudoers.d/clock && : > /etc/environment",
    ),
    Trouble(
        "fleet_05",
        "true",
        (": scistream_scope is system, and systemd does not run on this host. Set scistream_scope: user",),
        variables={"scistream_scope": "user"},
    ),
    Trouble(
        "fleet_06",
        "mkdir /var/lib/scistream && mount -t tmpfs -o size=1m tmpfs /var/lib/scistream",
        (
            ": scistream_state_directory is /var/lib/scistream, where 1.00 MB can be written, and the control server",
            " needs 20.00 MB. Make room there, or name another directory, and run it again.",
        ),
        "umount /var/lib/scistream",
    ),
)
_CUT_OFF = "fleet_07"
# When a run is killed: the task that has begun, seconds later, and by what.
_KILLED = (
    ("fleet_08", "Put the private key on the gateway", 0.0, signal.SIGKILL),
    ("fleet_09", "Install the packages]", 1.0, signal.SIGINT),
    ("fleet_10", "Install the library from the wheels", 1.5, signal.SIGKILL),
    ("fleet_11", "Configure the control server", 0.0, signal.SIGINT),
    ("fleet_12", "Start the control server, and wait", 0.2, signal.SIGKILL),
)
_REPAIRED = tuple(trouble.host for trouble in _TROUBLES)
_BAD = (*_REPAIRED, _CUT_OFF)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require()
    with site_at(tmp_path_factory.mktemp("site"), more=12) as made:
        (made.checkout / "inventory" / "troubles").mkdir()
        describe(made)
        yield made


def describe(site: Site, **variables: dict[str, Any]) -> None:
    """Write the fleet's inventory. It comes before the two gateways: what runs once begins with a host in trouble."""
    fleet = {
        name: dict.fromkeys(("ansible_host", "scistream_address", "scistream_facility_address"), host.addresses["ssh"])
        | variables.get(name, {})
        for name, host in site.hosts.items()
        if name.startswith("fleet_")
    }
    groups = {"gateways": {"hosts": fleet}, "facility_a": {"hosts": dict.fromkeys(fleet)}}
    (site.checkout / "inventory" / "troubles" / "hosts.json").write_text(json.dumps(groups))


def provision(site: Site, *names: str, code: int = 0) -> str:
    return site.type(f"{command(site)} --limit {','.join(names)} --forks 6", code=code)


def command(site: Site) -> str:
    return f"ansible-playbook {_INVENTORY} -e scistream_library_source={site.checkout} playbooks/provision.yml"


def told(output: str) -> list[str]:
    """The sentences that Ansible shows; it shows each of them once more in its results."""
    assert "Traceback" not in output
    return re.findall(r"^\[ERROR\]: Task failed: (?:(?:Action|Module) failed: )?(.*)$", output, re.MULTILINE)


def counted(output: str, what: str) -> dict[str, int]:
    """By host, a figure of the recap."""
    recap = output.partition("PLAY RECAP")[2]
    return {name: int(number) for name, number in re.findall(rf"^(\w+) +:.* {what}=(\d+)", recap, re.MULTILINE)}


def made(site: Site, name: str) -> str:
    return site.hosts[name].run(["sh", "-c", _MADE]).stdout


def serving(site: Site, *names: str) -> bool:
    """Whether all of these answer to the controller."""
    said = site.type(f"ansible-playbook {_INVENTORY} playbooks/status.yml --limit {','.join(names)}")
    return f"{len(names)} gateways, {len(names)} answered" in said


def test_a_wrong_variable_of_one_host_touches_none(site: Site) -> None:
    describe(
        site,
        fleet_01={"scistream_control_port": "five"},
        fleet_02={"scistream_insecure_no_auth": False},
        fleet_03={"scistream_control_prot": 5001},
    )
    said = provision(site, "fleet_01", "fleet_02", "fleet_03", *_FINE, code=2)
    describe(site)
    assert told(said) == ["3 variables of 3 hosts cannot be used; nothing was touched on any host:"]
    told_of = re.findall(r"^- (\w+): (.*)$", said, re.MULTILINE)
    assert [name for name, _ in told_of] == ["fleet_01", "fleet_02", "fleet_03"]
    assert told_of[0][1] == "scistream_control_port is five, and is to be a whole number. Correct the value."
    assert told_of[1][1].startswith(
        "scistream_client_secret is not set, and is to be the secret that tokens are checked"
    )
    assert "scistream_control_prot is a variable that no role and no playbook knows" in told_of[2][1]
    assert [made(site, name) for name in _FINE] == ["", ""]


def test_what_a_look_at_the_host_tells_is_told_before_it_is_touched(site: Site) -> None:
    host = site.hosts["gateway_b"]

    def refused(**variables: Any) -> str:
        words = f"--limit gateway_b -e {shlex.quote(json.dumps(variables))}"
        said = site.type(f"{command(site)} {words}", code=2)
        assert made(site, "gateway_b") == ""
        (sentence,) = told(said)
        return sentence

    firewall = {"scistream_firewall": True, "scistream_peers": ["198.18.10.1"]}
    host.run(["mv", "/usr/sbin/nft", "/usr/sbin/nft.away"])
    try:
        assert refused(**firewall) == (
            "gateway_b: control_server_firewall is true, and the host has no nft, which turns others away. "
            "Add nftables to data_server_extra_packages, or set control_server_firewall: false, and run it again."
        )
    finally:
        host.run(["mv", "/usr/sbin/nft.away", "/usr/sbin/nft"])
    assert refused(scistream_engines=["nftables"], scistream_engine="nftables", scistream_listen_address="::") == (
        "gateway_b: control_server_listen_address is ::, nftables is among scistream_engines, and the kernel forwards "
        "no IPv6. This role switches on IPv4 alone. Set net.ipv6.conf.all.forwarding=1 on the host, with rules for "
        "what it may forward, or listen on an IPv4 address."
    )
    place = "/home/scientist/gateway"
    assert refused(control_server_directory=place).startswith(
        f"gateway_b: control_server_directory is {place}, and /home/scientist is scientist's. Name a directory of"
    )


def test_hosts_that_cannot_serve_are_told_of_and_the_others_serve(site: Site) -> None:
    for trouble in _TROUBLES:
        site.hosts[trouble.host].run(["sh", "-ec", trouble.comes])
    without_systemd = site.hosts["fleet_05"]
    without_systemd.kill()
    without_systemd.start(systemd=False)
    before = {name: made(site, name) for name in _BAD}
    site.hosts[_CUT_OFF].cut("ssh")
    # Nobody who can repair it is to find it half made.
    said = provision(site, *_BAD, *_FINE, code=4)
    site.hosts[_CUT_OFF].mend("ssh")
    sentences = told(said)
    for trouble in _TROUBLES:
        (sentence,) = [each for each in sentences if each.startswith(trouble.host)]
        # In this order, and nothing of another host.
        assert re.search(".*".join(map(re.escape, trouble.words)), sentence), sentence
        assert "\n" not in sentence
    assert len(sentences) == len(_TROUBLES) + 1, sentences
    assert counted(said, "unreachable")[_CUT_OFF] == 1
    assert [name for name, number in counted(said, "failed").items() if number] == list(_REPAIRED)
    assert {name: made(site, name) for name in _BAD} == before
    assert {name: counted(said, "changed")[name] for name in _BAD} == dict.fromkeys(_BAD, 0)
    assert serving(site, *_FINE)
    assert site.carried(entry_point_in(site.type(commands("runbooks/open_stream.md")[0])))


def test_a_run_after_the_repair_completes(site: Site) -> None:
    for trouble in _TROUBLES:
        site.hosts[trouble.host].run(["sh", "-ec", trouble.goes])
    describe(site, **{trouble.host: trouble.variables for trouble in _TROUBLES})
    said = provision(site, *_REPAIRED, *_FINE)
    assert set(counted(said, "failed").values()) == {0}
    changed = counted(said, "changed")
    assert {name: changed[name] for name in _FINE} == dict.fromkeys(_FINE, 0)
    assert serving(site, *_REPAIRED, *_FINE)
    assert set(counted(provision(site, *_REPAIRED, *_FINE), "changed").values()) == {0}


def test_a_control_port_that_is_closed_to_the_controller(site: Site) -> None:
    opens = f"{commands('runbooks/open_stream.md')[0]} -e scistream_timeout=3"
    with wall(site, "reject with tcp reset"):
        (sentence,) = told(site.type(opens, code=2))
        assert closed(sentence) == "nothing listens there (connection refused)"
    with wall(site, "drop"):
        (sentence,) = told(site.type(opens, code=2))
        assert closed(sentence) == "no answer within 3 s"
        assert "2 gateways, 1 answered" in site.type(f"{commands('runbooks/status.md')[0]} -e status_timeout=3")
        # It is asked on the host itself.
        assert set(counted(provision(site, *_FINE), "changed").values()) == {0}
    assert serving(site, *_FINE)


def closed(sentence: str) -> str:
    """What a sentence says was met at the control port, where it has all else: end, address, step, variable."""
    server = "198.18.10.21:5000"
    start = f"bound end (gateway_a, {server}): cannot connect to control server {server}: "
    end = (
        ". Its name or its port is another, it is not running, or a firewall is between. On the gateway: s2cs status; "
        "where its port is closed to others, lead there over SSH with --via (module: via, inventory: scistream_via); "
        f"from here: curl -v telnet://{server}."
    )
    found = re.fullmatch(f"(?:in|out){re.escape(start)}(.*){re.escape(end)}", sentence)
    assert found, sentence
    return found[1]


@contextlib.contextmanager
def wall(site: Site, answer: str) -> Iterator[None]:
    """What a controller meets at a gateway whose control port is not for it."""
    chain = f"chain input {{ type filter hook input priority 0; iifname ssh tcp dport 5000 {answer}; }}"
    site.hosts["gateway_a"].run(["nft", "-f", "-"], stdin=f"table inet wall {{\n{chain}\n}}\n")
    try:
        yield
    finally:
        site.hosts["gateway_a"].run(["nft", "delete", "table", "inet", "wall"])


def test_a_run_that_was_killed_is_run_again(site: Site) -> None:
    names = [name for name, *_ in _KILLED]
    with ThreadPoolExecutor(2) as threads:
        ends = list(threads.map(lambda point: killed(site, *point), _KILLED))
    assert all(ends), ends
    provision(site, *names)
    assert serving(site, *names)
    assert set(counted(provision(site, *names), "changed").values()) == {0}


def killed(site: Site, name: str, task: str, seconds: float, number: signal.Signals) -> int:
    """Begin to provision a host, and kill that in the middle of a task; how it ended."""
    with site.begin(f"exec {command(site)} --limit {name}") as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if task in line:
                break
        else:
            pytest.fail(f"{name} was done before {task}: {''.join(said[-20:])}")
        time.sleep(seconds)
        # Where Ansible is just about something of its own it may not heed a Ctrl-C, and a person presses it again.
        for _ in range(5):
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
                break
        process.stdout.read()
    return process.returncode
