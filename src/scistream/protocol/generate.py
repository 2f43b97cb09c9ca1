"""Generates the Python code of the .proto files beside this module: `python -m scistream.protocol.generate [--check]`.

`--check` generates into a temporary directory and compares, so that the code that is checked in is proven fresh.
"""

from __future__ import annotations

import importlib.resources
import sys
import tempfile
from pathlib import Path

import click

_PACKAGE = Path(__file__).resolve().parent
_SOURCES = ("control.proto", "operations.proto")


def _generate(destination: Path) -> None:
    """Write the generated files below `destination`, at the paths that they have below `src`."""
    from grpc_tools import protoc

    root = _PACKAGE.parents[1]
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{root}", f"-I{well_known}"]
    arguments += [f"--{kind}_out={destination}" for kind in ("python", "pyi", "grpc_python")]
    arguments += [f"scistream/protocol/{source}" for source in _SOURCES]
    if protoc.main(arguments) != 0:
        raise click.ClickException("protoc failed; its words stand above")


def _stale(fresh: Path) -> list[str]:
    """Names of generated files that differ from those that are checked in."""
    names = sorted(path.name for path in fresh.iterdir())
    present = sorted(path.name for path in _PACKAGE.iterdir() if "_pb2" in path.name)
    differing = {name for name in names if not _same(fresh / name, _PACKAGE / name)}
    return sorted(differing | set(present).difference(names))


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 where the code is not what protoc gives.")
def main(check: bool) -> None:
    """Generate the protocol's Python code from the .proto files."""
    if not check:
        _generate(_PACKAGE.parents[1])
        return
    with tempfile.TemporaryDirectory() as directory:
        _generate(Path(directory))
        stale = _stale(Path(directory, "scistream", "protocol"))
    if stale:
        click.echo(f"not fresh: {', '.join(stale)}; run: python -m scistream.protocol.generate", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
