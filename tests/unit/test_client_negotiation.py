"""The order of calls and its way back, against a control server that is a list of answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from scistream.addresses import Endpoint, parse_networks
from scistream.client.channel import Answer, Connection
from scistream.client.control_servers import ControlServer
from scistream.client.facts import read_facts
from scistream.client.negotiation import await_session, open_session, register, release_session
from scistream.client.requests import SessionRequest
from scistream.client.sessions import Session
from scistream.client.tickets import Ticket, of_session
from scistream.errors import Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.terms import Direction, Encryption, Transport, Uid

_UID = Uid("abc")
_TARGET = Endpoint("localhost", 5074)
_ANSWER = Answer(("192.0.2.7:5100",), ("localhost:5074",))
_OLD = SciStreamError(Code.OLD_CONTROL_SERVER, server="x", operation="describe a session")
_UNKNOWN = SciStreamError(Code.UID_UNKNOWN, uid=_UID)
_EXISTS = SciStreamError(Code.UID_EXISTS, uid=_UID, state="active")
_BROKEN = SciStreamError(Code.CONTROL_SERVER_BROKEN, server="x", words="out of order")


class _Clock:
    """Time that passes only by pausing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@dataclass
class _Pending:
    """A call: answered, failed, or (None) under way for good."""

    outcome: Any
    cancelled: bool = False

    def done(self) -> bool:
        return self.outcome is not None

    def cancel(self) -> None:
        self.cancelled = True

    def notify(self, callback: Callable[[], None]) -> None:
        if self.done():
            callback()

    def result(self) -> Any:
        assert self.done(), "nobody may wait here for ever"
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def failure(self, seconds: float) -> SciStreamError | None:
        return self.outcome if isinstance(self.outcome, SciStreamError) else None


@dataclass
class _Server:
    """Stands where a Connection stands; `hellos` are answered in turn, the last one for good."""

    req: Any = _ANSWER
    hellos: list[Any] = field(default_factory=lambda: [()])
    updates: Any = _ANSWER
    releases: Any = None
    calls: list[str] = field(default_factory=list)
    pending: _Pending | None = None
    key: bytes | None = None
    facts: Any = _OLD
    asked: SessionRequest | None = None
    described: Any = _OLD
    plain_text: bool = False

    def __post_init__(self) -> None:
        self.control_server = ControlServer(Endpoint("gateway.example", 5000), timeout=30.0, plain_text=self.plain_text)

    def request(self, asked: SessionRequest, **_: Any) -> _Pending:
        self.calls.append("req")
        self.asked = asked
        # It is answered by the hello that comes through; a refusal is there at once.
        refused = isinstance(self.req, SciStreamError)
        self.pending = _Pending(self.req if refused or not self.hellos else None)
        return self.pending

    def hello(self, *args: Any, **named: Any) -> _Pending:
        self.calls.append("hello")
        outcome = self.hellos.pop(0) if len(self.hellos) > 1 else self.hellos[0]
        if self.pending and not isinstance(outcome, BaseException) and self.pending.outcome is None:
            self.pending.outcome = self.req
        return _Pending(outcome)

    def update(self, *args: Any, key: bytes | None = None) -> Any:
        self.calls.append("update")
        self.key = key
        return self._give(self.updates)

    def release(self, *args: Any, **named: Any) -> Any:
        self.calls.append("release")
        return self._give(self.releases)

    def describe(self, *args: Any) -> Any:
        return self._give(self.described)

    def server_facts(self) -> Any:
        return self._give(self.facts)

    def _give(self, outcome: Any) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


_PLAIN: dict[str, Any] = {
    "uid": _UID,
    "direction": Direction.INBOUND,
    "targets": (_TARGET,),
    "connections": 1,
    "encryption": Encryption.NONE,
}


def _request(**changes: Any) -> SessionRequest:
    return SessionRequest(**(_PLAIN | changes))


def _open(server: _Server, clock: _Clock | None = None, **changes: Any) -> Any:
    time = clock or _Clock()
    return open_session(cast("Connection", server), _request(**changes), clock=time, pause=time.pause)


def _failure(server: _Server, clock: _Clock | None = None) -> SciStreamError:
    with pytest.raises(SciStreamError) as caught:
        _open(server, clock)
    return caught.value


def test_u30_the_hello_goes_out_right_after_the_req() -> None:
    server, clock = _Server(), _Clock()
    session = _open(server, clock)
    assert server.calls == ["req", "hello", "update"]
    assert clock.pauses == []
    assert session.entry_points == ("192.0.2.7:5100",)
    assert session.is_active


def test_u30_a_hello_that_came_too_early_is_repeated_with_growing_pauses() -> None:
    server, clock = _Server(hellos=[_UNKNOWN] * 5 + [()]), _Clock()
    _open(server, clock)
    assert server.calls == ["req", *["hello"] * 6, "update"]
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] < 0.2
    assert clock.pauses[-1] <= 1.0


def test_u30_a_hello_is_repeated_only_until_the_deadline() -> None:
    server, clock = _Server(hellos=[_UNKNOWN]), _Clock()
    assert _failure(server, clock).code is Code.UID_UNKNOWN
    assert 30.0 <= clock.now < 32.0
    assert server.calls[-1] == "release"


def test_u31_the_failure_of_the_req_is_the_one_that_is_told() -> None:
    server = _Server(req=_EXISTS, hellos=[_UNKNOWN])
    assert _failure(server) is _EXISTS
    assert "update" not in server.calls


def test_a_session_that_was_there_before_is_never_released() -> None:
    for hello in (_UNKNOWN, (), _BROKEN):
        server = _Server(req=_EXISTS, hellos=[hello])
        assert _failure(server) is _EXISTS
        assert "release" not in server.calls


def test_u31_a_req_that_was_taken_up_and_failed_leaves_nothing() -> None:
    late = SciStreamError(Code.HELLO_TIMEOUT, uid=_UID, seconds=180.0)
    server = _Server(req=late, hellos=[_BROKEN])
    assert _failure(server) is late
    assert server.calls[-1] == "release"


def test_a_hello_that_is_refused_takes_the_req_back() -> None:
    server = _Server(hellos=[_BROKEN])
    assert _failure(server) is _BROKEN
    assert server.calls == ["req", "hello", "release"]
    assert server.pending
    assert server.pending.cancelled


def test_u50_an_update_that_fails_is_rolled_back() -> None:
    missing = SciStreamError(Code.ENGINE_MISSING, engine="HAProxy", program="haproxy", packages="haproxy")
    server = _Server(updates=missing)
    assert _failure(server) is missing
    assert server.calls == ["req", "hello", "update", "release"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interruption_is_rolled_back_and_raised_as_it_was(interruption: BaseException) -> None:
    server = _Server(updates=interruption)
    with pytest.raises(type(interruption)) as caught:
        _open(server)
    assert caught.value is interruption
    assert server.calls[-1] == "release"


def test_a_roll_back_that_fails_is_a_note_on_the_first_error() -> None:
    server = _Server(updates=_BROKEN, releases=SciStreamError(Code.DEADLINE, what="x", seconds=15.0, last="y"))
    error = _failure(server)
    assert error is _BROKEN
    assert "abc may be left over there" in "".join(error.__notes__)
    del error.__notes__


def test_u32_a_session_needs_targets() -> None:
    server = _Server()
    with pytest.raises(SciStreamError) as caught:
        open_session(cast("Connection", server), SessionRequest(_UID, Direction.INBOUND, (), 1))
    assert caught.value.code is Code.NO_TARGETS
    assert server.calls == []


def test_an_awaited_session_takes_the_targets_that_were_registered() -> None:
    server = _Server(hellos=[])
    session = await_session(cast("Connection", server), _request(targets=()))
    assert server.calls == ["req", "update"]
    assert session.targets == ("localhost:5074",)


def test_an_awaited_session_that_nobody_registers_says_so_and_leaves_nothing() -> None:
    late = SciStreamError(Code.DEADLINE, what="to open a session", seconds=7.0, last="nothing")
    server = _Server(req=late)
    with pytest.raises(SciStreamError) as caught:
        await_session(cast("Connection", server), _request(targets=()), wait=7.0)
    assert caught.value.code is Code.HELLO_TIMEOUT
    assert "within 7 s" in str(caught.value)
    assert server.calls == ["req", "release"]


def test_a_registration_comes_before_the_req_as_well() -> None:
    server, clock = _Server(hellos=[_UNKNOWN, _UNKNOWN, ("192.0.2.7:5100",)]), _Clock()
    connection = cast("Connection", server)
    told = register(connection, _UID, Direction.OUTBOUND, (_TARGET,), clock=clock, pause=clock.pause)
    assert told == ("192.0.2.7:5100",)
    assert server.calls == ["hello"] * 3


def test_release_says_whether_there_was_something() -> None:
    assert release_session(cast("Connection", _Server()), _UID) is True
    assert release_session(cast("Connection", _Server(releases=_UNKNOWN)), _UID) is False
    with pytest.raises(SciStreamError) as caught:
        release_session(cast("Connection", _Server(releases=_BROKEN)), _UID)
    assert caught.value is _BROKEN


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"uid": Uid("../x")}, Code.BAD_UID),
        ({"connections": 0}, Code.BAD_CONNECTIONS),
        ({"connections": 10**6}, Code.BAD_CONNECTIONS),
        ({"rate": -1}, Code.BAD_RATE),
        ({"rate": 2**31}, Code.BAD_RATE),
        ({"lease": 0.5}, Code.BAD_LEASE),
        ({"lease": float("inf")}, Code.BAD_LEASE),
        ({"ports": (5100, 5101)}, Code.PORTS_MISCOUNTED),
        ({"targets": (_TARGET, _TARGET)}, Code.TOO_MANY_TARGETS),
    ],
)
def test_u08_u26_u37_bad_requests_do_not_leave_the_client(changes: dict[str, Any], code: Code) -> None:
    values: dict[str, Any] = {"uid": _UID, "direction": Direction.INBOUND, "targets": (_TARGET,), "connections": 1}
    with pytest.raises(SciStreamError) as caught:
        SessionRequest(**(values | changes))
    assert caught.value.code is code


def test_a_ticket_gives_the_outbound_request() -> None:
    entry_points = (Endpoint("192.0.2.7", 5100), Endpoint("192.0.2.7", 5101))
    server, psk = Endpoint("gateway.example", 5000), Encryption.TLS_PSK
    ticket = Ticket(_UID, "", entry_points, 2, server, (_TARGET,), bytes(32), psk)
    request = SessionRequest.of_ticket(ticket, rate=7)
    more = SessionRequest.of_ticket(ticket, connections=3, targets=(_TARGET,))
    assert (more.connections, more.targets, more.key) == (3, (_TARGET,), bytes(32))
    whole = SessionRequest(_UID, Direction.OUTBOUND, entry_points, 2, 7, bytes(32), psk, other_is_ours=True)
    assert request == whole
    assert repr(bytes(32)) not in repr(request)


def _ticket(encryption: Encryption | None, **changes: Any) -> Ticket:
    key = bytes(32) if encryption is None or encryption.needs_key else None
    ticket = Ticket(_UID, "", (_TARGET,), 1, Endpoint("gateway.example", 5000), (_TARGET,), key, encryption)
    return replace(ticket, **changes)


@pytest.mark.parametrize(
    ("told", "asked", "taken"),
    [
        (Encryption.TLS, None, Encryption.TLS),
        (Encryption.TLS_PSK, None, Encryption.TLS_PSK),
        (Encryption.TLS_PSK, Encryption.TLS, Encryption.TLS_PSK),
        (Encryption.NONE, None, Encryption.NONE),
        (Encryption.NONE, Encryption.NONE, Encryption.NONE),
        (Encryption.LEGACY_PSK, Encryption.LEGACY_PSK, Encryption.LEGACY_PSK),
        (None, None, Encryption.TLS),
        (None, Encryption.NONE, Encryption.NONE),
    ],
)
def test_the_outbound_end_has_exactly_what_the_inbound_one_has(
    told: Encryption | None, asked: Encryption | None, taken: Encryption
) -> None:
    assert SessionRequest.of_ticket(_ticket(told), encryption=asked).encryption is taken


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        (Encryption.NONE, Encryption.TLS),
        (Encryption.TLS, Encryption.NONE),
        (Encryption.TLS_PSK, Encryption.NONE),
        (Encryption.LEGACY_PSK, Encryption.TLS),
    ],
)
def test_another_encryption_than_the_tickets_is_refused(told: Encryption, asked: Encryption) -> None:
    with pytest.raises(SciStreamError) as caught:
        SessionRequest.of_ticket(_ticket(told), encryption=asked)
    assert caught.value.code is Code.ENCRYPTION_MISMATCH
    assert f"inbound end's encryption is {told.value}, and what was asked for is {asked.value}" in caught.value.seen


@pytest.mark.parametrize("told", [Encryption.TLS, Encryption.TLS_PSK, Encryption.NONE])
def test_u01_legacy_psk_is_refused_with_a_ticket_of_ours(told: Encryption) -> None:
    with pytest.raises(SciStreamError) as caught:
        SessionRequest.of_ticket(_ticket(told), encryption=Encryption.LEGACY_PSK)
    assert caught.value.code is Code.LEGACY_PSK_REFUSED
    assert f"its ticket says encryption {told.value}" in caught.value.seen
    assert "leave --legacy-psk out" in caught.value.remedy


@pytest.mark.parametrize("deployed", [True, False])
def test_u01_a_ticket_alone_does_not_open_the_legacy_form(deployed: bool) -> None:
    with pytest.raises(SciStreamError) as caught:
        SessionRequest.of_ticket(_ticket(Encryption.LEGACY_PSK, deployed=deployed))
    assert caught.value.code is Code.LEGACY_PSK_UNASKED
    assert "session abc is not opened: its ticket says encryption legacy-psk" in caught.value.seen
    assert "nobody asked for that by its name here" in caught.value.seen
    assert "say --legacy-psk as well (module: legacy_psk: true)" in caught.value.remedy


def test_a_ticket_brings_its_transport_along() -> None:
    udp = _ticket(Encryption.NONE, transport=Transport.UDP)
    assert SessionRequest.of_ticket(udp).transport is Transport.UDP
    with pytest.raises(SciStreamError) as caught:
        SessionRequest.of_ticket(udp, transport=Transport.TCP)
    assert caught.value.code is Code.TRANSPORT_MISMATCH
    assert "its ticket says that the inbound end goes over UDP, and TCP was asked for" in str(caught.value)


def test_u63_udp_has_to_be_asked_for_without_encryption() -> None:
    for encryption in (Encryption.TLS, Encryption.LEGACY_PSK):
        with pytest.raises(SciStreamError) as caught:
            _request(transport=Transport.UDP, encryption=encryption)
        assert caught.value.code is Code.UDP_UNENCRYPTED
        assert "say --encryption none as well" in caught.value.remedy
    assert _request(transport=Transport.UDP).transport is Transport.UDP


def _sent(error: SciStreamError) -> SciStreamError:
    received = SciStreamError.from_wire(error.to_wire())
    assert received is not None
    return received


def test_a_registration_ends_with_the_first_answer_of_a_server_that_held_it() -> None:
    server, clock = _Server(hellos=[_sent(_UNKNOWN)]), _Clock()
    with pytest.raises(SciStreamError) as caught:
        register(cast("Connection", server), _UID, Direction.INBOUND, (_TARGET,), clock=clock, pause=clock.pause)
    assert caught.value.code is Code.UID_UNKNOWN
    assert server.calls == ["hello"]


def test_a_request_of_ones_own_is_waited_for_whoever_answers() -> None:
    server, clock = _Server(hellos=[_sent(_UNKNOWN), ()]), _Clock()
    _open(server, clock)
    assert server.calls == ["req", "hello", "hello", "update"]


def test_a_deadline_after_refusals_tells_the_refusal() -> None:
    late = SciStreamError(Code.DEADLINE, what="the attempt", seconds=0.2, last="nothing")
    server, clock = _Server(hellos=[_UNKNOWN, _UNKNOWN, late]), _Clock()
    with pytest.raises(SciStreamError) as caught:
        register(cast("Connection", server), _UID, Direction.INBOUND, (_TARGET,), clock=clock, pause=clock.pause)
    assert caught.value is _UNKNOWN


_TABLE = ("plain", "TLS", "TLS with Nginx", "legacy-psk", "UDP", "source list", "half-close", "rate")


def _facts(*encryptions: str, name: str = "haproxy", cannot: dict[str, str] | None = None) -> Any:
    """A control server of ours with one engine."""
    lacks = cannot or {}
    table = [wire.Ability(feature=each, can=each not in lacks, words=lacks.get(each, "")) for each in _TABLE]
    engine = wire.Engine(name=name, installed=True, encryption=encryptions[0], encryptions=encryptions)
    engine.abilities.extend(table)
    engine.can_limit_rate = "rate" not in lacks
    return read_facts(wire.ServerFacts(version="0.1.0", port_range="5100-5200", engine=name, engines=[engine]))


_KEYED: dict[str, Any] = {"key": bytes(32), "encryption": Encryption.TLS}


@pytest.mark.parametrize(
    ("inbound", "engine", "outbound"),
    [("tls-psk", "haproxy", ("tls", "none")), ("none", "stunnel", ("tls-psk",)), ("tls", "stunnel", ("tls-psk",))],
)
def test_gateways_of_two_encryptions_are_refused_before_anything_is_opened(
    inbound: str, engine: str, outbound: tuple[str, ...]
) -> None:
    server = _Server(facts=_facts(*outbound, name=engine))
    with pytest.raises(SciStreamError) as caught:
        _open(server, encryption=Encryption(inbound), direction=Direction.OUTBOUND, key=bytes(32))
    assert caught.value.code is Code.ENCRYPTION_MISMATCH
    assert all(word in str(caught.value) for word in (inbound, engine, outbound[0], "gateway.example:5000"))
    assert "--encryption none" in caught.value.remedy
    assert server.calls == []


@pytest.mark.parametrize("got", ["none", "legacy-psk"])
def test_u02_a_session_that_got_another_encryption_is_rolled_back(got: str) -> None:
    told = Session.untold(_UID, Direction.INBOUND, ("192.0.2.7:5100",), (_TARGET,), 1, 0)
    server = _Server(facts=_facts("tls", "none"), described=[replace(told, encryption=got, engine="haproxy")])
    with pytest.raises(SciStreamError) as caught:
        _open(server, **_KEYED)
    assert caught.value.code is Code.ENCRYPTION_MISMATCH
    assert server.calls == ["req", "hello", "update", "release"]


@pytest.mark.parametrize("got", ["tls", "tls-psk"])
def test_an_encrypted_session_gets_what_the_engine_does_best_and_its_key(got: str) -> None:
    told = Session.untold(_UID, Direction.INBOUND, ("192.0.2.7:5100",), (_TARGET,), 1, 0)
    server = _Server(facts=_facts(got), described=[replace(told, encryption=got)])
    assert _open(server, **_KEYED).encryption == got
    assert server.asked
    assert (server.asked.encryption, server.key) == (Encryption.TLS, bytes(32))


def test_u72_an_inbound_gateways_engine_that_the_outbound_one_cannot_be_used_with_is_refused_before_anything() -> None:
    facts = _facts("tls-psk", "tls", name="stunnel", cannot={"TLS with Nginx": "bytes of Nginx may be lost"})
    server = _Server(facts=facts)
    with pytest.raises(SciStreamError) as caught:
        _open(server, **_KEYED, direction=Direction.OUTBOUND, peer="nginx")
    assert caught.value.code is Code.ENGINE_CANNOT
    assert "stunnel cannot do what was asked: bytes of Nginx may be lost" in str(caught.value)
    assert server.calls == []


def test_a_session_that_is_not_encrypted_sends_no_key() -> None:
    server = _Server()
    _open(server, key=bytes(32))
    assert (server.calls, server.key) == (["req", "hello", "update"], None)


@pytest.mark.parametrize("opener", [open_session, await_session])
def test_an_encrypted_session_without_a_key_is_refused_before_anything_is_asked(opener: Any) -> None:
    server = _Server(facts=_facts("tls"))
    with pytest.raises(SciStreamError) as caught:
        opener(cast("Connection", server), _request(encryption=Encryption.TLS, direction=Direction.OUTBOUND))
    assert caught.value.code is Code.SESSION_KEY_MISSING
    assert "no key came with session abc, and encryption tls carries nothing without one" in caught.value.seen
    assert "s2uc outbound-request --ticket FILE" in caught.value.remedy
    assert server.calls == []


def test_u05_a_key_does_not_travel_in_plain_text() -> None:
    server = _Server(facts=_facts("tls"), plain_text=True)
    with pytest.raises(SciStreamError) as caught:
        _open(server, **_KEYED)
    assert caught.value.code is Code.SESSION_KEY_MISSING
    assert "over a control channel in plain text" in caught.value.seen
    assert server.calls == []
    assert _open(_Server(plain_text=True)).is_active


def test_u02_a_deployed_control_server_cannot_encrypt_and_that_is_said() -> None:
    server = _Server()
    with pytest.raises(SciStreamError) as caught:
        _open(server, **_KEYED)
    assert caught.value.code is Code.ENCRYPTION_UNAVAILABLE
    assert "gateway.example:5000 cannot encrypt what goes between the gateways" in caught.value.seen
    assert "say --encryption none" in caught.value.remedy
    assert "--legacy-psk where it runs Stunnel" in caught.value.remedy
    assert server.calls == []
    assert _open(_Server(), encryption=Encryption.LEGACY_PSK).is_active


@pytest.mark.parametrize(
    ("encryption", "words"),
    [
        (Encryption.NONE, "nothing protects the bytes between the gateways: encryption none was asked for"),
        (Encryption.LEGACY_PSK, "nothing is encrypted between the gateways, and the key that they know each other by"),
    ],
)
def test_u01_u02_a_session_that_a_deployed_server_does_not_describe_tells_what_was_asked_for(
    encryption: Encryption, words: str
) -> None:
    session = _open(_Server(), encryption=encryption)
    assert (session.encryption, session.is_untold, session.is_readable) == (encryption.value, True, True)
    assert session.warnings[0].startswith(words)
    assert "it speaks the old protocol only, and does not tell what it has" in session.warnings[0]
    ticket = of_session(session, control_server=Endpoint("gateway.example", 5000))
    assert (ticket.encryption, ticket.deployed) == (encryption, True)


def test_u01_legacy_psk_between_two_of_ours_is_refused() -> None:
    wish: dict[str, Any] = {"encryption": Encryption.LEGACY_PSK, "direction": Direction.OUTBOUND}
    facts = _facts("tls-psk", "legacy-psk", name="stunnel")
    with pytest.raises(SciStreamError) as caught:
        _open(_Server(facts=facts), **wish, other_is_ours=True)
    assert caught.value.code is Code.LEGACY_PSK_REFUSED
    assert "neither end is a deployed one: gateway.example:5000 speaks scistream.v1" in caught.value.seen
    told = Session.untold(_UID, Direction.OUTBOUND, ("192.0.2.7:5100",), (_TARGET,), 1, 0)
    server = _Server(facts=facts, described=[replace(told, encryption="legacy-psk")])
    assert _open(server, **wish).encryption == "legacy-psk"
    assert server.key is None


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"lease": 60.0}, "end a session with its lease"),
        ({"ports": (5111,)}, "give a session the ports that were named"),
        ({"rate": 7}, "hold a session to a rate"),
        ({"transport": Transport.UDP}, "carry UDP"),
        ({"sources": parse_networks("192.0.2.7")}, "let only some hosts connect"),
        ({"half_close": True}, "promise every byte of half-closed connections"),
        ({"rate": 7, "half_close": True}, "hold a session to a rate, nor promise every byte"),
    ],
)
def test_u53_u57_what_an_old_server_would_leave_out_is_refused_before_anything_is_asked(
    wish: dict[str, Any], words: str
) -> None:
    server = _Server()
    with pytest.raises(SciStreamError) as caught:
        _open(server, **wish)
    assert caught.value.code is Code.OLD_CONTROL_SERVER
    assert f"gateway.example:5000 cannot {words}" in caught.value.seen
    assert server.calls == []


def test_a_session_without_an_end_is_what_an_old_server_always_gives() -> None:
    server = _Server()
    assert _open(server, lease=0.0).lease_expires == 0
    assert server.asked
    assert server.asked.lease == 0


@pytest.mark.parametrize(
    ("wish", "kept", "left"),
    [
        ({"lease": 60.0}, {"lease_expires": 5.0}, {"lease_expires": 0.0}),
        ({"ports": (5111,)}, {"entry_points": ("192.0.2.7:5111",)}, {"entry_points": ("192.0.2.7:5100",)}),
    ],
)
def test_u53_a_wish_that_was_not_kept_is_no_session(wish: Any, kept: Any, left: Any) -> None:
    told = Session.untold(_UID, Direction.INBOUND, ("192.0.2.7:5100",), (_TARGET,), 1, 0)
    facts = read_facts(wire.ServerFacts(version="0.1.0", port_range="5100-5200"))
    assert _open(_Server(facts=facts, described=[replace(told, **kept)]), **wish)
    server = _Server(facts=facts, described=[replace(told, **left)])
    with pytest.raises(SciStreamError) as caught:
        _open(server, **wish)
    assert caught.value.code is Code.OLD_CONTROL_SERVER
    assert "of a session" in caught.value.seen
    assert server.calls[-1] == "release"


def test_u53_ports_of_a_ticket_say_how_many_connections_there_are() -> None:
    request = SessionRequest.of_ticket(_ticket(Encryption.NONE), ports=(5111, 5112), lease=90.0)
    assert (request.connections, request.ports, request.lease, request.rate) == (2, (5111, 5112), 90.0, 0)
