"""Addresses are parsed once, printed canonically, and nothing else gets through."""

from __future__ import annotations

import ipaddress
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scistream.addresses import Endpoint, PortRange, parse_endpoints, parse_host
from scistream.errors import Code, SciStreamError

_HOST_CHARACTERS = set(string.ascii_letters + string.digits + "-_.")


@pytest.mark.parametrize(
    ("text", "host", "port", "printed"),
    [
        ("192.0.2.7:5074", "192.0.2.7", 5074, "192.0.2.7:5074"),
        ("Detector-1.example.org:1", "detector-1.example.org", 1, "detector-1.example.org:1"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
        ("[::1]:5074", "::1", 5074, "[::1]:5074"),
        ("[2001:DB8:0:0::7]:80", "2001:db8::7", 80, "[2001:db8::7]:80"),
    ],
)
def test_endpoint_is_read_and_printed_canonically(text: str, host: str, port: int, printed: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.host, endpoint.port, str(endpoint)) == (host, port, printed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the host is missing"),
        (":5074", "the host is missing"),
        ("host", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("[::1]5074", "the port is missing"),
        ("::1:5074", "an IPv6 address needs brackets"),
        ("host:0", "'0' is not a port"),
        ("host:65536", "'65536' is not a port"),
        ("host:+80", "'+80' is not a port"),
        ("host:٣٣", "is not a port"),
        ("192.0.2.999:80", "neither a name nor an IP address"),
        ("192.0.2:80", "neither a name nor an IP address"),
        ("-host:80", "neither a name nor an IP address"),
        ("ho st:80", "neither a name nor an IP address"),
        ("a..b:80", "neither a name nor an IP address"),
        ("[fe80::1%eth0]:80", "is not an IPv6 address"),
        ("[192.0.2.7]:80", "is not an IPv6 address"),
        ("h" * 64 + ":80", "neither a name nor an IP address"),
    ],
)
def test_bad_address_is_named_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        Endpoint.parse(text)
    assert caught.value.code is Code.BAD_ADDRESS
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text", ["h:1\nbind *:80", "h\n:1", "h:1\r", "h;x:1", "h:1 #", "{{h}}:1", "h\x00:1", "h:1\u2028"]
)
def test_u07_nothing_but_an_address_gets_through(text: str) -> None:
    with pytest.raises(SciStreamError) as caught:
        Endpoint.parse(text)
    assert "\n" not in str(caught.value)


def _parsed(text: str) -> Endpoint | None:
    try:
        return Endpoint.parse(text)
    except SciStreamError:
        return None


@given(st.text() | st.from_regex(r"[a-zA-Z0-9._-]+:[0-9]{1,5}"))
def test_u07_whatever_parses_holds_only_host_characters(text: str) -> None:
    endpoint = _parsed(text)
    assert endpoint is None or endpoint.is_ipv6 or set(endpoint.host) <= _HOST_CHARACTERS
    assert endpoint is None or Endpoint.parse(str(endpoint)) == endpoint


@given(st.ip_addresses(), st.integers(1, 65535))
def test_u58_every_ip_address_survives_printing(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    endpoint = Endpoint(str(ip), port)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert endpoint.ip == ip
    assert endpoint.is_ipv6 == (ip.version == 6)


def test_default_port_fills_in_where_none_is_written() -> None:
    assert Endpoint.parse("gateway", default_port=5000) == Endpoint("gateway", 5000)
    assert Endpoint.parse("[::1]", default_port=5000) == Endpoint("::1", 5000)
    assert Endpoint.parse("gateway:1", default_port=5000) == Endpoint("gateway", 1)


def test_lists_of_addresses_may_be_written_either_way() -> None:
    assert parse_endpoints(["a:1, b:2", "[::1]:3"]) == (Endpoint("a", 1), Endpoint("b", 2), Endpoint("::1", 3))


def test_an_empty_part_of_a_list_is_an_error() -> None:
    with pytest.raises(SciStreamError, match="the host is missing"):
        parse_endpoints(["a:1,,b:2"])


def test_host_names_are_lower_case_and_addresses_canonical() -> None:
    assert parse_host("GATEWAY.Example") == "gateway.example"
    assert parse_host("2001:DB8::0:1") == "2001:db8::1"


@pytest.mark.parametrize(("text", "ports"), [("5100-5102", [5100, 5101, 5102]), ("7", [7]), (" 1 - 2 ", [1, 2])])
def test_port_range_counts_both_ends(text: str, ports: list[int]) -> None:
    found = PortRange.parse(text)
    assert list(found) == ports
    assert len(found) == len(ports)
    assert ports[-1] in found
    assert ports[-1] + 1 not in found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5200-5100", "runs backwards"),
        ("0-10", "1 to 65535"),
        ("60000-70000", "1 to 65535"),
        ("", "not of the form FIRST-LAST"),
        ("a-b", "not of the form FIRST-LAST"),
        ("5100-", "not of the form FIRST-LAST"),
        ("5100-5200-5300", "not of the form FIRST-LAST"),
    ],
)
def test_bad_port_range_is_named_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SciStreamError, match=reason) as caught:
        PortRange.parse(text)
    assert caught.value.code is Code.BAD_PORT_RANGE


@pytest.mark.parametrize("text", ["0x7f000001:22", "0x7f.0x1:22", "127.0x1:22", "0X7F000001:22", "a.0x:22"])
def test_a_name_that_resolvers_read_as_an_address_in_disguise_is_none(text):
    with pytest.raises(SciStreamError) as caught:
        Endpoint.parse(text)
    assert caught.value.code is Code.BAD_ADDRESS
