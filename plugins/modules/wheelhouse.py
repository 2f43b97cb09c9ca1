#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - the documentation stands first: ansible-doc reads modules without running them

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: The library and all that it needs, as wheels for hosts without a way out
version_added: 0.1.0
description:
  - Collects the wheels of the library SciStream, of what it needs and of pip into one archive, for hosts of one kind.
    Runs on the controller; the role C(library) sends the archive.
  - The same library for the same kind of host is collected once. Where its archive is there already, the module needs
    no network, and does nothing.
  - An archive that is not as it was collected, or that others than this user and root could have written, is collected
    anew, with a warning.
  - What is collected is what the controller itself runs, version by version.
options:
  source:
    description:
      - Where the library comes from. A checkout of its repository, a wheel file, or a requirement such as
        V(scistream == 0.1.0), which pip looks for as it is configured on the controller.
      - By default the checkout that the controller's library runs from. Where that is installed, the installed files
        are put together to a wheel again.
    type: str
  constraints:
    description:
      - File with the versions of what the library needs, one V(name==version) a line. Other lines are passed over.
      - By default C(constraints.txt) of the checkout. Without a checkout, the versions that the controller's Python
        has.
    type: path
  python_version:
    description:
      - The hosts' version of Python, as V(3.11). By default the controller's.
      - For another version than the controller's, pip takes what the library needs from the controller's version. What
        it needs on the other one only is missing then.
    type: str
  machine:
    description:
      - The hosts' kind of machine, as C(uname -m) says. By default the controller's.
    type: str
  glibc:
    description:
      - The hosts' version of the C library, as V(2.36). By default the controller's.
    type: str
  directory:
    description:
      - Where the controller keeps what was collected. The last eight stay.
      - Refused where others than this user and root can write there. What lies in it runs on the hosts, as root.
    type: path
    default: ~/.cache/scistream/wheelhouses
extends_documentation_fragment:
  - scistream.core.attributes
attributes:
  check_mode:
    description:
      - Predicts the digest, and whether anything would be collected.
  diff_mode:
    description:
      - Shows which archive would be new.
  platform:
    description:
      - Where the module runs. That is the controller.
requirements:
  - python >= 3.11
  - scistream >= 0.1.0 (Python library, where the module runs)
  - pip (where the module runs)
seealso:
  - ref: ansible_collections.scistream.core.library_role
    description: Sends it to a host, and installs it there.
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: For hosts like the controller
  scistream.core.wheelhouse:
    directory: ~/.cache/scistream/wheelhouses
  delegate_to: localhost

- name: For a newer distribution, from a wheel
  scistream.core.wheelhouse:
    source: /srv/scistream/scistream-0.1.0-py3-none-any.whl
    python_version: "3.13"
    glibc: "2.41"
  delegate_to: localhost

- name: From an index of the site's own, which pip.conf names
  scistream.core.wheelhouse:
    source: scistream == 0.1.0
    constraints: /srv/scistream/constraints.txt
  delegate_to: localhost
"""

RETURN = r"""
wheelhouse:
  description: The archive, and what it is for.
  returned: success
  type: dict
  contains:
    path:
      description: The archive (tar) on the controller.
      returned: success
      type: str
      sample: /home/operator/.cache/scistream/wheelhouses/5f2d8c1ab0e94b77/wheelhouse.tar
    digest:
      description:
        - The same where the library, the versions it needs and the kind of host are the same. It names the release.
      returned: success
      type: str
      sample: 5f2d8c1ab0e94b77
    version:
      description: The library's version. Empty before a requirement without a version was collected.
      returned: success
      type: str
      sample: 0.1.0
    source:
      description: Where the library comes from, in words.
      returned: success
      type: str
      sample: the checkout /home/operator/scistream
    python_version:
      description: The version of Python that it is for.
      returned: success
      type: str
      sample: "3.11"
    machine:
      description: The kind of machine that it is for.
      returned: success
      type: str
      sample: x86_64
    glibc:
      description: The version of the C library that it is for.
      returned: success
      type: str
      sample: "2.36"
    size:
      description: Bytes of the archive. 0 where it is not there yet.
      returned: success
      type: int
      sample: 21073920
    wheels:
      description: The wheels in it. Empty where it is not there yet.
      returned: success
      type: list
      elements: str
      sample: [scistream-0.1.0-py3-none-any.whl]
failure:
  description: What went wrong, for programs. The sentence for people is in C(msg).
  returned: failure
  type: dict
  contains:
    code:
      description: Stable code of the error.
      returned: failure
      type: str
      sample: WHEELHOUSE_FAILED
    details:
      description: The facts of the error, by name.
      returned: failure
      type: dict
      sample: {"command": "pip download", "reason": "No matching distribution found for scistream==0.1.0"}
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import re
import shlex
import shutil
import sys
import tarfile
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.scistream.core.plugins.module_utils._differences import Differences
from ansible_collections.scistream.core.plugins.module_utils._library_sources import (
    LIBRARY,
    Checkout,
    Source,
    find_source,
    pins,
)
from ansible_collections.scistream.core.plugins.module_utils._ownership import foreign

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "source": {"type": "str"},
    "constraints": {"type": "path"},
    "python_version": {"type": "str"},
    "machine": {"type": "str"},
    "glibc": {"type": "str"},
    "directory": {"type": "path", "default": "~/.cache/scistream/wheelhouses"},
}

_ARCHIVE = "wheelhouse.tar"
_FACTS = "wheelhouse.json"
# In the facts on disk: of the archive, when it was made.
_SUM = "sha256"
# Another form of the archive is another digest.
_FORM = "1"
_DIGEST = 16
_KEPT = 8
# The oldest that builds the library (pyproject.toml).
_SETUPTOOLS = 77
_TWO_NUMBERS = re.compile(r"\d+\.\d+")
# PEP 599, PEP 600: the oldest C library that wheels with names of this form are for.
_OLDEST_GLIBC = 17


class _FailureError(Exception):
    """What ends the task: a sentence, and its facts."""

    def __init__(self, words: str, **details: str) -> None:
        super().__init__(words)
        self.details = details


class _Wheelhouse:
    """The library's wheels for one kind of host: as they are on the controller, and as the task wants them."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        own_glibc = platform.libc_ver()[1] or f"2.{_OLDEST_GLIBC}"
        self.python = self._two_numbers("python_version", ".".join(platform.python_version_tuple()[:2]))
        self.glibc = self._two_numbers("glibc", own_glibc)
        self.machine = self.params["machine"] or platform.machine()
        here = (".".join(platform.python_version_tuple()[:2]), platform.machine(), own_glibc)
        self.is_own_kind = (self.python, self.machine, self.glibc) == here
        self.source = self._source()
        self.pins = self._pins()
        self.home = pathlib.Path(self.params["directory"])
        self.place = self.home / self._digest()

    def _two_numbers(self, key: str, default: str) -> str:
        text = self.params[key] or default
        if not _TWO_NUMBERS.fullmatch(text):
            raise self._refused(key, "it is two numbers with a point between, such as 3.11")
        return text

    def _source(self) -> Source:
        try:
            return find_source(self.params["source"])
        except ValueError as error:
            raise self._refused("source", str(error)) from None

    def _pins(self) -> list[str]:
        file = self.params["constraints"]
        if not file and isinstance(self.source, Checkout) and self.source.constraints.is_file():
            file = self.source.constraints
        try:
            return pins(pathlib.Path(file) if file else None)
        except (OSError, ValueError) as error:
            raise self._refused("constraints", str(error)) from None

    def _refused(self, key: str, reason: str) -> _FailureError:
        words = f"{key} = {self.params[key]!r} cannot be used: {reason}. Correct {key}, and run it again."
        return _FailureError(words, key=key, reason=reason)

    def _digest(self) -> str:
        kind = [_FORM, self.python, self.machine, self.glibc]
        return hashlib.sha256("\n".join([*kind, self.source.digest(), *self.pins]).encode()).hexdigest()[:_DIGEST]

    def converge(self) -> dict[str, t.Any]:
        """Have it; alone, where several runs want the same."""
        differences = Differences(f"wheelhouse {self.place}")
        self._judge_home()
        before = self._read()
        if before is None and not self.module.check_mode:
            with self._locked():
                # Another run may have been faster.
                self._read() or self._collect()
        after = self._read() or self._facts([], 0)
        differences.compare("digest", before and before["digest"], after["digest"])
        return {"changed": differences.changed, "diff": differences.diff, "wheelhouse": after}

    def _read(self) -> dict[str, t.Any] | None:
        archive, note = self.place / _ARCHIVE, self.place / _FACTS
        if not (archive.is_file() and note.is_file()):
            return None
        try:
            reason = next(filter(None, map(foreign, (self.place, archive, note))), "")
            facts = {} if reason else json.loads(note.read_text(encoding="utf-8"))
            if not reason and facts.pop(_SUM, "") != _sum(archive):
                reason = "it is not as it was collected"
        except (OSError, ValueError, AttributeError, TypeError):
            reason = f"{_FACTS} beside it cannot be read"
        if reason:
            self.module.warn(f"The archive {archive} is not used, and the library is collected anew: {reason}.")
            return None
        return {**facts, "source": self.source.title}

    def _judge_home(self) -> None:
        reason = foreign(self.home, follow=True)
        if reason:
            raise _FailureError(
                f"The directory {self.home} cannot be used: {reason}, and what lies there runs on hosts. Have it "
                f"for yourself (chmod go-w {shlex.quote(str(self.home))}), or name another with "
                "library_controller_directory, and run it again.",
                reason=reason,
            )

    def _facts(self, wheels: list[str], size: int) -> dict[str, t.Any]:
        own = next((name.split("-")[1] for name in wheels if name.startswith(f"{LIBRARY}-")), self.source.version)
        return {
            "path": str(self.place / _ARCHIVE),
            "digest": self.place.name,
            "version": own,
            "source": self.source.title,
            "python_version": self.python,
            "machine": self.machine,
            "glibc": self.glibc,
            "size": size,
            "wheels": wheels,
        }

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _collect(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.home, prefix=".collecting-") as name:
            directory = pathlib.Path(name)
            self._download(directory)
            wheels = sorted(path.name for path in (directory / "wheels").iterdir())
            ready = directory / "ready"
            ready.mkdir(mode=0o700)
            archive, note = ready / _ARCHIVE, ready / _FACTS
            self._pack(directory / "wheels", wheels, archive)
            facts = self._facts(wheels, archive.stat().st_size) | {_SUM: _sum(archive)}
            note.write_text(json.dumps(facts, indent=2), encoding="utf-8")
            for path in (archive, note):
                path.chmod(0o600)
            shutil.rmtree(self.place, ignore_errors=True)
            ready.rename(self.place)
        self._forget_old_ones()

    def _download(self, directory: pathlib.Path) -> None:
        wheels, constraints = directory / "wheels", directory / "constraints.txt"
        wheels.mkdir()
        constraints.write_text("".join(f"{line}\n" for line in self.pins), encoding="utf-8")
        wanted, has_to_be_built = self.source.prepare(directory)
        if has_to_be_built:
            isolation = [] if _lacks_setuptools() else ["--no-build-isolation"]
            self._pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(wheels), wanted)
            wanted = str(next(wheels.glob(f"{LIBRARY}-*.whl")))
        kind = [] if self.is_own_kind else self._kind()
        found = ["--only-binary=:all:", "--dest", str(wheels), "--constraint", str(constraints)]
        self._pip("download", *found, *kind, wanted, "pip")

    def _kind(self) -> list[str]:
        """The hosts' kind, as pip is told it."""
        major, minor = map(int, self.glibc.split("."))
        names = [f"manylinux_{major}_{each}_{self.machine}" for each in range(minor, _OLDEST_GLIBC - 1, -1)]
        platforms = [f"manylinux2014_{self.machine}", f"linux_{self.machine}", *names]
        return [
            *("--python-version", self.python, "--implementation", "cp"),
            *(word for name in platforms for word in ("--platform", name)),
        ]

    def _pip(self, verb: str, *arguments: str) -> None:
        command = [
            sys.executable,
            "-m",
            "pip",
            verb,
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            *arguments,
        ]
        code, output, words = self.module.run_command(command, cwd=str(self.home))
        if code == 0:
            return
        reason = _reason((words or output).splitlines()) or f"exit status {code}"
        if "No module named pip" in reason:
            raise _FailureError(
                f"{sys.executable}, which runs Ansible here, has no pip, and the library cannot be collected: install "
                f"it ({sys.executable} -m ensurepip), and run it again.",
                command="pip",
                reason=reason,
            )
        raise _FailureError(
            f"{self.source.title} cannot be collected for Python {self.python} on {self.machine}: pip {verb} says: "
            f"{reason}. {_next_step(reason)}, and run it again.",
            command=f"pip {verb}",
            reason=reason,
        )

    @staticmethod
    def _pack(directory: pathlib.Path, names: list[str], archive: pathlib.Path) -> None:
        with tarfile.open(archive, "w") as packed:
            for name in names:
                packed.add(directory / name, arcname=name, filter=_anonymous)

    def _forget_old_ones(self) -> None:
        found = [path for path in self.home.iterdir() if path.is_dir() and not path.name.startswith(".")]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def _sum(archive: pathlib.Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the controller's user in it."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o644
    return entry


def _lacks_setuptools() -> bool:
    """Whether a build needs what pip downloads for it: this Python's setuptools is none, or too old."""
    if importlib.util.find_spec("setuptools") is None:
        return True
    return int(importlib.metadata.version("setuptools").split(".", maxsplit=1)[0]) < _SETUPTOOLS


def _reason(lines: list[str]) -> str:
    """The line that says most: pip ends with advice on how to read what it said before."""
    told = [line.strip() for line in lines if line.strip()]
    errors = [line for line in told if line.startswith("ERROR:")]
    missing = [line for line in errors if "No matching distribution" in line or "Cannot install" in line]
    # It stands within a sentence.
    return next(iter([*missing, *errors, *reversed(told)]), "").rstrip(".")


def _next_step(reason: str) -> str:
    if "No matching distribution" in reason or "Could not find a version" in reason or "onnection" in reason:
        return (
            "Where the controller reaches no package index, name a directory of wheels with PIP_NO_INDEX=1 and "
            "PIP_FIND_LINKS, or run it once where it reaches one; where the library itself is missing, name its wheel "
            "with library_source"
        )
    return "Repair what pip names"


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    # What pip says is read.
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8", "PIP_REQUIRE_VIRTUALENV": "0"}
    try:
        result = _Wheelhouse(module).converge()
    except _FailureError as failure:
        module.fail_json(msg=str(failure), failure={"code": "WHEELHOUSE_FAILED", "details": failure.details})
    except OSError as error:
        words = f"{error.filename or module.params['directory']}: {error.strerror or error}"
        module.fail_json(
            msg=f"The library cannot be collected below {module.params['directory']}: {words}. Make room there or name "
            f"another directory with library_controller_directory, and run it again.",
            failure={"code": "WHEELHOUSE_FAILED", "details": {"reason": words}},
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
