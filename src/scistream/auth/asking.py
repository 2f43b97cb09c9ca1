"""Questions to an identity provider over HTTP: bounded in time and size, and no door where it fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from scistream.errors import Code, SciStreamError

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Asker"]

# Bytes of an answer; the longest real ones are metadata of some kilobytes.
_LIMIT: Final = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A provider's answer: its HTTP status, and the JSON object in it, empty where there is none."""

    status: int
    body: Mapping[str, Any]


class Asker:
    """Asks one provider. Closed at the end of an `async with`.

    Args:
        provider: its address, for what is said of it.
        seconds: how long everything inside one `deadline` may take.
        direct: whether proxies of the environment are left alone: for a provider on this host.
        transport: how requests travel; None is the network.
    """

    def __init__(
        self, provider: str, *, seconds: float, direct: bool = False, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._provider = provider
        self._seconds = seconds
        self._client = _client(direct=direct, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def failure(self, reason: str) -> SciStreamError:
        """What is raised when the provider is of no use; the reason never holds what was sent or received."""
        return SciStreamError(Code.PROVIDER_UNAVAILABLE, provider=self._provider, reason=reason)

    @contextlib.asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Inside, everything together has to be done in time.

        Raises:
            SciStreamError: PROVIDER_UNAVAILABLE.
        """
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError:
            raise self.failure(f"it did not answer within {self._seconds:g} s") from None

    async def get(self, url: str) -> Answer:
        """Ask for a document.

        Raises:
            SciStreamError: PROVIDER_UNAVAILABLE.
        """
        return await self._ask("GET", url)

    async def post(self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> Answer:
        """Send a form, with the client's name and secret where there are any.

        Raises:
            SciStreamError: PROVIDER_UNAVAILABLE.
        """
        return await self._ask("POST", url, data=dict(form), auth=basic)

    async def _ask(self, method: str, url: str, **what: Any) -> Answer:
        import httpx  # noqa: PLC0415 - heavy, and not needed with authentication off

        try:
            async with self._client.stream(method, url, **what) as response:
                content = await self._content(response)
        except httpx.ConnectError as error:
            raise self.failure(f"no connection: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its words may quote what was received.
            raise self.failure(f"the connection broke ({type(error).__name__})") from None
        if response.status_code >= 500 or response.status_code == 429:
            raise self.failure(f"it answers with HTTP status {response.status_code}")
        return Answer(response.status_code, self._object(content) if response.status_code == 200 else _lenient(content))

    async def _content(self, response: httpx.Response) -> bytes:
        # Unpacked, a small answer could become a big one.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.failure("its answer is packed, and that was not asked for")
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > _LIMIT:
                raise self.failure(f"its answer is longer than {_LIMIT} bytes")
        return bytes(content)

    def _object(self, content: bytes) -> Mapping[str, Any]:
        found = _parsed(content) if content else {}
        if found is None:
            raise self.failure("its answer makes no sense: it is no JSON object")
        return found


def _lenient(content: bytes) -> Mapping[str, Any]:
    return _parsed(content) or {}


def _parsed(content: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)


def _client(*, direct: bool, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    import ssl  # noqa: PLC0415
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # noqa: PLC0415

    import httpx  # noqa: PLC0415

    return httpx.AsyncClient(
        # The host's own store of authorities, where a facility's own is too (SSL_CERT_FILE).
        verify=ssl.create_default_context() if transport is None else True,
        transport=transport,
        trust_env=not direct,
        timeout=None,  # `deadline` is the bound: it holds for all steps together.  # noqa: S113
        headers={"accept": "application/json", "accept-encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=60),
    )
