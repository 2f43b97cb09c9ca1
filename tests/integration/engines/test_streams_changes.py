"""What is done to data servers while they carry streams, on all engines: no byte of any other stream notices."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import Flow
from places import listener
from scistream.addresses import Endpoint
from scistream.terms import Encryption
from streams import Carrier, Stream, carriers, every, stream

FLOWS = 3
TLS = [each for each in carriers() if each.encryption is Encryption.TLS]


@contextlib.contextmanager
def flows(made: Stream) -> Iterator[list[Flow]]:
    """Connections that carry bytes both ways; at the end every one has arrived."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Flow(made.connect(), made.accept())) for _ in range(FLOWS)]
        yield running
        go_on(running)


def go_on(running: list[Flow]) -> None:
    for flow in running:
        flow.goes_on()


@every()
def test_targets_change_under_running_streams(carrier: Carrier, tmp_path: Path) -> None:
    with (
        stream(carrier, tmp_path) as made,
        listener(made.places.target, made.places.addresses[2]) as other,
        flows(made) as running,
    ):
        for target in (other, made.target, other):
            made.inbound.retarget(Endpoint(*target.getsockname()[:2]))
            go_on(running)
            with made.connect() as application, target.accept()[0] as reached:
                application.sendall(b"new")
                assert reached.recv(3) == b"new"


@pytest.mark.parametrize("carrier", TLS, ids=str)
def test_certificates_are_replaced_under_running_streams(carrier: Carrier, tmp_path: Path) -> None:
    with stream(carrier, tmp_path) as made, flows(made) as running:
        for gateway in (*made.gateways, *made.gateways):
            gateway.run(gateway.engine.renew_certificates)
            go_on(running)
            with made.connected() as ends, Flow(*ends) as new:
                new.goes_on()


@every()
def test_a_drain_under_running_streams(carrier: Carrier, tmp_path: Path) -> None:
    with stream(carrier, tmp_path) as made:
        with flows(made) as running:
            drains = [gateway.begin_drain() for gateway in made.gateways]
            with pytest.raises(ConnectionRefusedError):
                made.connect()
            go_on(running)
            assert not any(drained.done() for drained in drains)
        for drained in drains:
            drained.result(60)


@contextlib.contextmanager
def two(carrier: Carrier, directory: Path) -> Iterator[tuple[Stream, Stream]]:
    """Two streams on the same gateways, to the same target."""
    homes = [directory / "one", directory / "two"]
    for home in homes:
        home.mkdir()
    with stream(carrier, homes[0]) as one, stream(carrier, homes[1], beside=one) as other:
        yield one, other


@pytest.mark.parametrize("carrier", [each for each in carriers() if each.is_proxy], ids=str)
def test_a_killed_data_server_takes_nothing_of_another_session_with_it(carrier: Carrier, tmp_path: Path) -> None:
    with two(carrier, tmp_path) as (killed, other), flows(other) as running:
        with killed.connected() as (application, _):
            for gateway in killed.gateways:
                for process in gateway.processes():
                    process.send_signal(signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert application.recv(1) == b""
        go_on(running)


@every()
def test_a_release_takes_nothing_of_another_session_with_it(carrier: Carrier, tmp_path: Path) -> None:
    with two(carrier, tmp_path) as (released, other), flows(other) as running:
        with released.connected() as (application, _):
            for gateway in released.gateways:
                gateway.run(gateway.engine.stop)
            with contextlib.suppress(ConnectionResetError):
                assert application.recv(1) == b""
        go_on(running)
        with other.connected() as ends, Flow(*ends) as new:
            new.goes_on()
