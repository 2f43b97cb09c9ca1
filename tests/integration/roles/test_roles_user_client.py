"""Role user_client by real runs of Ansible: preferences that s2uc takes, and nobody else's overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_runs import Run, run_play

_ROLE = {"ansible.builtin.import_role": {"name": "scistream.core.user_client"}}
_LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
_S2UC = Path(sys.executable).parent / "s2uc"


class Site:
    """A facility with one gateway and one client, which is the controller itself, with a home of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.authority = directory / "ca.crt"
        self.authority.write_text("-----BEGIN CERTIFICATE-----\nof the facility\n-----END CERTIFICATE-----\n")
        self.preferences = self.home / ".config/scistream/s2uc.toml"
        self.gateway: dict[str, Any] = {
            "scistream_control_server": "198.18.12.2:5000",
            "scistream_server_certificate": str(self.authority),
        }

    def run(self, *options: str, role: dict[str, Any] = _ROLE, **variables: Any) -> Run:
        inventory = {
            "gateways": {"hosts": {"gateway_a": self.gateway, "gateway_b": {"scistream_control_server": "b:1"}}},
            "clients": {"hosts": {"instrument": _LOCAL}},
            "facility_a": {"hosts": {"gateway_a": {}, "instrument": {}}},
            "facility_b": {"hosts": {"gateway_b": {}}},
        }
        (self.directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
        words = ["-i", str(self.directory / "hosts.yml"), "-e", json.dumps(variables), *options]
        return run_play([role], directory=self.directory, options=words, hosts="clients")

    def written(self) -> dict[str, Any]:
        return tomllib.loads(self.preferences.read_text())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def changed(run: Run) -> set[str]:
    return {one.task for one in run.results if one.changed}


def sentence(run: Run) -> str:
    failed = next(one for one in run.results if one.outcome == "failed")
    return " ".join(str(failed["msg"]).split())


def test_a_client_knows_its_facilitys_control_server(site: Site) -> None:
    predicted = site.run("--check")
    assert predicted.code == 0, predicted.output
    assert not site.preferences.exists()
    done = site.run()
    assert done.code == 0, done.output
    assert changed(predicted) == changed(done)
    authority = site.preferences.parent / "facility.crt"
    assert site.written() == {"s2cs": "198.18.12.2:5000", "server-cert": str(authority)}
    assert authority.read_text() == site.authority.read_text()
    completion = site.home / ".local/share/bash-completion/completions/s2uc"
    assert "_S2UC_COMPLETE=bash_complete" in completion.read_text()
    for options in ([], ["--check"]):
        again = site.run(*options)
        assert (again.code, changed(again)) == (0, set()), again.output

    token = site.preferences.parent / "tokens.json"
    token.write_text("{}")
    predicted, gone, again = (site.run(*options, scistream_state="absent") for options in (["--check"], [], []))
    assert gone.code == 0, gone.output
    assert changed(predicted) == changed(gone)
    assert changed(again) == set()
    left = sorted(str(path.relative_to(site.home)) for path in site.home.rglob("*") if path.is_file())
    assert [path for path in left if not path.startswith(".ansible")] == [".config/scistream/tokens.json"]


def test_another_authority_comes_to_a_host_that_has_one_and_to_no_other(site: Site) -> None:
    anew = {"ansible.builtin.include_role": {"name": "scistream.core.user_client", "tasks_from": "authority"}}
    nothing = site.run(role=anew)
    assert (nothing.code, changed(nothing)) == (0, set()), nothing.output
    assert site.run().code == 0
    site.authority.write_text("-----BEGIN CERTIFICATE-----\nold\n-----END CERTIFICATE-----\nand new\n")
    before = site.preferences.read_text()
    done, again = site.run(role=anew), site.run(role=anew)
    assert (done.code, changed(done)) == (0, {"Put the facility's certificate authority on the host"}), done.output
    assert changed(again) == set()
    assert (site.preferences.parent / "facility.crt").read_text() == site.authority.read_text()
    assert site.preferences.read_text() == before


def test_only_completions_that_the_role_wrote_go(site: Site) -> None:
    own = site.home / ".config/fish/completions/s2uc.fish"
    own.parent.mkdir(parents=True)
    own.write_text("# the user's own\n")
    assert site.run().code == 0
    assert site.run(scistream_state="absent", user_client_completion=[]).code == 0
    assert own.read_text() == "# the user's own\n"
    assert not (site.home / ".local/share/bash-completion/completions/s2uc").exists()


def test_the_facilitys_address_comes_first_and_options_follow(site: Site) -> None:
    site.gateway |= {"scistream_facility_address": "198.18.11.2", "scistream_control_port": 5001}
    run = site.run(user_client_options={"timeout": 60, "inbound-request": {"lease": "8h"}}, user_client_completion=[])
    assert run.code == 0, run.output
    assert site.written()["s2cs"] == "198.18.11.2:5001"
    assert (site.written()["timeout"], site.written()["inbound-request"]) == (60, {"lease": "8h"})
    command = [str(_S2UC), "--config", str(site.preferences), "inbound-request", "--help"]
    assert subprocess.run(command, check=True, capture_output=True).returncode == 0
    site.gateway["scistream_client_control_server"] = "gateway.example:5000"
    assert site.run(user_client_completion=[]).code == 0
    assert site.written()["s2cs"] == "gateway.example:5000"


def test_tickets_have_the_address_that_the_other_facility_reaches_the_gateway_by(site: Site) -> None:
    site.gateway |= {"scistream_address": "198.18.10.2", "scistream_facility_address": "198.18.11.2"}
    run = site.run(user_client_options={"inbound_request": {"lease": "8h"}}, user_client_completion=[])
    assert run.code == 0, run.output
    assert site.written()["s2cs"] == "198.18.11.2:5000"
    tables = {name: table for name, table in site.written().items() if isinstance(table, dict)}
    own = {"address": "198.18.10.2"}
    assert tables == {"inbound-request": {**own, "lease": "8h"}, "prod-req": own}
    # What the site says itself comes first.
    run = site.run(user_client_options={"address": "gateway.example"}, user_client_completion=[])
    assert run.code == 0, run.output
    assert (site.written()["address"], "inbound-request" in site.written()) == ("gateway.example", False)


def test_preferences_of_somebody_else_stay(site: Site) -> None:
    site.preferences.parent.mkdir(parents=True)
    site.preferences.write_text('s2cs = "mine.example"\n')
    run = site.run()
    assert run.code == 0, run.output
    said = run.named("Say that the user's own preferences stay")["msg"]
    assert "is not of this role, and stays as it is." in said
    assert site.run(scistream_state="absent").code == 0
    assert site.preferences.read_text() == 's2cs = "mine.example"\n'


def test_what_s2uc_would_not_take_never_goes_into_place(site: Site) -> None:
    assert site.run().code == 0
    before = site.preferences.read_text()
    run = site.run(user_client_options={"leese": "8h"})
    assert run.code == 2
    assert "instrument: s2uc does not take the preferences:" in sentence(run)
    assert "leese" in sentence(run)
    assert "Correct user_client_options" in sentence(run)
    assert site.preferences.read_text() == before


def test_a_facility_without_a_control_server_is_told(site: Site) -> None:
    del site.gateway["scistream_control_server"]
    run = site.run()
    assert run.code == 2
    assert "instrument: user_client_control_server is not set, and gateway_a has no scistream_control_server." in (
        sentence(run)
    )


def test_an_authority_that_is_not_there_is_told(site: Site) -> None:
    site.authority.unlink()
    run = site.run()
    assert run.code == 2
    assert f"instrument: the controller has no file {site.authority}, which is to vouch for" in sentence(run)
    # The gateways of the same run would have issued it.
    assert site.run("--check").code == 0
