"""Role tuning by real runs of Ansible, in a network namespace of its own: set, the same again, and as it was before."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import ROOT, Run, run_play

_ROLE = {"ansible.builtin.import_role": {"name": "scistream.core.tuning"}}
# Seconds for many runs, on a machine that has other work as well.
_LONG = 400
# Per network namespace, and nobody's default.
_PROBING, _RECEIVE, _CONTROL = "net.ipv4.tcp_mtu_probing", "net.ipv4.tcp_rmem", "net.ipv4.tcp_congestion_control"


class Kernel:
    """The values of one network namespace, and the role's files beside it."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.directory = directory
        self.file = directory / "sysctl.conf"
        self.record = directory / "record/previous.json"
        self._enter = ["ip", "netns", "exec", namespace]
        allowed = self.value("net.ipv4.tcp_allowed_congestion_control").split()
        self.other = next((name for name in allowed if name != "reno"), "reno")
        # Modules run in the namespace, and what they start stays there.
        python = directory / "python"
        python.write_text(f'#!/bin/sh\nexec {" ".join(self._enter)} {sys.executable} "$@"\n')
        python.chmod(0o755)
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(python),
            "scistream_tuning": True,
            "tuning_become": False,
            "tuning_file": str(self.file),
            "tuning_modules_file": str(directory / "modules.conf"),
            "tuning_record": str(self.record),
            "tuning_congestion_control": self.other,
        }

    def value(self, name: str) -> str:
        told = subprocess.run([*self._enter, "sysctl", "-n", name], capture_output=True, text=True, check=True)
        return " ".join(told.stdout.split())

    def set(self, name: str, value: str) -> None:
        subprocess.run([*self._enter, "sysctl", "-qw", f"{name}={value}"], check=True)

    def run(self, *options: str, **variables: Any) -> Run:
        words = ["-i", "compute,", "-e", json.dumps(self.variables | variables), *options]
        return run_play([_ROLE], directory=self.directory, options=words, hosts="all")


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("sysctl"):
        pytest.skip("network namespaces take root, iproute2 and procps")
    name = f"tuning-{os.getpid()}"
    namespaces = [shutil.which("ip") or "ip", "netns"]
    subprocess.run([*namespaces, "add", name], check=True)
    try:
        yield Kernel(tmp_path, name)
    finally:
        subprocess.run([*namespaces, "delete", name], check=True)


def sentence(run: Run) -> str:
    failed = next(one for one in run.results if one.outcome == "failed")
    return " ".join(str(failed["msg"]).split())


@pytest.mark.timeout(_LONG)
def test_values_are_set_and_put_back(kernel: Kernel) -> None:
    kernel.set(_RECEIVE, "4096 100000 6291456")
    kernel.set(_CONTROL, "reno")
    before = {name: kernel.value(name) for name in (_PROBING, _RECEIVE, _CONTROL, "net.ipv4.tcp_wmem")}
    predicted = kernel.run("--check")
    assert predicted.code == 0, predicted.output
    assert not kernel.file.exists()
    assert {name: kernel.value(name) for name in before} == before
    done = kernel.run()
    assert done.code == 0, done.output
    spoken = {"Set what is different", "Say what a real run sets"}
    assert tasks_changed(predicted) - spoken == tasks_changed(done) - spoken
    assert [kernel.value(name) for name in (_PROBING, _RECEIVE, _CONTROL)] == [
        "1",
        "4096 131072 33554432",
        kernel.other,
    ]
    assert f"{_RECEIVE} = 4096 131072 33554432\n" in kernel.file.read_text()
    assert json.loads(kernel.record.read_text())[_RECEIVE] == "4096 100000 6291456"
    for options in ([], ["--check"]):
        again = kernel.run(*options)
        assert (again.code, tasks_changed(again)) == (0, set()), again.output

    predicted, gone = kernel.run("--check", scistream_tuning=False), kernel.run(scistream_tuning=False)
    assert gone.code == 0, gone.output
    assert tasks_changed(predicted) - spoken == tasks_changed(gone) - spoken
    assert {name: kernel.value(name) for name in before} == before
    assert not kernel.file.exists()
    assert not kernel.record.parent.exists()
    again = kernel.run(scistream_tuning=False)
    assert (again.code, tasks_changed(again)) == (0, set()), again.output


def tasks_changed(run: Run) -> set[str]:
    return {one.task for one in run.results if one.changed}


def test_it_does_nothing_unasked(kernel: Kernel) -> None:
    before = kernel.value(_PROBING)
    for variables in ({"scistream_tuning": False}, {"scistream_state": "absent"}):
        run = kernel.run(**variables)
        assert (run.code, tasks_changed(run)) == (0, set()), run.output
    assert kernel.value(_PROBING) == before
    assert not kernel.record.parent.exists()


@pytest.mark.parametrize(
    ("gbps", "milliseconds", "largest"),
    [(10, 0.1, 1048576), (10, 10, 25034752), (100, 48, 1200029696), (400, 200, 2147483647)],
)
def test_buffers_follow_from_bandwidth_and_round_trip(
    kernel: Kernel, gbps: float, milliseconds: float, largest: int
) -> None:
    run = kernel.run(tuning_bandwidth_gbps=gbps, tuning_rtt_ms=milliseconds)
    assert run.code == 0, run.output
    assert kernel.value(_RECEIVE) == f"4096 131072 {largest}"
    assert kernel.value("net.ipv4.tcp_wmem") == f"4096 65536 {largest}"


def test_what_is_not_asked_for_any_more_goes_back(kernel: Kernel) -> None:
    name = "net.ipv4.tcp_ecn"
    before = kernel.value(name)
    wanted = "1" if before != "1" else "2"
    assert kernel.run(tuning_further={name: wanted}).code == 0
    assert kernel.value(name) == wanted
    assert kernel.run().code == 0
    assert kernel.value(name) == before
    assert name not in kernel.file.read_text()
    assert name not in json.loads(kernel.record.read_text())


def test_what_the_kernel_does_not_offer_is_left_out_and_said(kernel: Kernel) -> None:
    wishes = {"tuning_congestion_control": "teleport", "tuning_further": {"net.ipv4.no_such_thing": 1}}
    run = kernel.run(**wishes)
    assert run.code == 0, run.output
    said = run.named("Say what the kernel does not offer, and is left out")["msg"]
    assert "compute: the kernel has no net.ipv4.no_such_thing here: left out." in said
    # They are the host's own, and a network namespace has none, or cannot set them.
    assert any("net.core.default_qdisc" in sentence for sentence in said)
    assert any("net.core.rmem_max" in sentence for sentence in said)
    assert any("offers no congestion control teleport, only" in sentence for sentence in said)
    assert "teleport" not in kernel.file.read_text()
    assert "no_such_thing" not in kernel.file.read_text()
    assert kernel.run(**wishes).changed("compute") == 0


def test_what_the_kernel_does_not_offer_is_refused_where_that_is_asked(kernel: Kernel) -> None:
    before = kernel.value(_RECEIVE)
    run = kernel.run(tuning_missing="refuse", tuning_congestion_control="teleport")
    assert run.code == 2
    assert "compute: the kernel offers no congestion control teleport, only" in sentence(run)
    assert "Nothing was changed. Name what the kernel has, or set tuning_missing: leave_out" in sentence(run)
    assert kernel.value(_RECEIVE) == before
    assert not kernel.record.exists()


def test_a_value_that_the_kernel_does_not_take_is_named(kernel: Kernel) -> None:
    run = kernel.run(tuning_further={"net.ipv4.tcp_ecn": 77})
    assert run.code == 2
    assert "compute: the kernel does not take net.ipv4.tcp_ecn:" in sentence(run)
    assert "What was there before is in" in sentence(run)
    assert kernel.run(scistream_tuning=False).code == 0


def test_each_value_names_its_source() -> None:
    defaults = (ROOT / "roles/tuning/defaults/main.yml").read_text()
    table = (ROOT / "roles/tuning/README.md").read_text()
    variables = (ROOT / "roles/tuning/vars/main.yml").read_text()
    asked = variables.split("tuning_asked:")[1].split("\n\n")[0]
    names = set(re.findall(r"'(net\.[a-z0-9_.]+)'", asked))
    assert len(names) == 9
    assert {name for name in names if f"`{name}`" not in table} == set()
    assert all(word in defaults for word in ("ESnet", "kernel", "RFC 9438", "RFC 4821", "docs/benchmarks.md"))
