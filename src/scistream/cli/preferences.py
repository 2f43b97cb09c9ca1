"""A user's own defaults of options: `s2uc.toml` in their configuration directory.

    s2cs = "gateway.example"
    server-cert = "/home/me/gateway.crt"

    [inbound-request]
    lease = "8h"

A key is an option's name, and counts for every command that has it; a table is for one command. Where a user has no
such file, the host's counts (/etc/xdg/scistream/s2uc.toml, from role user_client). The two are not mixed: the control
server of the one would meet the certificate of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from scistream.errors import Code, SciStreamError
from scistream.places import configuration_directory, site_configuration_directories

__all__ = ["load"]

_FILE: Final = "s2uc.toml"


def load(group: click.Group, path: Path | None, runs: str | None = None) -> dict[str, Any]:
    """Read and check the defaults; click takes them as `default_map`.

    Args:
        group: whose commands' options can be named.
        path: the file; None for the user's own, else the host's, neither of which need be there.
        runs: the one command whose table and values count; None for all. A mistake that concerns another one stops
            nobody who is about to release a session.

    Raises:
        SciStreamError: CONFIGURATION_UNREADABLE, BAD_CONFIGURATION.
    """
    where = path or _usual()
    if where is None:
        return {}
    content = _read(where)
    tables = {_spelling(key): value for key, value in content.items() if isinstance(value, dict)}
    everywhere = {_spelling(key): value for key, value in content.items() if not isinstance(value, dict)}
    options = {name: _options(command) for name, command in group.commands.items()}
    chosen = options if runs is None else {name: table for name, table in options.items() if name == runs}
    known = {key for table in options.values() for key in table}
    for key in [*(everywhere.keys() - known), *(tables.keys() - options.keys())]:
        raise _bad(where, key, everywhere.get(key, tables.get(key)), "no command of s2uc and no option is called so")
    return {name: dict(_defaults(where, table, everywhere, tables.get(name, {}))) for name, table in chosen.items()}


def _usual() -> Path | None:
    places = (place / _FILE for place in (configuration_directory(), *site_configuration_directories()))
    return next((path for path in places if path.is_file()), None)


def _spelling(key: str) -> str:
    return key.replace("_", "-")


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SciStreamError(Code.CONFIGURATION_UNREADABLE, path=str(path), reason=reason) from None


def _options(command: click.Command) -> dict[str, click.Option]:
    """A command's options by all their long names."""
    options = (option for option in command.params if isinstance(option, click.Option))
    return {word.removeprefix("--"): option for option in options for word in option.opts if word.startswith("--")}


def _defaults(
    path: Path, options: Mapping[str, click.Option], everywhere: Mapping[str, Any], own: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for key, value in everywhere.items():
        if key in options:
            yield _checked(path, key, value, options[key])
    for word, value in own.items():
        key = _spelling(word)
        if key not in options:
            raise _bad(path, word, value, "the command has no such option")
        yield _checked(path, key, value, options[key])


def _checked(path: Path, key: str, value: Any, option: click.Option) -> tuple[str, Any]:
    """The option's name for click, and a value that it takes."""
    spelled = value if option.is_flag else str(value)
    try:
        option.type.convert(spelled, option, None)
    except SciStreamError as error:
        raise _bad(path, key, value, error.seen) from None
    except click.BadParameter as error:
        raise _bad(path, key, value, error.message) from None
    return option.name or key, spelled


def _bad(path: Path, key: str, value: Any, reason: str) -> SciStreamError:
    return SciStreamError(Code.BAD_CONFIGURATION, key=key, value=value, source=str(path), reason=reason)
