# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the library comes from that is sent to hosts: a checkout, a wheel, an index, or what the controller runs."""

from __future__ import annotations

import base64
import collections.abc as c
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import re
import typing as t
import zipfile

__all__ = ["LIBRARY", "Checkout", "Installed", "Requirement", "Source", "Wheel", "find_source", "needed", "pins"]

LIBRARY = "scistream"
# Of a checkout, what a wheel is built from.
_BUILT_FROM = ("LICENSE", "README.md", "pyproject.toml", f"src/{LIBRARY}")
# Of an installation, what the installer added.
_ADDED = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"})
_VERSION = re.compile(r'^version = "([^"]+)"', re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WHEEL = re.compile(rf"{LIBRARY}-([^-]+)-[^-]+-[^-]+-[^-]+\.whl")
# The first day that a zip archive knows: the same files are the same wheel.
_DAY = (1980, 1, 1, 0, 0, 0)


class Source(t.Protocol):
    """The library before it is a wheel.

    Attributes:
        title: what it is called in messages.
        version: the library's; empty where only an index knows.
    """

    title: str
    version: str

    def digest(self) -> str:
        """What two sources have in common that hold the same: SHA-256 in hex."""

    def prepare(self, directory: pathlib.Path) -> tuple[str, bool]:
        """Make it ready below a directory: what pip is told, and whether pip has to build it first."""


class Checkout:
    """The repository."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.title = f"the checkout {path}"
        found = _VERSION.search((path / "pyproject.toml").read_text(encoding="utf-8"))
        self.version = found.group(1) if found else ""
        self.constraints = path / "constraints.txt"

    def digest(self) -> str:
        summed = hashlib.sha256()
        for name, content in self._files():
            summed.update(f"{name}\n{len(content)}\n".encode() + content)
        return summed.hexdigest()

    def _files(self) -> c.Iterator[tuple[str, bytes]]:
        for top in _BUILT_FROM:
            place = self._path / top
            for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if path.is_file() and "__pycache__" not in path.parts:
                    yield str(path.relative_to(self._path)), path.read_bytes()

    def prepare(self, directory: pathlib.Path) -> tuple[str, bool]:
        # A copy: a build leaves its traces where it is made.
        for name, content in self._files():
            target = directory / "checkout" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return str(directory / "checkout"), True


class Wheel:
    """A wheel file of the library."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.title = f"the wheel {path}"
        found = _WHEEL.fullmatch(path.name)
        self.version = found.group(1) if found else ""

    def digest(self) -> str:
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def prepare(self, directory: pathlib.Path) -> tuple[str, bool]:
        return str(self._path), False


class Requirement:
    """What an index, or a directory that pip is configured with, has under a name."""

    def __init__(self, words: str) -> None:
        self._words = words
        self.title = f"the requirement {words}"
        self.version = words.partition("==")[2].strip()

    def digest(self) -> str:
        return hashlib.sha256(self._words.encode()).hexdigest()

    def prepare(self, directory: pathlib.Path) -> tuple[str, bool]:
        return self._words, False


class Installed:
    """What the controller runs, without the wheel that it came from: the wheel is put together again."""

    def __init__(self) -> None:
        self._found = importlib.metadata.distribution(LIBRARY)
        self.version = self._found.version
        self.title = f"the library {self.version} that this Python has"

    def digest(self) -> str:
        summed = hashlib.sha256()
        for name, content in self._files():
            summed.update(f"{name}\n{len(content)}\n".encode() + content)
        return summed.hexdigest()

    def _files(self) -> c.Iterator[tuple[str, bytes]]:
        for path in sorted(self._found.files or ()):
            is_own = ".." not in path.parts and "__pycache__" not in path.parts and path.name not in _ADDED
            if is_own and not pathlib.PurePath(path).is_absolute():
                yield str(path), pathlib.Path(str(self._found.locate_file(path))).read_bytes()

    def prepare(self, directory: pathlib.Path) -> tuple[str, bool]:
        path = directory / f"{LIBRARY}-{self.version}-py3-none-any.whl"
        record = []
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self._files():
                archive.writestr(zipfile.ZipInfo(name, _DAY), content)
                summed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                record.append(f"{name},sha256={summed},{len(content)}")
            name = f"{LIBRARY}-{self.version}.dist-info/RECORD"
            archive.writestr(zipfile.ZipInfo(name, _DAY), "\n".join([*record, f"{name},,", ""]))
        return str(path), False


def find_source(told: str | None) -> Source:
    """The source that a task names; without a word, the checkout that the library runs from, else the library itself.

    Raises:
        ValueError: there is no such thing; its text is a reason.
    """
    if not told:
        own = _own_checkout()
        return Checkout(own) if own else _installed()
    path = pathlib.Path(told).expanduser()
    if path.is_dir():
        return Checkout(_checkout(path))
    if path.suffix == ".whl":
        return Wheel(_wheel(path))
    if "/" in told or not _NAME.match(told):
        raise ValueError("it is no directory with a pyproject.toml, no wheel file and no requirement")
    return Requirement(told)


def _own_checkout() -> pathlib.Path | None:
    found = importlib.util.find_spec(LIBRARY)
    if found is None or not found.origin:
        return None
    # .../src/scistream/__init__.py
    root = pathlib.Path(found.origin).parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "src" / LIBRARY).is_dir() else None


def _installed() -> Installed:
    try:
        found = Installed()
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"this Python has no package {LIBRARY}") from None
    if not any(name == f"{LIBRARY}/__init__.py" for name, _content in found._files()):
        raise ValueError(f"the package {LIBRARY} of this Python does not say which files it has")
    return found


def _checkout(path: pathlib.Path) -> pathlib.Path:
    if not (path / "pyproject.toml").is_file() or not (path / "src" / LIBRARY).is_dir():
        raise ValueError(f"the directory has no pyproject.toml, or no src/{LIBRARY}")
    return path.absolute()


def _wheel(path: pathlib.Path) -> pathlib.Path:
    if not path.is_file():
        raise ValueError("there is no such file")
    if not _WHEEL.fullmatch(path.name):
        raise ValueError(f"it is no wheel of {LIBRARY}: those are called {LIBRARY}-VERSION-py3-none-any.whl")
    return path.absolute()


def needed() -> frozenset[str]:
    """The packages that the library needs, directly or not, as this Python has them: names as an index writes them."""
    found, waiting = set[str](), [LIBRARY]
    while waiting:
        name = _plain(waiting.pop())
        if name in found:
            continue
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [match.group() for each in wanted if "extra ==" not in each and (match := _NAME.match(each))]
    return frozenset(found)


def pins(file: pathlib.Path | None) -> list[str]:
    """The versions to send, of what the library needs and of pip: those of a file of constraints, else this Python's.

    What else stands in the file, or is installed here, is nobody's reason to send the library anew.
    """
    names = needed() - {LIBRARY} | {"pip"}
    if file is None:
        versions = ((name, _version(name)) for name in names)
        return sorted(f"{name}=={version}" for name, version in versions if version)
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    kept = [line for line in lines if (match := _NAME.match(line)) and _plain(match.group()) in names]
    own = _version("pip")
    return sorted(kept if any(line.startswith("pip==") for line in kept) or not own else [*kept, f"pip=={own}"])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
