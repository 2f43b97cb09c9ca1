"""What nft is told, and how its answers are read."""

from __future__ import annotations

import ipaddress
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from scistream.addresses import parse_networks
from scistream.engines import find_engine, nft_conntrack, nft_host, nft_reading, nft_table
from scistream.engines.abilities import Wishes, abilities, require
from scistream.engines.base import Feature
from scistream.engines.nft_base import Patience, base
from scistream.engines.nft_names import FIRST_NUMBER, LAST_NUMBER, Making, free_number, is_table, table_of
from scistream.engines.nft_table import Door, Rules, Standing
from scistream.engines.nft_watch import removes
from scistream.engines.nftables import NFTables
from scistream.engines.traffic import Traffic
from scistream.errors import Code, SciStreamError
from scistream.terms import Encryption, Transport

MAKING = Making(0x5C0000AB, 500, "4f8583bc.inbound")
V4 = Door(ipaddress.ip_address("198.18.1.2"), 5100, ipaddress.ip_address("198.18.3.2"), 5000)
V6 = Door(ipaddress.ip_address("2001:db8::2"), 5100, ipaddress.ip_address("2001:db8::3"), 5000)
ANY = Door(ipaddress.ip_address("::"), 5101, ipaddress.ip_address("2001:db8::3"), 5000)
TABLE = "scistream_0123456789ab"


def rules(*doors: Door, transport: Transport = Transport.TCP, sources: str = "") -> Rules:
    return Rules(MAKING, transport, doors, parse_networks(sources) if sources else ())


def told(commands: list[dict[str, Any]], verb: str, kind: str) -> list[dict[str, Any]]:
    return [each[verb][kind] for each in commands if kind in each.get(verb, {})]


def chain(commands: list[dict[str, Any]], kind: str) -> list[str]:
    """The rules of one of the session's chains, in one line each."""
    found = told(commands, "add", "rule")
    return [json.dumps(rule["expr"]) for rule in found if rule["chain"] == MAKING.name(kind)]


def test_a_name_tells_whose_rules_they_are() -> None:
    assert MAKING.name("admit") == "admit-5c0000ab-1f4-4f8583bc.inbound"
    assert Making.parse(MAKING.name("carry")) == ("carry", MAKING)
    assert Making.parse("doors") is None
    assert (MAKING.mark.pid, MAKING.mark.started) == (0x5C0000AB, 500)


def test_a_table_belongs_to_a_state_directory(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert table_of(link) == table_of(tmp_path) != table_of(tmp_path / "other")
    assert is_table(table_of(tmp_path))
    assert not is_table("scistream_rates")


@pytest.mark.parametrize(
    ("taken", "wanted", "number"),
    [
        (set(), FIRST_NUMBER + 7, FIRST_NUMBER + 7),
        ({FIRST_NUMBER + 7}, FIRST_NUMBER + 7, FIRST_NUMBER + 8),
        ({LAST_NUMBER, FIRST_NUMBER}, LAST_NUMBER, FIRST_NUMBER + 1),
    ],
)
def test_no_two_sessions_have_a_number(taken: set[int], wanted: int, number: int) -> None:
    assert free_number(taken, wanted) == number


def test_the_base_has_the_timers_that_it_is_told() -> None:
    text = base(TABLE, Patience(tcp=7, unanswered=8, udp=9, udp_unanswered=10))
    assert f"table inet {TABLE} {{" in text
    assert "policy = { established: 7, fin_wait: 7, close_wait: 7, retrans: 8, unack: 8 }" in text
    assert "policy = { unreplied: 10, replied: 9 }" in text


def test_a_session_that_everybody_may_use() -> None:
    commands = nft_table.installed(TABLE, rules(V4))
    assert [each["name"] for each in told(commands, "create", "chain")] == [MAKING.name("admit"), MAKING.name("carry")]
    marking, door = chain(commands, "admit")
    assert '{"mangle": {"key": {"ct": {"key": "mark"}}, "value": 1543504043}}' in marking
    assert '{"dnat": {"family": "ip", "addr": "198.18.3.2", "port": 5000}}' in door
    elements = {each["name"]: each["elem"] for each in told(commands, "add", "element")}
    assert elements["at_ip"] == [[{"concat": ["198.18.1.2", "tcp", 5100]}, {"goto": {"target": MAKING.name("admit")}}]]
    assert elements["carried"][0][0] == {"concat": [MAKING.number, "reply"]}
    assert elements["targets_ip"] == [{"concat": ["198.18.3.2", "tcp", 5000]}]
    assert "any_ip" not in elements


def test_a_wildcard_has_no_address() -> None:
    commands = nft_table.installed(TABLE, rules(ANY, transport=Transport.UDP))
    elements = {each["name"]: each["elem"] for each in told(commands, "add", "element")}
    assert elements["any_ip6"] == [[{"concat": ["udp", 5101]}, {"goto": {"target": MAKING.name("admit")}}]]
    assert not {"at_ip6", "carried_bare"} & set(elements)
    assert '"right": "ipv6"' in chain(commands, "admit")[1]


def test_a_source_list_comes_first_and_its_networks_do_not_overlap() -> None:
    commands = nft_table.installed(TABLE, rules(V4, V6, sources="198.18.0.0/16,198.18.1.0/24"))
    guards = chain(commands, "admit")[:2]
    assert '"op": "!="' in guards[0]
    assert '{"set": [{"prefix": {"addr": "198.18.0.0", "len": 16}}]}' in guards[0]
    # No IPv6 network is allowed.
    assert '"right": "ipv6"' in guards[1]
    for guard in guards:
        assert f'{{"goto": {{"target": "{MAKING.name("refuse")}"}}}}' in guard
    counted, logged, refused = chain(commands, "refuse")
    assert "@refused" in counted
    assert '"prefix": "scistream refused 4f8583bc.inbound "' in logged
    assert '{"limit": {"rate": 10, "per": "minute"}}' in logged
    assert '{"reject": {"type": "tcp reset"}}' in refused


def test_classes_of_a_rate_are_set_by_direction() -> None:
    made = Rules(MAKING, Transport.TCP, (V4,), classes=("5c1e:1", "5c1e:2"))
    to_targets, back = chain(nft_table.installed(TABLE, made), "carry")
    assert '"original"' in to_targets
    assert '"value": "5c1e:1"' in to_targets
    assert '"reply"' in back
    assert '"value": "5c1e:2"' in back


def test_a_retargeted_session_keeps_its_elements() -> None:
    commands = nft_table.retargeted(TABLE, rules(V4))
    assert told(commands, "flush", "chain") == [{"family": "inet", "table": TABLE, "name": MAKING.name("admit")}]
    assert [each["name"] for each in told(commands, "add", "element")] == ["targets_ip"]


@pytest.mark.parametrize(("running", "kinds"), [(True, {"admit"}), (False, {"admit", "carry"})])
def test_a_closed_session_refuses_new_connections_or_all(running: bool, kinds: set[str]) -> None:
    commands = nft_table.closed(TABLE, MAKING, running=running)
    assert {each["name"] for each in told(commands, "flush", "chain")} == {MAKING.name(kind) for kind in kinds}
    for kind in kinds:
        assert "tcp reset" in chain(commands, kind)[-2]
        assert "port-unreachable" in chain(commands, kind)[-1]


def test_a_session_is_taken_out_by_the_elements_that_lead_to_it() -> None:
    doors = (("at_ip", {"concat": ["198.18.1.2", "tcp", 5100]}), ("any_ip6", {"concat": ["tcp", 5100]}))
    commands = nft_table.removed(TABLE, Standing(MAKING, ("admit", "carry"), doors), last=False)
    gone = [each["name"] for each in told(commands, "delete", "element")]
    assert sorted(gone) == [
        *("any_ip6", "at_ip", "carried", "carried", "carried_bare", "carried_bare"),
        *("late", "marks", "ports", "refused"),
    ]
    assert len(told(commands, "delete", "chain")) == 2
    assert not told(commands, "delete", "table")


def test_the_last_session_takes_the_table_with_it() -> None:
    commands = nft_table.removed(TABLE, Standing(MAKING, (), ()), last=True)
    assert commands == [{"delete": {"table": {"family": "inet", "name": TABLE}}}]


def test_sessions_are_read_from_the_chains() -> None:
    names = [MAKING.name("admit"), MAKING.name("carry"), "doors"]
    chains = [{"chain": {"family": "inet", "table": TABLE, "name": name}} for name in names]
    foreign = {"chain": {"family": "ip", "table": "nat", "name": MAKING.name("admit")}}
    answer = {"nftables": [{"metainfo": {}}, foreign, *chains]}
    assert nft_reading.sessions(answer) == {TABLE: {MAKING: ("admit", "carry")}}


def test_firewalls_that_let_nothing_pass_are_seen() -> None:
    def chain(family: str, hook: str, policy: str) -> dict[str, Any]:
        facts = {"family": family, "table": "filter", "name": hook.upper(), "hook": hook, "policy": policy}
        return {"chain": facts}

    chains = [chain("ip", "forward", "drop"), chain("ip6", "forward", "accept"), chain("ip", "input", "drop")]
    assert nft_reading.droppers({"nftables": [{"metainfo": {}}, *chains]}) == ("ip filter FORWARD",)


def element(name: str, key: list[Any], packets: int, size: int, chain: str = "") -> nft_reading.Element:
    counted = {"elem": {"val": {"concat": key}, "counter": {"packets": packets, "bytes": size}}}
    entry = [counted, {"goto": {"target": chain}}] if chain else counted
    answer = {"nftables": [{"map": {"table": TABLE, "name": name, "elem": [entry]}}]}
    return next(nft_reading.elements(answer))


def test_figures_are_without_headers() -> None:
    admit, carry = MAKING.name("admit"), MAKING.name("carry")
    found = [
        element("at_ip", ["198.18.1.2", "tcp", 5100], 7, 420, admit),
        element("refused", ["tcp", 5100], 2, 120),
        element("late", ["tcp", 5100], 1, 60),
        element("refused", ["tcp", 5200], 9, 540),
        element("carried", [MAKING.number, "original"], 10, 10 * 52 + 1000, carry),
        element("carried_bare", [MAKING.number, "original"], 10, 10 * 40 + 500, carry),
        element("carried", [MAKING.number, "reply"], 3, 3 * 52, carry),
        element("carried", [MAKING.number + 1, "reply"], 3, 9999, "carry-of-another"),
    ]
    assert nft_reading.Tally(found).figures(MAKING) == Traffic(0, 4, 1500, 0, 2)


@pytest.mark.parametrize(("name", "header"), [("at_ip", 28), ("at_ip6", 48)])
def test_datagrams_have_shorter_headers(name: str, header: int) -> None:
    found = [
        element(name, ["address", "udp", 5100], 1, 100, MAKING.name("admit")),
        element("carried", [MAKING.number, "reply"], 3, 3 * header + 30, MAKING.name("carry")),
    ]
    assert nft_reading.Tally(found).figures(MAKING).bytes_from_targets == 30


def test_what_stands_is_read_with_its_doors() -> None:
    found = [
        element("at_ip", ["198.18.1.2", "tcp", 5100], 0, 0, MAKING.name("admit")),
        element("at_ip", ["198.18.1.2", "tcp", 5101], 0, 0, "admit-of-another"),
    ]
    standing = nft_reading.standing(MAKING, ("admit", "carry"), found)
    assert standing.doors == (("at_ip", {"concat": ["198.18.1.2", "tcp", 5100]}),)
    assert standing.ports == [["tcp", 5100]]
    assert standing.carried == ("carried", "carried_bare")


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def tracked(*, state: int = 3, protocol: int = 6) -> bytes:
    def ends(kind: int, source: tuple[str, int], to: tuple[str, int]) -> bytes:
        hosts = b"".join(
            attribute(number, ipaddress.ip_address(each).packed) for number, each in ((1, source[0]), (2, to[0]))
        )
        ports = b"".join(attribute(number, each[1].to_bytes(2, "big")) for number, each in ((2, source), (3, to)))
        return attribute(
            kind | 0x8000, attribute(0x8001, hosts) + attribute(0x8002, attribute(1, bytes([protocol])) + ports)
        )

    return (
        bytes(4)
        + ends(1, ("198.18.1.1", 40000), ("198.18.1.2", 5100))
        + ends(2, ("198.18.3.2", 5000), ("198.18.2.1", 40001))
        + attribute(0x8004, attribute(0x8001, attribute(1, bytes([state]))))
        + attribute(8, MAKING.number.to_bytes(4, "big"))
    )


def test_a_tracked_connection_is_read() -> None:
    found = nft_conntrack.parse(tracked())
    assert found is not None
    assert (found.number, found.is_tcp, found.is_open) == (MAKING.number, True, True)
    assert found.client == nft_conntrack.End(("198.18.1.2", 5100), ("198.18.1.1", 40000))
    assert found.target == nft_conntrack.End(("198.18.2.1", 40001), ("198.18.3.2", 5000))


@pytest.mark.parametrize(("state", "is_open"), [(1, True), (5, True), (6, True), (7, False), (8, False)])
def test_a_connection_is_open_until_both_ends_have_closed(state: int, is_open: bool) -> None:
    found = nft_conntrack.parse(tracked(state=state))
    assert found is not None
    assert found.is_open is is_open


def test_other_protocols_are_passed_over() -> None:
    assert nft_conntrack.parse(tracked(protocol=1)) is None
    assert nft_conntrack.parse(b"") is None


@pytest.mark.parametrize(("kinds", "expected"), [([0x0A00, 0x0A0F], False), ([0x0A00, 0x0A05], True), ([], False)])
def test_removals_are_told_from_other_changes(kinds: list[int], expected: bool) -> None:
    messages = (struct.pack("=IHHII", 21, kind, 0, 0, 0) + bytes(8) for kind in kinds)
    assert removes(b"".join(messages)) is expected


@pytest.mark.parametrize(
    ("capabilities", "v4", "v6", "words"),
    [
        ("0000000000001000", "1", "0", ""),
        ("0000000000001000", "0", "1", ""),
        ("0000000000001000", "0", "0", "this host forwards no IPv4 packets: switch it on with sysctl -w"),
        ("0000000000000400", "1", "1", "has not the capability CAP_NET_ADMIN (root has it; its unit: "),
    ],
)
def test_what_the_host_lacks(tmp_path: Path, capabilities: str, v4: str, v6: str, words: str) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\nCapEff:\t{capabilities}\nCapAmb:\t{capabilities}\n")
    for name, value in (("ipv4/ip_forward", v4), ("ipv6/conf/all/forwarding", v6)):
        path = tmp_path / "net" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{value}\n")
    told = nft_host.shortfall(status, tmp_path)
    assert words in told
    assert bool(told) == bool(words)


def test_it_is_for_plain_paths_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = find_engine("NFTables")
    assert isinstance(engine, NFTables)
    monkeypatch.setattr(nft_host, "shortfall", lambda: "")
    with pytest.raises(SciStreamError) as caught:
        require(engine, Wishes(encryption=Encryption.TLS))
    assert caught.value.code is Code.ENGINE_CANNOT
    assert "the kernel forwards packets and encrypts nothing: ask for encryption none" in str(caught.value)
    require(engine, Wishes(encryption=Encryption.NONE, sources=True, half_close=True))
    require(engine, Wishes(encryption=Encryption.NONE, transport=Transport.UDP))
    monkeypatch.setattr(NFTables, "locate", lambda _: None)
    table = {each.feature: each.can for each in abilities(engine)}
    tls = {Feature.TLS, Feature.TLS_WITH_NGINX, Feature.LEGACY_PSK, Feature.RENEWAL, Feature.HANDSHAKE}
    lacking = tls | {Feature.RATE}
    assert {feature for feature, can in table.items() if not can} <= lacking


@pytest.mark.parametrize("target", ["224.0.0.1", "0.0.0.0", "255.255.255.255", "240.0.0.1", "ff02::1", "::"])  # noqa: S104
def test_what_is_no_hosts_address_is_no_target(target):
    address = ipaddress.ip_address("198.18.2.2" if "." in target else "2001:db8::2")
    door = Door(address, 5100, ipaddress.ip_address(target), 5074)
    with pytest.raises(SciStreamError) as caught:
        nft_host.require_forwarding("nftables", (door,))
    assert caught.value.code is Code.ENGINE_CANNOT
    assert caught.value.facts["reason"].endswith("is no host's address")
