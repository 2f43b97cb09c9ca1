"""The sessions in the tables of a host: put in, changed, counted, taken out. Everything here waits for nft."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from scistream.engines import nft_conntrack, nft_farewell, nft_reading, nft_table
from scistream.engines.marks import ProcessMark
from scistream.engines.nft_base import Patience, base
from scistream.engines.nft_names import DOORS, FIRST_NUMBER, LAST_NUMBER, Making, free_number, table_of
from scistream.engines.nft_program import NftError, Program
from scistream.engines.nft_reading import TURNED_AWAY, Element, Look, Standings, Tally
from scistream.engines.nft_table import CARRIED, Rules
from scistream.engines.traffic import Traffic

__all__ = ["Sessions"]

# Seconds for which one look serves every session.
_FRESH: Final = 1.0
# Seconds in which both ends of a connection answer and are reset, before it is forgotten.
_LAST_ANSWERS: Final = 0.05

_Result = TypeVar("_Result")


@dataclass
class _Count:
    """What a table's elements had counted at a time, and how many connections each session had open."""

    time: float = float("-inf")
    tally: Tally = field(default_factory=Tally)
    open: dict[int, int] = field(default_factory=dict)


class Sessions:
    """All of them, of every control server of the host.

    Args:
        program: finds nft, or raises.
        patience: how long connections may be silent, in tables that are made from now on.

    Attributes:
        droppers: chains of others that let nothing pass but what their rules name, as they were seen last.
    """

    def __init__(self, program: Callable[[], Path], patience: Patience | None = None) -> None:
        self._find = program
        self._program: Program | None = None
        self._patience = patience or Patience()
        self._changing = threading.Lock()
        self._counting = threading.Lock()
        self._changes = 0
        self._look = Look()
        self.droppers: tuple[str, ...] = ()
        self._counts: dict[str, _Count] = {}
        self._told: dict[ProcessMark, Traffic] = {}
        self._kept: dict[tuple[str, str], int] = {}
        self._spared: set[ProcessMark] = set()

    @property
    def nft(self) -> Program:
        """The program.

        Raises:
            SciStreamError: ENGINE_MISSING.
        """
        path = self._find()
        if self._program is None or self._program.path != path:
            self._program = Program(path)
        return self._program

    def tables(self, *, fresh: bool = False) -> Standings:
        """The tables of control servers, and what stands in each.

        Raises:
            NftError: nft does not tell.
        """
        return self._seen(fresh=fresh).tables

    def _seen(self, *, fresh: bool) -> Look:
        look, changes = self._look, self._changes
        if fresh or time.monotonic() - look.time > _FRESH:
            now = time.monotonic()
            answer = self.nft.listing("chains")
            look = Look(now, nft_reading.sessions(answer))
            self.droppers = nft_reading.droppers(answer)
            if changes == self._changes:  # else it may be in it or not
                self._look = look
        return look

    def find(self, mark: ProcessMark, *, fresh: bool = False) -> tuple[str, Making, tuple[str, ...]] | None:
        """Where the session of a mark stands: its table, itself, and the kinds of its chains. None where it does not.

        Raises:
            NftError: nft does not tell.
        """
        return self._seen(fresh=fresh).by_mark.get(mark)

    def survey(self, directory: Path) -> dict[str, list[ProcessMark]]:
        """What stands in a control server's table, by what begins the names of the session's files.

        Raises:
            NftError: nft does not tell.
        """
        found: dict[str, list[ProcessMark]] = {}
        for making in self.tables(fresh=True).get(table_of(directory), {}):
            found.setdefault(making.stem, []).append(making.mark)
        return found

    def put_in(self, directory: Path, stem: str, rules: Callable[[Making], Rules]) -> ProcessMark:
        """Put a session into its control server's table, which is made where it is missing.

        Raises:
            NftError: nothing of it is there.
        """
        table = table_of(directory)

        def work() -> ProcessMark:
            tables = self.tables()
            made = rules(self._making(tables, table, stem))
            if table not in tables:
                self.nft.load(base(table, self._patience))
            try:
                self.nft.transact(nft_table.installed(table, made))
            except NftError:
                if table not in tables:
                    self.nft.transact(nft_table.removed(table, nft_table.Standing(made.making, (), ()), last=True))
                raise
            self._note(table, {**tables.get(table, {}), made.making: made.chains})
            return made.making.mark

        mark = self._change(work)
        self._kept.pop((table, stem), None)
        return mark

    def _making(self, tables: Standings, table: str, stem: str) -> Making:
        taken = {making.number for standing in tables.values() for making in standing}
        # Rules that come back for the same session take their connections back with the number.
        wanted = self._kept.get((table, stem)) or secrets.choice(range(FIRST_NUMBER, LAST_NUMBER + 1))
        made = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        return Making(free_number(taken, wanted), made, stem)

    def retarget(self, mark: ProcessMark, rules: Callable[[Making], Rules]) -> bool:
        """Have new connections of a session go elsewhere; False where it does not stand.

        Raises:
            NftError: all is as it was.
        """
        return self._tell(mark, lambda table, making: nft_table.retargeted(table, rules(making)))

    def reclass(self, directory: Path, stem: str, classes: tuple[str, str]) -> None:
        """Have a session's packets go through these queues of its rate; where it does not stand: nothing.

        Raises:
            NftError: all is as it was.
        """
        for making in self.tables().get(table_of(directory), {}):
            if making.stem == stem:
                self._tell(making.mark, lambda table, found: nft_table.reclassed(table, found, classes))

    def close(self, mark: ProcessMark, *, running: bool) -> bool:
        """Have a session refuse new connections, and where `running` is false reset the others; False where it is gone.

        Raises:
            NftError: all is as it was.
        """
        return self._tell(mark, lambda table, making: nft_table.closed(table, making, running=running))

    def _tell(self, mark: ProcessMark, commands: Callable[[str, Making], list[dict[str, Any]]]) -> bool:
        def work() -> bool:
            found = self.find(mark)
            if found is None:
                return False
            self.nft.transact(commands(*found[:2]))
            return True

        return self._change(work)

    def forget_connections(self, mark: ProcessMark, seconds: float) -> int:
        """End a session's connections: reset at both ends, and forgotten. How many are left after so many seconds.

        Another making of the session may have its number, and then its connections.

        Raises:
            OSError: the kernel does not tell of them.
            NftError: nft does not tell.
        """
        number = mark.pid
        if any(each.number == number and each.mark != mark for standing in self.tables().values() for each in standing):
            return 0
        if left := nft_conntrack.connections(number):
            nft_farewell.provoke(left)
            time.sleep(_LAST_ANSWERS)
        deadline = time.monotonic() + seconds
        while True:
            nft_conntrack.forget(number)
            left = nft_conntrack.connections(number)
            if not left or time.monotonic() >= deadline:
                return len(left)
            time.sleep(_LAST_ANSWERS)

    def take_out(self, mark: ProcessMark) -> None:
        """Take a session's rules out; where they are gone: nothing.

        Raises:
            NftError: all is as it was.
        """

        def work() -> None:
            found = self.find(mark)
            if found is None:
                return
            table, making, kinds = found
            others = {each: of for each, of in self.tables()[table].items() if each != making}
            standing = nft_reading.standing(making, kinds, self._elements(table, "map", DOORS))
            self.nft.transact(nft_table.removed(table, standing, last=not others))
            self._note(table, others or None)

        self._change(work)
        self._told.pop(mark, None)

    def keep(self, directory: Path, stem: str, mark: ProcessMark) -> None:
        """Give the session's next making the number of this one, and spare the connections once."""
        self._kept[table_of(directory), stem] = mark.pid
        self._spared.add(mark)

    def is_spared(self, mark: ProcessMark) -> bool:
        """Whether the connections are to be spared, this once: they are, where the rules are gone.

        Raises:
            NftError: nft does not tell.
        """
        if mark not in self._spared:
            return False
        self._spared.discard(mark)
        return self.find(mark, fresh=True) is None

    def ports(self, mark: ProcessMark) -> tuple[int, ...]:
        """The ports of a session's entry points; none, where it does not stand.

        Raises:
            NftError: nft does not tell.
        """
        found = self.find(mark, fresh=True)
        standing = nft_reading.standing(*found[1:], self._elements(found[0], "map", DOORS)) if found else None
        return tuple(port for _, port in standing.ports) if standing else ()

    def traffic(self, mark: ProcessMark) -> Traffic:
        """What a session carried; no figure but the open connections ever falls.

        Raises:
            NftError, OSError: neither nft nor the kernel tells.
        """
        found = self.find(mark)
        earlier = self._told.get(mark, Traffic())
        if found is None:
            return replace(earlier, connections_open=0)
        table, making, _ = found
        count = self._count(table)
        now = count.tally.figures(making)
        self._told[mark] = replace(now, connections_open=count.open.get(making.number, 0)).since(earlier)
        return self._told[mark]

    def _count(self, table: str) -> _Count:
        with self._counting:
            count = self._counts.get(table)
            if count is None or time.monotonic() - count.time > _FRESH:
                now = time.monotonic()
                tally = Tally(
                    self._elements(table, "map", (*DOORS, *CARRIED)) + self._elements(table, "set", TURNED_AWAY)
                )
                count = self._counts[table] = _Count(now, tally, nft_conntrack.open_by_number())
            return count

    def _elements(self, table: str, kind: str, names: tuple[str, ...]) -> list[Element]:
        # One by one: before 1.0.7, nft reads all rules of the host for anything else.
        return [each for name in names for each in nft_reading.elements(self.nft.listing(kind, "inet", table, name))]

    def _change(self, work: Callable[[], _Result]) -> _Result:
        """One change at a time, by what was seen last; where that is not so any more, by another look."""
        with self._changing:
            self._counts.clear()
            try:
                return work()
            except NftError:
                self._look = Look()
                return work()

    def _note(self, table: str, standing: dict[Making, tuple[str, ...]] | None) -> None:
        """Keep what was seen in step with what was changed, for as long as the look is good."""
        tables = {name: each for name, each in self._look.tables.items() if name != table}
        self._changes += 1
        self._look = Look(self._look.time, tables if standing is None else {**tables, table: standing})
