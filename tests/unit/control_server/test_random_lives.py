"""Random lives of sessions: whatever is done, journal, ports and processes agree, and nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scistream.addresses import Endpoint
from scistream.auth import Identity
from scistream.clocks import Clocks
from scistream.control_server.callers import Caller
from scistream.control_server.leases import Leases, LeaseTerms
from scistream.control_server.registry import Hello
from scistream.control_server.sessions import SessionRequest, Update
from scistream.control_server.states import is_allowed
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, SessionState, Uid

FULL = SciStreamError(Code.STATE_DIRECTORY_FULL, directory="/x", reason="No space left on device")
CANNOT = SciStreamError(Code.ENGINE_CANNOT, engine="Memory", reason="it does not want to")
RUNNING = {SessionState.ACTIVE, SessionState.DRAINING}


class Life:
    """One control server and its people, through restarts."""

    def __init__(self, make: Callable[..., object]) -> None:
        self.now = 1_000.0
        self._make = make
        self._tasks: list[asyncio.Task] = []
        self._requests: list[asyncio.Task] = []
        self.site = self._new(None)

    def _new(self, data_servers):
        clocks = Clocks(lambda: 1e9 + self.now, lambda: self.now)
        site = self._make(request=0, data_servers=data_servers, leases=Leases(LeaseTerms(), clocks))
        self.states: dict[tuple[Uid, Direction], SessionState] = {}
        site.supervisor.events.listen(self._note)
        return site

    def _note(self, event) -> None:
        """Whoever watches sees only steps that the drawing has."""
        identity, state = (event.session.uid, event.session.direction), event.session.state
        before = self.states.get(identity, SessionState.REQUESTED)
        assert is_allowed(before, state), (before, state)
        self.states[identity] = state
        if state is SessionState.RELEASED:
            del self.states[identity]

    def begin(self, work: Awaitable) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    def request(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        asked = SessionRequest(
            uid, direction, number, 0, caller.owner, "127.0.20.1", 10.0 * number, encryption=Encryption.NONE
        )
        task = asyncio.ensure_future(self.site.registry.request(asked))
        self._requests.append(task)
        self._tasks.append(task)

    def hello(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        targets = (Endpoint("t.example", number),)
        self.begin(self.site.registry.hello(Hello(uid, direction, lambda: targets, None), caller))

    def open(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.request(uid, direction, caller, number)
        self.begin(self._go_through(uid, direction, caller, number))

    async def _go_through(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        targets = (Endpoint("t.example", number),)
        await asyncio.sleep(0)
        await self.site.registry.hello(Hello(uid, direction, lambda: targets, direction), caller)
        await self.site.registry.update(Update(uid, direction, targets), caller)

    def update(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        change = Update(uid, direction, (Endpoint("t.example", number),))
        self.begin(self.site.registry.update(change, caller))

    def release(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.begin(self.site.registry.release(uid, direction if number % 2 else None, caller))

    def drain(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.begin(self.site.registry.drain(uid, direction if number % 2 else None, caller))

    def renew(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.begin(self.site.registry.renew(uid, direction, 10.0 * number, caller))

    def go_away(self, *_: object) -> None:
        for task in (self._requests + self._tasks)[-2:]:
            task.cancel()

    def kill(self, *_: object) -> None:
        for pid in list(self.site.data_servers.running)[:1]:
            self.site.data_servers.kill(pid)

    def pass_time(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.now += 9.0 * number
        self.site.registry._lease_watch.look()

    def refuse(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.site.data_servers.refusal = CANNOT if number == 1 else None

    def hold(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        gate = self.site.data_servers.gate
        if number == 1:
            gate.clear()
        else:
            gate.set()

    def fill_disk(self, uid: Uid, direction: Direction, caller: Caller, number: int) -> None:
        self.make_room()
        if number == 1:
            for name in ("put", "put_certainly", "remove"):
                setattr(self.site.journal, name, self._no_room)

    def make_room(self) -> None:
        for name in ("put", "put_certainly", "remove"):
            vars(self.site.journal).pop(name, None)

    def _no_room(self, *_: object) -> None:
        raise FULL

    async def restart(self) -> None:
        self.make_room()
        self.site.data_servers.gate.set()
        await self.site.registry.close()
        await self.collect()
        self.site.journal.close()
        self.site = self._new(self.site.data_servers)
        for record in self.site.journal.records():
            self.states[record.uid, record.direction] = record.state
        await self.site.recover()

    async def collect(self) -> None:
        """Every call was answered, or refused with an error of the catalogue."""
        for answer in await asyncio.gather(*self._tasks, return_exceptions=True):
            expected = isinstance(answer, SciStreamError) and answer.code is not Code.INTERNAL
            if isinstance(answer, Exception) and not expected:
                raise answer
        self._tasks, self._requests = [], []

    def check(self) -> None:
        """What agrees at any moment when nothing is under way."""
        sessions = self.site.registry.sessions()
        ports = [port for session in sessions for port in session.ports]
        assert len(ports) == len(set(ports))
        assert self.site.pool.taken == set(ports)
        marks = {session.mark.pid for session in sessions if session.state in RUNNING and session.mark}
        assert set(self.site.data_servers.running) <= marks
        if "put" not in vars(self.site.journal):
            known = {(record.uid, record.direction): record for record in self.site.journal.records()}
            there = {session.identity: session for session in sessions}
            # What a full disk kept out of the journal comes into it with the next change.
            assert there.keys() <= known.keys()

    async def end(self) -> None:
        self.make_room()
        self.site.data_servers.gate.set()
        await self.site.registry.close()
        await self.site.registry.release_all()
        await self.collect()
        assert self.site.registry.sessions() == []
        assert self.site.pool.taken == set()
        assert self.site.data_servers.running == {}
        await self.site.supervisor.finish()
        assert self.site.journal.records() == []
        self.site.journal.close()


ANN, BOB = Caller(Identity("ann")), Caller(Identity("bob"))
ACTS = st.sampled_from(
    (
        *("open",) * 6,
        *("request", "hello", "update", "update", "release", "drain", "renew", "go_away", "kill"),
        *("pass_time", "refuse", "hold", "fill_disk", "restart"),
    )
)
STEPS = st.tuples(
    ACTS,
    st.sampled_from([Uid("one"), Uid("two")]),
    st.sampled_from(Direction),
    st.sampled_from([ANN, ANN, ANN, BOB]),
    st.integers(1, 3),
    st.sampled_from([False, False, True]),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=12, max_size=40))
def test_whatever_is_done_nothing_is_mixed_up_and_nothing_stays(site_factory, settle, steps):
    async def work():
        life = Life(site_factory)
        for act, uid, direction, caller, number, at_once in steps:
            if act == "restart":
                await life.restart()
            else:
                getattr(life, act)(uid, direction, caller, number)
            if not at_once:
                await settle()
                if life.site.data_servers.gate.is_set():
                    life.check()
        await life.end()

    asyncio.run(work())
