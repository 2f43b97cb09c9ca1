from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import structlog

from scistream.control_server.answering import Call
from scistream.control_server.appending import LineFile
from scistream.control_server.audit import Audit
from scistream.control_server.events import Event, EventKind

NOW = 1_700_000_000.25


class Site:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit"
        self.now = NOW
        self.log = structlog.testing.LogCapture()
        logger = structlog.wrap_logger(None, processors=[structlog.stdlib.add_log_level, self.log])
        self.file = LineFile(self.path)
        self.audit = Audit(self.file, logger, clock=lambda: self.now)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_u34_a_call_is_recorded_with_who_what_from_where_and_its_outcome(site):
    site.audit.note_call(
        Call("update", "ipv4:192.0.2.7:41000", "one", "inbound", "a@x", "b@x", "NOT_OWNER", seconds=0.0123456789)
    )
    assert site.lines() == [
        {
            "time": "2023-11-14T22:13:20.250+00:00",
            "action": "update",
            "uid": "one",
            "direction": "inbound",
            "owner": "b@x",
            "who": "a@x",
            "peer": "ipv4:192.0.2.7:41000",
            "outcome": "NOT_OWNER",
            "why": "",
            "seconds": 0.012346,
        }
    ]


@pytest.mark.parametrize("name", ["ListSessions", "DescribeSession", "GetServerFacts", "WatchSessions"])
def test_who_only_looks_is_recorded_where_they_are_not_known_alone(site, name):
    site.audit.note_call(Call(name, "peer", owner="a@x"))
    assert site.lines() == []
    site.audit.note_call(Call(name, "peer", outcome="TOKEN_REFUSED"))
    assert [(line["action"], line["who"], line["outcome"]) for line in site.lines()] == [(name, "", "TOKEN_REFUSED")]


def test_strangers_cannot_write_it_full_and_are_counted(site):
    for _ in range(100):
        site.audit.note_call(Call("req", "peer", outcome="TOKEN_REFUSED"))
    assert len(site.lines()) == 10
    # Whoever is known is recorded all the same.
    site.audit.note_call(Call("req", "peer", owner="a@x"))
    assert len(site.lines()) == 11
    site.now += 1
    site.audit.note_call(Call("req", "peer", outcome="TOKEN_REFUSED"))
    assert site.lines()[-1]["not_recorded_before"] == 90


def test_the_refused_calls_of_a_known_user_cannot_push_out_what_others_did(site):
    for _ in range(100):
        site.audit.note_call(Call("update", "peer", owner="a@x", outcome="UID_UNKNOWN"))
    assert len(site.lines()) == 10
    site.audit.note_call(Call("update", "peer", owner="b@x", outcome="UID_UNKNOWN"))
    site.audit.note_call(Call("release", "peer", outcome="TOKEN_REFUSED"))
    # What was done is always there, and says what was left out of the same user's.
    for _ in range(20):
        site.audit.note_call(Call("release", "peer", owner="a@x"))
    assert [line["who"] for line in site.lines()[10:]] == ["b@x", "", *["a@x"] * 20]
    assert [line.get("not_recorded_before", 0) for line in site.lines()[10:]] == [0, 0, 90, *[0] * 19]
    # And lets no more of the refused ones in.
    site.audit.note_call(Call("update", "peer", owner="a@x", outcome="UID_UNKNOWN"))
    assert len(site.lines()) == 32
    site.now += 1
    site.audit.note_call(Call("update", "peer", owner="a@x", outcome="UID_UNKNOWN"))
    assert site.lines()[-1]["not_recorded_before"] == 1


def test_what_the_control_server_does_itself_is_recorded_as_its_own(site, site_factory):
    async def work():
        memory = site_factory()
        view = (await memory.open("one")).view()
        for kind in EventKind:
            site.audit.note_event(Event(NOW, kind, view, "the lease ended"))

    asyncio.run(work())
    lines = site.lines()
    assert [line["action"] for line in lines] == ["lost", "restarted", "failed", "released"]
    assert {line["who"] for line in lines} == {"control server"}
    assert {line["why"] for line in lines} == {"the lease ended"}
    assert {(line["uid"], line["direction"], line["owner"]) for line in lines} == {("one", "inbound", "NO_AUTH")}


def test_a_full_disk_is_told_when_it_begins_and_when_it_ends_and_lines_are_counted(site, monkeypatch):
    call = Call("req", "peer", owner="a@x")
    with monkeypatch.context() as patch:
        patch.setattr("scistream.control_server.appending.os.write", lambda *_: 0)
        for _ in range(3):
            site.audit.note_call(call)
    assert site.audit.lost == 3
    assert site.lines() == []
    site.audit.note_call(call)
    site.audit.note_call(call)
    assert len(site.lines()) == 2
    assert [(entry["log_level"], entry["lost"]) for entry in site.log.entries] == [("error", 1), ("warning", 3)]
