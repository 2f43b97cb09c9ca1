"""Python code out of zip files is compiled once, and not by every process again.

A module of Ansible's travels as a zip file of sources, and compiling them is a third of what its task costs. Python
itself keeps what it has compiled for files on disk only. The integration tests put this directory on PYTHONPATH
(conftest.py), so that each Python that they start finds this file. The code is the same: a hash of its source names it.
"""
# pathlib would be imported by each Python that starts, and what is read was written here:
# ruff: noqa: PTH100, PTH103, PTH105, PTH118, PTH120, PTH123, S302

import _imp
import marshal
import os
import zipimport
from importlib._bootstrap_external import MAGIC_NUMBER

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_CACHE = os.path.join(_ROOT, ".cache", "compiled")
_VERSION = int.from_bytes(MAGIC_NUMBER, "little")
_compile = zipimport._compile_source


def _compile_once(path, source):
    kept = os.path.join(_CACHE, _imp.source_hash(_VERSION, source).hex())
    try:
        with open(kept, "rb") as file:
            code = marshal.load(file)
    except (OSError, EOFError, ValueError, TypeError):
        code = _compile(path, source)
        _keep(kept, code)
    # Tracebacks name the file that it comes from now.
    _imp._fix_co_filename(code, path)
    return code


def _keep(kept, code):
    new = f"{kept}.{os.getpid()}"
    try:
        os.makedirs(_CACHE, exist_ok=True)
        with open(new, "wb") as file:
            marshal.dump(code, file)
        os.replace(new, kept)
    except OSError:
        # Who may not write here goes without.
        return


zipimport._compile_source = _compile_once
