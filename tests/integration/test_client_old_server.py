"""Our client against a control server that has the old protocol only: the whole flow, with real bytes over TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from old_protocol import OldControlServer
from scistream import certificates
from scistream.addresses import Endpoint
from scistream.client import (
    Action,
    Connection,
    ControlServer,
    SessionRequest,
    await_session,
    connect,
    ensure_absent,
    ensure_session,
    open_session,
    plan_absent,
    plan_session,
    register,
    release_session,
    tickets,
)
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid, parse_uid

_HOST = "127.0.30.2"
_TARGET = Endpoint(_HOST, 23190)
_UID = parse_uid("old-stream")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    certificates.issue(certificate, key, names=[_HOST], days=2, ca=None, now=datetime.now(UTC))
    return certificate, key


def _server(pair: tuple[Path, Path], port: int, **options: object) -> OldControlServer:
    return OldControlServer(_HOST, port, range(port + 1, port + 20), *pair, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def _connected(server: OldControlServer, pair: tuple[Path, Path], timeout: float = 20) -> Iterator[Connection]:
    with connect(ControlServer(server.address, pair[0], timeout=timeout)) as connection:
        yield connection


@pytest.fixture
def old(pair: tuple[Path, Path]) -> Iterator[tuple[OldControlServer, Connection]]:
    with _server(pair, 23100) as server, _connected(server, pair) as connection:
        yield server, connection


@contextlib.contextmanager
def _digesting_target() -> Iterator[list[str]]:
    """The application behind the inbound gateway: takes bytes until their end, and answers with their digest."""
    digests: list[str] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near:
                    digest = hashlib.sha256()
                    while block := near.recv(65536):
                        digest.update(block)
                    digests.append(digest.hexdigest())
                    near.sendall(digest.digest())

    with socket.create_server((_TARGET.host, _TARGET.port)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield digests
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _steps(server: OldControlServer) -> list[str]:
    """What was called, less the hellos: how many of them come too early is the scheduler's affair."""
    return [call for call in server.calls if call != "hello"]


def _send(entry_point: str, data: bytes) -> bytes:
    end = Endpoint.parse(entry_point)
    with socket.create_connection((end.host, end.port), timeout=20) as near:
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        return near.recv(32, socket.MSG_WAITALL)


def _inbound(uid: Uid = _UID, targets: tuple[Endpoint, ...] = (_TARGET,), connections: int = 1) -> SessionRequest:
    return SessionRequest(uid, Direction.INBOUND, targets, connections, encryption=Encryption.NONE)


def _outbound(connections: int) -> SessionRequest:
    return SessionRequest(_UID, Direction.OUTBOUND, (_TARGET,), connections, encryption=Encryption.NONE)


def test_a_stream_over_two_old_servers_carries_every_byte(pair: tuple[Path, Path], tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    with _server(pair, 23100) as a, _server(pair, 23130) as b, _digesting_target() as digests:
        with _connected(a, pair) as at_a, _connected(b, pair) as at_b:
            inbound = ensure_session(at_a, _inbound(), ticket=tmp_path / "ticket.json", name="stream")
            request = SessionRequest.of_ticket(tickets.read(tmp_path / "ticket.json"))
            outbound = ensure_session(at_b, request)
            assert inbound.changed
            assert outbound.session
            assert outbound.session.targets == inbound.session.entry_points  # type: ignore[union-attr]
            answer = _send(outbound.session.entry_points[0], data)
            for connection in (at_b, at_a):
                assert release_session(connection, _UID)
                assert not release_session(connection, _UID)
        assert (a.uids, b.uids) == (set(), set())
    assert answer == hashlib.sha256(data).digest()
    assert digests == [hashlib.sha256(data).hexdigest()]


def test_u02_encryption_cannot_be_had_there_and_is_refused_before_anything_is_asked(
    old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    server, connection = old
    encrypted = dataclasses.replace(_inbound(), encryption=Encryption.TLS)
    for act in (plan_session, ensure_session):
        with pytest.raises(SciStreamError) as caught:
            act(connection, encrypted, ticket=tmp_path / "ticket.json")
        assert caught.value.code is Code.ENCRYPTION_UNAVAILABLE
        assert "say --encryption none" in caught.value.remedy
    assert server.calls == []


@pytest.mark.parametrize("encryption", [Encryption.NONE, Encryption.LEGACY_PSK])
def test_the_ticket_of_an_old_server_says_what_the_other_end_has_to_have(
    encryption: Encryption, old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    _, connection = old
    ensure_session(connection, dataclasses.replace(_inbound(), encryption=encryption), ticket=tmp_path / "t.json")
    request = SessionRequest.of_ticket(tickets.read(tmp_path / "t.json"), encryption=encryption)
    assert (request.encryption, request.other_is_ours, request.key) == (encryption, False, None)


def test_u01_u02_a_session_of_another_encryption_than_its_ticket_tells_is_opened_anew(
    old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    server, connection = old
    ticket = tmp_path / "t.json"
    legacy = dataclasses.replace(_inbound(), encryption=Encryption.LEGACY_PSK)
    for request, action in ((_inbound(), Action.OPENED), (legacy, Action.REOPENED), (legacy, Action.NOTHING)):
        told = ensure_session(connection, request, ticket=ticket)
        assert told.session
        assert (told.action, told.session.encryption) == (action, request.encryption.value)
        assert len(told.session.warnings) == 1
    assert (server.uids, tickets.read(ticket).encryption) == ({_UID}, Encryption.LEGACY_PSK)


def test_u30_u31_the_hello_that_an_old_server_does_not_expect_yet_is_repeated(pair: tuple[Path, Path]) -> None:
    with _server(pair, 23100, late_req=True) as server, _connected(server, pair) as connection:
        session = open_session(connection, _inbound())
        assert session.entry_points == (f"{_HOST}:23101",)
        assert server.calls[0] == "hello"
        assert server.calls[-2:] == ["hello", "update"]
        assert _steps(server) == ["req", "update"]


def test_a_second_ensure_changes_nothing_and_tells_the_same(
    old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    server, connection = old
    ticket = tmp_path / "ticket.json"
    first = ensure_session(connection, _inbound(connections=2), ticket=ticket, name="stream")
    second = ensure_session(connection, _inbound(connections=2), ticket=ticket, name="stream")
    assert (first.changed, second.changed) == (True, False)
    assert first.session == second.session
    assert second.before == second.after == first.after
    assert second.warnings == ()
    assert tickets.read(ticket).key is None
    assert server.calls.count("update") == 1


def test_an_ensure_with_other_parameters_opens_anew(old: tuple[OldControlServer, Connection], tmp_path: Path) -> None:
    server, connection = old
    ticket, other = tmp_path / "ticket.json", Endpoint(_HOST, 23191)
    ensure_session(connection, _inbound(), ticket=ticket)
    again = ensure_session(connection, _inbound(targets=(other,)), ticket=ticket)
    assert again.changed
    assert again.differences == (f"targets {_TARGET}, not {other}",)
    assert tickets.read(ticket).targets == (other,)
    assert _steps(server) == ["req", "update", "req", "release", "req", "update"]
    assert not ensure_session(connection, _inbound(targets=(other,)), ticket=ticket).changed


def test_an_inbound_session_without_its_ticket_is_left_alone_with_a_warning(
    old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    server, connection = old
    ensure_session(connection, _inbound())
    again = ensure_session(connection, _inbound(), ticket=tmp_path / "none.json")
    assert (again.changed, again.session and again.session.entry_points) == (False, ())
    assert "what it was opened with could not be compared, nor its entry points read" in again.warnings[0]
    assert not (tmp_path / "none.json").exists()
    assert "release" not in server.calls


def test_an_outbound_session_tells_its_entry_points_again(old: tuple[OldControlServer, Connection]) -> None:
    _, connection = old
    request = _outbound(2)
    first = ensure_session(connection, request)
    second = ensure_session(connection, request)
    assert (first.changed, second.changed) == (True, False)
    assert second.session
    assert second.session == first.session
    assert len(second.session.entry_points) == 2
    assert "could not be compared" in second.warnings[0]
    assert ensure_session(connection, _outbound(1)).changed


def test_absent_twice(old: tuple[OldControlServer, Connection], tmp_path: Path) -> None:
    server, connection = old
    ticket = tmp_path / "ticket.json"
    ensure_session(connection, _inbound(), ticket=ticket)
    assert ensure_absent(connection, _UID, Direction.INBOUND, ticket=ticket).changed
    assert not ticket.exists()
    assert server.uids == set()
    assert not ensure_absent(connection, _UID, Direction.INBOUND, ticket=ticket).changed


def test_a_plan_does_not_act_and_says_what_it_cannot_see(
    old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    server, connection = old
    ticket = tmp_path / "ticket.json"
    planned = plan_session(connection, _inbound(), ticket=ticket)
    assert planned.changed
    assert "whether session old-stream is there cannot be told" in planned.warnings[0]
    assert plan_absent(connection, _UID).changed
    assert server.calls == []
    ensure_session(connection, _inbound(), ticket=ticket)
    assert not plan_session(connection, _inbound(), ticket=ticket).changed
    assert plan_session(connection, _inbound(connections=3), ticket=ticket).changed
    assert _steps(server) == ["req", "update"]


@pytest.mark.parametrize("ask", [Connection.list_sessions, Connection.server_facts, Connection.check_health])
def test_what_an_old_server_cannot_tell_is_said(old: tuple[OldControlServer, Connection], ask: object) -> None:
    with pytest.raises(SciStreamError) as caught:
        ask(old[1])  # type: ignore[operator]
    assert caught.value.code is Code.OLD_CONTROL_SERVER
    assert "speaks the old protocol only" in str(caught.value)


def test_u50_a_missing_proxy_leaves_nothing_behind(pair: tuple[Path, Path]) -> None:
    words = "[Errno 2] No such file or directory: 'haproxy'"
    with (
        _server(pair, 23100, broken_update=words) as server,
        _connected(server, pair) as connection,
        pytest.raises(SciStreamError) as caught,
    ):
        open_session(connection, _inbound())
    assert caught.value.code is Code.ENGINE_MISSING
    assert "apt-get install haproxy" in str(caught.value)
    assert server.calls[-1] == "release"


def test_a_duplicate_uid_is_refused_and_the_first_session_lives(old: tuple[OldControlServer, Connection]) -> None:
    server, connection = old
    open_session(connection, _inbound())
    with pytest.raises(SciStreamError) as caught:
        open_session(connection, _inbound())
    assert caught.value.code is Code.UID_EXISTS
    assert server.uids == {_UID}
    assert "release" not in server.calls


def test_u51_u31_an_awaited_session_that_nobody_registers_leaves_nothing(
    old: tuple[OldControlServer, Connection],
) -> None:
    server, connection = old
    with pytest.raises(SciStreamError) as caught:
        await_session(connection, _inbound(targets=()), wait=0.3)
    assert caught.value.code is Code.HELLO_TIMEOUT
    assert server.calls == ["req", "release"]
    assert server.uids == set()


def test_an_application_controller_registers_the_targets_before_or_after_the_req(
    old: tuple[OldControlServer, Connection],
) -> None:
    _, connection = old
    appctrl = threading.Thread(target=register, args=(connection, _UID, Direction.INBOUND, (_TARGET,)))
    appctrl.start()
    session = await_session(connection, _inbound(targets=()), wait=20)
    appctrl.join()
    assert session.targets == (str(_TARGET),)


def test_the_old_server_is_left_with_nothing_when_the_ticket_cannot_be_written(
    old: tuple[OldControlServer, Connection], tmp_path: Path
) -> None:
    server, connection = old
    with pytest.raises(SciStreamError) as caught:
        ensure_session(connection, _inbound(), ticket=tmp_path / "none" / "ticket.json")
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert server.uids == set()
