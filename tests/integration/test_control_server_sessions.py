"""Sessions of a real control server: many that wait, leases, named ports, drain, new targets."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
import psutil
import pytest

from scistream.errors import Code, SciStreamError
from scistream.protocol import (
    ERROR_METADATA,
    control_pb2_grpc,
    operations_pb2_grpc,
)
from scistream.protocol import control_pb2 as wire
from scistream.protocol import operations_pb2 as more

WAIT = 60
ENGINES = ("haproxy", "nginx", "stunnel")
# Connections leave their ports to the kernel for a while, and other tests count on theirs.
HERE = "127.0.20.41"
# Of util-linux, which every distribution has.
SETPRIV = shutil.which("setpriv") or "setpriv"


@pytest.fixture
def gateway(control_server_factory):
    """Control servers at an address of their own."""
    return functools.partial(control_server_factory, address=HERE)


class Client:
    """The calls of one client, by one channel."""

    def __init__(self, server) -> None:
        channel = server.channel()
        self.control = control_pb2_grpc.ControlStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    def request(self, uid: str, connections: int = 1, **words: str) -> grpc.Future:
        metadata = tuple((f"scistream-{word}", text) for word, text in words.items())
        message = wire.Request(uid=uid, role="CONS", num_conn=connections)
        return self.control.req.future(message, metadata=metadata, timeout=WAIT)

    def open(self, uid: str, *targets: str, connections: int = 1, **words: str) -> Sequence[str]:
        request = self.request(uid, connections, **words)
        try:
            self.control.hello(wire.Hello(uid=uid, role="CONS"), timeout=WAIT)
        except grpc.RpcError:
            request.result()
            raise
        request.result()
        return self.update(uid, *targets)

    def update(self, uid: str, *targets: str) -> Sequence[str]:
        change = wire.UpdateTargets(uid=uid, role="CONS", remote_listeners=targets)
        return list(self.control.update(change, timeout=WAIT).listeners)

    def drain(self, uid: str) -> str:
        reply = self.operations.DrainSession(more.DrainSessionRequest(uid=uid), timeout=WAIT)
        return reply.sessions[0].state

    def renew(self, uid: str, lease: float) -> float:
        reply = self.operations.RenewSession(more.RenewSessionRequest(uid=uid, lease=lease), timeout=WAIT)
        return reply.sessions[0].lease_expires

    def release(self, uid: str) -> None:
        self.control.release(wire.Release(uid=uid), timeout=WAIT)

    def sessions(self) -> dict[str, more.Session]:
        found = self.operations.ListSessions(more.ListSessionsRequest(), timeout=WAIT).sessions
        return {session.uid: session for session in found}


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def refusal() -> Iterator[list[SciStreamError]]:
    """Inside, a call is refused; its error is in the list afterwards."""
    errors: list[SciStreamError] = []
    with pytest.raises(grpc.RpcError) as raised:
        yield errors
    found = SciStreamError.from_wire(dict(raised.value.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    errors.append(found)


def talk(connection: socket.socket, words: bytes) -> bytes:
    connection.sendall(words)
    heard = b""
    while len(heard) < len(words) and (part := connection.recv(65536)):
        heard += part
    return heard


def connect(entry_point: str) -> socket.socket:
    host, _, port = entry_point.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT)


def is_refused(entry_point: str) -> bool:
    try:
        connect(entry_point).close()
    except ConnectionError:
        return True
    return False


def test_u21_a_thousand_pending_requests_of_one_client_delay_no_other_and_cost_no_thread(gateway, echo_target):
    server = gateway(port_range="22100-23199", options=["--quarantine=0"])
    crowd, client = Client(server), Client(server)
    threads = psutil.Process(server.pid).num_threads()
    requests = [crowd.request(f"waiting-{number}") for number in range(1000)]
    wait_until(lambda: len(client.sessions()) == 1000)
    entry_points = client.open("one", echo_target.endpoint)
    with connect(entry_points[0]) as connection:
        assert talk(connection, b"through") == b"through"
    client.release("one")
    assert not any(request.done() for request in requests)
    # Those that gRPC itself starts do not depend on how many wait.
    assert psutil.Process(server.pid).num_threads() <= threads + 8
    for request in requests:
        request.cancel()
    wait_until(lambda: client.sessions() == {})
    assert client.operations.GetServerFacts(more.GetServerFactsRequest(), timeout=WAIT).ports_free == 1100


def test_a_session_ends_with_its_lease_unless_it_is_renewed(gateway, echo_target, is_free):
    server = gateway(options=["--longest-lease=3600"])
    client = Client(server)
    with refusal() as errors:
        client.open("long", echo_target.endpoint, lease="3601")
    assert errors[0].code is Code.BAD_LEASE
    (entry_point,) = client.open("short", echo_target.endpoint, lease="60")
    client.open("long", echo_target.endpoint, lease="60")
    before = client.sessions()["long"].lease_expires
    assert client.renew("long", 1800) > before + 1000
    # A lease is shortened in the same way.
    assert client.renew("short", 1) < before
    wait_until(lambda: set(client.sessions()) == {"long"})
    assert is_free(entry_point)
    assert server.files("short") == []
    assert "the lease ended" in server.words()


def test_a_lease_that_ended_while_no_server_ran_is_over_at_the_next_start(gateway, echo_target):
    server = gateway()
    client = Client(server)
    client.open("short", echo_target.endpoint, lease="60")
    client.open("long", echo_target.endpoint, lease="600")
    expires = client.sessions()["long"].lease_expires
    ends = client.renew("short", 2)
    server.end()
    wait_until(lambda: time.time() > ends)
    server.start()
    client = Client(server)
    wait_until(lambda: set(client.sessions()) == {"long"})
    assert abs(client.sessions()["long"].lease_expires - expires) < 1
    assert len(server.data_servers()) == 1


def test_u53_the_ports_that_were_named_are_the_entry_points(gateway, echo_target):
    client = Client(gateway())
    entry_points = client.open("one", echo_target.endpoint, connections=0, ports="22150,22140")
    assert entry_points == [f"{HERE}:22150", f"{HERE}:22140"]
    for entry_point in entry_points:
        with connect(entry_point) as connection:
            assert talk(connection, b"through") == b"through"
    # The same again, at once: they rest for everybody but their last owner.
    client.release("one")
    assert client.open("one", echo_target.endpoint, connections=2, ports="22150,22140") == entry_points


def test_u53_a_named_port_that_cannot_be_had_says_why_and_leaves_nothing(gateway, echo_target):
    client = Client(gateway())
    client.open("one", echo_target.endpoint, ports="22150")
    with socket.create_server((HERE, 22151)):
        for ports, code, words in [
            ("22200", Code.PORT_NOT_OFFERED, "port 22200 was asked for, and this control server offers 22100-22199"),
            ("22152,22150", Code.ENTRY_POINT_IN_USE, f"entry point {HERE}:22150 is in use by session one"),
            ("22152,22151", Code.ENTRY_POINT_IN_USE, f"(pid {os.getpid()})"),
            ("22152,22152", Code.BAD_ADDRESS, "a port is named twice"),
        ]:
            with refusal() as errors:
                client.request("two", connections=ports.count(",") + 1, ports=ports).result()
            assert (errors[0].code, words in errors[0].seen) == (code, True), errors[0].seen
    assert set(client.sessions()) == {"one"}
    client.open("two", echo_target.endpoint, connections=2, ports="22151,22152")


@pytest.mark.parametrize("engine", ENGINES)
def test_u57_a_rate_is_refused_where_it_cannot_be_kept(gateway, engine):
    server = gateway(engine=engine, start=False)
    if os.geteuid() == 0:
        server.command[:0] = [SETPRIV, "--bounding-set=-net_admin"]
    client = Client(server.start())
    with refusal() as errors:
        client.request("one", rate="5000", encryption="tls").result()
    assert errors[0].code is Code.ENGINE_CANNOT
    assert errors[0].facts["reason"].startswith("it cannot be kept to a rate here: ")
    assert "CAP_NET_ADMIN" in errors[0].seen
    assert client.sessions() == {}


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_a_session_that_drains_ends_with_its_last_connection_also_after_a_restart(
    gateway, echo_target, engine, is_free
):
    server = gateway(engine=engine)
    client = Client(server)
    (entry_point,) = client.open("one", echo_target.endpoint)
    with connect(entry_point) as connection:
        assert talk(connection, b"before") == b"before"
        assert client.drain("one") == client.drain("one") == "draining"
        assert is_refused(entry_point)
        assert talk(connection, b"meanwhile") == b"meanwhile"
        with refusal() as errors:
            client.update("one", echo_target.endpoint)
        assert errors[0].code is Code.SESSION_NOT_ACTIVE
        server.restart()
        client = Client(server)
        assert client.sessions()["one"].state == "draining"
        assert talk(connection, b"after") == b"after"
    wait_until(lambda: client.sessions() == {})
    assert is_free(entry_point)
    assert server.files("one") == []
    assert server.data_servers() == []


def test_a_release_ends_a_drain_at_once(gateway, echo_target, is_free):
    server = gateway()
    client = Client(server)
    (entry_point,) = client.open("one", echo_target.endpoint)
    with connect(entry_point) as connection:
        assert talk(connection, b"before") == b"before"
        client.drain("one")
        client.release("one")
        assert client.sessions() == {}
    assert is_free(entry_point)
    assert server.data_servers() == []


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_u29_an_update_with_other_targets_leads_new_connections_there(gateway, echo_target, engine):
    server = gateway(engine=engine)
    client = Client(server)
    (entry_point,) = client.open("one", echo_target.endpoint)
    with socket.create_server(("127.0.20.101", 0)) as other, connect(entry_point) as running:
        assert talk(running, b"before") == b"before"
        target = f"127.0.20.101:{other.getsockname()[1]}"
        assert client.update("one", target) == [entry_point]
        assert list(client.sessions()["one"].targets) == [target]
        with connect(entry_point):
            accepted, _ = other.accept()
            accepted.close()
        # What ran goes on to where it went.
        assert talk(running, b"after") == b"after"
