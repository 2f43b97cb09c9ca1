"""Who may do what with whose session (U12), and what a stranger learns."""

from __future__ import annotations

import asyncio

import pytest

from scistream.addresses import Endpoint
from scistream.auth import Identity
from scistream.control_server.callers import Caller
from scistream.control_server.registry import Hello
from scistream.control_server.sessions import Session, SessionRequest, Update
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, SessionState, Uid

ANN, BOB = Caller(Identity("ann")), Caller(Identity("bob"))
OPERATOR = Caller(Identity("root"), is_operator=True)
INBOUND, OUTBOUND = Direction.INBOUND, Direction.OUTBOUND
UID = Uid("one")
TARGETS = (Endpoint("t.example", 5074),)


def run(work) -> None:
    asyncio.run(work())


def request(site, caller: Caller, direction: Direction = INBOUND, **asked) -> asyncio.Task[Session]:
    wanted = SessionRequest(UID, direction, 1, 0, caller.owner, "127.0.20.1", encryption=Encryption.NONE, **asked)
    return asyncio.ensure_future(site.registry.request(wanted))


def hello_of(direction: Direction = INBOUND, only: Direction | None = None) -> Hello:
    return Hello(UID, direction, lambda: TARGETS, only)


async def open_as(site, caller: Caller, direction: Direction = INBOUND) -> Session:
    waiting = request(site, caller, direction)
    await asyncio.sleep(0)
    await site.registry.hello(hello_of(direction), caller)
    await waiting
    return await site.registry.update(Update(UID, direction, TARGETS), caller)


CALLS = {
    "hello": lambda registry, caller: registry.hello(hello_of(), caller),
    "hello of a direction": lambda registry, caller: registry.hello(hello_of(only=INBOUND), caller),
    "update": lambda registry, caller: registry.update(Update(UID, INBOUND, (Endpoint("evil.example", 1),)), caller),
    "renew": lambda registry, caller: registry.renew(UID, None, 5, caller),
    "drain": lambda registry, caller: registry.drain(UID, INBOUND, caller),
    "describe": lambda registry, caller: asyncio.to_thread(registry.find, UID, None, caller),
    "release": lambda registry, caller: registry.release(UID, None, caller),
}


@pytest.mark.parametrize("call", CALLS)
def test_u12_nobody_but_its_owner_touches_a_session(site_factory, call):
    async def work():
        site = site_factory(request=0)
        session = await open_as(site, ANN)
        before = session.view()
        with pytest.raises(SciStreamError, match="session one belongs to somebody else") as raised:
            await CALLS[call](site.registry, BOB)
        assert raised.value.code is Code.NOT_OWNER
        assert session.view() == before
        assert site.data_servers.stopped == []

    run(work)


@pytest.mark.parametrize("caller", [ANN, OPERATOR])
@pytest.mark.parametrize("call", CALLS)
def test_u12_its_owner_and_the_operators_do_everything(site_factory, call, caller):
    async def work():
        site = site_factory(request=0)
        await open_as(site, ANN)
        assert await CALLS[call](site.registry, caller)

    run(work)


def test_u12_a_strangers_hello_registers_nothing_and_the_owners_req_waits_on(site_factory):
    async def work():
        site = site_factory(request=0)
        waiting = request(site, ANN)
        await asyncio.sleep(0)
        for only in (None, INBOUND):
            with pytest.raises(SciStreamError) as raised:
                await site.registry.hello(hello_of(only=only), BOB)
            assert raised.value.code is Code.NOT_OWNER
        assert not waiting.done()
        assert site.registry.sessions()[0].state is SessionState.REQUESTED
        await site.registry.hello(hello_of(), ANN)
        assert (await waiting).asked.owner == "ann"

    run(work)


def test_u12_a_hello_that_came_first_takes_no_strangers_session(site_factory, settle):
    async def work():
        site = site_factory()
        hello = asyncio.ensure_future(site.registry.hello(hello_of(), BOB))
        await settle()
        anns = request(site, ANN)
        await settle()
        assert (hello.done(), anns.done()) == (False, False)
        bobs = await request(site, BOB, OUTBOUND)
        assert (await hello) is bobs
        anns.cancel()

    run(work)


def test_u12_each_sees_their_own_of_two_sessions_with_one_uid(site_factory):
    async def work():
        site = site_factory()
        anns, bobs = await open_as(site, ANN, INBOUND), await open_as(site, BOB, OUTBOUND)
        find = site.registry.find
        assert (find(UID, None, ANN), find(UID, None, BOB)) == ([anns], [bobs])
        assert find(UID, None, OPERATOR) == [anns, bobs]
        # What the deployed client says of the direction does not lead to the other's.
        assert await site.registry.update(Update(UID, INBOUND, TARGETS), BOB) is bobs
        assert await site.registry.release(UID, None, BOB) == [bobs]
        assert site.registry.sessions() == [anns]

    run(work)


def test_a_stranger_does_not_learn_how_far_a_session_has_come(site_factory):
    async def work():
        site = site_factory()
        await open_as(site, ANN)
        for caller, state in [(ANN, "active"), (BOB, "another user's")]:
            with pytest.raises(SciStreamError) as raised:
                await request(site, caller)
            assert raised.value.code is Code.UID_EXISTS
            assert raised.value.seen == f"a session with uid one exists already ({state})"

    run(work)
