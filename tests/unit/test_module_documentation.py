"""Documentation and code are twins: options, choices, defaults, return keys."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.scistream.core.plugins.module_utils._control import CONTROL_ARGUMENTS
from ansible_collections.scistream.core.plugins.module_utils._protection import PROTECTION_ARGUMENTS
from ansible_collections.scistream.core.plugins.module_utils._sessions import SELECTION_ARGUMENTS

_ROOT = Path(__file__).parent.parent.parent
_MODULES = [
    "certificate",
    "certificate_info",
    "control_server_info",
    "gateways_info",
    "session",
    "session_certificates",
    "session_info",
    "stream",
    "stream_info",
    "wheelhouse",
]
_COLLECTION = "ansible_collections.scistream.core.plugins"


def module_of(name: str) -> Any:
    return importlib.import_module(f"{_COLLECTION}.modules.{name}")


def fragment(name: str) -> dict[str, Any]:
    """The fragment that `scistream.core.NAME[.PART]` stands for."""
    _, _, short = name.partition("scistream.core.")
    file, _, part = short.partition(".")
    holder = importlib.import_module(f"{_COLLECTION}.doc_fragments.{file}").ModuleDocFragment
    text = getattr(holder, part.upper() if part else "DOCUMENTATION")
    return yaml.safe_load(text)


def documentation(name: str) -> dict[str, Any]:
    """A module's documentation with its fragments."""
    own = yaml.safe_load(module_of(name).DOCUMENTATION)
    parts = [fragment(used) for used in own.get("extends_documentation_fragment", [])]
    options: dict[str, Any] = {}
    for part in (*parts, own):
        options |= part.get("options") or {}
    attributes = {key: value for part in (*parts, own) for key, value in part.get("attributes", {}).items()}
    requirements = [line for part in (*parts, own) for line in part.get("requirements", [])]
    return {**own, "options": options, "attributes": attributes, "requirements": requirements}


def spec_as_documented(arguments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kept = ("type", "required", "default", "choices", "elements", "aliases")
    return {
        name: {key: spec[key] for key in kept if key in spec}
        | ({"suboptions": spec_as_documented(spec["options"])} if "options" in spec else {})
        for name, spec in arguments.items()
    }


def documented(options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in option.items() if key not in {"description", "suboptions"}}
        | ({"suboptions": documented(option["suboptions"])} if "suboptions" in option else {})
        for name, option in options.items()
    }


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scistream.core.control", CONTROL_ARGUMENTS),
        ("scistream.core.protection", PROTECTION_ARGUMENTS),
        ("scistream.core.selection", SELECTION_ARGUMENTS),
    ],
)
def test_a_fragment_and_its_arguments_are_twins(name: str, arguments: dict[str, dict[str, Any]]) -> None:
    assert documented(fragment(name)["options"]) == spec_as_documented(arguments)


@pytest.mark.parametrize("name", _MODULES)
def test_options_and_arguments_are_twins(name: str) -> None:
    assert documented(documentation(name)["options"]) == spec_as_documented(module_of(name).ARGUMENTS)


@pytest.mark.parametrize("name", _MODULES)
def test_every_option_says_what_it_is(name: str) -> None:
    for option, facts in documentation(name)["options"].items():
        assert facts["description"], option
        assert facts["type"], option


@pytest.mark.parametrize("name", _MODULES)
def test_what_a_module_promises_is_written_down(name: str) -> None:
    assert set(documentation(name)["attributes"]) == {"check_mode", "diff_mode", "idempotent", "platform"}
    assert documentation(name)["version_added"] == "0.1.0"
    assert any("scistream" in line for line in documentation(name)["requirements"])
    assert documentation(name)["seealso"]


def leaves(contents: dict[str, Any], above: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    for key, value in contents.items():
        found += leaves(value["contains"], f"{above}{key}.") if "contains" in value else [(above + key, value)]
    return found


@pytest.mark.parametrize("name", _MODULES)
def test_every_return_key_has_a_sample(name: str) -> None:
    keys = leaves(yaml.safe_load(module_of(name).RETURN))
    assert len(keys) > 10
    assert [key for key, value in keys if "sample" not in value] == []
    assert [key for key, value in keys if not {"description", "returned", "type"} <= set(value)] == []


@pytest.mark.parametrize("name", _MODULES)
def test_examples_use_options_that_are_there(name: str) -> None:
    options = documentation(name)["options"]
    known = set(options) | {alias for option in options.values() for alias in option.get("aliases", [])}
    used = arguments_of(yaml.safe_load(module_of(name).EXAMPLES), f"scistream.core.{name}")
    assert len(used) >= 3
    assert set().union(*used) <= known


def arguments_of(tasks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found = [task[name] for task in tasks if name in task]
    return found + [args for task in tasks if "block" in task for args in arguments_of(task["block"], name)]


def test_no_secret_is_an_option_that_is_logged() -> None:
    assert [name for name, spec in CONTROL_ARGUMENTS.items() if spec.get("no_log")] == ["token"]


def test_both_session_modules_show_the_same_session() -> None:
    one = yaml.safe_load(module_of("session").RETURN)["session"]["contains"]
    many = yaml.safe_load(module_of("session_info").RETURN)["sessions"]["contains"]
    assert {key: value["type"] for key, value in one.items()} == {key: value["type"] for key, value in many.items()}


def test_the_session_that_is_shown_is_the_one_that_is_documented() -> None:
    from scistream.client import Session

    shown = yaml.safe_load(module_of("session").RETURN)["session"]["contains"]
    assert set(shown) == {*Session.__dataclass_fields__, "name"}


def test_the_control_server_that_is_shown_is_the_one_that_is_documented() -> None:
    from scistream.client import EngineFacts, ServerFacts

    shown = yaml.safe_load(module_of("control_server_info").RETURN)["control_server"]["contains"]
    assert set(shown) == {*ServerFacts.__dataclass_fields__, "address"}
    assert set(shown["engines"]["contains"]) == set(EngineFacts.__dataclass_fields__)


def test_the_certificate_that_is_shown_is_the_one_that_is_documented() -> None:
    from scistream.certificates import CertificateFacts

    for name in ("certificate", "certificate_info"):
        shown = yaml.safe_load(module_of(name).RETURN)["certificate"]["contains"]
        assert set(shown) == {*CertificateFacts.__dataclass_fields__, "private_key_path"}


def test_the_action_group_holds_every_module_that_talks_to_a_control_server() -> None:
    groups = yaml.safe_load((_ROOT / "meta/runtime.yml").read_text())["action_groups"]
    talking = [name for name in _MODULES if set(CONTROL_ARGUMENTS) <= set(module_of(name).ARGUMENTS)]
    assert sorted(groups["control"]) == sorted(talking)
