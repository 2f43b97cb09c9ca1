"""What fails in one session while another one of the same gateways carries streams: no byte of those notices.

Killed and released sessions: test_streams_changes.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import Flow
from scistream.addresses import Endpoint
from scistream.engines import ENGINES, Plan, Route, nft_table
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, Uid
from streams import Carrier, Gateway, Stream, carriers, every, stream

PROXIES = [each for each in carriers() if each.is_proxy]
# Of no stream of `streams`.
_FREE = 23999
NFTABLES = Carrier(ENGINES["nftables"], Encryption.NONE)


@contextlib.contextmanager
def running(carrier: Carrier, directory: Path, beside: Stream | None = None) -> Iterator[tuple[Stream, list[Flow]]]:
    """A stream whose connections carry bytes both ways; at the end every one has arrived."""
    directory.mkdir()
    with stream(carrier, directory, beside=beside) as made, contextlib.ExitStack() as stack:
        flows = [stack.enter_context(Flow(made.connect(), made.accept())) for _ in range(2)]
        yield made, flows
        go_on(made, flows)


def go_on(made: Stream, flows: list[Flow]) -> None:
    """Those that run, and a new one."""
    for flow in flows:
        flow.goes_on()
    with made.connected() as ends, Flow(*ends) as new:
        new.goes_on()


def another(gateway: Gateway, entry_point: Endpoint) -> Plan:
    """A further session of the same gateway."""
    uid = Uid(f"{gateway.plan.uid}-2")
    route = Route(entry_point, gateway.plan.routes[0].target)
    return dataclasses.replace(gateway.plan, uid=uid, stem=uid, routes=(route,))


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


@every()
def test_a_session_that_finds_its_entry_point_taken(carrier: Carrier, tmp_path: Path) -> None:
    with running(carrier, tmp_path / "one") as (made, flows):
        before = files(tmp_path)
        for gateway in made.gateways:
            with pytest.raises(SciStreamError) as caught:
                gateway.place.run(gateway.engine.start(another(gateway, gateway.entry_point)))
            # Nobody listens where nftables has a session: there it is the kernel that refuses the rules.
            assert caught.value.code is (Code.ENTRY_POINT_IN_USE if carrier.is_proxy else Code.DATA_SERVER_FAILED)
            go_on(made, flows)
        assert files(tmp_path) == before


@pytest.mark.parametrize("carrier", PROXIES, ids=str)
def test_a_session_whose_configuration_is_rejected(carrier: Carrier, tmp_path: Path) -> None:
    faulty = carrier.altered(r"\Z", "\nnonsense = yes\n").engine
    with running(carrier, tmp_path / "one") as (made, flows):
        before = files(tmp_path)
        for gateway in made.gateways:
            free = Endpoint(gateway.entry_point.host, _FREE)
            with pytest.raises(SciStreamError) as caught:
                gateway.place.run(faulty.start(another(gateway, free)))
            assert caught.value.code in (Code.CONFIGURATION_REJECTED, Code.DATA_SERVER_FAILED)
            go_on(made, flows)
        assert files(tmp_path) == before


@pytest.mark.parametrize("carrier", PROXIES, ids=str)
def test_a_session_whose_data_servers_hang(carrier: Carrier, tmp_path: Path) -> None:
    with running(carrier, tmp_path / "one") as (made, flows):
        (tmp_path / "two").mkdir()
        with stream(carrier, tmp_path / "two", beside=made) as hung:
            for gateway in hung.gateways:
                for process in gateway.processes():
                    process.send_signal(signal.SIGSTOP)
            go_on(made, flows)
        # By now they have been ended for certain, hung as they were.
        go_on(made, flows)


def rules(made: Stream) -> str:
    """Those of the outbound gateway, without what they counted."""
    command = ["nft", "--stateless", "list", "ruleset"]
    done = made.places.outbound.do(lambda: subprocess.run(command, check=True, capture_output=True, text=True))
    assert "scistream" in done.stdout
    return str(done.stdout)


def retargeted(gateway: Gateway) -> Any:
    return gateway.engine.retarget(gateway.plan, gateway.mark)


def released(gateway: Gateway) -> Any:
    return gateway.engine.stop(gateway.plan, gateway.mark)


def started(gateway: Gateway) -> Any:
    return gateway.engine.start(another(gateway, Endpoint(gateway.entry_point.host, _FREE)))


@pytest.mark.parametrize(
    ("commands", "change"), [("installed", started), ("retargeted", retargeted), ("removed", released)]
)
def test_a_transaction_that_the_kernel_refuses(
    commands: str, change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = getattr(nft_table, commands)

    def refused(table: str, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        return [*build(table, *arguments, **options), {"delete": {"table": {"family": "inet", "name": "nobody's"}}}]

    with running(NFTABLES, tmp_path / "one") as (made, flows):
        (tmp_path / "two").mkdir()
        with stream(NFTABLES, tmp_path / "two", beside=made) as other:
            before = rules(made)
            with monkeypatch.context() as patch:
                patch.setattr(nft_table, commands, refused)
                with pytest.raises(SciStreamError):
                    other.outbound.place.run(change(other.outbound))
            go_on(made, flows)
            if change is not released:
                assert rules(made) == before
        go_on(made, flows)
