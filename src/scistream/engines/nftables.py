"""nftables: the kernel itself forwards, and no process touches a byte.

A session is a part of one table (`nft_table`), put in and taken out in one transaction. Connections live in conntrack,
by the session's number as their mark: they end with the session, and not before, whoever restarts the control server.

What it carried is counted by the kernel in IP packets; their headers are taken off (`nft_reading.Tally` says how
exactly), what is sent twice counts twice, and connections that are refused count as refused peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from scistream.engines import nft_conntrack, nft_host, shaping
from scistream.engines.base import Engine, Feature, Plan, Traffic
from scistream.engines.marks import ProcessMark
from scistream.engines.nft_base import Patience
from scistream.engines.nft_names import Making, is_number
from scistream.engines.nft_program import NftError
from scistream.engines.nft_sessions import Sessions
from scistream.engines.nft_table import Door, Rules
from scistream.engines.nft_watch import Watch
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, Transport

__all__ = ["NFTables"]

_Result = TypeVar("_Result")

# Seconds that the kernel gets to forget connections.
_FORGETTING: Final = 5.0
# Seconds between two looks at the connections of a session that drains.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_ENCRYPTS_NOTHING: Final = (
    "the kernel forwards packets and encrypts nothing: ask for encryption none, or choose another engine"
)


class NFTables(Engine):
    """See above.

    Args:
        patience: how long connections may be silent.
    """

    name = "nftables"
    title = "nftables"
    program = "nft"
    version_argument = "--version"
    packages = ("nftables",)
    encryptions = (Encryption.NONE,)
    transports = (Transport.TCP, Transport.UDP)
    cannot: ClassVar = {
        Feature.TLS: _ENCRYPTS_NOTHING,
        Feature.TLS_WITH_NGINX: _ENCRYPTS_NOTHING,
        Feature.LEGACY_PSK: _ENCRYPTS_NOTHING,
        Feature.RENEWAL: "it has no certificates",
        Feature.HANDSHAKE: "it encrypts nothing, so that nothing is negotiated",
    }
    privileges = "CAP_NET_ADMIN, and packet forwarding switched on (sysctl net.ipv4.ip_forward)"

    def __init__(self, patience: Patience | None = None) -> None:
        self._sessions = Sessions(lambda: self.locate().program, patience)
        self._words: dict[Path, str] = {}
        self._watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = weakref.WeakKeyDictionary()

    def shortfall(self) -> str:
        """See `nft_host.shortfall`."""
        return nft_host.shortfall()

    def rate_shortfall(self) -> str:
        """See `shaping.missing`."""
        return shaping.missing(forwarded=True)

    def warnings(self, encryption: Encryption, transport: Transport) -> tuple[str, ...]:
        """Also of firewalls that may let nothing pass, as Docker's."""
        drops = (
            f"chain {chain} of this host drops forwarded packets that none of its rules accepts: see that one accepts "
            "the session's (ct mark and 0xff000000 == 0x5c000000)"
            for chain in self._sessions.droppers
        )
        return (*super().warnings(encryption, transport), *drops)

    async def start(self, plan: Plan) -> ProcessMark:
        """Put the session in; its entry points accept from then on.

        Raises:
            SciStreamError: ENGINE_MISSING, ENGINE_CANNOT, CONFIGURATION_REJECTED, ENTRY_POINT_IN_USE,
                LISTEN_ADDRESS_FOREIGN, DATA_SERVER_FAILED.
        """
        await asyncio.to_thread(self.locate)
        doors = await self._doors(plan)
        nft_host.require_free(plan)
        async with self._limited(plan) as classes:
            return await self._put_in(plan, functools.partial(_rules, plan, doors, classes))

    @contextlib.asynccontextmanager
    async def _limited(self, plan: Plan) -> AsyncIterator[tuple[str, str] | None]:
        """The classes of the session's rate, where it has one; given back where the block fails."""
        if not plan.rate:
            yield None
            return
        classes = await self._classes(plan)
        try:
            yield classes
        except BaseException:
            await asyncio.shield(shaping.unlimit(plan, self.title))
            raise

    async def _classes(self, plan: Plan) -> tuple[str, str] | None:
        """Those of the session's rate, made where they are missing."""
        if not plan.rate:
            return None
        priorities = await shaping.limit(plan, self.title, forwarded=True)
        return priorities.to_targets, priorities.to_clients

    async def keep_bounds(self, plan: Plan) -> None:
        """See `engines.shaping.limit`; the rules are told the numbers of the queues again, which may be others now."""
        if classes := await self._classes(plan):
            await self._telling(self._sessions.reclass, plan.directory, plan.stem, classes)

    async def lift_bounds(self, plan: Plan) -> None:
        """See `engines.shaping.unlimit`."""
        if plan.rate:
            await shaping.unlimit(plan, self.title)

    async def _put_in(self, plan: Plan, rules: Callable[[Making], Rules]) -> ProcessMark:
        put_in = functools.partial(self._sessions.put_in, plan.directory, plan.stem, rules)
        work = asyncio.create_task(asyncio.to_thread(put_in))
        try:
            return await asyncio.shield(work)
        except NftError as error:
            self._words[plan.path("log")] = str(error)
            ending = "nft refused its rules"
            raise self._error(Code.DATA_SERVER_FAILED, plan, ending=ending, output=str(error)) from None
        except asyncio.CancelledError:
            # nft cannot be held up in the middle; what it has put in is taken out again.
            await asyncio.shield(self._undo(work))
            raise

    async def _undo(self, work: asyncio.Task[ProcessMark]) -> None:
        try:
            mark = await work
        except NftError:
            return
        await self.take_out(mark)

    async def _doors(self, plan: Plan) -> tuple[Door, ...]:
        if plan.encryption is not Encryption.NONE:
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=_ENCRYPTS_NOTHING)
        doors = await nft_host.doors(self.title, plan)
        nft_host.require_forwarding(self.title, doors)
        return doors

    async def stop(self, plan: Plan, mark: ProcessMark) -> None:
        """End the session's connections at both ends, and take its rules out.

        Raises:
            SciStreamError: DATA_SERVER_STUCK.
        """
        if left := await self.take_out(mark):
            raise self._error(Code.DATA_SERVER_STUCK, plan, pid=hex(mark.pid), left=left)
        await self.lift_bounds(plan)
        self._words.pop(plan.path("log"), None)

    async def take_out(self, mark: ProcessMark) -> str:
        """End what has a mark, also where nobody knows its plan any more; says what is left, and nothing where it went.

        Its connections are ended at both ends; those that `bury` spares go on. A process's mark is no session's, but
        may well be somebody's conntrack mark.
        """
        if not is_number(mark.pid):
            return ""
        try:
            if await asyncio.to_thread(self._sessions.is_spared, mark):
                return ""
            await asyncio.to_thread(self._sessions.close, mark, running=False)
            left = await asyncio.to_thread(self._sessions.forget_connections, mark, _FORGETTING)
            await asyncio.to_thread(self._sessions.take_out, mark)
        except (NftError, OSError) as error:
            return f"its rule set ({error})"
        return f"{left} connections" if left else ""

    def ports(self, mark: ProcessMark) -> tuple[int, ...]:
        """The ports of the entry points of what has a mark; none, where nft does not tell."""
        try:
            return self._sessions.ports(mark)
        except (NftError, SciStreamError):
            return ()

    def bury(self, plan: Plan, mark: ProcessMark) -> None:
        """Before `stop` and `start` in place of rules that somebody removed: its connections shall go on.

        The session's next rules get the number of these.
        """
        self._sessions.keep(plan.directory, plan.stem, mark)

    async def drain(self, plan: Plan, mark: ProcessMark, deaf: Callable[[], None]) -> None:
        """Have it refuse new connections; back when conntrack knows none of the others as open.

        A UDP flow is over when it has been idle for as long as `Patience` says.

        Raises:
            SciStreamError: ENGINE_CANNOT.
        """
        await self._telling(self._sessions.close, mark, running=True)
        deaf()
        pause = _FIRST_PAUSE
        while await self._telling(_is_busy, mark.pid):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def retarget(self, plan: Plan, mark: ProcessMark) -> None:
        """Have new connections go to the plan's targets, in one transaction; the way there may be another device's.

        Raises:
            SciStreamError: ENGINE_CANNOT, CONFIGURATION_REJECTED; all is then as it was.
        """
        doors = await self._doors(plan)
        rules = functools.partial(_rules, plan, doors, await self._classes(plan))
        if not await self._telling(self._sessions.retarget, mark, rules):
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason="its rules are gone")

    async def _telling(self, work: Callable[..., _Result], *arguments: object, **options: object) -> _Result:
        """What fails here is told to a user, in the words of nft or the kernel."""
        try:
            return await asyncio.to_thread(work, *arguments, **options)
        except (NftError, OSError) as error:
            raise SciStreamError(Code.ENGINE_CANNOT, engine=self.title, reason=str(error)) from None

    async def traffic(self, plan: Plan, mark: ProcessMark) -> Traffic:
        """What the kernel counted, at most a second ago.

        Raises:
            OSError: neither nft nor the kernel tells.
        """
        del plan
        try:
            return await asyncio.to_thread(self._sessions.traffic, mark)
        except (NftError, SciStreamError) as error:
            raise OSError(str(error)) from None

    def alive(self, mark: ProcessMark) -> bool:
        """Whether its rules stand, or stood within the last second; where nft does not tell, they do."""
        try:
            return self._sessions.find(mark) is not None
        except (NftError, SciStreamError):
            return True

    async def ended(self, mark: ProcessMark) -> str:
        """Wait until its rules are gone: somebody flushed the host's rules, or removed the table."""
        loop = asyncio.get_running_loop()
        watch = self._watches.setdefault(loop, Watch(self._standing))
        await watch.ended(mark)
        return "somebody removed its rules from the kernel"

    def _standing(self) -> set[ProcessMark]:
        try:
            tables = self._sessions.tables(fresh=True)
        except (NftError, SciStreamError) as error:
            raise OSError(str(error)) from None
        return {making.mark for standing in tables.values() for making in standing}

    def last_words(self, plan: Plan) -> str:
        """What nft said last against the session's rules."""
        return self._words.get(plan.path("log"), "it said nothing")

    def survey(self, directory: Path) -> dict[str, list[ProcessMark]]:
        """What stands in the table of a control server, whatever its journal says, by what begins the names of files.

        Where nft is missing or may not be asked, nothing.
        """
        try:
            return self._sessions.survey(directory)
        except (NftError, SciStreamError):
            return {}

    def _error(self, code: Code, plan: Plan, **facts: object) -> SciStreamError:
        return SciStreamError(code, engine=self.title, uid=plan.uid, **facts)


def _rules(plan: Plan, doors: tuple[Door, ...], classes: tuple[str, str] | None, making: Making) -> Rules:
    return Rules(making, plan.transport, doors, plan.sources, classes)


def _is_busy(number: int) -> bool:
    return any(each.is_open for each in nft_conntrack.connections(number))
