"""Which control server of a host is meant where nobody named one, by its configuration file or its state directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scistream.control_server.configuration import ENVIRONMENT_PREFIX, Settings
from scistream.control_server.state_directory import has_traces
from scistream.places import configuration_directory

__all__ = ["HOST_CONFIGURATION", "find_configuration", "is_named"]

HOST_CONFIGURATION: Final = Path("/etc/scistream/s2cs.toml")
"""The file of the control server that is the whole host's (role scistream.core.control_server)."""
_NAME: Final = "s2cs.toml"
_KEYS: Final = ("config", "state_directory")


def is_named(options: Mapping[str, object], environment: Mapping[str, str]) -> bool:
    """Whether somebody named one, by an option or in the environment."""
    return any(options.get(key) or environment.get(ENVIRONMENT_PREFIX + key.upper()) for key in _KEYS)


def find_configuration(host: Path = HOST_CONFIGURATION) -> Path | None:
    """The file of the control server that is meant where nobody named one; None for the one without a file.

    In this order, the first that is there: what `s2cs start` leaves in the default state directory, this user's file,
    the host's. Not the first that runs: to end one's own twice must not end the host's.
    """
    if has_traces(Path(Settings.model_fields["state_directory"].default).expanduser()):
        return None
    files = (configuration_directory() / _NAME, host)
    return next(filter(_is_there, files), None)


def _is_there(path: Path) -> bool:
    """Also where this user may not look: reading it tells that."""
    try:
        return path.is_file()
    except OSError:
        return True
