"""What is judged before a control server starts: nothing is started, held or asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from scistream.control_server.configuration import Surroundings, load
from scistream.control_server.judgement import judge
from scistream.errors import Code, SciStreamError


def refused(tmp_path: Path, **options: object) -> SciStreamError:
    given = {"ssl": "False", "state_directory": str(tmp_path / "state"), **options}
    with pytest.raises(SciStreamError) as raised:
        judge(load(given, Surroundings(tmp_path, {})))
    return raised.value


def test_u13_authentication_is_judged_first(tmp_path):
    assert refused(tmp_path, ssl="True").code is Code.AUTHENTICATION_UNDECIDED
    both = {"client_id": "gateway", "client_secret": "hunter2", "insecure_no_auth": True}
    assert refused(tmp_path, ssl="True", **both).code is Code.AUTHENTICATION_CONTRADICTORY


def test_a_provider_that_nobody_can_reach_is_not_asked(tmp_path):
    given = {"ssl": "False", "client_id": "gateway", "client_secret": "hunter2", "provider": "https://idp.invalid"}
    assert judge(load({**given, "state_directory": str(tmp_path / "state")}, Surroundings(tmp_path, {}))) is None


def test_a_state_directory_that_others_can_write_into_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    assert refused(tmp_path, insecure_no_auth=True).facts["key"] == "state_directory"


def test_a_missing_certificate_is_refused(tmp_path):
    assert refused(tmp_path, ssl="True", insecure_no_auth=True).code is Code.CERTIFICATE_MISSING
