"""The guard of the hosts, without hosts: it starts without a word, and goes when it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts.guard import Guard


def test_a_guard_says_nothing_and_leaves_what_was_taken_down_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Guard(tmp_path).dismiss()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
