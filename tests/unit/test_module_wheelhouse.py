"""Module wheelhouse: whether an archive that is there already is taken, by what somebody may have done to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.scistream.core.plugins.modules import wheelhouse

CONTENT = bytes(range(256)) * 40


def taken(directory: Path) -> tuple[dict[str, Any] | None, list[str], Path]:
    """What the module takes that is there, what it warns of, and where it looks."""
    warned: list[str] = []
    with patch_module_args({"directory": str(directory), "source": "scistream == 0.1.0"}):
        module = AnsibleModule(argument_spec=wheelhouse.ARGUMENTS)
    # Where a process has imported Ansible's controller, what a module warns of goes to its display.
    module.warn = warned.append
    found = wheelhouse._Wheelhouse(module)
    facts = found._read()
    return facts, warned, found.place


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive as the module leaves it."""
    place = taken(tmp_path)[2]
    place.mkdir(mode=0o700)
    path, note = place / "wheelhouse.tar", place / "wheelhouse.json"
    path.write_bytes(CONTENT)
    note.write_text(json.dumps({"digest": place.name, "sha256": hashlib.sha256(CONTENT).hexdigest()}))
    for each in (path, note):
        each.chmod(0o600)
    return path


def test_an_archive_as_it_was_collected_is_taken_and_its_sum_is_nobodys_business(archive: Path) -> None:
    facts, told, place = taken(archive.parent.parent)
    assert facts == {"digest": place.name, "source": "the requirement scistream == 0.1.0"}
    assert told == []


def swapped(path: Path) -> None:
    path.write_bytes(CONTENT[::-1])


def linked(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to("away")


def opened(path: Path) -> None:
    path.parent.chmod(0o777)


def note(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.with_name("wheelhouse.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (swapped, "it is not as it was collected"),
        (lambda path: path.write_bytes(CONTENT + b"more"), "it is not as it was collected"),
        (lambda path: path.chmod(0o622), "others can write it (mode 0622)"),
        (lambda path: path.with_name("wheelhouse.json").chmod(0o660), "others can write it (mode 0660)"),
        (opened, "others can write it (mode 0777)"),
        (linked, "it is a link"),
        (note("[]"), "wheelhouse.json beside it cannot be read"),
        (note("{"), "wheelhouse.json beside it cannot be read"),
        (note("{}"), "it is not as it was collected"),
    ],
)
def test_what_others_may_have_changed_is_not_taken(archive: Path, harm: Callable[[Path], Any], words: str) -> None:
    harm(archive)
    facts, told, _ = taken(archive.parent.parent)
    assert facts is None
    assert told == [f"The archive {archive} is not used, and the library is collected anew: {words}."]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to give a file away")
def test_what_is_another_users_is_not_taken(archive: Path) -> None:
    os.chown(archive, 65534, 65534)
    facts, told, _ = taken(archive.parent.parent)
    assert facts is None
    assert told[0].endswith("it belongs to the user with id 65534, and this is 0.")


def test_what_is_not_there_is_no_reason_for_words(tmp_path: Path) -> None:
    assert taken(tmp_path)[:2] == (None, [])


def test_what_pip_says_stands_within_a_sentence() -> None:
    told = [
        "Collecting scistream",
        "ERROR: Cannot install a, since it conflicts with its dependencies.",
        "for help see",
    ]
    assert wheelhouse._reason(told) == "ERROR: Cannot install a, since it conflicts with its dependencies"
    assert not wheelhouse._reason([])
