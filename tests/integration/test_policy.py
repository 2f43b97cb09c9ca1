"""Targets that lead back to the gateway itself, and one user's share of the ports, over the wire."""

from __future__ import annotations

import socket

import grpc
import psutil
import pytest

from scistream.errors import Code, SciStreamError
from scistream.protocol import DIRECTION_METADATA, ERROR_METADATA
from scistream.protocol import control_pb2 as wire

WAIT = 30
HOST = "127.0.20.1"


def error_of(call) -> SciStreamError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    found = SciStreamError.from_wire(dict(raised.value.trailing_metadata())[ERROR_METADATA])
    assert found is not None
    assert raised.value.code() is getattr(grpc.StatusCode, found.entry.status)
    return found


def registered(server, uid: str, target: str, role: str = "PROD") -> str:
    stub = server.control()
    reply = stub.req.future(wire.Request(uid=uid, role=role, num_conn=1), timeout=WAIT)
    metadata = ((DIRECTION_METADATA, "inbound" if role == "PROD" else "outbound"),)
    stub.hello(wire.Hello(uid=uid, role=role, prod_listeners=[target]), timeout=WAIT, metadata=metadata)
    (entry_point,) = reply.result().listeners
    return entry_point


def update(server, uid: str, target: str, role: str = "PROD") -> None:
    server.control().update(wire.UpdateTargets(uid=uid, role=role, remote_listeners=[target]), timeout=WAIT)


def test_u09_only_targets_that_the_operator_allows_can_be_asked_for(control_server_factory, echo_target, round_trip):
    port = echo_target.endpoint.rpartition(":")[2]
    server = control_server_factory(options=(f"--allowed-targets=127.0.0.0/8:{port},198.51.100.0/24",))
    entry_point = registered(server, "one", echo_target.endpoint)
    update(server, "one", echo_target.endpoint)
    assert round_trip(entry_point, b"ping") == b"ping"
    for target in ("127.0.0.1:22", f"localhost:{port}", f"192.0.2.7:{port}"):
        error = error_of(lambda target=target: update(server, "one", target))
        assert (error.code, error.facts["target"]) == (Code.TARGET_REFUSED, target)
        assert "allowed_targets" in error.seen
    # What it had goes on.
    assert round_trip(entry_point, b"ping") == b"ping"


def test_a_stream_into_the_control_server_itself_is_refused_at_hello_update_and_retarget(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(options=("--metrics-port=22001", f"--metrics-ip={HOST}"))
    stub = server.control()
    request = stub.req.future(wire.Request(uid="one", role="PROD", num_conn=1), timeout=WAIT)
    hello = wire.Hello(uid="one", role="PROD", prod_listeners=[f"{HOST}:22000"])
    error = error_of(lambda: stub.hello(hello, timeout=WAIT))
    assert error.code is Code.TARGET_REFUSED
    assert error.seen == f"the target {HOST}:22000 is refused: it is this control server's own control port"
    stub.hello(wire.Hello(uid="one", role="PROD", prod_listeners=[echo_target.endpoint]), timeout=WAIT)
    (entry_point,) = request.result().listeners
    reasons = {
        f"{HOST}:22000": "it is this control server's own control port",
        f"[::ffff:{HOST}]:22001": "it is this control server's own metrics port",
        entry_point: "a connection to it would come back to port 22100 of session one for ever",
    }
    for moment in ("update", "retarget"):
        for target, reason in reasons.items():
            error = error_of(lambda target=target: update(server, "one", target))
            assert (error.code, error.facts["reason"]) == (Code.TARGET_REFUSED, reason), moment
        update(server, "one", echo_target.endpoint)
        assert round_trip(entry_point, b"x" * 1000) == b"x" * 1000


def test_a_control_port_is_at_its_own_address_and_entry_points_are_at_theirs(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(options=("--listener-ip=127.0.20.2", f"--control-ip={HOST}"))
    entry_point = registered(server, "one", echo_target.endpoint)
    update(server, "one", echo_target.endpoint)
    assert entry_point.startswith("127.0.20.2:")
    assert round_trip(entry_point, b"ping") == b"ping"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.20.2", 22000), timeout=WAIT)
    error = error_of(lambda: update(server, "one", f"{HOST}:22000"))
    assert (error.code, error.facts["reason"]) == (Code.TARGET_REFUSED, "it is this control server's own control port")


def test_one_uid_in_both_directions_on_one_gateway_is_no_loop_until_it_is_closed(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory()
    inbound = registered(server, "one", echo_target.endpoint)
    outbound = registered(server, "one", echo_target.endpoint, "CONS")
    update(server, "one", echo_target.endpoint)
    update(server, "one", inbound, "CONS")
    assert round_trip(outbound, b"x" * 100_000) == b"x" * 100_000
    # A second relay on top of the first one.
    over = registered(server, "two", outbound)
    update(server, "two", outbound)
    assert round_trip(over, b"y" * 1000) == b"y" * 1000
    before = psutil.net_connections("tcp")
    assert error_of(lambda: update(server, "one", over)).code is Code.TARGET_REFUSED
    assert round_trip(over, b"z" * 1000) == b"z" * 1000
    assert len(psutil.net_connections("tcp")) < len(before) + 100


def test_one_user_has_as_many_ports_as_the_operator_says(control_server_factory, echo_target):
    server = control_server_factory(options=("--ports-per-owner=2",))
    registered(server, "one", echo_target.endpoint)
    stub = server.control()
    request = wire.Request(uid="two", role="PROD", num_conn=2)
    error = error_of(lambda: stub.req(request, timeout=WAIT))
    assert (error.code, error.facts) == (Code.OWNER_PORTS_EXHAUSTED, {"wanted": 2, "held": 1, "limit": 2})
    registered(server, "two", echo_target.endpoint)
    stub.release(wire.Release(uid="one"), timeout=WAIT)
    registered(server, "three", echo_target.endpoint)
