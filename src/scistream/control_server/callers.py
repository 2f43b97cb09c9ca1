"""Who calls, and which sessions are theirs."""

from __future__ import annotations

from dataclasses import dataclass

from scistream.auth import Identity
from scistream.errors import Code, SciStreamError
from scistream.terms import Uid

__all__ = ["Caller"]


@dataclass(frozen=True)
class Caller:
    """Whoever makes a call: an identity, and whether it is one of the gateway's operators, who may do everything."""

    identity: Identity
    is_operator: bool = False

    @property
    def owner(self) -> str:
        """What sessions that they open have as owner."""
        return self.identity.subject

    def may_use(self, owner: str) -> bool:
        """Whether a session with that owner is theirs to see and change (U12)."""
        return self.is_operator or owner == self.owner

    def require(self, owner: str, uid: Uid) -> None:
        """Refuse who is neither owner nor operator.

        Raises:
            SciStreamError: NOT_OWNER.
        """
        if not self.may_use(owner):
            raise SciStreamError(Code.NOT_OWNER, uid=uid)
