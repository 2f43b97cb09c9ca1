"""Where a user's own files lie."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["configuration_directory"]


def configuration_directory() -> Path:
    """A user's configuration of SciStream: under the XDG base directory; it need not be there."""
    base = os.environ.get("XDG_CONFIG_HOME")
    directory = Path(base) if base and Path(base).is_absolute() else _home() / ".config"
    return directory / "scistream"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A container's user without a name has none.
        return Path("/")
