from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from scistream.addresses import Endpoint
from scistream.control_server import logs
from scistream.control_server.data_servers import Proxies
from scistream.engines import Installation, Plan, Route, lifecycle
from scistream.engines.base import SecretText
from scistream.engines.stunnel import Stunnel
from scistream.terms import Direction, Uid

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
    plan = Plan(Uid("one"), Direction.INBOUND, routes, tmp_path, "one", KEY)
    try:
        asyncio.run(Proxies().start(Present(), plan))
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
