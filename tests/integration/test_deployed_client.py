"""The calls of the deployed client (protocol reference, Order of calls), replayed against our control server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from command_line import wait_for
from scistream.addresses import Endpoint
from scistream.client import ControlServer, SessionRequest, connect, open_session
from scistream.engines import ENGINES
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA, operations_pb2
from scistream.protocol import control_pb2 as wire
from scistream.terms import Direction, Encryption, Uid

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


def _told(error: grpc.RpcError) -> SciStreamError:
    told = SciStreamError.from_wire(dict(error.trailing_metadata())[ERROR_METADATA])
    assert told is not None
    return told


def _described(server, uid: str):
    (session,) = server.operations().DescribeSession(operations_pb2.DescribeSessionRequest(uid=uid)).sessions
    return session


def test_u02_a_deployed_client_is_refused_unless_the_operator_allows_it(control_server_factory, echo_target):
    # As it is without any word of the operator.
    server = control_server_factory(start=False)
    server.command.remove("--old-clients=plain")
    server.start()
    with pytest.raises(grpc.RpcError) as caught:
        server.control().req(wire.Request(uid="one", role="PROD", num_conn=1, rate=1), timeout=_WAIT)
    error = _told(caught.value)
    assert error.code is Code.OLD_CLIENT_REFUSED
    assert "this control server refuses those (old_clients = refuse)" in error.seen
    assert "set old_clients = plain" in error.remedy
    assert server.data_servers() == []
    assert "OLD_CLIENT_REFUSED" in server.words()


@pytest.mark.parametrize("words", [["--old-clients=plain"], ["--compat"]])
def test_u02_a_session_of_a_deployed_client_says_that_it_is_not_encrypted(words, control_server_factory, echo_target):
    server = control_server_factory(start=False)
    server.command.remove("--old-clients=plain")
    server.command.extend(words)
    DeployedClient(server.start()).open("one", "PROD", [echo_target.endpoint], None)
    session = _described(server, "one")
    assert session.encryption == "none"
    assert "nothing protects the bytes between the gateways" in session.warnings[0]


# An outbound gateway's Stunnel as the deployed control server configures it (protocol reference, U01).
_DEPLOYED_STUNNEL = """\
foreground = yes
pid =
sslVersion = TLSv1.2
ciphers = eNULL
securityLevel = 0
PSKsecrets = {secrets}
client = yes
PSKidentity = client1
[route]
accept = {accept}
connect = {connect}
"""


@contextlib.contextmanager
def _deployed_stunnel(directory: Path, uid: str, accept: str, connect: str) -> Iterator[None]:
    secrets, configuration = directory / "deployed.psk", directory / "deployed.conf"
    secrets.touch(0o600)
    secrets.write_text(f"client1:{uid.replace('-', '')}\n")
    configuration.write_text(_DEPLOYED_STUNNEL.format(secrets=secrets, accept=accept, connect=connect))
    host, _, port = accept.rpartition(":")
    program = ENGINES["stunnel"].locate().program
    with subprocess.Popen([program, configuration], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: _accepts(host, int(port)))
            yield
        finally:
            process.terminate()


def _accepts(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


@pytest.mark.parametrize("client", ["deployed", "ours"])
def test_u01_legacy_psk_reaches_a_deployed_stunnel_and_warns(
    *, client: str, control_server_factory, echo_target, round_trip, tmp_path: Path
):
    server = control_server_factory(engine="stunnel", options=["--old-clients=legacy-psk"])
    uid = str(uuid.uuid1())
    if client == "deployed":
        DeployedClient(server).open(uid, "PROD", [echo_target.endpoint], None)
    else:
        target = (Endpoint.parse(echo_target.endpoint),)
        asked = SessionRequest(Uid(uid), Direction.INBOUND, target, 1, encryption=Encryption.LEGACY_PSK)
        with connect(ControlServer(Endpoint.parse(server.endpoint), server.certificate)) as connection:
            open_session(connection, asked)
    session = _described(server, uid)
    assert session.encryption == "legacy-psk"
    assert any("nothing is encrypted between the gateways" in warning for warning in session.warnings)
    with _deployed_stunnel(tmp_path, uid, "127.0.20.9:22190", session.entry_points[0]):
        assert round_trip("127.0.20.9:22190", b"as ever") == b"as ever"
    # Who has another key is nobody.
    with _deployed_stunnel(tmp_path, str(uuid.uuid1()), "127.0.20.9:22191", session.entry_points[0]):
        try:
            answered = round_trip("127.0.20.9:22191", b"let me in")
        except ConnectionError:
            answered = b""
        assert answered == b""


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
