"""Real runs of Ansible, and what every task of them returned.

run = run_play([{"scistream.core.session_info": {...}}], directory=tmp_path)
assert run.results[0].changed is False
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ROOT", "STEPS", "Result", "Run", "run_adhoc", "run_play", "run_playbook", "steps"]

ROOT = Path(__file__).parent.parent
STEPS = ("check", "do", "check again", "do again")

_BIN = Path(sys.executable).parent
_PATIENCE = 300.0


@dataclass(frozen=True)
class Result:
    """What one task returned on one host."""

    task: str
    action: str
    host: str
    outcome: str
    values: dict[str, Any]

    @property
    def changed(self) -> bool:
        return bool(self.values.get("changed"))

    @property
    def failure(self) -> str:
        """The code of the failure, or nothing."""
        return str(self.values.get("failure", {}).get("code", "")) if self.outcome == "failed" else ""

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


@dataclass(frozen=True)
class Run:
    """One run of a program of Ansible's: exit code, everything it said, and its tasks' results in their order."""

    code: int
    output: str
    results: tuple[Result, ...]

    def named(self, task: str, host: str = "") -> Result:
        """The one result of a task."""
        found = [one for one in self.results if one.task == task and host in {"", one.host}]
        assert len(found) == 1, f"{len(found)} results of {task!r}: {self.output}"
        return found[0]

    def changed(self, host: str) -> int:
        """How many tasks changed something on a host."""
        return sum(one.changed for one in self.results if one.host == host)


def steps(action: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same task four times: predicted, done, predicted again, done again."""
    return [{"name": step, action: dict(arguments), "check_mode": "check" in step} for step in STEPS]


def run_play(tasks: Sequence[Mapping[str, Any]], *, directory: Path, options: Sequence[str] = (), **play: Any) -> Run:
    """Run tasks as a play on this host; `play` has further keys of it."""
    path = directory / "play.yml"
    whole = {"hosts": "localhost", "gather_facts": False, "tasks": list(tasks), **play}
    path.write_text(yaml.safe_dump([whole], sort_keys=False))
    return run_playbook(path, directory=directory, options=("--diff", *options))


def run_playbook(
    playbook: Path, *, directory: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Run:
    """Run a playbook with the checkout's configuration."""
    return _run(["ansible-playbook", str(playbook), *options], directory, environment or {})


def run_adhoc(*arguments: str, directory: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run `ansible` itself."""
    return _run(["ansible", *arguments], directory, environment or {})


def _run(command: list[str], directory: Path, environment: Mapping[str, str]) -> Run:
    record = directory / "record.jsonl"
    record.unlink(missing_ok=True)
    home = directory / "home"
    home.mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SCISTREAM_", "ANSIBLE_", "XDG_"))}
    own = {
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "record",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "HOME": str(home),
        "SCISTREAM_TEST_RECORD": str(record),
    }
    ended = subprocess.run(
        [str(_BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env=clean | own | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    lines = record.read_text().splitlines() if record.exists() else []
    return Run(ended.returncode, ended.stdout, tuple(_result(json.loads(line)) for line in lines))


def _result(line: Mapping[str, Any]) -> Result:
    return Result(line["task"], line["action"], line["host"], line["outcome"], line["result"])
