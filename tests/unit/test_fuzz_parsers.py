"""Everything that reads foreign text: it understands it, or says in the catalogue's words that it does not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scistream.addresses import Endpoint, PortRange, parse_endpoints, parse_ports
from scistream.cli import tables
from scistream.client import tickets
from scistream.client.facts import read_facts
from scistream.client.sessions import read_event
from scistream.client.tickets import Ticket
from scistream.control_server.configuration import Surroundings, load
from scistream.control_server.journal import Journal, Record
from scistream.control_server.salvage import open_journal
from scistream.durations import parse_duration, spell_duration
from scistream.engines import find_engine
from scistream.engines.base import Plan, Route
from scistream.errors import CATALOGUE, Code, SciStreamError
from scistream.protocol import operations_pb2 as wire
from scistream.terms import (
    MAX_LEASE,
    Direction,
    Encryption,
    SessionState,
    Uid,
    parse_direction,
    parse_lease,
    parse_rate,
    parse_uid,
)

# A file of the test's own is written anew for every example.
_with_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)

_SERVER = Endpoint("192.0.2.1", 5000)
_hosts = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.just("gateway.example"))
_endpoints = st.builds(Endpoint, _hosts, st.integers(1, 65535))
_uids = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True).map(Uid)
# Nearly right: what a slip or an attack makes of it, as well as anything.
_near = st.text("0123456789.,:-[]%/ \n\0abcxyzé٣", max_size=24) | st.text(max_size=40)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def _refusal(read: Callable[[], object]) -> SciStreamError | None:
    try:
        read()
    except SciStreamError as error:
        return error
    return None


@pytest.mark.parametrize(
    "parse",
    [
        Endpoint.parse,
        PortRange.parse,
        parse_direction,
        parse_duration,
        parse_lease,
        parse_ports,
        parse_uid,
        lambda text: parse_endpoints([text]),
        lambda text: Endpoint.parse(text, default_port=1),
    ],
)
@given(text=_near)
@example("9" * 5000)
@example("nan")
@example("1e999")
@example("[" * 5000)
def test_a_text_is_understood_or_refused_in_words(parse: Callable[[str], object], text: str) -> None:
    assert "\n" not in str(_refusal(lambda: parse(text)))


@given(st.integers())
def test_a_rate_is_understood_or_refused(rate: int) -> None:
    with contextlib.suppress(SciStreamError):
        assert parse_rate(rate) == rate


@given(_endpoints)
def test_an_address_survives_its_spelling(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=20, unique=True))
def test_ports_survive_their_spelling(ports: list[int]) -> None:
    assert parse_ports(",".join(map(str, ports))) == tuple(ports)
    spelled = f"{min(ports)}-{max(ports)}"
    assert str(PortRange.parse(spelled)) == spelled


@given(st.floats(1, MAX_LEASE))
def test_a_lease_survives_its_spelling(seconds: float) -> None:
    assert parse_lease(repr(seconds)) == seconds


@given(st.integers(0, 400 * 86400))
def test_a_duration_in_two_units_loses_less_than_the_smaller_one(seconds: int) -> None:
    spelled = spell_duration(seconds)
    size = {"s": 1, "m": 60, "h": 3600}[spelled[-1]]
    if seconds:
        assert 0 <= seconds - parse_duration(spelled) < size


@given(st.integers(0, 10**18 - 10**15))
def test_bytes_fit_a_glance(number: int) -> None:
    spelled = tables.spell_bytes(number)
    assert len(spelled) <= 8
    value, unit = spelled.split()
    scale = 1000.0 ** ("B", "kB", "MB", "GB", "TB", "PB").index(unit)
    assert math.isclose(float(value) * scale, number, rel_tol=0.006)


def _mutated(data: bytes, *cuts: int) -> bytes:
    start, end, value = cuts
    place = start % (len(data) + 1)
    return data[:place] + bytes([value % 256]) + data[place + end % 4 :]


_cuts = st.tuples(st.integers(0, 2000), st.integers(0, 3), st.integers(0, 255))


@given(_uids, st.lists(_endpoints, min_size=1, max_size=3), st.binary(min_size=32, max_size=32) | st.none())
@_with_files
def test_a_ticket_survives_its_file(tmp_path: Path, uid: Uid, endpoints: list[Endpoint], key: bytes | None) -> None:
    encryption = Encryption.TLS_PSK if key else None
    given_ticket = Ticket(uid, "beam 7", tuple(endpoints), 2, _SERVER, tuple(endpoints), key, encryption)
    tickets.write(tmp_path / "t.json", given_ticket)
    assert tickets.read(tmp_path / "t.json") == given_ticket


@given(st.data())
@_with_files
def test_a_forged_ticket_is_read_or_refused_and_its_key_stays_untold(tmp_path: Path, data: st.DataObject) -> None:
    path, key = tmp_path / "t.json", bytes(range(200, 232))
    tickets.write(path, Ticket(Uid("one"), "", (_SERVER,), 1, _SERVER, (_SERVER,), key, Encryption.TLS_PSK))
    body = json.loads(path.read_text())
    forged = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(body, _json)))
    whole = json.dumps(body | forged).encode()
    path.write_bytes(data.draw(st.sampled_from([whole, _mutated(whole, *data.draw(_cuts)), b"[" * 30000])))
    refusal = _refusal(lambda: tickets.read(path))
    if refusal is not None:
        assert refusal.code is Code.BAD_TICKET
        assert key.hex() not in str(refusal)


_KEYS = ("port", "port_range", "type", "ssl", "lease", "operators", "state_directory", "client_secret", "nonsense")


@given(
    st.dictionaries(st.sampled_from(_KEYS), _near | st.integers() | st.booleans(), max_size=4), st.binary(max_size=40)
)
@_with_files
def test_a_configuration_is_understood_or_refused(tmp_path: Path, values: dict[str, Any], noise: bytes) -> None:
    path = tmp_path / "s2cs.toml"
    lines = (f"{key} = {json.dumps(value)}" for key, value in values.items())
    path.write_bytes("\n".join(lines).encode() + b"\n" + noise)
    path.chmod(0o600)
    surroundings = Surroundings(tmp_path, {"SCISTREAM_" + key.upper(): str(value) for key, value in values.items()})
    for config in (path, None):
        with contextlib.suppress(SciStreamError):
            load({}, surroundings, config=config)


@given(st.sampled_from(Code), st.dictionaries(st.text(max_size=8), _json, max_size=3), _json)
def test_an_error_from_the_wire_is_an_error_or_nothing(code: Code, facts: dict[str, Any], value: Any) -> None:
    # With the facts that its words need, of any kind, and without.
    needed = dict.fromkeys(("uid", "seconds", "server", "reason", "path", "words", "engine", "address"), value)
    for body in ({"code": str(code), "facts": facts | needed}, {"code": str(code), "facts": facts}, facts, value):
        found = SciStreamError.from_wire(json.dumps(body).encode())
        if found is not None:
            assert SciStreamError.from_wire(found.to_wire()) is not None
            assert all(isinstance(words, str) for words in (str(found), found.deployed, str(found.failure())))


@pytest.mark.parametrize(
    "data", [b"[" * 7000, b'{"code": 1}', b"\xff\xfe", b"9" * 7000, b'{"code":"DEADLINE","facts":[]}']
)
def test_bytes_that_are_no_error(data: bytes) -> None:
    assert SciStreamError.from_wire(data) is None


@pytest.mark.parametrize("code", CATALOGUE)
def test_an_error_whose_facts_are_monstrous_is_an_error_or_nothing(code: Code) -> None:
    for value in (10**400, -1, 1e308, float("nan"), [], {}, None, "{uid}", "\x1b[2J"):
        facts = dict.fromkeys(_facts_of(code), value)
        found = SciStreamError.from_wire(json.dumps({"code": str(code), "facts": facts}).encode())
        assert found is None or "\x1b" not in str(found)


def _facts_of(code: Code) -> set[str]:
    entry = CATALOGUE[code]
    templates = (entry.seen, entry.cause, entry.remedy, entry.deployed)
    return {
        field.split(".")[0].split("[")[0] for one in templates for _, field, _, _ in Formatter().parse(one) if field
    }


_RECORD = Record(
    uid=Uid("one"),
    direction=Direction.INBOUND,
    state=SessionState.ACTIVE,
    engine="haproxy",
    stem="one",
    bound_host="127.0.20.2",
    told_host="127.0.20.1",
    ports=(22100, 22101),
    targets=("t.example:5074",),
    connections=2,
    rate=0,
    owner="somebody",
    opened=1000.5,
    failure="",
    pid=123,
    started=456,
    encryption=Encryption.TLS,
)
_cells = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | _near | st.binary(max_size=20)


def _record(
    uid: Uid, direction: Direction, state: SessionState, ports: tuple[int, ...], targets: tuple[str, ...]
) -> Record:
    there = dataclasses.replace(_RECORD, uid=uid, stem=uid, direction=direction, state=state)
    return dataclasses.replace(there, ports=ports, connections=len(ports), targets=targets)


_records = st.builds(
    _record,
    _uids,
    st.sampled_from(Direction),
    st.sampled_from(SessionState),
    st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True).map(tuple),
    st.lists(_endpoints.map(str), min_size=1, max_size=3).map(tuple),
)


@given(st.lists(_records, max_size=3, unique_by=lambda one: (one.uid, one.direction)), st.integers(0, 2**31 - 1))
@_with_files
def test_records_survive_the_journal(tmp_path: Path, records: list[Record], rate: int) -> None:
    written = [dataclasses.replace(record, rate=rate) for record in records]
    with _place(tmp_path) as path:
        with contextlib.closing(Journal(path, "boot")) as journal:
            journal.put(*written)
        with contextlib.closing(Journal(path, "boot")) as journal:
            assert sorted(journal.records(), key=str) == sorted(written, key=str)


def _opened_and_closed(path: Path) -> None:
    journal, _ = open_journal(path, "boot")
    with contextlib.closing(journal):
        journal.records()


@contextlib.contextmanager
def _place(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        yield Path(place) / "journal.sqlite3"


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Record)]), _cells, min_size=1, max_size=3
    )
)
@_with_files
def test_a_row_that_somebody_changed_is_read_or_set_aside(tmp_path: Path, cells: dict[str, Any]) -> None:
    with _place(tmp_path) as path:
        with contextlib.closing(Journal(path, "boot")) as journal:
            journal.put(_RECORD)
        with contextlib.closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.IntegrityError):
            assignments = ", ".join(f"{name} = ?" for name in cells)
            database.execute(f"UPDATE sessions SET {assignments}", list(cells.values()))  # noqa: S608 - fields of Record
            database.commit()
        journal, warnings = open_journal(path, "boot")
        with contextlib.closing(journal):
            assert journal.records() or warnings


@given(st.integers(0, 40000), st.binary(min_size=1, max_size=64))
@example(15725, b"\x80")
@_with_files
def test_a_journal_with_foreign_bytes_in_it_is_read_or_set_aside(tmp_path: Path, place: int, noise: bytes) -> None:
    with _place(tmp_path) as path:
        with contextlib.closing(Journal(path, "boot")) as journal:
            journal.put(_RECORD)
        content = path.read_bytes()
        start = place % len(content)
        path.write_bytes(content[:start] + noise + content[start + len(noise) :])
        refusal = _refusal(lambda: _opened_and_closed(path))
        # The bytes may be those that tell the version.
        assert refusal is None or (refusal.code is Code.JOURNAL_UNREADABLE and "of version" in refusal.seen)


_PLAN = Plan(
    Uid("one"), Direction.INBOUND, (Route(_SERVER, _SERVER),), Path("/nowhere"), "one", encryption=Encryption.NONE
)
_SHOW_STAT = "# pxname,svname,scur,bin,bout,dcon,dses,stot\nroute-1,FRONTEND,1,22,33,0,1,5\nGLOBAL,FRONTEND,,,,,,\n"
_LINES = {
    "nginx": "127.0.0.1 50000 12 34 200\n",
    "stunnel": "2026.11.23 02:00:00 LOG5[12]: Service [route-1] accepted connection from 127.0.0.1:50000\n",
}


@given(
    _near
    | st.builds(
        lambda *cuts: _mutated(_SHOW_STAT.encode(), *cuts).decode(errors="replace"), *(st.integers(0, 200),) * 3
    )
)
@example("")
@example(_SHOW_STAT[:60])
def test_what_a_data_server_tells_of_its_traffic_is_understood_or_a_value_error(answer: str) -> None:
    engine = find_engine("haproxy")
    for read in (engine.read_traffic, engine.read_targets):
        with contextlib.suppress(ValueError):
            read(answer)


@pytest.mark.parametrize("name", _LINES)
@given(data=st.data())
def test_a_line_of_a_data_servers_log_is_understood_or_a_value_error(name: str, data: st.DataObject) -> None:
    near = st.builds(
        lambda *cuts: _mutated(_LINES[name].encode(), *cuts).decode(errors="replace"), *(st.integers(0, 200),) * 3
    )
    engine, accepted = find_engine(name), {}
    for line in data.draw(st.lists(near | _near, max_size=3)):
        with contextlib.suppress(ValueError):
            engine.count(_PLAN, line, accepted)


def _filled(message: Any, data: st.DataObject) -> Any:
    """A message whose fields hold anything that the wire lets through."""
    kinds = {
        "string": st.text(max_size=20),
        "double": st.floats(),
        "int32": st.integers(-(2**31), 2**31 - 1),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "bool": st.booleans(),
    }
    for field in message.DESCRIPTOR.fields:
        kind = {1: "double", 3: "int64", 5: "int32", 8: "bool", 9: "string"}.get(field.type)
        if kind and field.is_repeated:
            getattr(message, field.name).extend(data.draw(st.lists(kinds[kind], max_size=2)))
        elif kind:
            setattr(message, field.name, data.draw(kinds[kind]))
        elif not field.is_repeated:
            _filled(getattr(message, field.name), data)
    return message


@given(st.data(), _uids, st.lists(_endpoints.map(str), max_size=2))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_a_control_server_tells_of_a_session_is_shown(data: st.DataObject, uid: Uid, paths: list[str]) -> None:
    message = _filled(wire.Event(), data)
    message.session.uid, message.session.direction = uid, "inbound"
    del message.session.entry_points[:], message.session.targets[:]
    message.session.entry_points.extend(paths)
    message.session.targets.extend(paths)
    event = read_event(message, _SERVER)
    shown = [tables.event_line(event), tables.card(event.session, now=1e9)]
    shown += [tables.session_table([event.session], now=1e9, width=width) for width in (None, 40, 200)]
    assert uid in shown[0]
    assert not any("\x1b[2J" in text for text in shown)
    json.dumps(event.as_dict())


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_a_control_server_tells_of_itself_is_shown(data: st.DataObject) -> None:
    facts = read_facts(_filled(wire.ServerFacts(), data))
    assert "control server" in tables.server_card("gateway.example:5000", facts, now=1e9)
    json.dumps(facts.as_dict())


@given(st.binary(max_size=80))
def test_bytes_that_are_no_session_are_a_decode_error(noise: bytes) -> None:
    with contextlib.suppress(SciStreamError, DecodeError):
        read_event(wire.Event.FromString(noise), _SERVER)
