"""What the SSH configuration says of a host: `~/.ssh/config` and the system's, or the one file that was named.

Paramiko reads it. What it does not know is `Include`, with which the system's begins on Debian: that is done here.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import paramiko

from scistream.errors import Code, SciStreamError
from scistream.hops.via import Via

__all__ = ["Configuration", "Settings"]

_PORT: Final = 22
_SYSTEM: Final = Path("/etc/ssh/ssh_config")
_KNOWN_HOSTS: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_DEFAULT_KEYS: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_AGENT: Final = "SSH_AUTH_SOCK"
_NONE: Final = "none"
_ANY_HOST: Final = "Host *"
# No option of ssh: it is there or not, and says whether its block counts for a host.
_MARKER: Final = "scistreammarker"
_DEEPEST: Final = 16
# Seconds, and how often: sooner than people wonder, and later than a network that is slow for a moment.
_ALIVE_INTERVAL, _ALIVE_COUNT = 15.0, 3
# sshd_config(5), Time Formats.
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"([0-9]+)([smhdw]?)", re.ASCII)
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How one SSH host is reached.

    `name` is what known hosts have it as, where that was set; `keys` are key files, `are_keys_named` tells whether
    somebody named them; `agent` is the socket of the agent, None where there is none; `jumps` lead to it, and where
    there are none, `command` may; `patience` is how many seconds it may take, None where nothing was said. The host is
    asked for a sign of life every `alive_interval` seconds, and gone after `alive_count` such times without one.
    `by_hand` is what a person types to get there.
    """

    host: str
    port: int
    user: str
    called: str
    name: str = ""
    keys: tuple[Path, ...] = ()
    are_keys_named: bool = False
    only_named_keys: bool = False
    agent: str | None = None
    known_hosts: tuple[Path, ...] = ()
    jumps: tuple[Via, ...] = ()
    command: str = ""
    patience: float | None = None
    alive_interval: float = _ALIVE_INTERVAL
    alive_count: int = _ALIVE_COUNT
    by_hand: str = field(default="", compare=False)

    def __str__(self) -> str:
        called = self.called if self.called == self.host else f"{self.called} ({self.host})"
        return called if self.port == _PORT else f"{called} port {self.port}"


class Configuration:
    """The files, read anew for each host.

    Args:
        named: the one file that counts; None for the user's and the system's.
    """

    def __init__(self, named: Path | None) -> None:
        self._named = named

    def look_up(self, via: Via) -> Settings:
        """How `via` is reached; what stands in it goes before what the files say.

        Raises:
            SciStreamError: SSH_CONFIGURATION_BAD.
        """
        path = str(self._named or "~/.ssh/config")
        try:
            options = self._options(via)
            return _settings(options, via, self._named)
        except SciStreamError:
            raise
        # RuntimeError: a user without a home.
        except (paramiko.SSHException, ImportError, OSError, LookupError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SciStreamError(Code.SSH_CONFIGURATION_BAD, path=path, reason=reason) from None

    def _options(self, via: Via) -> Mapping[str, Any]:
        said = [_ANY_HOST, *([f"User {via.user}"] if via.user else []), *([f"Port {via.port}"] if via.port else [])]
        lines = [*said]
        for path in self._files():
            lines += [_ANY_HOST, *_Reader(via.host, said).lines(path, _ANY_HOST)]
        return paramiko.SSHConfig.from_text("\n".join(lines)).lookup(via.host)

    def _files(self) -> Sequence[Path]:
        if self._named:
            return [self._named]
        own = Path("~/.ssh/config").expanduser()
        return [path for path in (_checked(own), _SYSTEM) if path.is_file()]


def _checked(path: Path) -> Path:
    """The user's own file, which may name commands: as with ssh, nobody else may write it."""
    if path.is_file():
        found = path.stat()
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            reason = f"others can write it (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o})"
            raise SciStreamError(Code.SSH_CONFIGURATION_BAD, path=str(path), reason=reason)
    return path


class _Reader:
    """Reads a file with all that it includes, as one.

    Args:
        host: whom it is read for: what is included for other hosts is left out.
        said: lines that go before everything.
    """

    def __init__(self, host: str, said: Sequence[str]) -> None:
        self._host = host
        self._said = said

    def lines(self, path: Path, block: str, depth: int = 0) -> Iterator[str]:
        """The lines of a file; `block` is the `Host` or `Match` line that it stands below."""
        if depth > _DEEPEST:
            raise ValueError(f"{path} includes itself")
        for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            keyword, value = _parted(line)
            if keyword in {"host", "match"}:
                block = line
            if keyword != "include":
                yield line
            elif self._counts(block):
                for included in _included(path, value):
                    yield from self.lines(included, block, depth + 1)
                    # Its last block is not this file's.
                    yield block

    def _counts(self, block: str) -> bool:
        if block == _ANY_HOST:
            return True
        text = "\n".join((*self._said, block, f"{_MARKER} yes"))
        return _MARKER in paramiko.SSHConfig.from_text(text).lookup(self._host)


def _parted(line: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    return (found[1].lower(), found[2]) if found else ("", "")


def _included(path: Path, value: str) -> Iterator[Path]:
    base = Path("~/.ssh").expanduser() if path != _SYSTEM and not path.is_relative_to(_SYSTEM.parent) else path.parent
    for pattern in shlex.split(value):
        whole = (base / Path(pattern).expanduser()).absolute()
        found = Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))
        included = sorted(each for each in found if each.is_file())
        yield from included if path.is_relative_to(_SYSTEM.parent) else map(_checked, included)


def _settings(options: Mapping[str, Any], via: Via, named: Path | None) -> Settings:
    jumps, command = _way(options)
    keys = [key for key in options.get("identityfile", []) if key.lower() != _NONE]
    user = options.get("user") or getpass.getuser()
    tokens = {"%d": str(Path.home()), "%h": options["hostname"], "%r": user, "%u": getpass.getuser(), "%%": "%"}
    named_hosts = options.get("userknownhostsfile", _KNOWN_HOSTS), options.get("globalknownhostsfile")
    return Settings(
        host=options["hostname"].lower(),
        port=_port(options.get("port", _PORT)),
        user=user,
        called=via.host,
        name=options.get("hostkeyalias", ""),
        keys=tuple(_path(key) for key in keys or ([] if "identityfile" in options else _DEFAULT_KEYS)),
        are_keys_named=bool(keys),
        only_named_keys=options.get("identitiesonly", "no").lower() == "yes",
        agent=_agent(options.get("identityagent", _AGENT)),
        known_hosts=tuple(_files_of(named_hosts[0], tokens) + _files_of(named_hosts[1] or _SYSTEM_KNOWN_HOSTS, tokens)),
        jumps=jumps,
        command=command,
        patience=_seconds(options.get("connecttimeout", _NONE)),
        # 0 is never: then the usual, because a command that watches would wait for ever.
        alive_interval=_seconds(options.get("serveraliveinterval", _NONE)) or _ALIVE_INTERVAL,
        alive_count=int(options.get("serveralivecountmax", _ALIVE_COUNT)) or _ALIVE_COUNT,
        by_hand=_by_hand(via, named),
    )


def _way(options: Mapping[str, Any]) -> tuple[tuple[Via, ...], str]:
    """Jump hosts or a command: of the two, the one that comes first counts, `none` included."""
    first = next((key for key in options if key in {"proxyjump", "proxycommand"}), "")
    value = options.get(first) or _NONE
    if value.lower() == _NONE:
        return (), ""
    if first == "proxycommand":
        return (), value
    try:
        return tuple(Via.parse_jump(word.strip()) for word in value.split(",")), ""
    except SciStreamError as error:
        raise ValueError(f"ProxyJump {value}: {error.facts['reason']}") from None


def _port(text: str | int) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(f"Port {text} is not from 1 to 65535")
    return port


def _seconds(text: str) -> float | None:
    """A time as 90, 30s or 1m30s; None for none and for 0."""
    word = text.lower()
    parts = _TIME.findall(word)
    if word != _NONE and "".join(map("".join, parts)) != word:
        raise ValueError(f"{text!r} is not a time")
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts)) or None


def _agent(text: str) -> str | None:
    if text.lower() == _NONE:
        return None
    if text == _AGENT:
        return os.environ.get(_AGENT) or None
    return os.environ.get(text[1:].strip("{}")) or None if text.startswith("$") else str(_path(text))


def _files_of(text: str, tokens: Mapping[str, str]) -> list[Path]:
    words = [word for word in shlex.split(text) if word.lower() != _NONE]
    return [_path(re.sub("%.", lambda found: tokens.get(found[0], found[0]), word)) for word in words]


def _path(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def _by_hand(via: Via, named: Path | None) -> str:
    return shlex.join(["ssh", *(["-F", str(named)] if named else []), str(via)])
