"""Measures provisioning on real hosts, and writes `provisioning.json`: `python benchmarks/provisioning.py`, as root.

Each round boots virgin hosts, and runs the commands of a site operator against inventory/example: to both gateways
serving, the same once more, a stream opened and closed, a report. The last step is a fleet: that many more gateways in
one play. It needs the package index, once; nobody else may have the test hosts' addresses meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from figures import Figures, Goal, missed
from rich.console import Console

_ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(_ROOT / "tests"))

from hosts import Hosts, HostsError  # noqa: E402 - of the tests, which boot the same hosts

_OUTPUT: Final = Path(__file__).with_suffix(".json")
# Where inventory/example looks for the hosts.
_PLACE: Final = _ROOT / ".state" / "hosts"
_INVENTORY: Final = ("-i", "inventory/example")
_STREAM: Final = (
    *("-e", "stream_name=bench", "-e", "stream_from=gateway_a", "-e", "stream_to=gateway_b"),
    *("-e", "stream_targets=198.18.13.10:5074"),
)
_GOALS: Final = {
    "provision_fresh": Goal(90),
    "provision_again": Goal(20),
    "provision_again_changed": Goal(0),
    "open_stream": Goal(4),
}
_CHANGED: Final = re.compile(r"\bchanged=(\d+)")
_BAD: Final = re.compile(r"\b(?:failed|unreachable)=[1-9]")
# Seconds between two looks at the controller's memory.
_LOOK: Final = 0.5


@dataclass(frozen=True)
class Run:
    """One play: seconds of the whole command, tasks that changed something, and the most memory of the controller."""

    seconds: float
    changed: int
    memory_mib: float


class Memory:
    """Watches what a process and all that it starts take, pages that they share counted once (PSS)."""

    def __init__(self, process: psutil.Process) -> None:
        self.most = 0.0
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            self.most = max(self.most, sum(map(_pss, [self._process, *self._family()])) / 2**20)

    def _family(self) -> list[psutil.Process]:
        try:
            return self._process.children(recursive=True)
        except psutil.Error:
            return []

    def stop(self) -> float:
        """The most that was seen, in MiB."""
        self._over.set()
        self._thread.join()
        return self.most


def _pss(process: psutil.Process) -> int:
    try:
        found: int = process.memory_full_info().pss
    except psutil.Error:
        return 0
    return found


def play(playbook: str, *words: str) -> Run:
    """Run a playbook to its end.

    Raises:
        RuntimeError: it failed on any host.
    """
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(_ROOT / "ansible.cfg")}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{playbook}.yml", *words]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=said, stderr=said)
        memory = Memory(psutil.Process(process.pid))
        code = process.wait()
        seconds, most = time.monotonic() - begun, memory.stop()
        said.seek(0)
        text = said.read()
    if code or _BAD.search(text):
        raise RuntimeError(f"{playbook} ended with {code}: {text[-3000:]}")
    return Run(seconds, sum(map(int, _CHANGED.findall(text))), most)


def _round(figures: Figures) -> None:
    with Hosts(_PLACE):
        figures.add("provision_fresh", play("provision", *_INVENTORY).seconds)
        again = play("provision", *_INVENTORY)
        figures.add("provision_again", again.seconds)
        figures.add("provision_again_changed", again.changed)
        for _ in range(3):
            figures.add("open_stream", play("open_stream", *_INVENTORY, *_STREAM).seconds)
            figures.add("close_stream", play("close_stream", *_INVENTORY, *_STREAM[:6]).seconds)
        figures.add("status", play("status", *_INVENTORY, "-e", "status_page=").seconds)


def _fleet(figures: Figures, number: int) -> None:
    with Hosts(_PLACE, more=number) as hosts, tempfile.TemporaryDirectory() as directory:
        names = {name: {"ansible_host": host.addresses["ssh"]} for name, host in hosts.items() if "fleet" in name}
        for each in names.values():
            each |= {"scistream_address": each["ansible_host"], "scistream_facility_address": each["ansible_host"]}
        groups = {name: {"hosts": names} for name in ("gateways", "facility_a")}
        inventory = Path(directory) / "fleet.json"
        inventory.write_text(json.dumps({"all": {"children": groups}}))
        # What inventory/example derives from its own place, these hosts would from that of theirs.
        places = f"scistream_ssh_config={hosts.ssh_config}", f"scistream_controller_directory={directory}/controller"
        words = (*_INVENTORY, "-i", str(inventory), "--limit", "fleet_*", "--forks", "10", "-e", " ".join(places))
        for name in ("fleet_fresh", "fleet_again"):
            run = play("provision", *words)
            figures.add(name, run.seconds)
            figures.add(f"{name}_memory", run.memory_mib)
            figures.add(f"{name}_changed", run.changed)


def rows(figures: Figures) -> list[dict[str, Any]]:
    """All that was measured."""
    seconds = ("provision_fresh", "provision_again", "open_stream", "close_stream", "status")
    found = [figures.row(name, "s", _GOALS.get(name)) for name in seconds]
    found.append(figures.row("provision_again_changed", "tasks", _GOALS["provision_again_changed"]))
    found.append(figures.row("fleet_gateways", "hosts"))
    for name in ("fleet_fresh", "fleet_again"):
        found += [figures.row(name, "s"), figures.row(f"{name}_memory", "MiB"), figures.row(f"{name}_changed", "tasks")]
    return [row for row in found if row["runs"]]


def measure(rounds: int, fleet: int, console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """All rounds and the fleet; a failure costs its own part."""
    figures, failures = Figures(), []
    # The wheelhouse and the packages are at hand, as they are at a site that has provisioned before.
    with Hosts(_PLACE):
        console.print("once, not counted: what the hosts are given", highlight=False)
        play("provision", *_INVENTORY)
    steps: list[tuple[str, Any]] = [(f"round {n + 1} of {rounds}", lambda: _round(figures)) for n in range(rounds)]
    if fleet:
        figures.add("fleet_gateways", fleet)
        steps.append((f"a fleet of {fleet} gateways", lambda: _fleet(figures, fleet)))
    for words, step in steps:
        console.print(words, highlight=False)
        try:
            step()
        except (RuntimeError, HostsError) as error:
            failures.append(f"{words}: {error}")
    return rows(figures), failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, say which goals hold.

    Returns:
        0; 1 where a step failed or a goal was missed; 130 after an interrupt.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="3 if it is not said")
    parser.add_argument(
        "--fleet", type=int, default=50, help="gateways of the last step, 50 if it is not said; 0: none"
    )
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        found, failures = measure(options.rounds, options.fleet, console)
    except KeyboardInterrupt:
        console.print("stopped; the hosts are gone")
        return 130
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    for row in found:
        verdict = {True: "holds", False: "MISSED", None: ""}[row["holds"]]
        spread = f"({row['min']} to {row['max']})"
        console.print(f"{row['name']:26} {row['value']!s:>9} {row['unit']:6} {spread:22} {verdict}", highlight=False)
    for line in [f"FAILED {each}" for each in failures] + missed(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return int(bool(failures or missed(found)))


if __name__ == "__main__":
    sys.exit(main())
