"""The calls of the deployed client (protocol reference, Order of calls), replayed against our control server."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from scistream.protocol import control_pb2 as wire

_METADATA = (("authorization", "INVALID_TOKEN"),)
_WAIT = 30


class DeployedClient:
    """What the deployed `s2uc` does on the wire: `req` in a thread, a `hello` that always says PROD, an `update`."""

    def __init__(self, server) -> None:
        self._stub = server.control()
        self._pool = ThreadPoolExecutor(max_workers=1)

    def open(self, uid: str, role: str, receivers: list[str], remote: list[str] | None, num_conn: int = 1):
        reply: Future[wire.Response] = self._pool.submit(
            self._stub.req, wire.Request(uid=uid, role=role, num_conn=num_conn, rate=10000), metadata=_METADATA
        )
        # Where the deployed client sleeps 0.5 s, nothing: our server holds a hello that comes first.
        hello = wire.Hello(uid=uid, prod_listeners=receivers, role="PROD")
        self._stub.hello(hello, metadata=_METADATA, timeout=_WAIT)
        answer = reply.result(_WAIT)
        targets = answer.prod_listeners if role == "PROD" else remote
        change = wire.UpdateTargets(uid=uid, remote_listeners=targets, role=role)
        self._stub.update(change, metadata=_METADATA, timeout=_WAIT)
        return answer

    def release(self, uid: str) -> None:
        self._stub.release(wire.Release(uid=uid), metadata=_METADATA, timeout=_WAIT)


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_a_stream_of_the_deployed_client_carries_bytes_and_leaves_nothing(
    engine, control_server_factory, echo_target, round_trip, is_free
):
    inbound = control_server_factory(address="127.0.20.1", engine=engine)
    outbound = control_server_factory(address="127.0.20.2", engine=engine)
    uid = str(uuid.uuid1())

    facility_a, facility_b = DeployedClient(inbound), DeployedClient(outbound)
    first = facility_a.open(uid, "PROD", [echo_target.endpoint], None)
    second = facility_b.open(uid, "CONS", ["127.0.20.100:9"], list(first.listeners))

    assert list(first.prod_listeners) == [echo_target.endpoint]
    assert list(first.listeners) == ["127.0.20.1:22100"]
    assert list(second.listeners) == ["127.0.20.2:22100"]
    data = bytes(range(256)) * 8192
    assert round_trip(second.listeners[0], data) == data

    servers = (inbound, outbound)
    running = [process for server in servers for process in server.data_servers()]
    assert running
    for facility in (facility_a, facility_b):
        facility.release(uid)
    assert not [process for process in running if process.is_running()]
    assert [server.files(uid) for server in servers] == [[], []]
    assert is_free(first.listeners[0])
    assert is_free(second.listeners[0])


def test_the_deployed_words_for_a_uid_that_is_there_and_for_one_that_is_not(control_server_factory, echo_target):
    server = control_server_factory()
    client = DeployedClient(server)
    client.open("one", "PROD", [echo_target.endpoint], None)
    with pytest.raises(grpc.RpcError, match="Entry already found for uid") as twice:
        server.control().req(wire.Request(uid="one", role="PROD", num_conn=1, rate=1), timeout=_WAIT)
    assert twice.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError, match="entry not found for uid 'two'") as unknown:
        client.release("two")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_u22_u23_thirty_sessions_at_once_have_their_own_ports_and_their_own_answers(
    control_server_factory, echo_target, round_trip
):
    server = control_server_factory(port_range="22100-22189")
    uids = [f"session-{number}" for number in range(30)]
    answers: dict[str, wire.Response] = {}
    start = threading.Barrier(len(uids))

    def run(number: int) -> None:
        client = DeployedClient(server)
        start.wait()
        own = [echo_target.endpoint, f"127.0.20.100:{1000 + number}"]
        answers[uids[number]] = client.open(uids[number], "PROD", own, None, 2)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(uids))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == sorted(uids)
    assert {len(answer.listeners) for answer in answers.values()} == {2}
    told = [listener for answer in answers.values() for listener in answer.listeners]
    assert len(set(told)) == 60
    for number, uid in enumerate(uids):
        assert list(answers[uid].prod_listeners) == [echo_target.endpoint, f"127.0.20.100:{1000 + number}"]
        assert round_trip(answers[uid].listeners[0], uid.encode()) == uid.encode()
        conf = Path(server.state_directory, f"{uid}.conf").read_text()
        assert all(word in conf for word in (*answers[uid].listeners, *answers[uid].prod_listeners))
