from __future__ import annotations

import dataclasses

import pytest

from scistream.addresses import Endpoint
from scistream.control_server.session_keys import forget_key, keep_key, recall_key
from scistream.engines.base import Plan, Route
from scistream.errors import Code, SciStreamError
from scistream.terms import Direction, Encryption, Uid

KEY = bytes(range(32))


@pytest.fixture
def plan(tmp_path):
    route = Route(Endpoint("127.0.20.1", 22100), Endpoint("t.example", 5074))
    return Plan(Uid("one"), Direction.OUTBOUND, (route,), tmp_path, "one.outbound", KEY, encryption=Encryption.TLS_PSK)


def test_u05_a_key_is_kept_for_its_owner_alone_and_forgotten(plan):
    keep_key(plan)
    (file,) = plan.directory.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("one.outbound.key", 0o600)
    assert recall_key(dataclasses.replace(plan, key=None)) == KEY
    forget_key(plan)
    forget_key(plan)
    assert list(plan.directory.iterdir()) == []
    assert recall_key(plan) is None


def test_what_has_no_key_keeps_none(plan):
    keep_key(dataclasses.replace(plan, key=None))
    assert list(plan.directory.iterdir()) == []


def test_the_data_servers_own_file_comes_first(plan):
    keep_key(plan)
    plan.path("psk").write_text(f"one:{bytes(32).hex()}\n")
    assert recall_key(plan) == bytes(32)


@pytest.mark.parametrize("text", ["", "one:", "one:zz", "one:00", b"\xff\xfe", "one:" + "00" * 33])
def test_a_file_without_a_key_is_none(plan, text):
    plan.path("psk").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert recall_key(plan) is None


def test_a_link_is_neither_read_nor_written_through(plan, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text(f"one:{KEY.hex()}\n")
    plan.path("psk").symlink_to(victim)
    plan.path("key").symlink_to(victim)
    assert recall_key(plan) is None
    with pytest.raises(SciStreamError, match="it is a symbolic link") as raised:
        keep_key(plan)
    assert raised.value.code is Code.FILE_UNWRITABLE
