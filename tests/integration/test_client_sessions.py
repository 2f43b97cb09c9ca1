"""The client against real control servers of ours with real proxies: open, compare, open anew, release."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import Endpoint, parse_networks
from scistream.client import (
    Action,
    Connection,
    ControlServer,
    SessionRequest,
    connect,
    ensure_absent,
    ensure_session,
    new_key,
    open_session,
    plan_absent,
    plan_session,
    release_session,
    tickets,
)
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Transport, Uid, parse_uid

_UID = parse_uid("a-stream")
_PLAIN: dict[str, Any] = {"encryption": Encryption.NONE}
_TLS: dict[str, Any] = {"encryption": Encryption.TLS}


@pytest.fixture
def facility(control_server_factory) -> Iterator[Callable[..., tuple[object, Connection]]]:
    """Start a control server on 127.0.30.NUMBER, and connect to it."""
    connections = []

    def start(number: int = 3, engine: str = "haproxy", *, ssl: bool = True):
        port = 23200 + 30 * (number - 3)
        server = control_server_factory(
            address=f"127.0.30.{number}", port=port, port_range=f"{port + 1}-{port + 25}", engine=engine, ssl=ssl
        )
        certificate = server.certificate if ssl else None
        connection = connect(ControlServer(Endpoint.parse(server.endpoint), certificate, plain_text=not ssl))
        connections.append(connection)
        return server, connection

    yield start
    for connection in connections:
        connection.close()


def _inbound(target: str, uid: Uid = _UID, connections: int = 1, **wishes: Any) -> SessionRequest:
    """An inbound end that a test sends its bytes straight into, unless it wishes for encryption."""
    wished = _PLAIN | wishes
    return SessionRequest(uid, Direction.INBOUND, (Endpoint.parse(target),), connections, **wished)


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "stunnel"])
def test_a_stream_carries_bytes_and_leaves_nothing(
    *, engine, facility, echo_target, round_trip, is_free, tmp_path: Path
) -> None:
    (a, at_a), (b, at_b) = facility(3, engine), facility(4, engine)
    ticket = tmp_path / "ticket.json"
    inbound = ensure_session(at_a, _inbound(echo_target.endpoint, **_TLS), ticket=ticket, name="a stream")
    held = tickets.read(ticket)
    outbound = ensure_session(at_b, SessionRequest.of_ticket(held))
    assert inbound.session
    assert outbound.session
    assert (inbound.session.engine, inbound.session.state) == (engine, "active")
    encryption = "tls-psk" if engine == "stunnel" else "tls"
    assert (inbound.session.encryption, outbound.session.encryption) == (encryption, encryption)
    assert held.key
    data = os.urandom(1_000_003)
    (entry_point,) = outbound.session.entry_points
    assert round_trip(entry_point, data) == data
    assert ensure_absent(at_b, _UID).changed
    assert ensure_absent(at_a, _UID, ticket=ticket).changed
    assert is_free(entry_point)
    assert is_free(inbound.session.entry_points[0])
    assert (a.data_servers(), b.data_servers(), a.files(_UID), b.files(_UID)) == ([], [], [], [])
    assert not ticket.exists()


@pytest.mark.parametrize("engine", ["haproxy", "stunnel"])
def test_check_do_check_again_do_again(engine, facility, echo_target, tmp_path: Path) -> None:
    server, connection = facility(3, engine)
    ticket, request = tmp_path / "ticket.json", _inbound(echo_target.endpoint, connections=2, **_TLS)
    planned = plan_session(connection, request, ticket=ticket)
    assert planned.changed
    assert planned.after
    assert (planned.before, planned.after["engine"]) == (None, engine)
    assert not ticket.exists()
    done = ensure_session(connection, request, ticket=ticket)
    pids = [process.pid for process in server.data_servers()]
    assert done.changed
    differing = {key for key in done.after or {} if (done.after or {})[key] != planned.after[key]}
    # What an engine warns of, it tells with the session.
    assert differing - {"warnings", "certificate_expires"} == {"entry_points", "opened", "owner"}
    for act in (plan_session, ensure_session):
        again = act(connection, request, ticket=ticket)
        assert (again.changed, again.differences, again.warnings) == (False, (), ())
        assert again.before == again.after == done.after
    assert [process.pid for process in server.data_servers()] == pids
    gone = plan_absent(connection, _UID, ticket=ticket)
    assert (gone.changed, gone.after) == (True, None)
    assert ensure_absent(connection, _UID, ticket=ticket).changed
    for act in (plan_absent, ensure_absent):
        assert not act(connection, _UID, ticket=ticket).changed


def test_check_mode_foresees_that_the_ports_do_not_suffice(facility, echo_target) -> None:
    _, connection = facility()
    ensure_session(connection, _inbound(echo_target.endpoint, connections=3))
    # All 25 of the range, once the session of 3 has made way for itself.
    assert plan_session(connection, _inbound(echo_target.endpoint, connections=25)).changed
    others = _inbound(echo_target.endpoint, parse_uid("another"), connections=23)
    for act in (plan_session, ensure_session):
        with pytest.raises(SciStreamError, match="23 ports were asked for, 22 of 25") as caught:
            act(connection, others)
        assert caught.value.code is Code.PORTS_EXHAUSTED


def test_other_parameters_open_the_session_anew_or_retarget_it(facility, echo_target) -> None:
    _, connection = facility()
    ensure_session(connection, _inbound(echo_target.endpoint))
    wishes = {
        "connections 1, not 2": _inbound(echo_target.endpoint, connections=2),
        f"targets {echo_target.endpoint}, not 127.0.30.9:1": _inbound("127.0.30.9:1", connections=2),
    }
    for words, request in wishes.items():
        assert plan_session(connection, request).differences == (words,)
        changed = ensure_session(connection, request)
        assert (changed.changed, changed.differences) == (True, (words,))
        assert not ensure_session(connection, request).changed
    assert len(connection.list_sessions()) == 1


@pytest.fixture
def other_target() -> Iterator[socket.socket]:
    """A second target; a test accepts its connections itself."""
    with socket.create_server(("127.0.30.98", 0)) as listener:
        listener.settimeout(20)
        yield listener


def _connected(entry_point: str) -> socket.socket:
    host, _, port = entry_point.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "stunnel"])
def test_u29_a_session_gets_other_targets_and_its_connections_go_on(
    *, engine: str, facility, echo_target, other_target: socket.socket, tmp_path: Path
) -> None:
    (server, at_a), (_, at_b) = facility(3, engine), facility(4, engine)
    ticket = tmp_path / "ticket.json"
    ensure_session(at_a, _inbound(echo_target.endpoint, **_TLS), ticket=ticket)
    held = tickets.read(ticket)
    outbound = ensure_session(at_b, SessionRequest.of_ticket(held)).session
    assert outbound
    pids = [process.pid for process in server.data_servers()]
    moved = _inbound("{}:{}".format(*other_target.getsockname()), **_TLS)
    with _connected(outbound.entry_points[0]) as running:
        running.sendall(b"before")
        assert running.recv(6, socket.MSG_WAITALL) == b"before"
        planned = plan_session(at_a, moved, ticket=ticket)
        assert (planned.changed, planned.action) == (True, Action.RETARGETED)
        assert at_a.describe(_UID)[0].targets == (echo_target.endpoint,)
        done = ensure_session(at_a, moved, ticket=ticket)
        assert (done.changed, done.action, done.differences) == (True, Action.RETARGETED, planned.differences)
        assert (done.warnings, planned.after and planned.after["targets"]) == ((), list(map(str, moved.targets)))
        running.sendall(b"after")
        assert running.recv(5, socket.MSG_WAITALL) == b"after"
        with _connected(outbound.entry_points[0]) as new:
            new.sendall(b"anew")
            with other_target.accept()[0] as arrived:
                assert arrived.recv(4, socket.MSG_WAITALL) == b"anew"
    # The other end needs nothing: entry points and key are those of before.
    after = tickets.read(ticket)
    assert (after.targets, after.entry_points, after.key) == (moved.targets, held.entry_points, held.key)
    assert not ensure_session(at_a, moved, ticket=ticket).changed
    assert set(pids) & {process.pid for process in server.data_servers()}


def test_u29_another_key_is_no_matter_of_targets(facility, echo_target, tmp_path: Path) -> None:
    (_, at_a), (_, at_b) = facility(3, "stunnel"), facility(4, "stunnel")
    ticket, outcomes = tmp_path / "ticket.json", []
    for connections in (1, 2):
        # The second time, key and entry points are others.
        ticket.unlink(missing_ok=True)
        ensure_session(at_a, _inbound(echo_target.endpoint, connections=connections, **_TLS), ticket=ticket)
        held = tickets.read(ticket)
        request = SessionRequest.of_ticket(held, connections=1, targets=held.entry_points[-1:])
        outcomes.append(ensure_session(at_b, request))
    assert [one.action for one in outcomes] == [Action.OPENED, Action.REOPENED]
    assert outcomes[1].warnings[0].startswith("The targets of session a-stream could not be changed while it ran (")


def test_u29_a_target_that_nobody_knows_leaves_all_as_it_was(facility, echo_target, round_trip) -> None:
    _, connection = facility()
    first = ensure_session(connection, _inbound(echo_target.endpoint)).session
    assert first
    with pytest.raises(SciStreamError) as caught:
        ensure_session(connection, _inbound("no-such-host.invalid:1"))
    assert caught.value.code is Code.TARGET_UNRESOLVED
    assert connection.describe(_UID)[0].targets == first.targets
    assert round_trip(first.entry_points[0], b"as before") == b"as before"


def test_u53_other_ports_open_the_session_anew(facility, echo_target) -> None:
    _, connection = facility()
    for ports in ((23210, 23209), (23220, 23210)):
        request = _inbound(echo_target.endpoint, connections=2, ports=ports)
        opened = ensure_session(connection, request).session
        assert opened
        assert opened.entry_points == tuple(f"127.0.30.3:{port}" for port in ports)
        assert not ensure_session(connection, request).changed


def test_a_session_that_makes_way_for_itself_is_waited_for_while_its_ports_rest(facility, echo_target) -> None:
    _, connection = facility()
    ensure_session(connection, _inbound(echo_target.endpoint, connections=3))
    changed = ensure_session(connection, _inbound(echo_target.endpoint, connections=25))
    assert changed.session
    assert len(changed.session.entry_points) == 25


def test_a_session_that_failed_is_opened_anew(facility, echo_target, round_trip) -> None:
    server, connection = facility()
    request = _inbound(echo_target.endpoint)
    opened = ensure_session(connection, request).session
    server.end(signal.SIGKILL)
    for process in server.data_servers():
        process.kill()
        process.wait(20)
    # A stranger has its port: nothing can be started in its place.
    entry_point = Endpoint.parse(opened.entry_points[0])
    with socket.create_server((entry_point.host, entry_point.port)):
        server.start()
        again = ensure_session(connection, request)
    assert again.changed
    assert "state failed" in again.differences[0]
    assert again.session
    assert round_trip(again.session.entry_points[0], b"once more") == b"once more"


def test_a_lost_key_opens_the_session_anew_and_a_kept_one_stays(facility, echo_target, tmp_path: Path) -> None:
    _, connection = facility(3, "stunnel")
    ticket, request = tmp_path / "ticket.json", _inbound(echo_target.endpoint, **_TLS)
    wider = _inbound(echo_target.endpoint, connections=2, **_TLS)
    ensure_session(connection, request, ticket=ticket)
    first = tickets.read(ticket).key
    ensure_session(connection, wider, ticket=ticket)
    assert tickets.read(ticket).key == first
    ticket.unlink()
    again = ensure_session(connection, wider, ticket=ticket)
    assert again.changed
    assert "The key of session a-stream is lost" in again.warnings[0]
    assert tickets.read(ticket).key not in {None, first}
    assert not ensure_session(connection, wider, ticket=ticket).changed


def test_u05_keys_go_over_tls_only_and_a_refused_session_leaves_nothing(facility, echo_target) -> None:
    server, connection = facility(3, "stunnel", ssl=False)
    request = SessionRequest(_UID, Direction.INBOUND, (Endpoint.parse(echo_target.endpoint),), 1, key=new_key())
    with pytest.raises(SciStreamError) as caught:
        open_session(connection, request)
    assert caught.value.code is Code.SESSION_KEY_MISSING
    assert "over a control channel in plain text" in caught.value.seen
    assert (connection.list_sessions(), server.data_servers(), server.files(_UID)) == ((), [], [])


def test_u05_the_key_is_in_no_word_of_the_control_server(facility, echo_target) -> None:
    server, connection = facility(3, "stunnel")
    key = new_key()
    open_session(
        connection, SessionRequest(_UID, Direction.INBOUND, (Endpoint.parse(echo_target.endpoint),), 1, key=key)
    )
    assert key.hex() not in server.words()
    assert key.hex() not in str(connection.describe(_UID)[0])


def test_both_ends_on_one_gateway_are_two_sessions(facility, echo_target, round_trip) -> None:
    _, connection = facility()
    inbound = open_session(connection, _inbound(echo_target.endpoint))
    targets = (Endpoint.parse(inbound.entry_points[0]),)
    outbound = open_session(connection, SessionRequest(_UID, Direction.OUTBOUND, targets, 1, **_PLAIN))
    assert round_trip(outbound.entry_points[0], b"hairpin") == b"hairpin"
    planned = plan_absent(connection, _UID)
    assert set(planned.before or {}) == {"inbound", "outbound"}
    assert release_session(connection, _UID, Direction.OUTBOUND)
    assert [session.direction for session in connection.describe(_UID)] == [Direction.INBOUND]
    assert ensure_absent(connection, _UID).changed
    assert connection.list_sessions() == ()


def test_u22_u23_sessions_that_open_at_once_are_not_mixed_up(facility, echo_target) -> None:
    _, connection = facility()

    def run(number: int) -> tuple[Uid, tuple[str, ...], tuple[str, ...]]:
        session = open_session(connection, _inbound(f"127.0.30.99:{2000 + number}", Uid(f"at-once-{number}")))
        return session.uid, session.entry_points, session.targets

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(run, range(8)))
    assert [(uid, targets) for uid, _, targets in told] == [
        (f"at-once-{number}", (f"127.0.30.99:{2000 + number}",)) for number in range(8)
    ]
    assert len({entry_points for _, entry_points, _ in told}) == 8


def test_u58_an_ipv6_target_is_carried_as_it_is(facility) -> None:
    _, connection = facility()
    session = open_session(connection, _inbound("[::1]:23990"))
    assert session.targets == ("[::1]:23990",)
    assert not ensure_session(connection, _inbound("[0:0:0::1]:23990")).changed


def test_the_refusal_of_a_taken_uid_leaves_the_first_session_alone(facility, echo_target, round_trip) -> None:
    _, connection = facility()
    first = open_session(connection, _inbound(echo_target.endpoint))
    with pytest.raises(SciStreamError) as caught:
        open_session(connection, _inbound("127.0.30.99:1"))
    assert caught.value.code is Code.UID_EXISTS
    assert connection.describe(_UID) == (first,)
    assert round_trip(first.entry_points[0], b"still") == b"still"


@pytest.mark.parametrize(
    ("wish", "words", "back"),
    [
        ({"encryption": Encryption.TLS}, "encryption none, not tls", Action.REOPENED),
        ({"sources": parse_networks("127.0.0.0/8")}, "sources all, not 127.0.0.0/8", Action.REOPENED),
        # It keeps more than is asked for then, and nothing has to be cut.
        ({"half_close": True}, "half-close False, not True", Action.NOTHING),
    ],
)
def test_u03_how_the_bytes_are_carried_is_a_difference_that_reopens(
    *, wish: dict[str, Any], words: str, back: Action, facility, echo_target, tmp_path: Path
) -> None:
    _, connection = facility()
    ticket = tmp_path / "ticket.json"
    ensure_session(connection, _inbound(echo_target.endpoint), ticket=ticket)
    wished = _inbound(echo_target.endpoint, **wish)
    planned = plan_session(connection, wished, ticket=ticket)
    done = ensure_session(connection, wished, ticket=ticket)
    assert planned.differences == done.differences == (words,)
    assert planned.action is done.action is Action.REOPENED
    assert not ensure_session(connection, wished, ticket=ticket).changed
    assert ensure_session(connection, _inbound(echo_target.endpoint), ticket=ticket).action is back


def test_u57_u63_a_wish_that_cannot_be_had_costs_no_session(facility, echo_target, round_trip) -> None:
    _, connection = facility(3, "stunnel")
    request = _inbound(echo_target.endpoint, **_TLS)
    ensure_session(connection, request)
    (before,) = connection.list_sessions()
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"encryption": Encryption.NONE}, "it carries nothing unencrypted"),
        ({"encryption": Encryption.NONE, "transport": Transport.UDP}, "it carries"),
        ({"encryption": Encryption.TLS, "half_close": True}, "half-closed connections may lose their last bytes"),
    ]
    for wish, words in wishes:
        for act in (plan_session, ensure_session):
            with pytest.raises(SciStreamError) as caught:
                act(connection, _inbound(echo_target.endpoint, **wish))
            assert caught.value.code is Code.ENGINE_CANNOT
            assert words in caught.value.seen
    assert connection.list_sessions() == (before,)


@pytest.mark.parametrize("engine", ["haproxy", "stunnel"])
def test_u02_a_status_tells_what_was_negotiated(engine: str, facility, echo_target, round_trip, tmp_path: Path) -> None:
    (_, at_a), (_, at_b) = facility(3, engine), facility(4, engine)
    ensure_session(at_a, _inbound(echo_target.endpoint, **_TLS), ticket=tmp_path / "ticket.json")
    held = tickets.read(tmp_path / "ticket.json")
    outbound = ensure_session(at_b, SessionRequest.of_ticket(held)).session
    assert outbound
    assert (outbound.cipher, outbound.peer) == ("", "")
    assert round_trip(outbound.entry_points[0], b"x" * 1000) == b"x" * 1000
    deadline = time.monotonic() + 30
    while not (told := at_a.describe(_UID)[0]).cipher:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert told.cipher.startswith("TLS_")


def test_the_control_server_tells_what_it_is(facility) -> None:
    server, connection = facility()
    connection.check_health()
    facts = connection.server_facts()
    assert (facts.engine, facts.tls, facts.authentication, facts.old_clients) == ("haproxy", True, "NO_AUTH", "plain")
    assert facts.in_use
    assert facts.in_use.offered == ("tls", "none")
    udp = next(ability for ability in facts.in_use.abilities if ability.feature == "UDP")
    assert (udp.can, udp.words) == (False, "it carries TCP only")
    assert facts.certificate_names == ("127.0.30.3",)
    assert {engine.name for engine in facts.engines} >= {"haproxy", "nginx", "stunnel"}
    assert connection.list_sessions() == ()
    server.end(signal.SIGTERM)
    with pytest.raises(SciStreamError) as caught:
        connection.check_health()
    assert caught.value.code is Code.CONTROL_SERVER_UNREACHABLE


def test_a_control_server_that_ends_in_a_call_is_told(facility) -> None:
    server, connection = facility()
    pending = connection.request(_inbound("127.0.30.99:1"))
    while not connection.list_sessions():
        time.sleep(0.02)
    server.process.kill()
    server.process.wait()
    with pytest.raises(SciStreamError) as caught:
        pending.result()
    assert caught.value.code is Code.CONTROL_SERVER_UNREACHABLE
    assert "nothing listens there" in str(caught.value)
