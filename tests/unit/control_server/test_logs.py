from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from scistream.addresses import Endpoint
from scistream.control_server import logs
from scistream.control_server.configuration import Surroundings, load
from scistream.control_server.data_servers import Engines
from scistream.engines import Installation, Plan, Route, lifecycle
from scistream.engines.stunnel import Stunnel
from scistream.engines.texts import SecretText
from scistream.terms import Direction, Encryption, Uid

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _own_configuration():
    yield
    structlog.reset_defaults()


class Present(Stunnel):
    def locate(self) -> Installation:
        return Installation(Path("/usr/bin/stunnel4"), "5.68")


def test_u19_an_unforeseen_error_in_a_start_shows_no_session_key(tmp_path, monkeypatch):
    def break_off(plan: Plan, files: Mapping[Path, str]) -> None:
        raise RuntimeError(repr(files))

    monkeypatch.setattr(lifecycle, "write_files", break_off)
    monkeypatch.setattr(lifecycle, "_require_free", lambda plan: None)
    log = logs.open_log(tmp_path / "log", verbose=True)
    routes = (Route(Endpoint("127.0.20.1", 22500), Endpoint("127.0.20.1", 22501)),)
    plan = Plan(Uid("one"), Direction.INBOUND, routes, tmp_path, "one", KEY, encryption=Encryption.TLS_PSK)
    try:
        asyncio.run(Engines().start(Present(), plan))
    except RuntimeError:
        log.exception("unforeseen error")
    told = (tmp_path / "log").read_text()
    assert "RuntimeError" in told
    assert "break_off" in told
    assert KEY.hex()[:16] not in told
    assert repr(KEY)[2:20] not in told


def test_a_secret_text_is_written_and_never_shown(tmp_path):
    text = SecretText("one:0123456789")
    assert "0123" not in repr({"a": text}) + repr(text[:10]) + f"{[text]}"
    (tmp_path / "file").write_text(text)
    assert (tmp_path / "file").read_text() == "one:0123456789"


def test_a_log_whose_reader_went_away_ends_nothing_and_goes_on_when_it_can(tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(logs, "_STDERR", writer)
    log = logs.open_log(None, verbose=False)
    log.info("lost")
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), writer)
    log.info("told \ud800")
    os.close(writer)
    assert (tmp_path / "log").read_text().split("] ")[1] == "told \\ud800\n"


def test_u62_the_log_is_where_it_was_told_for_its_owner_alone_and_at_the_level_that_was_told(tmp_path, capfd):
    for verbose in (False, True):
        log = logs.open_log(tmp_path / "log", verbose=verbose)
        log.debug("a detail", verbose=verbose)
        log.info("an event", verbose=verbose)
        structlog.reset_defaults()
    lines = [line.split("] ")[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == ["an event verbose=False", "a detail verbose=True", "an event verbose=True"]
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert capfd.readouterr() == ("", "")


def _break_off(key: bytes) -> None:
    raise RuntimeError("broken")


def test_u61_json_is_one_object_a_line_also_for_what_has_many_lines(tmp_path):
    log = logs.open_log(tmp_path / "log", verbose=False, form="json")
    log.info("two\nlines", uid="one", path=tmp_path, port=7)
    try:
        _break_off(KEY)
    except RuntimeError:
        log.exception("unforeseen error")
    told, failed = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert told.pop("timestamp").endswith("Z")
    assert told == {"event": "two\nlines", "level": "info", "uid": "one", "path": str(tmp_path), "port": 7}
    assert failed["exception"].endswith("RuntimeError: broken")
    assert "_break_off" in failed["exception"]
    assert repr(KEY)[2:20] not in str(failed)


def test_a_log_file_that_was_turned_by_somebody_else_goes_on_under_its_name(tmp_path):
    log = logs.open_log(tmp_path / "log", verbose=False)
    log.info("before")
    (tmp_path / "log").rename(tmp_path / "log.old")
    log.info("after")
    assert "after" in (tmp_path / "log").read_text()
    assert "before" in (tmp_path / "log.old").read_text()


def test_the_log_of_a_server_in_the_background_is_turned_where_its_stderr_is(tmp_path, monkeypatch):
    settings = load({"state_directory": str(tmp_path)}, Surroundings(tmp_path, {}))
    assert logs.file_of(settings) is None
    own = tmp_path / "s2cs.log"
    with own.open("ab") as file:
        monkeypatch.setattr(logs, "_STDERR", file.fileno())
        assert logs.file_of(settings) == own
        told = load({"log_file": "told", "state_directory": str(tmp_path)}, Surroundings(tmp_path, {}))
        assert logs.file_of(told) == tmp_path / "told"
        own.rename(tmp_path / "another")
        assert logs.file_of(settings) is None
