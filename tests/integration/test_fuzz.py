"""Ten thousand random and mutated requests over real gRPC: a real control server is unmoved and keeps nothing.

`SCISTREAM_FUZZ_SEED=NUMBER` takes other requests than those of every run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import grpc
import psutil
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from identity_provider import IdentityProvider
from scistream.errors import Code, SciStreamError
from scistream.protocol import ERROR_METADATA, control_pb2, operations_pb2
from scistream.protocol import control_pb2 as wire
from scistream.protocol import operations_pb2 as more

# Examples, and calls that each of them sends at once.
_STRUCTURED, _BATCH = 60, 50
_MUTATED, _WARM, _CROWD = 7000, 4000, 250
_UNKNOWN = 10
_SEED = int(os.environ.get("SCISTREAM_FUZZ_SEED", "3"))
# Seconds: a req waits for its hello, a hello for its req, a watch for ever. So long is the answer waited for.
_PATIENCE = 0.25
# MiB that the process may have gained since it was warm: 2 KiB kept of each request would be more.
_GROWTH = 12
# Bytes; larger messages are gRPC's to refuse.
_LARGE = 200_000
# What gRPC itself answers, to a call that waits or to a method that is none.
_OWN = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED}

_UIDS = [f"fuzz-{number}" for number in range(6)]
_TARGET = "127.0.20.100:9"
_METHODS = [
    f"/{service.full_name}/{method.name}"
    for descriptor in (control_pb2.DESCRIPTOR, operations_pb2.DESCRIPTOR)
    for service in descriptor.services_by_name.values()
    for method in service.methods
]
_STREAMS = {"/scistream.v1.Operations/WatchSessions"}

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class _Call:
    method: str
    data: bytes
    metadata: Metadata = ()


def _called(method: str, message: Message, metadata: Iterable[tuple[str, str | bytes]] = ()) -> _Call:
    return _Call(method, message.SerializeToString(), tuple(metadata))


_uids = st.sampled_from(_UIDS) | st.text(max_size=70)
_roles = st.sampled_from(["PROD", "CONS", "inbound", "outbound", ""]) | st.text(max_size=8)
_addresses = st.sampled_from([_TARGET, "[::1]:9", "localhost:9", "127.0.20.100", ":9", "h\n:1"]) | st.text(max_size=30)
_numbers = st.sampled_from([0, 1, 1, 2, 10000, -1, 1024, 1025, 2**31 - 1, -(2**31)])
_messages = st.one_of(
    st.builds(wire.Request, uid=_uids, role=_roles, num_conn=_numbers, rate=_numbers),
    st.builds(wire.Hello, uid=_uids, prod_listeners=st.lists(_addresses, max_size=3), role=_roles),
    st.builds(wire.UpdateTargets, uid=_uids, remote_listeners=st.lists(_addresses, max_size=3), role=_roles),
    st.builds(wire.Release, uid=_uids),
    st.builds(more.DescribeSessionRequest, uid=_uids, direction=_roles),
    st.builds(more.RenewSessionRequest, uid=_uids, direction=_roles, lease=st.floats()),
    st.builds(more.DrainSessionRequest, uid=_uids, direction=_roles),
    st.builds(more.WatchSessionsRequest, uid=_uids, direction=_roles),
)
# What gRPC lets through: printable ASCII, but for the keys that end in -bin, and less than 8 KiB in all.
_words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
_HOSTILE = {
    "authorization": ["", "Bearer", "Bearer x", "bearer  ", "INVALID_TOKEN", "NO_AUTH", "Basic eDp5", "x" * 1500],
    "scistream-direction": ["inbound", "outbound", "sideways", "", "in,out"],
    "scistream-lease": ["0", "1", "-1", "nan", "inf", "1e999", "0x10", "", "9" * 2000, "1_0", "5s"],
    "scistream-ports": ["22100", "22100,22101", "0", "65536", "22100,22100", ",", "", "1" * 2000, "22-23", "-1"],
    "scistream-rate": ["0", "1", "-1", "9" * 2000, "1.5", "", "nan", "0x1"],
}
_KEYS = [b"", b"k" * 32, b"k" * 31, b"\0" * 32, b"\xff" * 64]
_metadata = st.lists(
    st.one_of(
        *(st.tuples(st.just(name), st.sampled_from(words) | _words) for name, words in _HOSTILE.items()),
        st.tuples(st.just("scistream-session-key-bin"), st.sampled_from(_KEYS) | st.binary(max_size=40)),
    ),
    max_size=3,
)
_calls = st.builds(_called, st.sampled_from(_METHODS), _messages, _metadata)


class _Client:
    """Sends bytes to any method, and looks at how that ends."""

    def __init__(self, server) -> None:
        self._server = server
        self.statuses: Counter[str] = Counter()
        self.sent = 0

    async def __aenter__(self) -> _Client:
        credentials = grpc.ssl_channel_credentials(self._server.certificate.read_bytes())
        self._channel = grpc.aio.secure_channel(self._server.endpoint, credentials)
        await self._channel.channel_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def send(self, calls: Sequence[_Call]) -> None:
        """All at once; none may fail in a way that nobody foresaw."""
        for call, wrong in zip(calls, await asyncio.gather(*map(self._outcome, calls)), strict=True):
            assert wrong is None, f"{wrong}: {str(call)[:1000]} (seed {_SEED}); {self._server.words()[-2000:]}"
        self.sent += len(calls)

    async def _outcome(self, call: _Call) -> str | None:
        try:
            await self._answer(call)
        except grpc.aio.AioRpcError as error:
            self.statuses[error.code().name] += 1
            return self._wrong(error)
        self.statuses["OK"] += 1
        return None

    async def _answer(self, call: _Call) -> None:
        if call.method in _STREAMS:
            async for _ in self._channel.unary_stream(call.method)(
                call.data, metadata=call.metadata, timeout=_PATIENCE
            ):
                pass
        else:
            await self._channel.unary_unary(call.method)(call.data, metadata=call.metadata, timeout=_PATIENCE)

    @staticmethod
    def _wrong(error: grpc.aio.AioRpcError) -> str | None:
        told = SciStreamError.from_wire(dict(error.trailing_metadata() or ()).get(ERROR_METADATA, b""))
        if told is None and error.code() not in _OWN:
            return f"{error.code()} without an error of the catalogue: {error.details()}"
        return str(told) if told is not None and told.code is Code.INTERNAL else None


class _Mutations:
    """Valid calls, and what becomes of their bytes."""

    def __init__(self) -> None:
        self._random = random.Random(_SEED)  # noqa: S311 - a failure has to come again
        self._valid = [
            (method, message.SerializeToString())
            for uid in _UIDS
            for method, message in (
                ("/scistream.Control/req", wire.Request(uid=uid, role="PROD", num_conn=2, rate=10000)),
                ("/scistream.Control/hello", wire.Hello(uid=uid, role="PROD", prod_listeners=[_TARGET])),
                ("/scistream.Control/update", wire.UpdateTargets(uid=uid, role="PROD", remote_listeners=[_TARGET])),
                ("/scistream.Control/release", wire.Release(uid=uid)),
                ("/scistream.SciStreamControl/RequestStream", wire.Request(uid=uid, role="CONS", num_conn=1, rate=1)),
                ("/scistream.SciStreamControl/Hello", wire.Hello(uid=uid, role="CONS")),
                ("/scistream.v1.Operations/DescribeSession", more.DescribeSessionRequest(uid=uid, direction="inbound")),
                ("/scistream.v1.Operations/RenewSession", more.RenewSessionRequest(uid=uid, lease=60)),
                ("/scistream.v1.Operations/DrainSession", more.DrainSessionRequest(uid=uid)),
                ("/scistream.v1.Operations/WatchSessions", more.WatchSessionsRequest(uid=uid)),
            )
        ]

    def call(self) -> _Call:
        """A valid call whose bytes went through none to four mutations, at its own method or at any other."""
        method, data = self._random.choice(self._valid)
        for _ in range(self._random.choice((0, 1, 1, 2, 4))):
            data = self._mutated(data)[:_LARGE]
        return _Call(self._random.choice((method, method, method, self._random.choice(_METHODS))), data)

    def _mutated(self, data: bytes) -> bytes:
        draw = self._random
        start = draw.randrange(len(data) + 1)
        end = draw.randrange(start, len(data) + 1)
        other = draw.choice(self._valid)[1]
        return draw.choice(
            (
                data[:start],
                data[:start] + data[end:],
                data[:end] + data[start:end] + data[end:],
                data[:start] + draw.randbytes(draw.randrange(1, 9)) + data[start:],
                data[:start]
                + bytes(byte ^ (1 << draw.randrange(8)) for byte in data[start : start + 1])
                + data[start + 1 :],
                data[:start] + b"\xff" * 9 + b"\x01" + data[end:],
                data + other,
                data[:start] + other[end:],
                data * draw.randrange(2, 40),
            )
        )


def _memory(server) -> float:
    return psutil.Process(server.pid).memory_info().rss / 2**20


def _structured(runner: asyncio.Runner, client: _Client, examples: int) -> None:
    @seed(_SEED)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A failure names its call; to make it smaller would take minutes.
        phases=[Phase.generate],
        derandomize=False,
    )
    @given(st.lists(_calls, min_size=_BATCH, max_size=_BATCH))
    def run(calls: Sequence[_Call]) -> None:
        runner.run(client.send(calls))

    run()


async def _settled(server, client: _Client) -> list[str]:
    """Release what was opened in earnest, and wait for what goes by itself; what is left."""
    operations = server.operations()
    async with asyncio.timeout(60):
        while sessions := operations.ListSessions(more.ListSessionsRequest(), timeout=20).sessions:
            releases = [_called("/scistream.Control/release", wire.Release(uid=one.uid)) for one in sessions]
            await client.send(releases)
            await asyncio.sleep(0.1)  # for those whose release was not waited for
    return server.files("")


@pytest.mark.timeout(110)
def test_ten_thousand_hostile_requests_break_nothing_and_leave_nothing(control_server_factory, is_free):
    server = control_server_factory(
        engine="nginx", port_range="22100-22299", options=["--hello-timeout=2", "--quarantine=0"]
    )
    before, mutations = server.files(""), _Mutations()
    with asyncio.Runner() as runner:
        client = runner.run(_Client(server).__aenter__())
        for number in range(0, _MUTATED, _CROWD):
            runner.run(client.send([mutations.call() for _ in range(_CROWD)]))
            if number < _WARM:
                warm = _memory(server)
        _structured(runner, client, _STRUCTURED)
        grown = _memory(server) - warm
        left = runner.run(_settled(server, client))
        runner.run(client.__aexit__())
    assert client.sent >= 10_000
    assert len(client.statuses) > 4, client.statuses
    assert server.serves()
    assert left == before
    assert server.data_servers() == []
    assert all(is_free(f"127.0.20.1:{port}") for port in range(22100, 22300))
    assert grown < _GROWTH, f"{grown:.1f} MiB more than when it was warm"
    assert "unforeseen error" not in server.words()
    assert "Traceback" not in server.words()


def test_u11_without_a_token_that_is_good_every_call_is_turned_away_whatever_it_says(
    control_server_factory, echo_target, tmp_path
):
    with IdentityProvider("127.0.20.91") as provider, asyncio.Runner() as runner:
        provider.clients["gateway"] = "secret"
        config = tmp_path / "s2cs.toml"
        config.write_text(f'client_id = "gateway"\nclient_secret = "secret"\nprovider = "{provider.issuer}"\n')
        config.chmod(0o600)
        server = control_server_factory(engine="nginx", start=False)
        server.command[server.command.index("--insecure-no-auth")] = f"--config={config}"
        server.start()
        good = (("authorization", provider.issue("alice", scope="https://auth.globus.org/scopes/gateway/scistream")),)
        control, mutations = server.control(), _Mutations()
        answer = control.req.future(wire.Request(uid="fuzz-1", role="PROD", num_conn=1), metadata=good, timeout=20)
        control.hello(wire.Hello(uid="fuzz-1", role="PROD", prod_listeners=[_TARGET]), metadata=good, timeout=20)
        answer.result()
        client = runner.run(_Client(server).__aenter__())
        _structured(runner, client, _UNKNOWN)
        for _ in range(_UNKNOWN):
            runner.run(client.send([mutations.call() for _ in range(_BATCH)]))
        runner.run(client.__aexit__())
        assert set(client.statuses) <= {"UNAUTHENTICATED", "DEADLINE_EXCEEDED"}, client.statuses
        assert client.statuses["UNAUTHENTICATED"] > client.sent / 2
        listed = server.operations().ListSessions(more.ListSessionsRequest(), metadata=good, timeout=20).sessions
        assert [(session.uid, session.state) for session in listed] == [("fuzz-1", "registered")]
        assert "unforeseen error" not in server.words()
