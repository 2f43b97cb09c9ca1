"""Control servers behind SSH on real hosts: the way over a jump host, and how it fails that only hosts can show.

How SSH fails otherwise is shown by a real sshd on loopback (integration/test_client_hop.py). Both gateways are those of
Molecule's scenario `closed`: their control servers listen on loopback only.
"""

from __future__ import annotations

import pytest

from hosts.sites import ROOT, Site

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group(__name__)]

_CLOSED = ROOT / "extensions/molecule/closed/vars.yml"
# The way that a person has: gateway_b is known by its address in the WAN, which gateway_a alone reaches.
_JUMP = """\
Include {config}

Host behind
  HostName 198.18.12.3
  HostKeyAlias gateway_b
  ProxyJump gateway_a
"""
_UNREACHED, _DISTRUSTED = 6, 7


@pytest.fixture(scope="module")
def site(bare_site: Site) -> Site:
    bare_site.provision("--limit", "gateways", "-e", f"@{_CLOSED}")
    config = bare_site.checkout / "jump_config"
    config.write_text(_JUMP.format(config=bare_site.hosts.ssh_config))
    return bare_site


def _way(site: Site) -> str:
    # Each call logs in anew: what is kept of an SSH connection is another test's theme.
    return f"SCISTREAM_SSH_CONFIG={site.checkout}/jump_config SCISTREAM_SSH_IDLE=0"


def _listed(site: Site, via: str, facility: str, *, code: int = 0) -> str:
    """What `s2uc list` says over that way, of a control server that it trusts by the facility's authority."""
    return site.type(
        f"{_way(site)} s2uc list --s2cs 127.0.0.1:5000 --via ssh://scientist@{via}"
        f" --server-cert .state/example/facility_{facility}/ca.crt --timeout 10",
        code=code,
    )


def test_a_jump_host_leads_to_a_gateway_that_nothing_else_reaches(site: Site) -> None:
    site.hosts["gateway_b"].cut("ssh")
    try:
        # The certificate is for the address that the SSH configuration has for it.
        assert "No sessions of yours" in _listed(site, "behind", "b")
    finally:
        site.hosts["gateway_b"].mend("ssh")


def test_the_other_facilitys_gateway_is_not_taken_for_it(site: Site) -> None:
    said = _listed(site, "behind", "a", code=_DISTRUSTED)
    assert said.startswith("s2uc: error: "), said
    assert said.count("\n") == 1


def test_ssh_up_and_the_control_port_closed(site: Site) -> None:
    gateway = site.hosts["gateway_a"]
    gateway.run(["systemctl", "stop", "scistream-control-server"])
    said = _listed(site, "gateway_a", "a", code=_UNREACHED)
    assert "[CONTROL_PORT_CLOSED]" in said
    for words in ("127.0.0.1:5000", "gateway_a"):
        assert words in said
    gateway.run(["systemctl", "start", "scistream-control-server"])
    assert "No sessions of yours" in _listed(site, "gateway_a", "a")


def test_a_play_names_the_gateway_whose_control_port_is_closed_and_completes_after_the_repair(site: Site) -> None:
    gateway = site.hosts["gateway_b"]
    gateway.run(["systemctl", "stop", "scistream-control-server"])
    opens = (
        f"{_way(site)} ansible-playbook -i inventory/example playbooks/open_stream.yml"
        f" -e @{_CLOSED} -e stream_name=beam -e stream_from=gateway_a -e stream_to=gateway_b"
        " -e stream_targets=198.18.13.10:5074"
    )
    said = site.type(opens, code=2)
    assert "CONTROL_PORT_CLOSED" in said
    assert "gateway_b" in said
    assert "No sessions of yours" in _listed(site, "gateway_a", "a")
    gateway.run(["systemctl", "start", "scistream-control-server"])
    assert site.carried("198.18.11.2:" + site.type(opens).partition("198.18.11.2:")[2][:4])


def test_a_host_that_was_installed_anew_is_not_taken_for_itself(site: Site) -> None:
    gateway = site.hosts["compute"]
    key = "/etc/ssh/ssh_host_ed25519_key"
    gateway.run(["sh", "-c", f"mv {key} {key}.old && ssh-keygen -q -t ed25519 -N '' -f {key} && systemctl restart ssh"])
    said = _listed(site, "compute", "b", code=_DISTRUSTED)
    assert "[SSH_HOST_KEY_CHANGED]" in said
    assert "compute" in said


def test_a_host_that_is_off_and_those_behind_it(site: Site) -> None:
    site.hosts["gateway_a"].kill()
    said = _listed(site, "gateway_a", "a", code=_UNREACHED)
    assert "198.18.10.21" in said
    assert "[SSH_UNREACHABLE]" in said or "[SSH_TIMEOUT]" in said
    said = _listed(site, "behind", "b", code=_UNREACHED)
    assert "[SSH_JUMP_FAILED]" in said
    assert "gateway_a" in said
    site.hosts["gateway_a"].start()
    # The stream of before.
    assert "198.18.13.10:5074" in _listed(site, "behind", "b")
