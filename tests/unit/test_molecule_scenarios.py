"""The scenarios of Molecule: all are told of, and each says only what differs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_SCENARIOS = sorted(path.parent for path in (_ROOT / "extensions/molecule").glob("*/molecule.yml"))
_STEPS = {"check", "converge", "idempotence", "verify", "destroy"}


def _base() -> dict:
    return yaml.safe_load((_ROOT / "extensions/molecule/config.yml").read_text())


def test_the_guide_has_a_line_for_each() -> None:
    page = (_ROOT / "docs/testing-on-hosts.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == [each.name for each in _SCENARIOS]


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda each: each.name)
def test_each_is_checked_on_bare_hosts_converged_repeated_and_verified(scenario: Path) -> None:
    own = yaml.safe_load((scenario / "molecule.yml").read_text())
    steps = own.get("scenario", _base()["scenario"])["test_sequence"]
    assert set(steps) >= _STEPS
    assert steps.index("check") < steps.index("converge") < steps.index("idempotence")
    assert "executor" not in own.get("ansible", {}), "what Ansible is told stands in the shared base, or in vars.yml"


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda each: each.name)
def test_each_has_its_variables(scenario: Path) -> None:
    assert isinstance(yaml.safe_load((scenario / "vars.yml").read_text()), dict)
