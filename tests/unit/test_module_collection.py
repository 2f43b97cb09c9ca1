"""The collection as a whole: links, versions, what the artifact leaves out, roles and their twins."""

from __future__ import annotations

import fnmatch
import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scistream.engines import ENGINES

_ROOT = Path(__file__).parent.parent.parent
_LINKS = _ROOT / "collections/ansible_collections/scistream/core"
_ROLES = sorted(path.parent.parent.name for path in _ROOT.glob("roles/*/tasks/main.yml"))


def load(path: str) -> Any:
    return yaml.safe_load((_ROOT / path).read_text())


def test_the_links_lead_to_the_root_and_none_is_the_root_itself() -> None:
    links = list(_LINKS.iterdir())
    assert {"galaxy.yml", "meta", "plugins", "roles", "playbooks"} <= {link.name for link in links}
    for link in links:
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == _ROOT / link.name


def test_collection_and_library_have_one_version() -> None:
    version = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert load("galaxy.yml")["version"] == version
    assert f"scistream == {version}" in (_ROOT / "meta/requirements.txt").read_text()


@pytest.mark.parametrize(
    "path",
    [
        ".git",
        ".venv",
        ".state",
        ".cache",
        "collections",
        "src",
        "tests",
        "tools",
        "plugins/modules/__pycache__",
        "build",
    ],
)
def test_the_artifact_leaves_out(path: str) -> None:
    assert any(fnmatch.fnmatch(path, pattern) for pattern in load("galaxy.yml")["build_ignore"])


@pytest.mark.parametrize(
    "path", ["plugins/modules/session.py", "roles/certificates/README.md", "LICENSE", "meta/runtime.yml"]
)
def test_the_artifact_keeps(path: str) -> None:
    parts = [str(parent) for parent in [Path(path), *Path(path).parents][:-1]]
    ignored = load("galaxy.yml")["build_ignore"]
    assert not [part for part in parts for pattern in ignored if fnmatch.fnmatch(part, pattern)]


@pytest.mark.parametrize("role", _ROLES)
def test_every_default_of_a_role_is_specified(role: str) -> None:
    options = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(load(f"roles/{role}/defaults/main.yml")) == set(options)


@pytest.mark.parametrize("role", _ROLES)
def test_variables_of_a_role_begin_with_its_name(role: str) -> None:
    for kind in ("defaults", "vars"):
        assert [name for name in load(f"roles/{role}/{kind}/main.yml") if not name.startswith(f"{role}_")] == []


def test_the_tables_of_the_roles_readmes_are_fresh() -> None:
    name = "role_readmes"
    spec = importlib.util.spec_from_file_location(name, _ROOT / "tools/role_readmes.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    sys.modules[name] = tool
    spec.loader.exec_module(tool)
    for role in _ROLES:
        readme = (_ROOT / f"roles/{role}/README.md").read_text()
        assert tool.renewed(readme, load(f"roles/{role}/meta/argument_specs.yml")) == readme
        assert tool.table(load(f"roles/{role}/meta/argument_specs.yml")) in readme


def test_role_and_library_name_the_same_packages_for_every_engine() -> None:
    catalogue = load("roles/data_server/vars/debian.yml")["data_server_catalogue"]
    assert {name: tuple(entry["packages"]) for name, entry in catalogue.items()} == {
        name: tuple(engine.packages) for name, engine in ENGINES.items()
    }


@pytest.mark.parametrize(
    ("role", "option"), [("data_server", "data_server_engines"), ("control_server", "control_server_engine")]
)
def test_roles_offer_the_engines_that_there_are(role: str, option: str) -> None:
    options = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert options[option]["choices"] == sorted(ENGINES)


def test_the_role_writes_keys_that_the_control_server_knows() -> None:
    from scistream.control_server.configuration import Settings

    template = (_ROOT / "roles/control_server/templates/s2cs.toml.j2").read_text()
    keys = {line.split(" = ")[0] for line in template.splitlines() if " = " in line}
    assert keys <= set(Settings.model_fields)
    assert {"listener_ip", "port", "port_range", "type", "state_directory", "insecure_no_auth"} <= keys
