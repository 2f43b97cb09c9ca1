from __future__ import annotations

import pytest

from scistream.demo.measurement import parse_report
from scistream.demo.traffic import RECEIVER, SENDER, Exchange, Progress
from scistream.demo.wording import Narrator, progress_line, size
from scistream.errors import Code, SciStreamError


def _done(size_: int, digest: str) -> dict[str, object]:
    return {"event": "done", "bytes": size_, "messages": 3, "digest": digest, "seconds": 2.0}


def test_an_exchange_is_over_when_both_sides_are_done() -> None:
    exchange = Exchange()
    exchange.hear(SENDER, _done(10**9, "a"))
    assert exchange.outcome is None
    exchange.hear(RECEIVER, _done(10**9, "a"))
    outcome = exchange.outcome
    assert outcome is not None
    assert outcome.whole
    assert outcome.as_dict() == {
        "bytes": 10**9,
        "messages": 3,
        "seconds": 2.0,
        "gbps": 4.0,
        "digest_sent": "a",
        "digest_received": "a",
        "whole": True,
    }


@pytest.mark.parametrize(("received", "digest"), [(10, "b"), (9, "a")])
def test_other_bytes_or_fewer_are_not_whole(received: int, digest: str) -> None:
    exchange = Exchange()
    exchange.hear(SENDER, _done(10, "a"))
    exchange.hear(RECEIVER, _done(received, digest))
    outcome = exchange.outcome
    assert outcome is not None
    assert not outcome.whole


def test_only_what_arrived_is_progress() -> None:
    exchange = Exchange()
    report = {"event": "bytes", "bytes": 50, "total": 100, "seconds": 1.0}
    assert exchange.hear(SENDER, report) is None
    assert exchange.hear(RECEIVER, report) == Progress(50, 100, 1.0)


def test_what_was_seen_last_is_told() -> None:
    exchange = Exchange()
    assert exchange.last_seen == "0 of ? bytes after 0.0 s, the sender still sends"
    exchange.hear(RECEIVER, {"event": "bytes", "bytes": 50, "total": 100, "seconds": 1.0})
    exchange.hear(SENDER, _done(100, "a"))
    assert exchange.last_seen == "50 of 100 bytes after 1.0 s, the sender is done"
    exchange.hear(RECEIVER, _done(100, "a"))
    assert exchange.last_seen == "all bytes arrived, and the sender does not end"


def test_nothing_in_no_time_is_all_of_it_at_no_rate() -> None:
    assert (Progress(0, 0, 0.0).share, Progress(0, 0, 0.0).gbps) == (1.0, 0.0)


def test_a_file_that_grew_is_not_more_than_whole() -> None:
    assert Progress(200, 100, 1.0).share == 1.0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (8388608, "8.39 MB"),
        (1073741824, "1.07 GB"),
        (5 * 10**15, "5000.00 TB"),
    ],
)
def test_sizes_are_powers_of_a_thousand(number: int, words: str) -> None:
    assert size(number) == words


def test_a_line_of_progress_has_bar_share_bytes_and_rate() -> None:
    line = progress_line(Progress(500_000_000, 1_000_000_000, 1.0))
    assert line.startswith("█" * 15 + "░" * 15 + "  50%")
    assert "500.00 MB of 1.00 GB" in line
    assert line.endswith("4.00 Gb/s")


def test_a_fast_stream_is_told_of_in_tenths_and_not_at_its_very_end() -> None:
    told: list[str] = []
    narrator = Narrator(told.append, clock=lambda: 0.0)
    for share in range(101):
        narrator.hear(Progress(share, 100, 1.0))
    assert [line.split()[1] for line in told] == [f"{share}%" for share in range(10, 100, 10)]


def test_a_slow_stream_is_told_of_every_ten_seconds() -> None:
    told: list[str] = []
    seconds = iter(range(1000))
    narrator = Narrator(told.append, clock=lambda: float(next(seconds)))
    for _report in range(35):
        narrator.hear(Progress(1, 10**9, 1.0))
    assert len(told) == 3


def test_iperf3s_report_is_read() -> None:
    report = (
        '{"start": {"test_start": {"num_streams": 4}},',
        ' "end": {"sum_received": {"bytes": 250000000, "seconds": 1.0}}}',
    )
    assert parse_report(report).as_dict() == {"bytes": 250000000, "seconds": 1.0, "gbps": 2.0, "connections": 4}


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ('{"start": {}, "end": {}, "error": "unable to connect to server: Connection refused"}', "Connection refused"),
        ("", "it printed nothing"),
        ("Segmentation fault", "Segmentation fault"),
        ("[]", r"\[\]"),
    ],
)
def test_iperf3s_own_words_are_told(report: str, words: str) -> None:
    with pytest.raises(SciStreamError, match=words) as caught:
        parse_report([report])
    assert caught.value.code is Code.APPLICATION_FAILED
