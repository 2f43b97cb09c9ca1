"""What the roles brought they take away, and nothing else: a user's home is as before, and what was there before stays.

Both gateways with all that root can have on them are the Molecule scenario decommission.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from hosts.sites import ROOT, Site

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group(__name__)]

_PICTURE = (ROOT / "extensions/molecule/decommission/files/picture.py").read_text()
_PLACES = ("instrument", "gateway_a", "gateway_b", "compute")
Picture = dict[str, set[str]]


def _picture(site: Site) -> Picture:
    """What is on each host."""
    return {name: set(json.loads(site.hosts[name].run(["python3", "-"], stdin=_PICTURE).stdout)) for name in _PLACES}


def _decommission(site: Site, *words: str, code: int = 0) -> str:
    return site.type(f"ansible-playbook -i inventory/example playbooks/decommission.yml {' '.join(words)}", code=code)


@pytest.fixture(scope="module")
def site_as_it_was(bare_site: Site) -> tuple[Site, Picture]:
    """Hosts that nobody has touched, and how they were."""
    return bare_site, _picture(bare_site)


def test_the_home_of_a_user_without_root_is_as_before(site_as_it_was: tuple[Site, Picture]) -> None:
    site, before = site_as_it_was
    scope = "-e scistream_scope=user"
    site.provision(scope)
    site.hosts["gateway_a"].run(
        [".local/bin/s2cs", "status", "--state-directory", ".local/state/scistream/gateway"], user="operator"
    )
    everybody = "-e decommission_gateways=gateways -e decommission_clients=clients"
    _decommission(site, scope, everybody)
    now = _picture(site)
    assert {name: (now[name] - before[name], before[name] - now[name]) for name in _PLACES} == dict.fromkeys(
        _PLACES, (set(), set())
    )
    again = _decommission(site, scope, everybody)
    assert again.count("changed=0") == len(_PLACES) + 1


def test_a_user_and_a_state_directory_that_were_there_before_stay(site_as_it_was: tuple[Site, Picture]) -> None:
    site, _ = site_as_it_was
    run: Callable[..., object] = site.hosts["gateway_b"].run
    run(["useradd", "--system", "--no-create-home", "scistream"])
    run(["install", "-d", "-o", "scistream", "-g", "scistream", "-m", "700", "/var/lib/scistream"])
    run(["touch", "/var/lib/scistream/of the site"])
    before = _picture(site)["gateway_b"]
    site.provision("--limit gateway_b")
    for _ in range(2):
        said = " ".join(_decommission(site, "-e decommission_gateways=gateway_b").split())
        assert "stays: user scistream, who was there before the gateway" in said
        assert "stays: /var/lib/scistream, which was there before the gateway" in said
    now = _picture(site)["gateway_b"]
    assert (now - before, before - now) == (set(), set())


def test_directories_of_the_site_stay_and_so_does_what_it_put_into_others(site_as_it_was: tuple[Site, Picture]) -> None:
    site, _ = site_as_it_was
    run: Callable[..., object] = site.hosts["gateway_a"].run
    run(["mkdir", "-p", "/etc/scistream", "/etc/xdg/scistream"])
    run(["sh", "-c", "echo 's2cs = \"mine.example\"' > /etc/xdg/scistream/s2uc.toml"])
    before = _picture(site)["gateway_a"]
    site.provision("--limit gateway_a")
    run(["touch", "/opt/scistream/of the site"])
    said = " ".join(_decommission(site, "-e decommission_gateways=gateway_a").split())
    assert "stays: /opt/scistream, where others have of the site" in said
    _decommission(site, "-e decommission_gateways=gateway_a")
    run(["rm", "-r", "/opt/scistream"])
    now = _picture(site)["gateway_a"]
    assert (now - before, before - now) == (set(), set())
