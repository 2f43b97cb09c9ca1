"""Every command of the README, pasted into a copy of the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone has, with this checkout's virtual environment."""
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    there = [name for name in listed.stdout.splitlines() if (ROOT / name).exists() or (ROOT / name).is_symlink()]
    copy = tmp_path / "scistream"
    copy.mkdir()
    archive = subprocess.run(["/usr/bin/env", "tar", "c", *there], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["/usr/bin/env", "tar", "x", "-C", copy], input=archive.stdout, check=True)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    return copy


def _run(commands: list[str], checkout: Path) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MAKE", "MFLAGS"))}
    return subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=checkout,
        env={key: value for key, value in inherited.items() if key not in {"ENGINE", "DATA", "FRAMES"}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_work_as_they_stand(checkout: Path) -> None:
    done = _run([command for command in COMMANDS if not command.startswith("make ")], checkout)
    try:
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        assert done.stdout.count("Listeners: ['127.0.") == 2
        assert done.stdout.count("state: active") >= 3
    finally:
        _run([command for command in COMMANDS if command.startswith(". ") or "absent" in command], checkout)
    assert not (checkout / ".state/facility_a").exists()


def test_what_make_is_told_exists(checkout: Path) -> None:
    made = [command for command in COMMANDS if command.startswith("make ")]
    assert len(made) == 3
    targets = {command.split()[1] for command in made}
    helped = _run(["make help"], checkout)
    assert all(f"make {target} " in helped.stdout for target in targets)
    files = [word.removeprefix("DATA=") for command in made for word in command.split() if word.startswith("DATA=")]
    assert all((checkout / name).is_file() for name in files)


def test_the_links_lead_somewhere(checkout: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert all((checkout / link).exists() for link in links)
