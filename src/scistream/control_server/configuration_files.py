"""What a control server's configuration is read from: a TOML file, and what the service manager hands over."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from scistream.errors import Code, SciStreamError

__all__ = ["find_credentials", "read_credentials", "read_file"]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_file(path: Path, secrets: Collection[str]) -> dict[str, Any]:
    """The keys and values of a TOML file; `secrets` are the keys that nobody else may read.

    Raises:
        SciStreamError: CONFIGURATION_UNREADABLE; SECRET_READABLE where it holds a secret, and others can read it.
    """
    try:
        with path.open("rb") as file:
            values, mode = tomllib.load(file), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:  # TOML and UTF-8 errors are both of this kind
        reason = str(error)
    except RecursionError:
        reason = "its values lie too deep in one another"
    else:
        if mode & _OTHERS and any(values.get(key) for key in secrets):
            raise SciStreamError(Code.SECRET_READABLE, path=str(path), mode=f"{mode:04o}")
        return values
    raise SciStreamError(Code.CONFIGURATION_UNREADABLE, path=str(path), reason=reason)


def read_credentials(directory: Path, names: Iterable[str]) -> Mapping[str, str]:
    """Of the service manager's files, those with these names that are there, without the white space around them.

    Raises:
        SciStreamError: CONFIGURATION_UNREADABLE.
    """
    return {name: text for name in names if (text := _credential(directory / name))}


def find_credentials(directory: Path, names: Iterable[str]) -> Mapping[str, str]:
    """Of the service manager's files, the paths of those with these names that are there."""
    return {name: str(directory / name) for name in names if (directory / name).is_file()}


def _credential(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError:
        reason = "it is no text"
    raise SciStreamError(Code.CONFIGURATION_UNREADABLE, path=str(path), reason=reason)
