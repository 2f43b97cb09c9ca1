"""Sessions of nftables and what happens to the control server and the host: what stays, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from scistream.engines import nft_conntrack
from scistream.engines.marks import ProcessMark
from scistream.engines.nft_names import FIRST_NUMBER, LAST_NUMBER
from scistream.engines.nft_program import Program
from scistream.engines.nftables import NFTables

# Another program's NAT: without any, the kernel translates no packet any more.
_ANOTHERS = """table inet another {
  chain behind { type nat hook postrouting priority 110; ip saddr 198.51.100.0/24 masquerade; }
}"""


def test_no_process_has_the_number_of_a_session(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    assert 2**22 < FIRST_NUMBER <= mark.pid <= LAST_NUMBER
    site.stopped(plan, mark)


def test_streams_outlive_the_control_server_and_the_next_one_counts_on(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    site.ping(client, target)
    after = NFTables()
    with site.gateway.entered():
        assert after.alive(mark)
        assert not after.alive(ProcessMark(mark.pid, mark.started + 1))
        assert after.survey(plan.directory) == {plan.stem: [mark]}
        assert after.survey(plan.directory / "other") == {}
    site.ping(client, target)
    assert site.run(after.traffic(plan, mark)).connections_total == 1
    site.run(after.stop(plan, mark))
    site.assert_reset(client)
    with site.gateway.entered():
        assert not after.alive(mark)


def test_the_removal_of_the_rules_is_noticed(site: Any) -> None:
    listener = site.listener()
    plans = [site.plan(listener), site.plan(listener)]

    async def watch() -> list[str]:
        marks = [await site.engine.start(plan) for plan in plans]
        waits = [asyncio.create_task(site.engine.ended(mark)) for mark in marks]
        await site.engine.stop(plans[0], marks[0])
        await waits[0]
        assert not waits[1].done()
        process = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
        await process.wait()
        return [await wait for wait in waits]

    assert site.run(watch()) == 2 * ["somebody removed its rules from the kernel"]


def test_a_wait_for_the_end_can_be_given_up(site: Any) -> None:
    plan = site.plan(site.listener())

    async def give_up() -> None:
        mark = await site.engine.start(plan)
        wait = asyncio.create_task(site.engine.ended(mark))
        await asyncio.sleep(0)
        wait.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await wait
        assert wait.cancelled()
        await site.engine.stop(plan, mark)

    site.run(give_up())


def test_rules_that_somebody_removed_come_back_for_the_connections_that_ran_meanwhile(site: Any) -> None:
    site.nft(_ANOTHERS)
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    site.nft(f"delete table inet {site.table(plan)}")
    site.ping(client, target)
    site.engine.bury(plan, mark)
    site.stopped(plan, mark)
    again = site.started(plan)
    assert again.pid == mark.pid
    site.ping(client, target, 10)
    told = site.run(site.engine.traffic(plan, again))
    assert told.connections_open == 1
    assert told.bytes_to_targets >= 10
    site.stopped(plan, again)
    site.assert_reset(client)
    site.assert_reset(target)


def test_a_release_after_the_rules_were_removed_ends_the_connections(site: Any) -> None:
    site.nft(_ANOTHERS)
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    site.nft(f"delete table inet {site.table(plan)}")
    # It was to come back, and did not.
    site.engine.bury(plan, mark)
    site.stopped(plan, mark)
    site.ping(client, target)
    site.stopped(plan, mark)
    with site.gateway.entered():
        assert nft_conntrack.connections(mark.pid) == []
    client.sendall(b"x")
    site.assert_reset(client)


def test_two_control_servers_on_one_host_do_not_meet(site: Any) -> None:
    listener = site.listener()
    plans = [site.plan(listener, directory=site.directory / name) for name in ("one", "two")]
    engines = [NFTables(), NFTables()]
    marks = [site.run(engine.start(plan)) for engine, plan in zip(engines, plans, strict=True)]
    gone, stays = (site.pair(plan, listener) for plan in plans)
    site.run(engines[0].stop(plans[0], marks[0]))
    site.assert_reset(gone[0])
    site.ping(*stays)
    assert site.table(plans[0]) not in site.rules()
    site.run(engines[1].stop(plans[1], marks[1]))


def test_sessions_come_and_go_at_the_same_time(site: Any) -> None:
    listener = site.listener()
    plans = [site.plan(listener) for _ in range(8)]

    async def live() -> set[int]:
        marks = await asyncio.gather(*(site.engine.start(plan) for plan in plans))
        await asyncio.gather(*(site.engine.stop(plan, mark) for plan, mark in zip(plans, marks, strict=True)))
        return {mark.pid for mark in marks}

    assert len(site.run(live())) == len(plans)


def test_a_start_that_is_cancelled_leaves_nothing(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = site.plan(site.listener())
    transact, done, cancelled = Program.transact, threading.Event(), threading.Event()

    def slow(program: Program, commands: Any) -> None:
        transact(program, commands)
        done.set()
        cancelled.wait()

    monkeypatch.setattr(Program, "transact", slow)

    async def cancel() -> None:
        start = asyncio.create_task(site.engine.start(plan))
        await asyncio.to_thread(done.wait)
        assert "scistream" in site.rules()
        start.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await start

    site.run(cancel())
    assert "scistream" not in site.rules()


def test_what_no_journal_knows_can_be_ended(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener, site.listener())
    mark = site.started(plan)
    client, target = site.pair(plan, listener)
    engine = NFTables()
    with site.gateway.entered():
        ((stem, marks),) = engine.survey(plan.directory).items()
        assert (stem, marks) == (plan.stem, [mark])
        assert engine.ports(mark) == tuple(route.entry_point.port for route in plan.routes)
    assert site.run(engine.take_out(mark)) == ""
    site.assert_reset(client)
    site.assert_reset(target)


def test_a_stop_can_be_repeated(site: Any) -> None:
    plan = site.plan(site.listener())
    mark = site.started(plan)
    site.stopped(plan, mark)
    site.stopped(plan, mark)


def test_rules_can_be_saved_and_read_back_by_the_hosts_operator(site: Any) -> None:
    listener = site.listener()
    plan = site.plan(listener)
    mark = site.started(plan)
    saved = site.rules()
    site.nft(f"flush ruleset\n{saved}")
    with site.gateway.entered():
        assert NFTables().alive(mark)
    site.ping(*site.pair(plan, listener))
    site.stopped(plan, mark)
