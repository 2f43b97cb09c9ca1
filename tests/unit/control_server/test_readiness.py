"""Word to the service manager, by the sockets that sd_notify(3) describes."""

from __future__ import annotations

import socket

import pytest

from scistream.control_server.readiness import READY, STOPPING, tell_manager


@pytest.mark.parametrize("state", [READY, STOPPING])
def test_the_manager_is_told(tmp_path, state):
    place = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place)
        tell_manager(state, {"NOTIFY_SOCKET": place})
        assert manager.recv(100) == state.encode()


def test_a_manager_with_an_abstract_address_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{tmp_path}")
        tell_manager(READY, {"NOTIFY_SOCKET": f"@{tmp_path}"})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_where_nobody_waits_nobody_is_told(environment):
    tell_manager(READY, environment)


def test_a_manager_that_is_gone_is_no_error(tmp_path):
    tell_manager(READY, {"NOTIFY_SOCKET": str(tmp_path / "nowhere")})
