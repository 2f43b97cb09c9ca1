"""Role preflight by real runs of Ansible: all that is wrong at once, and no host is connected to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ansible_runs import ROOT, Run, run_play

_ROLE = {"ansible.builtin.import_role": {"name": "scistream.core.preflight"}}
# Nothing is there, and nothing may be asked there.
_HOST = {"ansible_host": "198.51.100.200", "scistream_insecure_no_auth": True}


def run_role(directory: Path, hosts: dict[str, dict[str, Any]], *options: str, **play: Any) -> Run:
    """Run the role for gateways that the inventory describes so."""
    inventory = directory / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"gateways": {"hosts": hosts}}))
    return run_play([_ROLE], directory=directory, options=["-i", str(inventory), *options], hosts="gateways", **play)


def sentences(run: Run) -> list[str]:
    """The problems that were told, the same in the message and for programs."""
    failed = next(one for one in run.results if one.outcome == "failed")
    told = [problem["sentence"] for problem in failed["problems"]]
    assert failed["msg"].splitlines()[1:] == [f"- {sentence}" for sentence in told]
    return told


def test_a_fine_inventory_is_passed_without_a_connection(tmp_path: Path) -> None:
    hosts = {"gateway_a": {**_HOST, "scistream_address": "198.18.12.2"}}
    for options in ([], ["--check"]):
        run = run_role(tmp_path, hosts, *options)
        assert run.code == 0, run.output
        assert not any(one.changed for one in run.results)


def test_everything_of_all_hosts_is_told_at_once_and_no_host_goes_on(tmp_path: Path) -> None:
    hosts = {
        "gateway_a": {**_HOST, "scistream_engine": "nftables", "scistream_scope": "user"},
        "gateway_b": {
            **_HOST,
            "ansible_host": "gw-b",
            "scistream_port_range": "5200-5100",
            "scistream_control_prot": 5001,
        },
        "gateway_c": {"ansible_host": "198.51.100.201", "scistream_client_secret": "hunter2"},
        "gateway_d": {**_HOST, "ansible_host": "198.51.100.202"},
    }
    run = run_role(tmp_path, hosts, post_tasks=[{"name": "touch", "ansible.builtin.ping": {}}])
    assert run.code == 2
    assert not [one for one in run.results if one.task == "touch"]
    told = sentences(run)
    assert [sentence.partition(" is ")[0] for sentence in told] == [
        "gateway_a: scistream_engine",
        "gateway_b: scistream_control_prot",
        "gateway_b: scistream_port_range",
        "gateway_c: scistream_client_id",
    ]
    assert "and is to be scistream_control_port." in told[1]
    assert "4 variables of 3 hosts cannot be used; nothing was touched on any host:" in run.output
    assert "hunter2" not in run.output


def test_a_secret_is_shown_nowhere(tmp_path: Path) -> None:
    hosts = {"gateway_a": {**_HOST, "scistream_client_secret": "hunter2", "scistream_token": "hunter3"}}
    run = run_role(tmp_path, hosts, "-vvv")
    assert run.code == 2
    assert "scistream_insecure_no_auth is True, and is to be false" in " ".join(run.output.split())
    assert "hunter" not in run.output
    assert "hunter" not in str([one.values for one in run.results])


def test_variables_of_the_play_and_of_the_command_line_count(tmp_path: Path) -> None:
    hosts = {"gateway_a": {"ansible_host": "198.51.100.200"}}
    run = run_role(tmp_path, hosts, "-e", "scistream_control_port=5150", vars={"scistream_insecure_no_auth": True})
    (told,) = sentences(run)
    assert told.startswith("gateway_a: scistream_control_port is 5150, and is to be a port outside of scistream_port")
    assert told.endswith(", which is 5100-5200. Name another port, or another range.")


def test_an_expression_that_cannot_be_evaluated_is_named(tmp_path: Path) -> None:
    hosts = {"gateway_a": {**_HOST, "scistream_address": "{{ wan_address }}"}}
    (told,) = sentences(run_role(tmp_path, hosts))
    assert told.startswith(
        "gateway_a: scistream_address is an expression, and is to be something that can be evaluated"
    )
    assert "'wan_address' is undefined" in told


def test_the_sites_own_variables_are_its_own(tmp_path: Path) -> None:
    hosts = {"gateway_a": {**_HOST, "scistream_beamline": "7-BM", "scistream_engins": ["nginx"]}}
    (told,) = sentences(run_role(tmp_path, hosts))
    assert "scistream_engins is a variable that no role and no playbook knows" in told
    run = run_role(tmp_path, hosts, vars={"preflight_own_variables": ["scistream_engins"]})
    assert run.code == 0, run.output


def test_the_sample_inventories_pass(tmp_path: Path) -> None:
    for name in ("local", "example"):
        inventory = ROOT / "inventory" / name
        if inventory.exists():
            run = run_play([_ROLE], directory=tmp_path, options=["-i", str(inventory)], hosts="all")
            assert run.code == 0, run.output
