"""A playbook that is interrupted while Ansible, a worker of it, or what that runs does not take it in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from scistream.demo.playbook import Playbook

ROOT = Path(__file__).resolve().parents[2]
# Python drops what a signal's handler raises while an object is removed: Ansible loses the interrupt, and goes on.
DEAF_ANSIBLE = """
import os, pathlib, time
from ansible.plugins.callback import CallbackBase

class Deaf:
    def __del__(self):
        pathlib.Path(os.environ["MOMENT"]).touch()
        time.sleep(60)

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "deaf"

    def v2_playbook_on_task_start(self, task, is_conditional):
        if os.environ["DEAF"] == "ansible":
            Deaf()
"""
# A worker that was just forked can lose it in the same way; from then on it takes the next.
DEAF_WORKER = """
import os, pathlib, signal
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        if os.environ["DEAF"] == "worker":
            usual = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, usual))
            pathlib.Path(os.environ["MOMENT"]).touch()
        return ["1000"]
"""
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - ansible.builtin.command:
        argv: [sh, -c, '[ "$DEAF" != command ] || trap "" INT; exec sleep "$0"', "{{ lookup('deaf') }}"]
"""
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    plugins = {"callback_plugins": DEAF_ANSIBLE, "lookup_plugins": DEAF_WORKER}
    for directory, text in plugins.items():
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "deaf.py").write_text(text)
    (tmp_path / "play.yml").write_text(PLAY)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return kept | {"MOMENT": str(tmp_path / "moment")}


@pytest.mark.parametrize("who", ["ansible", "worker", "command"])
def test_an_interrupt_that_is_lost_leaves_nothing_that_runs(
    tmp_path: Path, environment: dict[str, str], who: str
) -> None:
    playbook = Playbook(tmp_path / "play.yml", ["localhost,"], ROOT, environment | {"DEAF": who})
    if who != "command":
        _await((tmp_path / "moment").exists)
    if who != "ansible":
        _await(lambda: "sleep" in _names(environment))
    playbook.interrupt()
    if who == "ansible":
        # It goes on, with a worker that was not there when it was interrupted.
        _await(lambda: "sleep" in _names(environment))
    assert playbook.end() != 0
    assert not _names(environment)


def _names(environment: dict[str, str]) -> list[str]:
    """The programs that run with a test's environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MOMENT") == environment["MOMENT"]:
                found.append(process.name())
    return found


def _await(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
