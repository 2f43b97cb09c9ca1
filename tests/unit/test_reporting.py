"""Reports about gateways: what needs attention, the words, the page and its drawing."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from pages import attributes_of, elements_of
from scistream.client.facts import AbilityFacts, EngineFacts, ServerFacts
from scistream.client.sessions import Session, Traffic
from scistream.client.survey import GatewayReport
from scistream.errors import Code, SciStreamError
from scistream.reporting import judged, render_page, render_text
from scistream.reporting.drawing import draw
from scistream.reporting.streams import paired
from scistream.terms import Direction, Uid

_NOW = 1795388215.5
_DAY = 86400.0
_UID = Uid("7f2c9a34-51d0-8a6e-b1f7-3e0c5d2a9b48")
_HOSTILE = "\"><script>alert(1)</script>'&<svg onload=x>"

_FACTS = ServerFacts(
    version="0.1.0",
    listen_address="0.0.0.0:5000",
    port_range="5100-5200",
    ports_free=99,
    engine="haproxy",
    engines=(
        EngineFacts(
            "haproxy",
            installed=True,
            version="2.6.12",
            program="/usr/sbin/haproxy",
            encryption="tls",
            encryptions=("tls", "none"),
            abilities=(AbilityFacts("UDP", can=False, words="it carries TCP only"), AbilityFacts("TLS", can=True)),
        ),
        EngineFacts("nginx", installed=True, version="1.22.1", program="/usr/sbin/nginx", encryption="tls"),
    ),
    authentication="https://auth.example",
    tls=True,
    certificate_names=("gateway_a",),
    certificate_expires=_NOW + 300 * _DAY,
    started=_NOW - 7000,
    sessions=2,
    old_clients="refuse",
)


def session(direction: Direction, entry_points: tuple[str, ...], targets: tuple[str, ...], **more: Any) -> Session:
    facts = {
        "state": "active",
        "engine": "haproxy",
        "encryption": "tls",
        "owner": "somebody",
        "connections": len(entry_points),
        "rate": 0,
        "opened": _NOW - 100,
        "failure": "",
        "traffic": Traffic(1, 3, 1048576, 5368709120, 2),
        "cipher": "TLS_AES_256_GCM_SHA384",
        "peer": "CN=outbound",
    }
    return Session(uid=_UID, direction=direction, entry_points=entry_points, targets=targets, **facts | more)


@pytest.fixture
def gateways() -> list[dict[str, Any]]:
    """An outbound and an inbound gateway with one stream, and one that does not answer."""
    gone = SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server="192.0.2.9:5000", reason="connection refused")
    outbound = session(Direction.OUTBOUND, ("198.51.100.1:5100", "198.51.100.1:5101"), ("192.0.2.7:5100",))
    inbound = session(Direction.INBOUND, ("192.0.2.7:5100",), ("10.0.0.5:5074",), lease_expires=_NOW + 3600)
    reports = [
        GatewayReport("gateway_a", "facility_a", "198.51.100.1:5000", _FACTS, (outbound,)),
        GatewayReport("gateway_b", "facility_b", "192.0.2.7:5000", _FACTS, (inbound,)),
        GatewayReport("gateway_c", "", "192.0.2.9:5000", failure=gone),
    ]
    return [report.as_dict() for report in reports]


def report_of(gateways: list[dict[str, Any]], days: float = 14.0) -> dict[str, Any]:
    return {"asked": _NOW, "gateways": gateways, **judged(gateways, now=_NOW, certificate_days=days)}


def change(gateways: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """The report of the first gateway alone, with other facts."""
    one = copy.deepcopy(gateways[0])
    one["facts"] |= facts
    return report_of([one])


def test_all_that_is_well_is_no_trouble(gateways: list[dict[str, Any]]) -> None:
    assert report_of(gateways[:2])["troubles"] == report_of(gateways[:2])["notices"] == []


def test_a_gateway_that_does_not_answer_is_trouble_with_its_next_step(gateways: list[dict[str, Any]]) -> None:
    (trouble,) = report_of(gateways)["troubles"]
    assert trouble.startswith("gateway_c: cannot connect to control server 192.0.2.9:5000: connection refused; ")
    assert "s2cs status" in trouble


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"certificate_expires": _NOW + 3 * _DAY}, "gateway_a: its certificate ends in 3d00h; renew it"),
        ({"certificate_expires": _NOW - 1}, "gateway_a: its certificate has expired"),
        ({"ports_free": 0}, "gateway_a: all ports of 5100-5200 are taken"),
    ],
)
def test_what_somebody_has_to_mend(gateways: list[dict[str, Any]], facts: dict[str, Any], words: str) -> None:
    (trouble,) = change(gateways, **facts)["troubles"]
    assert trouble.startswith(words)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"authentication": "NO_AUTH"}, "gateway_a: whoever reaches its control port may do everything"),
        ({"tls": False}, "gateway_a: its control channel is plain text"),
        ({"old_clients": "plain"}, "gateway_a: deployed clients are served unencrypted: old_clients is plain"),
        ({"warnings": ["the disk is full"]}, "gateway_a: the disk is full"),
    ],
)
def test_what_somebody_should_know(gateways: list[dict[str, Any]], facts: dict[str, Any], words: str) -> None:
    (notice,) = change(gateways, **facts)["notices"]
    assert notice.startswith(words)


def test_sessions_that_failed_or_are_readable_are_named(gateways: list[dict[str, Any]]) -> None:
    gateways[0]["sessions"][0] |= {"state": "failed", "failure": "the port is taken", "encryption": "none"}
    report = report_of(gateways[:2])
    assert report["troubles"] == [f"gateway_a: session {_UID} (outbound) failed: the port is taken"]
    assert report["notices"] == [
        f"gateway_a: the bytes of session {_UID} (outbound) can be read between the gateways: encryption none"
    ]


def test_an_old_control_server_answers_and_tells_nothing() -> None:
    old = SciStreamError(Code.OLD_CONTROL_SERVER, server="192.0.2.9:5000", operation="tell what it is")
    gateway = GatewayReport("gateway_c", failure=old).as_dict()
    assert gateway["reached"]
    assert report_of([gateway])["troubles"] == []
    assert "old protocol only" in report_of([gateway])["notices"][0]


def test_the_text_says_all_that_the_report_is_for(gateways: list[dict[str, Any]]) -> None:
    gateways[0]["sessions"][0]["name"] = "beam"
    text = "\n".join(render_text(report_of(gateways)))
    for words in (
        "3 gateways, 2 answered; 2 sessions; 1 trouble; asked 2026-11-22 22:56:55 UTC",
        "gateway_a (facility_a), control server 198.51.100.1:5000",
        "0.1.0, up 1h56m",
        "haproxy 2.6.12: tls, none; also there: nginx 1.22.1",
        "UDP (it carries TCP only)",
        "2 of 101 used (5100-5200), 99 free",
        "300d00h left (gateway_a)",
        "lease 1h00m left",
        "tls: TLS_AES_256_GCM_SHA384 with CN=outbound",
        "1 open, 3 in all; 1.05 MB to the targets, 5.37 GB from them; 2 peers refused",
        f"stream beam ({_UID})",
        "│ 192.0.2.7:5100",
    ):
        assert words in text, words


def test_half_a_stream_says_which_end_is_elsewhere(gateways: list[dict[str, Any]]) -> None:
    text = "\n".join(render_text(report_of(gateways[:1])))
    words = "at gateway_a only; its inbound end is at none of the gateways that answered"
    assert f"stream {_UID}: {words}" in text
    assert f"<p>{words}</p>" in render_page(report_of(gateways[:1]))
    assert words not in render_page(report_of(gateways))


def test_a_uid_at_two_gateways_of_one_kind_is_two_streams(gateways: list[dict[str, Any]]) -> None:
    streams = paired([gateways[0], gateways[0], gateways[1]])
    assert [(bool(one["inbound"]), bool(one["outbound"])) for one in streams] == [(True, True), (False, True)]


def test_a_path_is_drawn_by_ports_since_a_gateway_has_several_addresses(gateways: list[dict[str, Any]]) -> None:
    gateways[1]["sessions"][0]["entry_points"] = ["198.18.10.22:5100"]
    drawing = draw(paired(gateways)[0])
    assert [box.rows for box in drawing.boxes] == [
        ("any host", ""),
        ("198.51.100.1:5100", "198.51.100.1:5101"),
        ("192.0.2.7:5100", "192.0.2.7:5100"),
        ("10.0.0.5:5074", "10.0.0.5:5074"),
    ]
    assert [arrow.is_encrypted for arrow in drawing.arrows] == [False, True, False] * 2
    assert not any(box.is_elsewhere for box in drawing.boxes)


def test_the_drawing_tells_who_may_connect(gateways: list[dict[str, Any]]) -> None:
    gateways[0]["sessions"][0]["sources"] = ["10.0.0.0/8", "198.51.100.0/24"]
    assert draw(paired(gateways)[0]).boxes[0].rows == ("10.0.0.0/8 and 1 more", "")


def test_the_page_tells_what_can_be_read_on_the_way(gateways: list[dict[str, Any]]) -> None:
    assert "between the gateways: tls: TLS_AES_256_GCM_SHA384 with CN=outbound" in render_page(report_of(gateways))
    for gateway in gateways[:2]:
        gateway["sessions"][0]["encryption"] = "none"
    html = render_page(report_of(gateways))
    assert '<p class="bad">between the gateways: NOT ENCRYPTED (none)</p>' in html
    assert 'class="encrypted"' not in html


def test_a_long_stream_is_drawn_in_part(gateways: list[dict[str, Any]]) -> None:
    gateways[0]["sessions"][0]["entry_points"] = [f"198.51.100.1:{port}" for port in range(5100, 5120)]
    drawing = draw(paired(gateways)[0])
    assert (len(drawing.boxes[1].rows), drawing.remark) == (8, "and 12 more entry points")


@pytest.mark.parametrize("end", [0, 1])
def test_the_end_of_another_facility_is_drawn_as_such(gateways: list[dict[str, Any]], end: int) -> None:
    drawing = draw(paired([gateways[end]])[0])
    assert [box.is_elsewhere for box in drawing.boxes] == [False, end == 1, end == 0, False]


def test_an_end_that_failed_is_seen_in_the_drawing(gateways: list[dict[str, Any]]) -> None:
    gateways[1]["sessions"][0]["state"] = "failed"
    assert [box.has_failed for box in draw(paired(gateways)[0]).boxes] == [False, False, True, False]
    assert 'class="bad">inbound, haproxy, failed</text>' in render_page(report_of(gateways))


def test_every_cell_says_what_it_is_where_there_is_no_room_for_a_head(gateways: list[dict[str, Any]]) -> None:
    html = render_page(report_of(gateways))
    head = re.findall(r"<th>(.*?)</th>", html)
    assert re.findall(r'<td data-label="(.*?)"', html) == head
    assert html.count("<td") == len(head)


def test_the_page_is_well_formed_and_its_own(gateways: list[dict[str, Any]]) -> None:
    html = render_page(report_of(gateways))
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 1
    shapes = [element.tag for element in ET.fromstring(drawings[0]).iter()]  # noqa: S314 - made here
    assert (shapes.count("rect"), shapes.count("line"), shapes.count("polygon")) == (4, 6, 6)
    assert "<script" not in html
    assert "http://" not in html.replace("http-equiv", "")
    assert "gateway_c" in html
    assert "default-src 'none'" in html


def test_nothing_that_a_control_server_says_becomes_a_tag(gateways: list[dict[str, Any]]) -> None:
    clean = render_page(report_of(gateways))
    gateways[2]["failure"] = dict.fromkeys(gateways[2]["failure"], _HOSTILE)
    for gateway in gateways:
        gateway |= {"name": _HOSTILE, "facility": _HOSTILE, "control_server": _HOSTILE}
        for one in gateway["sessions"]:
            texts = ("uid", "name", "state", "engine", "owner", "failure", "cipher", "peer")
            one.update(
                dict.fromkeys(texts, _HOSTILE), **{key: [_HOSTILE] for key in ("warnings", "targets", "entry_points")}
            )
        if facts := gateway["facts"]:
            facts |= dict.fromkeys(("version", "engine", "authentication", "old_clients", "port_range"), _HOSTILE)
            facts |= {"certificate_names": [_HOSTILE], "warnings": [_HOSTILE]}
    html = render_page(report_of(gateways))
    assert elements_of(html) <= elements_of(clean)
    assert attributes_of(html).keys() == attributes_of(clean).keys()
    assert not any(name.startswith("on") for name in attributes_of(html))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_an_empty_report_has_text_and_page() -> None:
    report = report_of([])
    assert render_text(report)[0].startswith("0 gateways, 0 answered; 0 sessions; 0 troubles")
    assert "none in the inventory" in render_page(report)
