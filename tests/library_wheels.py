"""Wheels of the library and of all that it needs, as a site without a way out has them: of what this Python has."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import zipfile
from pathlib import Path

from ansible_collections.scistream.core.plugins.module_utils._library_sources import needed

from ansible_runs import ROOT

__all__ = ["OFFLINE", "make_library_wheel", "make_wheels"]

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
"""How a site says that there is no index; with PIP_FIND_LINKS, where the wheels are."""

_LIBRARY = ROOT / "src/scistream"


def make_wheels(directory: Path) -> None:
    """Make all of them."""
    for name in (needed() | {"pip"}) - {"scistream"}:
        _make_wheel(name, directory)
    make_library_wheel(directory)


def _make_wheel(name: str, directory: Path) -> None:
    """A wheel with the files of an installed package."""
    found = importlib.metadata.distribution(name)
    files = found.files or []
    tags = [line.split()[1] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")]
    info = next(str(each.parent) for each in files if each.name == "METADATA")
    kept = [each for each in files if ".." not in each.parts and "__pycache__" not in each.parts]
    content = {str(each): Path(str(found.locate_file(each))).read_bytes() for each in kept if each.name != "RECORD"}
    _write(directory / f"{info.removesuffix('.dist-info')}-{tags[0]}.whl", info, content)


def make_library_wheel(directory: Path, version: str = "0.1.0", library: Path = _LIBRARY) -> Path:
    """The checkout's library, or a changed copy of it, as a wheel of any version."""
    info = f"scistream-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in importlib.metadata.requires("scistream") or [])
    programs = "".join(f"{name} = scistream.cli.programs:{name}\n" for name in ("appctrl", "s2cs", "s2uc"))
    paths = (path for path in library.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = {f"scistream/{path.relative_to(library)}": path.read_bytes() for path in paths} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: scistream\nVersion: {version}\n{needs}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{programs}".encode(),
    }
    module = "scistream/__init__.py"
    content[module] = re.sub(rb"(?m)^__version__ = .*$", f'__version__ = "{version}"'.encode(), content[module])
    path = directory / f"scistream-{version}-py3-none-any.whl"
    _write(path, info, content)
    return path


def _write(path: Path, info: str, content: dict[str, bytes]) -> None:
    record = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
            summed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={summed},{len(data)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
