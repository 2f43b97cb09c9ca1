"""What is shipped: the collection's artifact and the library's wheel, installed elsewhere, run the same stream."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_BIN = Path(sys.executable).parent
_MINUTES = 300.0

pytestmark = [pytest.mark.timeout(_MINUTES), pytest.mark.outer_network]


@dataclass(frozen=True)
class Site:
    """An empty place: a home of its own, an environment of its own, and nothing of the checkout."""

    directory: Path

    @property
    def collections(self) -> Path:
        return self.directory / "collections"

    def run(self, *command: str | Path) -> str:
        """Run a program of the environment; its output."""
        program = self.directory / "env" / "bin" / str(command[0])
        return _run([str(program), *map(str, command[1:])], self.directory, self._environment())

    def _environment(self) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE", "PYTHON", "SCISTREAM"))
        }
        return kept | {
            "HOME": str(self.directory),
            "PATH": f"{self.directory / 'env' / 'bin'}:{kept['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "SCISTREAM_DEMO_STATE": str(self.directory / "demo"),
            "SCISTREAM_DEMO_FRAMES": "8",
        }


def _run(command: Sequence[str], directory: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=_MINUTES
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifact")
    _run([str(_BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(directory)], _ROOT)
    (found,) = directory.glob("scistream-core-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def site(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    directory = tmp_path_factory.mktemp("site")
    pip = [str(_BIN / "python"), "-m", "pip"]
    _run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(_ROOT)], directory)
    (wheel,) = directory.glob("scistream-*.whl")
    _run([sys.executable, "-m", "venv", str(directory / "env")], directory)
    made = Site(directory)
    constraints = ("--constraint", _ROOT / "constraints.txt")
    made.run("pip", "install", "--quiet", "--disable-pip-version-check", *constraints, f"{wheel}[ansible,demo]")
    made.run("ansible-galaxy", "collection", "install", "--offline", "--collections-path", made.collections, artifact)
    return made


def test_the_artifact_holds_the_collection_and_nothing_else(artifact: Path) -> None:
    with tarfile.open(artifact) as archive:
        names = archive.getnames()
    tops = {name.split("/")[0] for name in names}
    assert {"plugins", "roles", "playbooks", "inventory", "meta", "README.md", "LICENSE", "docs"} <= tops
    assert not tops & {"src", "tests", "tools", "collections", ".venv", ".git", ".state", ".ci", "Makefile"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".key", ".pyc", ".ticket"))]


def test_ansible_doc_reads_every_plugin(site: Site) -> None:
    listed = site.run("ansible-doc", "--list", "scistream.core")
    modules = sorted(path.stem for path in (_ROOT / "plugins" / "modules").glob("*.py"))
    for module in modules:
        assert f"scistream.core.{module}" in listed
        assert "EXAMPLES" in site.run("ansible-doc", f"scistream.core.{module}")


@pytest.mark.parametrize("engine", ["haproxy", "stunnel"])
def test_the_same_stream_runs_from_what_was_shipped(site: Site, engine: str) -> None:
    inventory = site.collections / "ansible_collections" / "scistream" / "core" / "inventory" / "local"
    options = ("-i", inventory, "-e", f"scistream_engine={engine}")
    try:
        output = site.run("ansible-playbook", *options, "scistream.core.demo")
    except AssertionError:
        site.run("ansible-playbook", *options, "scistream.core.demo_stop")
        raise
    assert "the same" in output
    assert "Nothing is left behind" in output
    assert not (site.directory / "demo").exists()
