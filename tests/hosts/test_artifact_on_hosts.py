"""What is shipped, and nothing of a checkout: the artifact and the wheel, in an empty place, provision bare hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import Hosts, require
from hosts.sites import ROOT, Site, commands, copy, entry_point_in, outside

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group(__name__)]

_PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROVISIONED = ("compute", "gateway_a", "gateway_b", "instrument")
_INSTALLED = Path("collections/ansible_collections/scistream/core")


class Shipped(Site):
    """A site that has what is shipped: a home, an environment and collections of its own, which were empty before."""

    @property
    def environment(self) -> dict[str, str]:
        away = ("ANSIBLE", "MOLECULE", "PYTHON", "SCISTREAM", "VIRTUAL_ENV", "XDG_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(away)}
        return kept | {
            "ANSIBLE_COLLECTIONS_PATH": str(self.checkout / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            # Other hosts of this machine may have the same addresses; and a socket's path is short.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.checkout / "cp"),
            "HOME": str(self.checkout),
            "PATH": f"{self.checkout / 'env/bin'}:{_PLAIN_PATH}",
            # What was downloaded before need not be again.
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip")),
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    require()
    home = tmp_path_factory.mktemp("home")
    artifact, wheel = build(tmp_path_factory.mktemp("build") / "scistream")
    with Hosts(home / ".state" / "hosts") as hosts:
        made = Shipped(home, hosts)
        made.type(f"{sys.executable} -m venv env")
        pip = f"{outside()} env/bin/pip install --quiet --disable-pip-version-check"
        made.type(f"{pip} --constraint {ROOT}/constraints.txt '{wheel}[ansible]'")
        made.type(f"ansible-galaxy collection install --offline {artifact}")
        # As a site begins: with a copy of the sample, in a directory of its own.
        shutil.copytree(home / _INSTALLED / "inventory/example", home / "facilities/ours")
        # Hosts have no way to a package index, and here the controller has none while it provisions.
        made.type(f"{outside()} ansible localhost -m scistream.core.wheelhouse")
        yield made


def build(checkout: Path) -> tuple[Path, Path]:
    """Artifact and wheel, of a clone that is gone afterwards."""
    copy(checkout)
    told = checkout.parent
    bin_directory = Path(sys.executable).parent
    run([str(bin_directory / "ansible-galaxy"), "collection", "build", "--output-path", str(told)], checkout)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(told), "."]
    run([*outside().split(), *wheel], checkout)
    shutil.rmtree(checkout)
    (artifact,), (found,) = told.glob("scistream-core-*.tar.gz"), told.glob("scistream-*.whl")
    return artifact, found


def run(command: list[str], directory: Path) -> None:
    done = subprocess.run(["/usr/bin/env", *command], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"


def test_nothing_comes_from_a_checkout(site: Shipped) -> None:
    place = site.type("python -c 'import scistream; print(scistream.__file__)'").strip()
    assert place.startswith(str(site.checkout / "env"))
    # Beside it, Ansible has some of its own.
    listed = json.loads(site.type("ansible-galaxy collection list --format json"))
    assert [path for path, found in listed.items() if "scistream.core" in found] == [
        str(site.checkout / "collections/ansible_collections")
    ]
    told = site.type("ansible --version; python -c 'import sys; print(sys.path)'")
    assert "config file = None" in told
    assert str(ROOT) not in told


def test_everything_is_documented(site: Shipped) -> None:
    installed = site.checkout / _INSTALLED
    modules = sorted(path.stem for path in (installed / "plugins/modules").glob("*.py"))
    roles = sorted(path.name for path in (installed / "roles").iterdir())
    assert {"session", "stream", "wheelhouse"} <= set(modules)
    told = json.loads(site.type(f"ansible-doc -t module --json {full(modules)}"))
    assert sorted(told) == full(modules).split()
    assert all(told[name]["doc"]["short_description"] and told[name]["examples"] for name in told)
    assert "EXAMPLES" in site.type("ansible-doc -t module scistream.core.session")
    roles_told = json.loads(site.type(f"ansible-doc -t role --json {full(roles)}"))
    assert sorted(roles_told) == full(roles).split()
    assert all(told["entry_points"]["main"]["options"] for told in roles_told.values())
    filters = sorted(path.stem for path in (installed / "plugins/filter").glob("*.py"))
    assert all(f"scistream.core.{name}" in site.type("ansible-doc -t filter -l scistream.core") for name in filters)


def full(names: list[str]) -> str:
    return " ".join(f"scistream.core.{name}" for name in names)


def test_the_hosts_come_into_service_and_carry_a_stream(site: Shipped) -> None:
    provision = "ansible-playbook -i facilities/ours scistream.core.provision"
    site.type(provision)
    again = re.findall(r"^(\w+) +:.* changed=(\d+)", site.type(provision).partition("PLAY RECAP")[2], re.MULTILINE)
    assert {name: number for name, number in again if name != "localhost"} == dict.fromkeys(_PROVISIONED, "0")
    opens = shipped(commands("runbooks/open_stream.md")[0])
    entry_point = entry_point_in(site.type(opens))
    assert site.carried(entry_point)
    assert "changed=0" in site.type(opens)
    told = site.type(shipped(commands("runbooks/status.md")[0]))
    assert "2 gateways, 2 answered; 2 sessions; 0 troubles" in told
    assert (site.checkout / "scistream-status.html").read_text().count("<svg") == 1
    # As a scientist types it, with what came to the client's host.
    listed = site.hosts["instrument"].run(["bash", "--login", "-c", "s2uc list --json"], user="operator").stdout
    (session,) = json.loads(listed)["sessions"]
    # By the address that this client calls its gateway by.
    assert session["entry_points"] == [f"198.18.10.21:{entry_point.rpartition(':')[2]}"]
    assert "changed=1" in site.type(shipped(commands("runbooks/close_stream.md")[0]))


def shipped(command: str) -> str:
    """A command of the documentation, with the installed playbook and the site's own inventory."""
    for path in (ROOT / "playbooks").glob("*.yml"):
        command = command.replace(f"playbooks/{path.name}", f"scistream.core.{path.stem}")
    return command.replace("inventory/example", "facilities/ours")
