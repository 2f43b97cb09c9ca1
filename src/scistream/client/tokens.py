"""Which token a call carries, and what keeps it good: the store and the provider together.

Nothing here may run inside an event loop: a provider is asked in one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from scistream.addresses import Endpoint
from scistream.client.environment_token import environment_token
from scistream.client.token_store import StoredToken, TokenStore, default_token_store
from scistream.errors import Code, SciStreamError

if TYPE_CHECKING:
    from scistream.auth.asking import Asker

__all__ = ["AskerFactory", "Tokens", "token_for"]

# Seconds that one question to a provider may take.
_DEADLINE: Final = 10.0
# Seconds that a token has to be good for when it is sent.
_LEEWAY: Final = 60.0

_Value = TypeVar("_Value")
AskerFactory = Callable[[str], "Asker"]


def token_for(scope: str | None, server: str) -> str | None:
    """The token that a call to a control server carries: the environment's, or a stored one (see `Tokens.find`).

    Raises:
        SciStreamError: LOGIN_WANTED and PROVIDER_UNAVAILABLE for a scope that was named; BAD_TOKEN_STORE;
            BAD_CONFIGURATION of SCISTREAM_TOKEN_FOR.
    """
    address = Endpoint.parse(server)
    return environment_token(address, [address]) or Tokens().find(scope, server)


def _asker(provider: str) -> Asker:
    # Late: most calls carry a token that is good, or none.
    from scistream.auth.asking import Asker  # noqa: PLC0415
    from scistream.auth.providers import host_of, is_loopback  # noqa: PLC0415

    return Asker(provider, seconds=_DEADLINE, direct=is_loopback(host_of(provider)))


class Tokens:
    """The logins of this user.

    Args:
        store: where they lie; None is the user's own.
        asker: how a provider is asked.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        store: TokenStore | None = None,
        asker: AskerFactory = _asker,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = store or TokenStore(default_token_store())
        self._asker = asker
        self.now = now

    def find(self, scope: str | None, server: str) -> str | None:
        """The access token of a scope, refreshed where that is due; without a scope, what the server got before.

        A control server gets no token that nobody named for it: it could use it at the one that the token is for.

        Args:
            scope: which one; it is remembered for that server.
            server: where it goes, as "HOST:PORT".

        Raises:
            SciStreamError: LOGIN_WANTED and PROVIDER_UNAVAILABLE for a scope that was named; BAD_TOKEN_STORE.
        """
        if scope is not None:
            return self._named(_spelled(scope), server)
        bound = next((token.scope for token in self.store.read().values() if server in token.servers), None)
        if bound is None:
            return None
        try:
            return self.fresh(bound).access_token
        except SciStreamError as error:
            # Not asked for by name, and many a control server wants none.
            if error.code in {Code.LOGIN_WANTED, Code.PROVIDER_UNAVAILABLE}:
                return None
            raise

    def _named(self, scope: str, server: str) -> str:
        token = self.fresh(scope).access_token
        # Where that cannot be remembered (a home that is read only), the user names it again.
        with contextlib.suppress(SciStreamError):
            self.bind(scope, server)
        return token

    def bind(self, scope: str, server: str) -> None:
        """Remember which login a control server gets without its being named, in place of any other.

        Raises:
            SciStreamError: BAD_TOKEN_STORE, FILE_UNWRITABLE.
        """
        if _is_bound(self.store.read(), scope, server):
            return
        with self.store.locked():
            stored = self.store.read()
            self.store.write({key: _bound(token, server, is_its=key == scope) for key, token in stored.items()})

    def fresh(self, scope: str) -> StoredToken:
        """A login that is good, refreshed where that is due and can be done (U17).

        Raises:
            SciStreamError: LOGIN_WANTED, PROVIDER_UNAVAILABLE, BAD_TOKEN_STORE, FILE_UNWRITABLE.
        """
        token = self.store.read().get(scope)
        if token is None:
            raise SciStreamError(Code.LOGIN_WANTED, scope=scope)
        if token.lasts(self.now() + _LEEWAY):
            return token
        if not token.refresh_token:
            return self._still_good(token, SciStreamError(Code.LOGIN_WANTED, scope=scope))
        with self.store.locked():
            return self._refreshed(scope)

    def _refreshed(self, scope: str) -> StoredToken:
        from scistream.client.login import refresh  # noqa: PLC0415

        stored = self.store.read()
        token = stored.get(scope)
        if token is None:
            raise SciStreamError(Code.LOGIN_WANTED, scope=scope)
        # Another program may have done it while this one waited for the lock.
        if token.lasts(self.now() + _LEEWAY):
            return token
        old = token
        try:
            token = self.ask(old.provider, lambda asker: refresh(asker, old, self.now))
        except SciStreamError as error:
            return self._still_good(old, error)
        self.store.write(stored | {scope: token})
        return token

    def _still_good(self, token: StoredToken, error: SciStreamError) -> StoredToken:
        if token.lasts(self.now()):
            return token
        raise error

    def keep(self, token: StoredToken) -> None:
        """Store a login in place of the one of the same scope; it goes to the same control servers.

        Raises:
            SciStreamError: BAD_TOKEN_STORE, FILE_UNWRITABLE.
        """
        with self.store.locked():
            stored = self.store.read()
            old = stored.get(token.scope)
            servers = dict.fromkeys((*(old.servers if old else ()), *token.servers))
            self.store.write(stored | {token.scope: dataclasses.replace(token, servers=tuple(servers))})

    def forget(self, scope: str | None) -> tuple[list[StoredToken], list[SciStreamError]]:
        """Revoke and remove one login, or all.

        Returns:
            what is forgotten, and why some of it may still be good at its provider.

        Raises:
            SciStreamError: BAD_TOKEN_STORE, where a scope was named; FILE_UNWRITABLE.
        """
        with self.store.locked():
            try:
                stored = self.store.read()
            except SciStreamError as error:
                if scope is not None or error.code is not Code.BAD_TOKEN_STORE:
                    raise
                self.store.remove()
                return [], [error]
            spelled = None if scope is None else _spelled(scope)
            gone = [token for token in stored.values() if spelled in {None, token.scope}]
            failures = [failure for token in gone if (failure := self._revoke(token))]
            self.store.write({key: token for key, token in stored.items() if token not in gone})
        return gone, failures

    def _revoke(self, token: StoredToken) -> SciStreamError | None:
        from scistream.client.login import revoke  # noqa: PLC0415

        try:
            self.ask(token.provider, lambda asker: revoke(asker, token))
        except SciStreamError as error:
            return error
        return None

    def ask(self, provider: str, question: Callable[[Asker], Awaitable[_Value]]) -> _Value:
        """Ask a provider, with a connection for this one question.

        Raises:
            SciStreamError: what the question raises.
        """

        async def asked() -> _Value:
            async with self._asker(provider) as asker:
                return await question(asker)

        return asyncio.run(asked())


def _is_bound(stored: Mapping[str, StoredToken], scope: str, server: str) -> bool:
    return [key for key, token in stored.items() if server in token.servers] == [scope]


def _bound(token: StoredToken, server: str, *, is_its: bool) -> StoredToken:
    others = tuple(one for one in token.servers if one != server)
    return dataclasses.replace(token, servers=(*others, server) if is_its else others)


def _spelled(scope: str) -> str:
    from scistream.auth.providers import parse_scope  # noqa: PLC0415

    return parse_scope(scope)
