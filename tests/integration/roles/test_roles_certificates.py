"""Role certificates and playbook rotate_certificates, by real runs of Ansible on this machine."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509

from ansible_runs import ROOT, Run, run_play, run_playbook
from scistream import certificates

_ROLE = {"ansible.builtin.import_role": {"name": "scistream.core.certificates"}}
_GATEWAYS = {"facility_a": "127.0.1.1", "facility_b": "127.0.2.1"}
_PORT, _PORTS = 24320, "24330-24335"
_LONG = 400
_HERE = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


class Site:
    """A controller's directory, a gateway's, and the variables that say so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.controller, self.gateway = directory / "controller", directory / "gateway"
        self.variables: dict[str, Any] = {
            "scistream_scope": "process",
            "scistream_certificates_directory": str(self.controller),
            "scistream_state_directory": str(self.gateway),
        }

    def run(self, *options: str, **variables: Any) -> Run:
        words = ["-i", "gw.example,", *options, "-e", json.dumps(_HERE | self.variables | variables)]
        return run_play([_ROLE], directory=self.directory, options=words, hosts="gw.example")

    def names(self) -> set[str]:
        return set(certificates.read(self.gateway / "server.crt").names)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def assert_fine(run: Run) -> None:
    assert run.code == 0, run.output
    assert {one.outcome for one in run.results} <= {"ok", "skipped"}


def changes(run: Run) -> list[str]:
    return [one.task for one in run.results if one.changed]


def sentence(run: Run) -> str:
    assert run.code == 2, run.output
    return " ".join(str(next(one["msg"] for one in run.results if one.outcome == "failed")).split())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_pair_for_all_names_of_the_inventory(site: Site) -> None:
    names = {
        "scistream_control_server": "[2001:db8::7]:5000",
        "scistream_address": "198.51.100.7",
        "scistream_listen_address": "::",
        "certificates_extra_names": ["gateway.example.org", "2001:db8::8"],
    }
    predicted = site.run("--check", **names)
    assert_fine(predicted)
    assert not site.controller.exists()
    assert not site.gateway.exists()
    done, again = site.run(**names), site.run(**names)
    assert_fine(done)
    assert changes(predicted) == changes(done)
    assert_fine(again)
    assert changes(again) == []
    assert "PRIVATE KEY" not in predicted.output + done.output
    assert site.names() == {"gw.example", "198.51.100.7", "2001:db8::7", "gateway.example.org", "2001:db8::8"}
    assert (mode(site.gateway / "server.key"), mode(site.gateway / "server.crt")) == (0o600, 0o644)
    facts = done.results[-1]["ansible_facts"]["certificates_facts"]
    assert facts["server"]["issuer"] == facts["authority"]["subject"]


def test_the_private_key_is_nobody_elses_at_any_moment(site: Site) -> None:
    seen, ended = set(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.0005):
            for path in (*site.gateway.glob("*key*"), *site.gateway.glob(".*key*")):
                with contextlib.suppress(FileNotFoundError):
                    facts = path.stat()
                    # An empty one holds no key yet.
                    seen.add(stat.S_IMODE(facts.st_mode) if facts.st_size else 0o600)

    site.gateway.mkdir()
    watcher = threading.Thread(target=watch)
    watcher.start()
    before = os.umask(0)
    try:
        assert_fine(site.run())
    finally:
        os.umask(before)
        ended.set()
        watcher.join()
    assert seen == {0o600}
    assert (site.gateway / "server.key").stat().st_size > 0


def test_a_user_keeps_the_pair_among_the_configuration_and_nothing_stays_of_it(site: Site) -> None:
    place = site.directory / "home/.config/scistream"
    scope = {"scistream_scope": "user"}
    done, again = site.run(**scope), site.run(**scope)
    assert_fine(done)
    assert changes(again) == []
    assert (mode(place), mode(place / "server.key")) == (0o700, 0o600)
    # Not in the home that the account file names.
    assert "PRIVATE KEY" in (place / "server.key").read_text()
    predicted, gone, again = (site.run(*more, scistream_state="absent", **scope) for more in (["--check"], [], []))
    assert_fine(gone)
    assert changes(predicted) == changes(gone)
    assert changes(again) == []
    assert not place.exists()
    assert sorted(path.name for path in site.controller.iterdir()) == ["ca.crt", "ca.key"]


def test_what_others_keep_beside_the_pair_stays(site: Site) -> None:
    place = site.directory / "home/.config/scistream"
    place.mkdir(parents=True, mode=0o755)
    (place / "site.secret").write_text("a secret")
    for state in ("started", "absent"):
        assert_fine(site.run(scistream_scope="user", scistream_state=state))
    assert [path.name for path in place.iterdir()] == ["site.secret"]
    assert mode(place) == 0o755


@pytest.fixture
def own(site: Site) -> dict[str, Any]:
    """Variables that name a pair of the site's own authority, with its chain."""
    directory, now = site.directory / "pki", datetime.datetime.now(datetime.UTC)
    directory.mkdir()
    ca = directory / "ca.crt", directory / "ca.key"
    certificates.issue_ca(*ca, name="The site", days=300, now=now)
    pair = directory / "gw.crt", directory / "gw.key"
    certificates.issue(*pair, names=["gw.example", "192.0.2.7"], days=200, ca=ca, now=now)
    return {
        "certificates_site_certificate": str(pair[0]),
        "certificates_site_private_key": str(pair[1]),
        "certificates_site_chain": str(ca[0]),
        "scistream_control_server": "gw.example:5000",
    }


def test_the_sites_own_pair_is_put_into_place_with_its_chain(site: Site, own: dict[str, Any]) -> None:
    predicted, done, again = (site.run(*more, **own) for more in (["--check"], [], []))
    assert_fine(done)
    assert changes(predicted) == changes(done)
    assert changes(again) == []
    assert "PRIVATE KEY" not in predicted.output + done.output
    assert not site.controller.exists()
    served = x509.load_pem_x509_certificates((site.gateway / "server.crt").read_bytes())
    assert [each.subject.rfc4514_string().partition(",")[0] for each in served] == ["CN=gw.example", "CN=The site"]
    key = Path(own["certificates_site_private_key"])
    assert (site.gateway / "server.key").read_bytes() == key.read_bytes()
    assert mode(site.gateway / "server.key") == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(site.gateway / "server.crt", site.gateway / "server.key")
    facts = done.results[-1]["ansible_facts"]["certificates_facts"]
    assert facts["authority"] is None
    assert facts["server"]["names"] == ["gw.example", "192.0.2.7"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"certificates_site_private_key": ""},
            "gw.example: certificates_site_certificate is set, and certificates_site_private_key is not",
        ),
        (
            {"certificates_site_certificate": ""},
            "gw.example: certificates_site_private_key is set, and certificates_site_certificate is not",
        ),
        (
            {"certificates_site_private_key": "{{ certificates_site_chain | replace('.crt', '.key') }}"},
            "gw.example: certificates_site_private_key cannot be used: the private key",
        ),
        ({"certificates_site_chain": ""}, "gw.example: certificates_site_certificate cannot be used: the certificate"),
        (
            {"certificates_site_chain": "/nowhere.pem"},
            "gw.example: certificates_site_chain cannot be used: there is no certificate /nowhere.pem",
        ),
        (
            {"scistream_control_server": "other.example:5000"},
            "and the control server was called other.example. The subject alternative names lack the name",
        ),
        (
            {"certificates_site_certificate": "/nowhere.crt"},
            "gw.example: certificates_site_certificate cannot be used: there is no certificate /nowhere.crt",
        ),
    ],
)
def test_what_cannot_be_served_with_is_told_before_anything_is_touched(
    site: Site, own: dict[str, Any], wrong: dict[str, str], words: str
) -> None:
    assert words in sentence(site.run(**own | wrong))
    assert not site.gateway.exists()


def test_an_end_of_the_sites_own_that_is_near_is_told(site: Site, own: dict[str, Any]) -> None:
    run = site.run(certificates_warn_before_days=250, **own)
    assert_fine(run)
    assert f"The certificate {own['certificates_site_certificate']} ends in 199 days" in " ".join(run.output.split())


# The playbook, on inventory/local.

Playbook = Callable[..., Run]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Playbook]:
    """Runs a playbook on ports and a state directory of its own, with the variables that are named."""
    fixed = {
        "scistream_local_state": str(tmp_path / "state"),
        "scistream_control_port": _PORT,
        "scistream_port_range": _PORTS,
    }

    def run(name: str, *options: str, **variables: Any) -> Run:
        given = ["-e", json.dumps(fixed | variables)]
        inventory = ["-i", str(ROOT / "inventory/local")]
        return run_playbook(ROOT / f"playbooks/{name}.yml", directory=tmp_path, options=[*inventory, *given, *options])

    try:
        yield run
    finally:
        for process in psutil.process_iter():
            if process.pid != os.getpid() and str(tmp_path / "state") in " ".join(_words(process)):
                process.kill()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def shown(gateway: str, trusted: Path) -> str:
    """SHA-256 of the certificate that a control server shows to a client that trusts that file."""
    context = ssl.create_default_context(cafile=trusted)
    context.set_alpn_protocols(["h2"])
    address = _GATEWAYS[gateway]
    raw = socket.create_connection((address, _PORT), timeout=20)
    with context.wrap_socket(raw, server_hostname=address) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return hashlib.sha256(der).hexdigest()


def pinned(state: Path, gateway: str) -> Path:
    return state / "controller" / gateway / "ca.crt"


def session(state: Path, gateway: str, **more: Any) -> dict[str, Any]:
    reach = {"control_server": f"{_GATEWAYS[gateway]}:{_PORT}", "server_certificate": str(pinned(state, gateway))}
    ticket, secret = str(state / "beam.ticket"), str(state / "site.secret")
    return {"scistream.core.session": reach | {"name": "beam", "site_secret": secret, "ticket": ticket} | more}


@pytest.mark.timeout(_LONG)
def test_gateways_get_new_certificates_and_no_stream_is_cut(
    tmp_path: Path, play: Playbook, echo_target: Any, round_trip: Any
) -> None:
    state = tmp_path / "state"
    assert_fine(play("provision"))
    tasks = [
        session(state, "facility_b", direction="inbound", targets=[echo_target.endpoint]),
        session(state, "facility_a", direction="outbound"),
    ]
    opened = run_play(tasks, directory=tmp_path)
    assert opened.code == 0, opened.output
    entry_point = opened.results[1]["session"]["entry_points"][0]
    before = {gateway: shown(gateway, pinned(state, gateway)) for gateway in _GATEWAYS}
    host, port = entry_point.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as stream:
        stream.sendall(b"before")
        assert stream.recv(100) == b"before"
        predicted = play("rotate_certificates", "--check", "--diff")
        assert_fine(predicted)
        assert {gateway: shown(gateway, pinned(state, gateway)) for gateway in _GATEWAYS} == before
        rotated = [play("rotate_certificates", "--diff", "--limit", gateway) for gateway in _GATEWAYS]
        for each in rotated:
            assert_fine(each)
        stream.sendall(b"after")
        assert stream.recv(100) == b"after"
    assert round_trip(entry_point, b"anew") == b"anew"
    after = {gateway: shown(gateway, pinned(state, gateway)) for gateway in _GATEWAYS}
    assert all(after[gateway] != before[gateway] for gateway in _GATEWAYS)
    for run in (predicted, *rotated):
        assert "PRIVATE KEY" not in run.output
        renewed = [one for one in run.results if one.task == "Renew the certificates of the sessions that run"]
        assert {len(one["sessions"]) for one in renewed} == {1}


@pytest.mark.timeout(_LONG)
def test_the_authority_changes_while_old_and_new_are_trusted(tmp_path: Path, play: Playbook) -> None:
    state = tmp_path / "state"
    one = ["--limit", "facility_a"]
    assert_fine(play("provision", *one))
    bundle, old = pinned(state, "facility_a"), tmp_path / "old.crt"
    shutil.copy(bundle, old)
    early = play("rotate_certificates", *one, rotate_certificates_authority="finished")
    assert_fine(early)
    first = shown("facility_a", old)
    announced = play("rotate_certificates", *one, rotate_certificates_authority="announced")
    assert_fine(announced)
    assert shown("facility_a", bundle) == first
    both = tmp_path / "both.crt"
    shutil.copy(bundle, both)
    refused = play("rotate_certificates", *one, rotate_certificates_authority="finished")
    assert "the new one is announced, and does not sign yet" in sentence(refused)
    assert_fine(play("rotate_certificates", *one, rotate_certificates_authority="switched"))
    assert shown("facility_a", both) == shown("facility_a", bundle) != first
    with pytest.raises(ssl.SSLCertVerificationError):
        shown("facility_a", old)
    assert_fine(play("rotate_certificates", *one, rotate_certificates_authority="finished"))
    assert len(x509.load_pem_x509_certificates(bundle.read_bytes())) == 1
    assert shown("facility_a", bundle) == shown("facility_a", both)
    again = play("provision", *one)
    assert_fine(again)
    assert changes(again) == []


@pytest.mark.timeout(_LONG)
def test_it_stops_at_the_first_gateway_that_does_not_come_back(tmp_path: Path, play: Playbook) -> None:
    state = tmp_path / "state"
    assert_fine(play("provision"))
    before = {gateway: shown(gateway, pinned(state, gateway)) for gateway in _GATEWAYS}
    broken = tmp_path / "broken.yml"
    # No address of this machine: found by the control server only when it starts.
    lost = {"control_server_metrics_ip": "192.0.2.9", "control_server_metrics_port": _PORT + 1}
    broken.write_text(json.dumps({"gateways": {"hosts": {"facility_a": lost}}}))
    run = play("rotate_certificates", "-i", str(broken))
    assert run.code == 2, run.output
    assert {one.host for one in run.results if one.outcome == "failed"} == {"facility_a"}
    assert "192.0.2.9" in sentence(run)
    assert shown("facility_b", pinned(state, "facility_b")) == before["facility_b"]
    assert {one.host for one in run.results if one.changed} == {"facility_a"}
    # The repair, and the rest.
    assert_fine(play("provision", "--limit", "facility_a"))
    assert_fine(play("rotate_certificates", "--limit", "facility_b"))
    assert shown("facility_b", pinned(state, "facility_b")) != before["facility_b"]


@pytest.mark.timeout(_LONG)
def test_nothing_is_touched_where_a_control_server_is_down_or_the_step_is_none(tmp_path: Path, play: Playbook) -> None:
    assert_fine(play("provision"))
    files = {path: path.read_bytes() for path in (tmp_path / "state").rglob("*.crt")}
    assert_fine(play("provision", "--limit", "facility_b", control_server_state="stopped"))
    run = play("rotate_certificates")
    assert "cannot connect to control server 127.0.2.1" in sentence(run)
    run = play("rotate_certificates", rotate_certificates_authority="swapped")
    assert "rotate_certificates_authority is swapped, and is to be one of unchanged, announced" in sentence(run)
    assert {path: path.read_bytes() for path in (tmp_path / "state").rglob("*.crt")} == files
