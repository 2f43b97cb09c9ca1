"""What an image for the controller is made of, as `ansible-builder introspect` reads it, and what is used there."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_META = yaml.safe_load((_ROOT / "meta/execution-environment.yml").read_text())
# An image has it anyway, and with it what it needs itself.
_ANSIBLE = {"ansible-core", "pyyaml"}
# What the demonstration and the generated code's maker need, who run in a checkout.
_EXTRA = {"ansible-core", "grpcio-tools", "numpy", "pyzmq"}
_PROGRAMS = {"ssh": {"openssh-client", "openssh-clients"}, "tar": {"tar"}}


def lines(kind: str) -> list[str]:
    text = (_ROOT / _META["dependencies"][kind]).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower()


def imported(top: Path) -> Iterator[str]:
    """Third parties' modules that the Python files of a directory import, by the names of their packages."""
    known = packages_distributions()
    for path in top.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in {each.split(".")[0] for each in names} - sys.stdlib_module_names - {"ansible_collections"}:
                yield from (each.lower().replace("_", "-") for each in known.get(name, [name]))


def test_the_library_comes_in_the_version_of_the_collection() -> None:
    galaxy = yaml.safe_load((_ROOT / "galaxy.yml").read_text())
    assert f"scistream == {galaxy['version']}" in lines("python")
    assert galaxy["version"] == _PROJECT["version"]


def test_the_oldest_ansible_is_one() -> None:
    runtime = yaml.safe_load((_ROOT / "meta/runtime.yml").read_text())
    (ansible,) = _PROJECT["optional-dependencies"]["ansible"]
    assert ansible == f"ansible-core{runtime['requires_ansible'].removesuffix('.0')}"


@pytest.mark.parametrize("top", ["src/scistream", "plugins"])
def test_whatever_is_imported_comes_with_it(top: str) -> None:
    told = {name_of(each) for each in (*_PROJECT["dependencies"], *lines("python"))}
    assert set(imported(_ROOT / top)) - told - (_ANSIBLE if top == "plugins" else _EXTRA) == set()


def test_whatever_is_named_is_imported_or_run() -> None:
    used = {*imported(_ROOT / "src/scistream"), *imported(_ROOT / "plugins"), "pip"}
    told = {name_of(each) for each in (*_PROJECT["dependencies"], *lines("python"))}
    assert told - used == set()


def test_programs_that_the_controller_runs_are_named() -> None:
    named = {line.split()[0] for line in lines("system")}
    run = {"ssh", *(program for path in _ROOT.glob("roles/*/tasks/**/*.yml") for program in programs(path))}
    assert run == set(_PROGRAMS)
    assert named == set().union(*_PROGRAMS.values())


def programs(path: Path) -> Iterator[str]:
    """What the tasks of a file run on the controller."""
    for task in tasks(yaml.safe_load(path.read_text()) or []):
        command = task.get("ansible.builtin.command", {})
        if task.get("delegate_to") == "localhost" and command:
            yield re.findall(r"[\w-]+", str(command.get("argv") or command.get("cmd")))[0]


def tasks(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in found:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part, []))


def test_the_files_are_in_the_artifact() -> None:
    ignored = yaml.safe_load((_ROOT / "galaxy.yml").read_text())["build_ignore"]
    assert all((_ROOT / path).is_file() for path in _META["dependencies"].values())
    assert not {"meta", *_META["dependencies"].values()} & set(ignored)
