"""Via: the SSH host that leads to a control server, as `ssh://USER@HOST:PORT`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from scistream.addresses import Endpoint, parse_host
from scistream.errors import Code, SciStreamError

__all__ = ["Via", "parse_via"]

_SCHEME: Final = "ssh://"
_NOTHING: Final = frozenset({"", "none"})
# What stands here before a port is taken for it, where none was said.
_NO_PORT: Final = 0
# No hyphen first: ssh by hand would take it for an option. Directories have users with a backslash or an @.
_USER = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._@\\+$-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class Via:
    """An SSH host as its users name it; user and port are None where the SSH configuration is to say them."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ssh://HOST`, `ssh://USER@HOST:PORT` or `ssh://USER@[IPv6]:PORT`.

        Raises:
            SciStreamError: BAD_VIA.
        """
        shown = _without_password(text)
        scheme, found, rest = text.partition("://")
        if not found or scheme.lower() != "ssh":
            raise _bad(shown, f"it does not begin with {_SCHEME}")
        return cls._of_rest(rest.removesuffix("/"), shown)

    @classmethod
    def parse_jump(cls, text: str) -> Self:
        """Read a jump host as `ProxyJump` has it: the same, and `USER@HOST:PORT` without the scheme.

        Raises:
            SciStreamError: BAD_VIA.
        """
        return cls.parse(text if "://" in text else _SCHEME + text)

    @classmethod
    def _of_rest(cls, rest: str, shown: str) -> Self:
        user, at, where = rest.rpartition("@")
        if ":" in user:
            raise _bad(shown, "a password stands in it, and none is ever taken: use a key")
        if at and not _USER.fullmatch(user):
            raise _bad(shown, f"{user!r} is not a user's name" if user else "the user is missing before @")
        if set(where) & set("/?#"):
            raise _bad(shown, "nothing comes after the port")
        try:
            address = _address(where)
        except SciStreamError as error:
            raise _bad(shown, error.facts["reason"]) from None
        return cls(address.host, user or None, address.port or None)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{_SCHEME}{user}{host}{f':{self.port}' if self.port else ''}"


def parse_via(text: str) -> Via | None:
    """Read what an option or a parameter says; None for nothing, and for `none`, which overrides a default.

    Raises:
        SciStreamError: BAD_VIA.
    """
    return None if text.strip().lower() in _NOTHING else Via.parse(text.strip())


def _address(text: str) -> Endpoint:
    # A bare IPv6 address has no port: the brackets are there to tell them apart.
    return Endpoint.parse(text, default_port=_NO_PORT) if text else Endpoint(parse_host(text), _NO_PORT)


def _without_password(text: str) -> str:
    return re.sub(r"(//[^@/:]*):.*@", r"\1:***@", text)


def _bad(text: str, reason: str) -> SciStreamError:
    return SciStreamError(Code.BAD_VIA, via=text, reason=reason)
