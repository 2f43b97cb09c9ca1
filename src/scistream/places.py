"""Where a user's own files lie."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["configuration_directory", "site_configuration_directories", "state_directory"]


def configuration_directory() -> Path:
    """A user's configuration of SciStream: under the XDG base directory; it need not be there."""
    return _base("XDG_CONFIG_HOME", ".config") / "scistream"


def site_configuration_directories() -> list[Path]:
    """The host's configuration of SciStream, which holds for users without their own; none need be there."""
    bases = (Path(base) for base in os.environ.get("XDG_CONFIG_DIRS", "").split(":"))
    named = [base / "scistream" for base in bases if base.is_absolute()]
    return named or [Path("/etc/xdg/scistream")]


def state_directory() -> Path:
    """What SciStream keeps for a user between two commands: under the XDG base directory; it need not be there."""
    return _base("XDG_STATE_HOME", ".local/state") / "scistream"


def _base(variable: str, usual: str) -> Path:
    base = os.environ.get(variable)
    return Path(base) if base and Path(base).is_absolute() else _home() / usual


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A container's user without a name has none.
        return Path("/")
