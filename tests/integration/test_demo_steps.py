"""What the callback scistream.core.steps prints, from real runs of toy plays."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [str(Path(sys.executable).parent / "ansible-playbook")]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    own = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "scistream.core.steps"}
    return kept | own | {"PYTHONUNBUFFERED": "1"}


@pytest.fixture
def play(tmp_path: Path) -> Path:
    path = tmp_path / "play.yml"
    path.write_text(yaml.safe_dump([{"name": "A toy", "hosts": "localhost", "gather_facts": False, "tasks": []}]))
    return path


def _run(path: Path, tasks: list[dict[str, object]], *options: str) -> subprocess.CompletedProcess[str]:
    plays = yaml.safe_load(path.read_text())
    plays[0]["tasks"] = tasks
    path.write_text(yaml.safe_dump(plays, sort_keys=False))
    command = [*COMMAND, str(path), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=_environment())


def test_a_step_is_a_line_with_its_duration(play: Path) -> None:
    done = _run(play, [{"name": "Do a thing", "ansible.builtin.command": "true"}])
    lines = done.stdout.splitlines()
    assert "A toy" in lines
    assert next(line for line in lines if "Do a thing" in line).startswith("  ✓ Do a thing")
    assert lines[-2].endswith("in all, most of it for")
    assert "****" not in done.stdout


def test_what_is_shown_is_shown_as_it_stands(play: Path) -> None:
    done = _run(play, [{"name": "Show", "ansible.builtin.debug": {"msg": ["┌─┐  two", "└─┘"]}}])
    assert "    ┌─┐  two\n    └─┘\n" in done.stdout
    assert "✓ Show" not in done.stdout


def test_what_a_host_says_gives_no_orders_to_the_terminal(play: Path) -> None:
    evil = "\x1b]0;evil\x07a\tb\u202ec"
    show = {"name": "Show", "ansible.builtin.debug": {"msg": [f"┌ {evil}\nnext"]}}
    tell = {"name": "Tell", "ansible.builtin.fail": {"msg": evil}}
    said = _run(play, [show, tell]).stdout
    assert "    ┌ ?]0;evil?a b?c\nnext\n" in said
    assert "    ?]0;evil?a b?c\n" in said.replace("localhost: ", "")
    assert not set("\x1b\x07\u202e") & set(said)


def test_a_skipped_step_is_no_line(play: Path) -> None:
    done = _run(play, [{"name": "Not this", "ansible.builtin.command": "true", "when": False}])
    assert "Not this" not in done.stdout


def test_a_failure_is_a_sentence_with_its_code(play: Path, tmp_path: Path) -> None:
    traffic = {"target": "nonsense", "entry_point": "127.0.50.3:25100"}
    done = _run(play, [{"name": "Send", "scistream.core.demo_traffic": traffic}])
    assert done.returncode == 2
    assert "  ✗ Send" in done.stdout
    assert "'nonsense' is not an address: the port is missing" in done.stdout
    assert "[BAD_ADDRESS]" in done.stdout


def test_a_failing_command_is_told_in_its_own_words(play: Path) -> None:
    done = _run(play, [{"name": "Fail", "ansible.builtin.command": "ls /no/such/file"}])
    assert "    ls: cannot access '/no/such/file': No such file or directory" in done.stdout


def test_a_failure_on_several_hosts_names_each(play: Path) -> None:
    play.write_text(play.read_text().replace("hosts: localhost", "hosts: gateways"))
    done = _run(play, [{"name": "Fail", "ansible.builtin.fail": {"msg": "because of {{ inventory_hostname }}"}}])
    assert "    facility_a: because of facility_a" in done.stdout
    assert "    facility_b: because of facility_b" in done.stdout


def test_the_items_that_failed_are_told(play: Path) -> None:
    task = {"name": "Fail", "ansible.builtin.command": "ls {{ item }}", "loop": ["/", "/no/such/file"]}
    done = _run(play, [task])
    assert "cannot access '/no/such/file'" in done.stdout


def test_a_failure_that_is_expected_is_no_failure(play: Path) -> None:
    done = _run(play, [{"name": "Try", "ansible.builtin.command": "false", "ignore_errors": True}])
    assert done.returncode == 0
    assert "  ✓ Try" in done.stdout


def test_traffic_tells_its_progress_and_its_result(play: Path) -> None:
    traffic = {"target": "127.0.50.3:25101", "entry_point": "127.0.50.3:25101", "frames": 30}
    tasks: list[dict[str, object]] = [
        {"name": "Send", "scistream.core.demo_traffic": traffic, "register": "sent"},
        {"name": "Show", "ansible.builtin.debug": {"msg": "whole: {{ sent.traffic.whole }}, {{ sent.traffic.bytes }}"}},
    ]
    done = _run(play, tasks)
    assert "100%  251.66 MB of 251.66 MB" in done.stdout
    assert f"whole: True, {30 * 2048 * 2048 * 2}" in done.stdout


def test_traffic_is_skipped_in_check_mode(play: Path) -> None:
    traffic = {"target": "127.0.50.3:25102", "entry_point": "127.0.50.3:25102"}
    done = _run(play, [{"name": "Send", "scistream.core.demo_traffic": traffic}], "--check")
    assert done.returncode == 0
    assert "(check mode: nothing is changed)" in done.stdout
    assert "Gb/s" not in done.stdout


def test_a_path_is_drawn_by_the_filter(play: Path) -> None:
    session = {
        "entry_points": ["127.0.2.1:5100"],
        "targets": ["127.0.2.1:5074"],
        "engine": "nginx",
        "encryption": "none",
    }
    message = "{{ session | scistream.core.draw_path(session, applications=['detector']) }}"
    done = _run(play, [{"name": "Draw", "ansible.builtin.debug": {"msg": message}, "vars": {"session": session}}])
    assert "detector ────▶│ 127.0.2.1:5100 │" in done.stdout


def test_what_is_no_session_cannot_be_drawn(play: Path) -> None:
    message = "{{ {} | scistream.core.draw_path({}) }}"
    done = _run(play, [{"name": "Draw", "ansible.builtin.debug": {"msg": message}}])
    assert "draw_path takes two sessions" in done.stdout + done.stderr


def test_colours_are_for_terminals(play: Path) -> None:
    tasks: list[dict[str, object]] = [{"name": "Do a thing", "ansible.builtin.command": "true"}]
    assert "\x1b[" not in _run(play, tasks).stdout
    assert "\x1b[" in _on_a_terminal(play)


def _on_a_terminal(play: Path) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, str(play)], stdout=theirs, stderr=theirs, cwd=ROOT, env=_environment()) as running:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:
            pass  # the terminal's other side is closed
        finally:
            os.close(ours)
    assert running.returncode == 0
    return seen.decode()
