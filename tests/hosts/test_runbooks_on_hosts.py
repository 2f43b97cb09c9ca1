"""The runbooks of a gateway's life on real hosts: every command as it stands there, in the order of that life.

Those of a stream are typed in test_streams_on_hosts.py.
"""

from __future__ import annotations

import re

import pytest

from hosts.sites import Site, commands, entry_point_in

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group(__name__)]

_AUDIT = "/var/log/scistream/audit.jsonl"


@pytest.fixture(scope="module")
def site(bare_site: Site) -> Site:
    with (bare_site.checkout / "inventory/example/group_vars/all.yml").open("a") as inventory:
        inventory.write(f"scistream_library_source: {bare_site.checkout}\ncontrol_server_audit_file: {_AUDIT}\n")
    bare_site.hosts["gateway_a"].run(["apt-get", "-qq", "install", "--no-install-recommends", "logrotate"])
    bare_site.type(commands("runbooks/provision.md")[0])
    return bare_site


@pytest.fixture(scope="module")
def entry_point(site: Site) -> str:
    """Of a stream that outlives all but its own end."""
    return entry_point_in(site.type(commands("runbooks/open_stream.md")[0]))


def _changed(output: str) -> set[int]:
    recap = output.partition("PLAY RECAP")[2]
    return {int(number) for number in re.findall(r"^\w+ +:.* changed=(\d+)", recap, re.MULTILINE)}


def test_what_is_provisioned_stays_so(site: Site) -> None:
    _, what_if, one, clients = commands("runbooks/provision.md")
    for command in (what_if, one, clients):
        said = site.type(command)
        assert _changed(said) == {0}
        assert "[WARNING]" not in said


def test_what_is_typed_on_a_gateway_works_there_and_cuts_no_stream(site: Site, entry_point: str) -> None:
    gateway = site.hosts["gateway_a"]
    service, log, status, restart = commands("runbooks/provision.md", fence="bash")
    assert "active (running)" in gateway.run(["bash", "-c", service], user="operator").stdout
    gateway.run(["bash", "-c", log], user="operator")
    assert "sessions: 1" in gateway.run(["bash", "-c", status], user="operator").stdout
    gateway.run(["bash", "-c", restart], user="operator")
    assert site.carried(entry_point)


@pytest.mark.usefixtures("entry_point")
def test_the_audit_goes_on_in_a_new_file_when_the_old_one_is_put_away(site: Site) -> None:
    gateway = site.hosts["gateway_a"]
    before = gateway.run(["cat", _AUDIT]).stdout
    facts = gateway.run(["stat", "--format=%U %a", _AUDIT]).stdout
    assert before.splitlines()
    gateway.run(["logrotate", "--force", "/etc/logrotate.d/scistream"])
    assert gateway.run(["sh", "-c", f"cat {_AUDIT}-*"]).stdout == before
    site.type(f"{commands('runbooks/open_stream.md')[0]} -e stream_name=another")
    site.type(f"{commands('runbooks/close_stream.md')[0]} -e stream_name=another")
    assert len(gateway.run(["cat", _AUDIT]).stdout.splitlines()) >= 2
    assert gateway.run(["stat", "--format=%U %a", _AUDIT]).stdout == facts
    assert gateway.run(["sh", "-c", f"cat {_AUDIT}-*"]).stdout == before


def test_the_same_version_once_more_is_no_upgrade(site: Site, entry_point: str) -> None:
    both, one = commands("runbooks/upgrade.md")
    told = site.type(both)
    assert all(f"{gateway}: " in told for gateway in ("gateway_a", "gateway_b"))
    assert told.count("as before; sessions: 1") == 2
    assert _changed(told) == _changed(site.type(one)) == {0}
    assert site.carried(entry_point)


def test_certificates_and_then_their_authority_are_replaced_and_the_stream_goes_on(
    site: Site, entry_point: str
) -> None:
    for command in commands("runbooks/rotate_certificates.md"):
        site.type(command)
        assert site.carried(entry_point)
    assert _changed(site.type(commands("runbooks/provision.md")[0])) == {0}


def test_a_gateway_leaves_when_its_streams_are_closed(site: Site, entry_point: str) -> None:
    gateway, client = commands("runbooks/decommission.md")
    assert "1 session runs, and decommission_release is False" in site.type(gateway, code=2)
    assert site.carried(entry_point)
    site.type(commands("runbooks/close_stream.md")[0])
    for command in (gateway, client):
        site.type(command)
        assert _changed(site.type(command)) == {0}
    assert site.hosts["gateway_a"].run(["cat", _AUDIT]).stdout
