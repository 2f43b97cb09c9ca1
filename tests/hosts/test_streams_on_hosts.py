"""The example inventory on real hosts: every command of docs/adhoc.md and of the runbooks of a stream, as typed.

What they open is proved from outside, by bytes from the instrument's host to the compute host.
"""

from __future__ import annotations

import json

import pytest

from hosts.sites import Site, commands, entry_point_in

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def site(bare_site: Site) -> Site:
    bare_site.provision()
    return bare_site


def test_the_ad_hoc_calls_work_as_they_stand(site: Site) -> None:
    said = {command: site.type(command) for command in commands("adhoc.md")}
    assert len(said) >= 15
    opened = next(words for command, words in said.items() if '"name": "adhoc", "targets"' in command)
    assert "198.18.11.2:51" in opened
    assert all(host in said[commands("adhoc.md")[0]] for host in ("instrument", "gateway_a", "gateway_b", "compute"))


def test_the_commands_of_the_runbooks_open_and_close_streams_that_carry_bytes(site: Site) -> None:
    both, inbound, outbound = commands("runbooks/open_stream.md")
    closes, drains, closes_outbound, closes_inbound, releases = commands("runbooks/close_stream.md")
    entry_point = entry_point_in(site.type(both))
    assert entry_point.startswith("198.18.11.2:")
    assert site.carried(entry_point)
    assert "changed=0" in site.type(both)
    status, strict = commands("runbooks/status.md")
    told = site.type(status)
    for words in ("2 gateways, 2 answered; 2 sessions; 0 troubles", "stream beam", "198.18.12.3:51"):
        assert words in told
    assert (site.checkout / "scistream-status.html").read_text().count("<svg") == 1
    site.type(strict)
    assert "changed=1" in site.type(closes)
    assert "changed=0" in site.type(drains)
    site.type(inbound)
    assert json.loads((site.checkout / "beam.ticket").read_text())["entry_points"][0].startswith("198.18.12.3:")
    assert site.carried(entry_point_in(site.type(outbound)))
    for command in (closes_outbound, closes_inbound, releases):
        site.type(command)
    assert "0 sessions" in site.type(status)
