"""Makes one release of the library on a host: a virtual environment of its own, out of the wheels that were sent.

Arguments: the release's directory, and the archive. Standard library only. What it cannot do it says in one line on
stderr; a release that was not finished is begun anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

LIBRARY = "scistream"


def main():
    """Install, and leave nothing else behind."""
    release, archive = map(Path, sys.argv[1:3])
    wheels = archive.with_suffix(".wheels")
    # A user of the host runs it, root's mask or not.
    os.umask(0o022)
    try:
        install(release, archive, wheels)
    except (OSError, tarfile.TarError) as error:
        place = getattr(error, "filename", None) or release
        sys.exit(f"{place}: {getattr(error, 'strerror', None) or error}")
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
        archive.unlink(missing_ok=True)


def install(release, archive, wheels):
    """Make the release; its mark comes last."""
    for path in (release, wheels):
        if path.is_dir():
            shutil.rmtree(path)
    unpack(archive, wheels)
    # pip comes along as a wheel: Debian's python3 without python3-venv has none for a new environment.
    venv.EnvBuilder(symlinks=True, with_pip=False).create(release)
    pip = [str(release / "bin/python"), str(next(wheels.glob("pip-*.whl")) / "pip")]
    quietly = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-warn-script-location"]
    run([*pip, "install", *quietly, "--no-index", "--find-links", str(wheels), LIBRARY])
    version = run([str(release / "bin/s2cs"), "--version"]).split()[-1]
    (release / ".complete").write_text(f"{version}\n")


def unpack(archive, wheels):
    """Take the files out of the archive, and nothing else that one can hold."""
    wheels.mkdir()
    with tarfile.open(archive) as packed:
        for entry in packed:
            if not entry.isfile() or Path(entry.name).name != entry.name:
                sys.exit(f"{archive}: {entry.name} is no wheel")
            packed.extract(entry, wheels)


def run(command):
    """Run a command to its end; its output."""
    clean = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, capture_output=True, env=clean, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no word")
        sys.exit(f"{Path(command[1]).name}: {told}")
    return done.stdout


if __name__ == "__main__":
    main()
