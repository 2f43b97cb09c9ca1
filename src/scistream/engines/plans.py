"""What a data server shall do: the routes of one session, and everything that holds for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scistream.addresses import Endpoint, Network
from scistream.errors import Code, SciStreamError
from scistream.protocol import SESSION_KEY_SIZE
from scistream.terms import Direction, Encryption, Transport, Uid, parse_uid

__all__ = ["Plan", "Route"]


@dataclass(frozen=True)
class Route:
    """One entry point and the target that its connections go to.

    Raises:
        SciStreamError: BAD_ADDRESS, where an address was not made by `Endpoint.parse` and does not read like it.
    """

    entry_point: Endpoint
    target: Endpoint

    def __post_init__(self) -> None:
        for endpoint in (self.entry_point, self.target):
            if Endpoint.parse(str(endpoint)) != endpoint:
                raise SciStreamError(Code.BAD_ADDRESS, address=str(endpoint), reason="it is not in canonical form")


@dataclass(frozen=True)
class Plan:
    """What one data server shall do: the routes of one session, and where its files lie.

    `stem` begins the names of its files: the uid, or the uid and the direction with a dot between. `key` is the secret
    that the two gateways of the stream share, `scistream.protocol.SESSION_KEY_SIZE` bytes, or None where the session
    has none. `encryption` protects the bytes between the two gateways, and has no default: a word that somebody forgot
    shall not mean plain text. `sources` are the networks whose hosts may
    connect, all where there are none. `rate` is in kb/s of application bytes, each way; 0 where there is none.

    Raises:
        SciStreamError: BAD_UID, NO_TARGETS.
    """

    uid: Uid
    direction: Direction
    routes: tuple[Route, ...]
    directory: Path
    stem: str
    key: bytes | None = field(default=None, repr=False)
    encryption: Encryption = field(kw_only=True)
    transport: Transport = Transport.TCP
    sources: tuple[Network, ...] = ()
    rate: int = 0

    def __post_init__(self) -> None:
        parse_uid(self.uid)
        if self.stem not in (self.uid, f"{self.uid}.{self.direction.value}"):
            raise SciStreamError(Code.BAD_UID, uid=self.stem)
        if not self.routes:
            raise SciStreamError(Code.NO_TARGETS, uid=self.uid)
        if self.key is not None and len(self.key) != SESSION_KEY_SIZE:
            raise ValueError("a session key has another size")

    def require_key(self, engine: str) -> bytes:
        """The session's key, for an encryption that needs it.

        Raises:
            SciStreamError: SESSION_KEY_MISSING.
        """
        if self.key is None:
            raise SciStreamError(Code.SESSION_KEY_MISSING, uid=self.uid, engine=engine)
        return self.key

    def path(self, kind: str) -> Path:
        """The session's file of one kind (guide 7.4: `<uid>.conf`, `<uid>.log`)."""
        return self.directory.absolute() / self.name(kind)

    def name(self, kind: str) -> str:
        """The file's name inside `directory`, which is every data server's working directory."""
        return f"{self.stem}.{kind}"
