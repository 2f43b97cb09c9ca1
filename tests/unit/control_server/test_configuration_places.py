"""Which control server a command means that names none."""

from __future__ import annotations

from pathlib import Path

import pytest

from scistream.control_server.configuration_places import HOST_CONFIGURATION, find_configuration, is_named


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path / "home"


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_nearest_that_is_there_is_meant(home: Path, tmp_path: Path) -> None:
    host = tmp_path / "etc" / "s2cs.toml"
    assert find_configuration(host) is None
    assert find_configuration(made(host)) == host
    # A directory without a trace of a control server is none of one's own.
    (home / ".scistream").mkdir(parents=True)
    assert find_configuration(host) == host
    own = made(home / ".config/scistream/s2cs.toml")
    assert find_configuration(host) == own
    made(home / ".scistream/s2cs.lock")
    assert find_configuration(host) is None


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, False),
        ({"config": None, "state_directory": None, "verbose": True}, {"SCISTREAM_PORT": "1"}, False),
        ({"config": "s2cs.toml"}, {}, True),
        ({"state_directory": "state"}, {}, True),
        ({}, {"SCISTREAM_CONFIG": "s2cs.toml"}, True),
        ({}, {"SCISTREAM_STATE_DIRECTORY": "state"}, True),
    ],
)
def test_who_names_one_means_that_one(options: dict, environment: dict, expected: bool) -> None:
    assert is_named(options, environment) is expected


def test_the_hosts_file_is_where_the_role_puts_it() -> None:
    defaults = Path(__file__).parents[3] / "roles/control_server"
    told = "".join(path.read_text() for path in defaults.rglob("*.yml"))
    assert str(HOST_CONFIGURATION.parent) in told
