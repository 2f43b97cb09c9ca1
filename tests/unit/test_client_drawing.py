from __future__ import annotations

from typing import Any

from scistream.client.drawing import draw_path


def _session(
    entry_points: list[str], targets: list[str], engine: str = "haproxy", encryption: str = "none"
) -> dict[str, Any]:
    return {"entry_points": entry_points, "targets": targets, "engine": engine, "encryption": encryption}


INBOUND = _session(["192.0.2.2:5100", "192.0.2.2:5101"], ["10.0.0.5:5074", "10.0.0.5:5075"])
OUTBOUND = _session(["192.0.2.1:5100", "192.0.2.1:5101"], ["192.0.2.2:5100", "192.0.2.2:5101"])


def test_the_whole_path_stands_in_a_row() -> None:
    assert draw_path(INBOUND, OUTBOUND, ["detector", "iperf3"], facilities=("A", "B")) == [
        "              ┌─ outbound, A ──┐     ┌─ inbound, B ───┐",
        "detector ────▶│ 192.0.2.1:5100 │────▶│ 192.0.2.2:5100 │────▶ 10.0.0.5:5074",
        "iperf3   ────▶│ 192.0.2.1:5101 │────▶│ 192.0.2.2:5101 │────▶ 10.0.0.5:5075",
        "              └─ HAProxy ──────┘     └─ HAProxy ──────┘",
        "────▶ TCP as the application speaks it; nothing is encrypted on the way",
    ]


def test_every_line_of_the_boxes_has_its_walls_in_the_same_columns() -> None:
    long = _session(["[2001:db8::1234:5678]:5100"], ["192.0.2.2:5100"], "nginx")
    drawing = draw_path(INBOUND, long, "a detector with a long name", facilities=("a facility with a long name", "B"))
    walls = [[column for column, letter in enumerate(line) if letter in "┌┐└┘│"] for line in drawing[:-1]]
    assert len(walls[0]) == 4
    assert all(columns == walls[0] for columns in walls)


def test_an_encrypted_stream_is_drawn_so_and_says_with_what() -> None:
    inbound = INBOUND | {"encryption": "tls-psk", "engine": "stunnel"}
    drawing = draw_path(inbound, OUTBOUND | {"encryption": "tls-psk", "engine": "stunnel"})
    assert "│════▶│ 192.0.2.2:5100" in drawing[1]
    assert "TLS 1.3" in drawing[-1]
    assert "Stunnel" in drawing[-2]


def test_a_plain_stream_says_that_nothing_is_encrypted() -> None:
    assert "nothing is encrypted" in draw_path(INBOUND, OUTBOUND)[-1]


def test_gateways_that_disagree_are_told_of() -> None:
    drawing = draw_path(INBOUND, OUTBOUND | {"encryption": "tls-psk"})
    assert drawing[-1] == "the gateways disagree: none inbound, tls-psk outbound; no byte will pass"


def test_an_old_control_server_tells_no_engine_and_no_encryption() -> None:
    drawing = draw_path(INBOUND | {"encryption": "", "engine": ""}, OUTBOUND | {"encryption": "", "engine": ""})
    assert "engine not told" in drawing[-2]
    assert drawing[-1] == "what protects the bytes between the gateways is not told"


def test_many_entry_points_share_fewer_targets_in_turn() -> None:
    outbound = OUTBOUND | {"entry_points": [f"192.0.2.1:{5100 + number}" for number in range(3)]}
    drawing = draw_path(INBOUND, outbound)
    assert [line.split()[-1] for line in drawing[1:4]] == ["10.0.0.5:5074", "10.0.0.5:5075", "10.0.0.5:5074"]


def test_a_hundred_entry_points_are_counted_and_not_drawn() -> None:
    outbound = OUTBOUND | {"entry_points": [f"192.0.2.1:{5100 + number}" for number in range(100)]}
    drawing = draw_path(INBOUND, outbound)
    assert "… and 92 more entry points" in drawing
    assert len(drawing) < 20


def test_an_entry_point_that_is_not_the_inbound_gateways_leads_to_an_unknown_target() -> None:
    drawing = draw_path(INBOUND, OUTBOUND | {"targets": ["198.51.100.9:1"]})
    assert drawing[1].endswith("────▶ ?")


def test_a_session_without_entry_points_is_drawn_empty() -> None:
    assert "outbound" in draw_path(INBOUND, OUTBOUND | {"entry_points": [], "targets": []})[0]
