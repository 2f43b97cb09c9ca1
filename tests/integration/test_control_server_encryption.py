"""What real control servers make of encryption, transports, rates and half-close, with our client and deployed ones."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from kernel_queues import read_queues
from lives import Calls, Stream, counting_target, error_of, wait_until
from scistream.addresses import Endpoint
from scistream.client import Connection, ControlServer, SessionRequest, connect, ensure_session, tickets
from scistream.client.sessions import Session
from scistream.engines import ENGINES
from scistream.errors import Code, SciStreamError
from scistream.protocol import ENCRYPTION_METADATA, HALF_CLOSE_METADATA, PEER_ENGINE_METADATA, TRANSPORT_METADATA
from scistream.terms import Direction, Encryption, Transport, Uid

READABLE = "nothing protects the bytes between the gateways: encryption none was asked for"
LEGACY = (
    "nothing is encrypted between the gateways, and the key that they know each other by is no secret: legacy-psk was "
    "asked for"
)
# Inbound, then outbound.
PAIRS = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("stunnel", "stunnel"),
    ("haproxy", "nginx"),
    ("nginx", "haproxy"),
    ("haproxy", "stunnel"),
]
SUITES = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
UID = "a-stream-with-a-long-name"

every_pair = pytest.mark.parametrize(("inner", "outer"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])


@dataclasses.dataclass
class Facility:
    """A control server, and what our client says to it."""

    server: Any
    connection: Connection

    def described(self, uid: str = UID) -> Session:
        (session,) = self.connection.describe(Uid(uid))
        return session

    def refused_peers(self) -> int:
        return self.described().traffic.refused_peers

    def serial(self) -> int:
        """Of the certificate that the session's data server proves itself with."""
        (path,) = self.server.state_directory.glob(f"{UID}*.pem")
        return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


Facilities = Callable[..., tuple[Facility, Facility]]


@pytest.fixture
def facilities(control_server_factory) -> Iterator[Facilities]:
    """Two control servers, that of the inbound end first."""
    connections = []

    def start(inner: str, outer: str | None = None, **options: Any) -> tuple[Facility, Facility]:
        made = []
        for number, engine in enumerate((inner, outer or inner)):
            server = control_server_factory(address=f"127.0.20.{51 + number}", engine=engine, **options)
            connections.append(connect(ControlServer(Endpoint.parse(server.endpoint), server.certificate)))
            made.append(Facility(server, connections[-1]))
        return made[0], made[1]

    yield start
    for connection in connections:
        connection.close()


@pytest.fixture
def target():
    with counting_target() as running:
        yield running


def wish(target: str, **wishes: Any) -> SessionRequest:
    """Encrypted, unless it says otherwise: that is the default."""
    return SessionRequest(Uid(UID), Direction.INBOUND, (Endpoint.parse(target),), 1, **wishes)


def open_both(inner: Facility, outer: Facility, request: SessionRequest, place: Path, **outbound: Any) -> str:
    """Open a stream; the application's entry point."""
    ticket = place / "ticket.json"
    ensure_session(inner.connection, request, ticket=ticket)
    opened = ensure_session(outer.connection, SessionRequest.of_ticket(tickets.read(ticket), **outbound)).session
    assert opened is not None
    return opened.entry_points[0]


def address_of(entry_point: str) -> tuple[str, int]:
    host, _, port = entry_point.rpartition(":")
    return host, int(port)


def is_turned_away(entry_point: str) -> bool:
    """A stranger who knows an entry point and no key: whether nothing comes back."""
    with socket.create_connection(address_of(entry_point), timeout=20) as stranger:
        try:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            # Alerts of TLS (21) are no bytes of the target's.
            return all(part[0] == 21 for part in iter(lambda: stranger.recv(65536), b""))
        except ConnectionError:
            return True


def end_whole(stream: Stream, target: Any) -> None:
    sent = stream.end()
    wait_until(lambda: sent in target.received)


@every_pair
def test_u01_u02_streams_are_encrypted_by_default_told_as_negotiated_and_certificates_renewed_under_them(
    inner, outer, facilities, target, tmp_path
):
    inbound, outbound = both = facilities(inner, outer)
    entry_point = open_both(inbound, outbound, wish(target.endpoint), tmp_path)
    encryption = "tls-psk" if (inner, outer) == ("stunnel", "stunnel") else "tls"
    for each in both:
        session = each.described()
        assert session.encryption == encryption
        assert not any("nothing" in words for words in session.warnings)
        # Nobody has connected yet: nothing was negotiated.
        assert (session.cipher, session.peer) == ("", "")
    stream = Stream(entry_point)
    stream.goes_on()
    tell = [each for each, engine in zip(both, (inner, outer), strict=True) if engine != "nginx"]
    before = []
    for each in tell:
        wait_until(lambda each=each: each.described().cipher)
        session = each.described()
        assert session.cipher in SUITES
        assert UID in session.peer
        before.append(session.peer)

    # Strangers are turned away, counted and logged, and the stream does not mind.
    assert is_turned_away(inbound.described().entry_points[0])
    wait_until(lambda: inbound.refused_peers() >= 1)
    wait_until(lambda: "peers refused" in inbound.server.words())

    if encryption == "tls":
        expiry, serials = [each.described().certificate_expires for each in both], [each.serial() for each in both]
        # Certificates tell whole seconds.
        wait_until(lambda: time.time() % 1 < 0.5 and time.time() > session.opened + 2)
        for each in both:
            each.connection.renew_certificates(Uid(UID))
            stream.goes_on()
            assert "session certificates renewed" in each.server.words()
        assert all(a < each.described().certificate_expires for a, each in zip(expiry, both, strict=True))
        assert not {each.serial() for each in both} & set(serials)
        new = Stream(entry_point)
        new.goes_on()
        for each, peer in zip(tell, before, strict=True):
            # HAProxy tells the certificate's fingerprint; Stunnel, whose it is.
            if each.described().engine == "haproxy":
                wait_until(lambda each=each, peer=peer: each.described().peer != peer)
        end_whole(new, target)
    else:
        with pytest.raises(SciStreamError) as caught:
            inbound.connection.renew_certificates(Uid(UID))
        assert caught.value.code is Code.NO_CERTIFICATES
        assert "no certificates that could be renewed: its encryption is tls-psk" in str(caught.value)
    stream.goes_on()
    end_whole(stream, target)
    if inner == "nginx":
        # It tells when a connection has ended.
        wait_until(lambda: inbound.described().cipher in SUITES)
        assert UID in inbound.described().peer
    # The stranger never came to the target.
    assert all(received > 100 for received, _ in target.received)


@pytest.mark.parametrize("engine", ["haproxy", "nginx", "stunnel"])
def test_u40_a_control_server_that_is_started_again_has_the_key_for_data_servers_that_die_later(
    engine, facilities, target, tmp_path
):
    both = facilities(engine)
    entry_point = open_both(*both, wish(target.endpoint), tmp_path)
    stream = Stream(entry_point)
    stream.goes_on()
    for each in both:
        each.server.restart()
        stream.goes_on()
    for each in both:
        for process in each.server.data_servers():
            process.kill()
    stream.end()
    for each in both:
        wait_until(lambda each=each: (each.described().restarts, each.described().state) == (1, "active"))
    assert is_turned_away(both[0].described().entry_points[0])
    again = Stream(entry_point)
    again.goes_on()
    end_whole(again, target)
    assert {each.described().encryption for each in both} == {"tls-psk" if engine == "stunnel" else "tls"}


def test_an_outbound_end_that_cannot_do_what_the_inbound_one_does_is_refused_in_words(facilities, target, tmp_path):
    inbound, outbound = facilities("stunnel", "haproxy")
    with pytest.raises(SciStreamError) as caught:
        open_both(inbound, outbound, wish(target.endpoint), tmp_path)
    assert caught.value.code is Code.ENCRYPTION_MISMATCH
    words = str(caught.value)
    assert f"session {UID} cannot carry a byte: the inbound end's encryption is tls-psk" in words
    assert "an inbound Stunnel has tls-psk, which Stunnel alone has" in words
    assert outbound.connection.list_sessions() == ()
    # Also where a client does not look before.
    calls = Calls(outbound.server)
    refused = calls.request("another", "CONS", metadata=((ENCRYPTION_METADATA, "tls-psk"),)).exception(60)
    assert error_of(refused).code is Code.ENGINE_CANNOT
    assert "HAProxy cannot do what was asked: the inbound gateway's encryption is tls-psk" in refused.details()


def test_u72_a_stunnel_at_the_outbound_end_of_an_nginx_is_refused_by_name(facilities, target, tmp_path):
    inbound, outbound = facilities("nginx", "stunnel")
    words = "Stunnel cannot do what was asked: the last bytes of what Nginx sends may be lost"
    with pytest.raises(SciStreamError) as caught:
        open_both(inbound, outbound, wish(target.endpoint), tmp_path)
    assert caught.value.code is Code.ENGINE_CANNOT
    assert words.partition(" ")[2] in str(caught.value)
    # Also where a client does not look before, and where it does not know.
    calls, tls = Calls(outbound.server), (ENCRYPTION_METADATA, "tls")
    told = error_of(calls.request("another", "CONS", metadata=(tls, (PEER_ENGINE_METADATA, "nginx"))).exception(60))
    assert told.code is Code.ENGINE_CANNOT
    assert words in told.seen
    untold = error_of(calls.request("another", "CONS", metadata=(tls,)).exception(60))
    assert untold.code is Code.ENGINE_CANNOT
    assert "which engine the inbound gateway has was not told; the last bytes of what Nginx sends" in untold.seen
    assert outbound.connection.list_sessions() == ()


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
def test_encryption_none_has_to_be_asked_for_and_shows_in_every_status(engine, facilities, target, tmp_path):
    both = facilities(engine)
    entry_point = open_both(*both, wish(target.endpoint, encryption=Encryption.NONE), tmp_path)
    stream = Stream(entry_point)
    stream.goes_on()
    end_whole(stream, target)
    for each in both:
        (listed,) = each.connection.list_sessions()
        (event, *_) = iter_watch(each.connection)
        for session in (each.described(), listed, event.session):
            assert (session.encryption, session.warnings[:1]) == ("none", (READABLE,))
            assert (session.cipher, session.certificate_expires) == ("", 0)


def iter_watch(connection: Connection) -> list[Any]:
    watched = connection.watch()
    return [next(iter(watched))]


def test_a_deployed_client_is_refused_in_words_that_name_the_key_unless_the_operator_says_otherwise(
    control_server_factory, echo_target, round_trip
):
    refusing = Calls(control_server_factory(options=["--old-clients=refuse"]))
    refused = refusing.request(UID).exception(60)
    assert error_of(refused).code is Code.OLD_CLIENT_REFUSED
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION or refused.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"session {UID} is asked for by a client that cannot say whether its bytes are to be encrypted" in (
        refused.details()
    )
    assert "(old_clients = refuse)" in refused.details()
    assert refusing.facts().old_clients == "refuse"
    assert refusing.states() == {}

    server = control_server_factory(address="127.0.20.52", options=["--old-clients=plain"])
    plain = Calls(server)
    (entry_point,) = plain.open(UID, echo_target.endpoint)
    assert round_trip(entry_point, b"readable") == b"readable"
    session = plain.session(UID)
    assert (session.encryption, session.warnings[:1]) == ("none", [READABLE])
    assert plain.facts().old_clients == "plain"
    assert "old_clients = plain: sessions of deployed clients are not encrypted between the gateways" in server.words()

    # Who can say it gets what they say.
    encrypted = plain.request("another", metadata=((ENCRYPTION_METADATA, "tls"),))
    plain.hello("another", echo_target.endpoint)
    encrypted.result(60)
    assert plain.session("another").encryption == "tls"


def test_old_clients_legacy_psk_is_the_deployed_form_with_a_warning_in_every_status(
    control_server_factory, target, tmp_path
):
    options = {"engine": "stunnel", "options": ["--old-clients=legacy-psk"]}
    servers = [control_server_factory(address=f"127.0.20.{number}", **options) for number in (51, 52)]
    inbound, outbound = (Calls(server, wishes=()) for server in servers)
    towards = inbound.open(UID, target.endpoint)
    (entry_point,) = outbound.open(UID, *towards, role="CONS")
    stream = Stream(entry_point)
    stream.goes_on()
    end_whole(stream, target)
    for calls, server in zip((inbound, outbound), servers, strict=True):
        session = calls.session(UID)
        assert session.encryption == "legacy-psk"
        assert LEGACY in session.warnings
        status = subprocess.run(
            [
                Path(sys.executable).with_name("s2uc"),
                "status",
                UID,
                f"--s2cs={server.endpoint}",
                f"--server-cert={server.certificate}",
            ],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert "no secret" in " ".join((status.stdout + status.stderr).split())
        assert "authenticated by their uid, which is no secret" in server.words()
    # Peers without the key are turned away here as well.
    assert is_turned_away(towards[0])

    other = Calls(control_server_factory(address="127.0.20.53", options=["--old-clients=legacy-psk"]))
    refused = other.request(UID).exception(60)
    assert error_of(refused).code is Code.OLD_CLIENT_REFUSED
    assert "(old_clients = legacy-psk, which HAProxy does not do)" in refused.details()


def test_u63_udp_goes_through_nginx_and_never_halfway(facilities, tmp_path):
    inbound, outbound = facilities("nginx")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.20.100", 0))
        receiver.settimeout(20)
        target = "{}:{}".format(*receiver.getsockname())
        plain = {"encryption": Encryption.NONE, "transport": Transport.UDP}
        entry_point = open_both(inbound, outbound, wish(target, **plain), tmp_path)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(address_of(entry_point))
            sender.settimeout(20)
            for size in (1, 1400, 9000):
                sender.send(os.urandom(size))
                data, back = receiver.recvfrom(65536)
                assert len(data) == size
                receiver.sendto(data[::-1], back)
                assert sender.recv(65536) == data[::-1]
    assert {each.described().transport for each in (inbound, outbound)} == {"udp"}
    assert inbound.described().warnings[0] == READABLE

    calls = Calls(inbound.server)
    refused = calls.request("other", metadata=((ENCRYPTION_METADATA, "tls"), (TRANSPORT_METADATA, "udp"))).exception(60)
    assert error_of(refused).code is Code.ENGINE_CANNOT
    assert "UDP goes unencrypted between the gateways, and encryption none was not asked for" in refused.details()
    with pytest.raises(SciStreamError) as caught:
        wish(target, transport=Transport.UDP)
    assert caught.value.code is Code.UDP_UNENCRYPTED


@pytest.mark.parametrize("engine", ["haproxy", "stunnel"])
def test_u63_udp_is_refused_where_the_engine_has_none(engine, facilities):
    calls = Calls(facilities(engine)[0].server)
    asked = ((ENCRYPTION_METADATA, "none"), (TRANSPORT_METADATA, "udp"))
    refused = calls.request("one", metadata=asked).exception(60)
    assert error_of(refused).code is Code.ENGINE_CANNOT
    assert "it carries TCP only" in refused.details() or "it carries nothing unencrypted" in refused.details()
    assert calls.states() == {}


def test_u72_half_closed_connections_are_carried_whole_or_refused_by_name(
    facilities, echo_target, round_trip, tmp_path
):
    inbound, outbound = facilities("haproxy", "stunnel")
    request = wish(echo_target.endpoint, half_close=True)
    with pytest.raises(SciStreamError) as caught:
        open_both(inbound, outbound, request, tmp_path, half_close=True)
    assert caught.value.code is Code.ENGINE_CANNOT
    words = "half-closed connections may lose their last bytes: those of the direction that ends second"
    assert caught.value.facts["reason"] == words
    assert outbound.connection.list_sessions() == ()
    refused = Calls(outbound.server).request(
        "other", metadata=((ENCRYPTION_METADATA, "tls"), (HALF_CLOSE_METADATA, "1"))
    )
    assert f"Stunnel cannot do what was asked: {words}" in refused.exception(60).details()
    # Who does not half-close is told all the same.
    inbound.connection.release(request.uid)
    entry_point = open_both(inbound, outbound, wish(echo_target.endpoint), tmp_path)
    assert words in outbound.described().warnings
    assert round_trip(entry_point, b"whole") == b"whole"


def rates_are_missing() -> str:
    if os.geteuid() != 0:
        return "rates need root"
    return ENGINES["haproxy"].rate_shortfall()


def test_u57_a_rate_is_kept_as_root(facilities, tmp_path):
    if words := rates_are_missing():
        (pytest.fail if os.environ.get("SCISTREAM_TEST_PACKAGES") else pytest.skip)(words)
    rate, size = 20_000, 4 << 20
    with counting_target() as target:
        inbound, outbound = facilities("haproxy")
        entry_point = open_both(inbound, outbound, wish(target.endpoint), tmp_path, rate=rate)
        assert outbound.described().rate == rate
        with socket.create_connection(address_of(entry_point), timeout=20) as connection:
            connection.sendall(bytes(size))
        wait_until(lambda: target.received)
    tc = shutil.which("tc")
    told = subprocess.run([tc, "-s", "class", "show", "dev", "lo"], capture_output=True, text=True, check=True).stdout
    assert any(queue.holds(rate, size) for queue in read_queues(told).values()), told
    outbound.connection.release(Uid(UID))
    assert "htb" not in subprocess.run([tc, "qdisc", "show"], capture_output=True, text=True, check=True).stdout
