"""The modules' error funnel: one sentence and one code for what the library raises, and for the library's absence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.scistream.core.plugins.module_utils import _library
from ansible_collections.scistream.core.plugins.module_utils._control import CONTROL_ARGUMENTS, control_server, report
from ansible_collections.scistream.core.plugins.module_utils._streams import STREAM_ARGUMENTS, stream_ends

from scistream.client.dialing import dial
from scistream.errors import CATALOGUE, Code, SciStreamError

Work = Callable[[AnsibleModule], dict[str, Any]]
Run = Callable[..., dict[str, Any]]

_SECRET = "hunter2"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a module's work to its end and returns what Ansible reads, with the exit code as `rc`."""

    def run_work(work: Work, **params: Any) -> dict[str, Any]:
        with patch_module_args({"control_server": "gateway.example", **params}):
            module = AnsibleModule(argument_spec=CONTROL_ARGUMENTS)
            with pytest.raises(SystemExit) as ended:
                report(module, lambda: work(module))
        return {**json.loads(capsys.readouterr().out), "rc": ended.value.code}

    return run_work


def raising(error: Exception) -> Work:
    def work(module: AnsibleModule) -> dict[str, Any]:
        raise error

    return work


def test_what_the_work_returns_is_the_result(run: Run) -> None:
    result = run(lambda module: {"changed": True, "session": None})
    assert (result["rc"], result["changed"], result["session"]) == (0, True, None)


def test_an_error_is_a_sentence_and_a_code_with_its_facts(run: Run) -> None:
    error = SciStreamError(Code.UID_UNKNOWN, uid="beam")
    result = run(raising(error))
    assert result["rc"] == 1
    assert result["failed"]
    assert result["msg"] == str(error)
    assert result["failure"]["code"] == "UID_UNKNOWN"
    assert result["failure"]["details"] == {"uid": "beam"}
    assert "session_info" in result["failure"]["remedy"]


def test_what_was_noted_on_an_errors_way_is_told_after_it(run: Run) -> None:
    error = SciStreamError(Code.UID_UNKNOWN, uid="beam")
    error.add_note("The inbound end is left: s2uc release beam --s2cs a.example.")
    result = run(raising(error))
    assert result["msg"] == f"{error} The inbound end is left: s2uc release beam --s2cs a.example."


def test_every_code_of_the_catalogue_goes_through_the_funnel(run: Run) -> None:
    for code, entry in CATALOGUE.items():
        words = f"{entry.seen} {entry.cause} {entry.remedy} {entry.deployed}"
        facts = {part.split("}")[0].split("!")[0].split(":")[0]: 7 for part in words.split("{")[1:]}
        result = run(raising(SciStreamError(code, **facts)))
        assert result["failure"]["code"] == code
        assert result["msg"].endswith((".", "?"))


def test_what_nobody_foresaw_is_not_swallowed() -> None:
    with patch_module_args({"control_server": "gateway.example"}):
        module = AnsibleModule(argument_spec=CONTROL_ARGUMENTS)
        with pytest.raises(ZeroDivisionError):
            report(module, lambda: {"changed": 1 / 0})


def test_a_missing_library_is_named_with_the_python_that_lacks_it(run: Run) -> None:
    def work(module: AnsibleModule) -> dict[str, Any]:
        return {"never": _library.load(module, "scistream.no_such_module")}

    result = run(work)
    assert result["rc"] == 1
    assert "scistream" in result["msg"]
    assert sys.executable in result["msg"]
    assert result["failure"]["code"] == "LIBRARY_MISSING"
    assert result["failure"]["details"]["python"] == sys.executable


def test_the_control_server_has_the_default_port_and_the_parameters(run: Run) -> None:
    seen: list[Any] = []
    run(lambda module: seen.append(control_server(module)) or {}, server_certificate="/ca.crt", timeout=5)
    assert str(seen[0].address) == "gateway.example:5000"
    assert str(seen[0].server_certificate) == "/ca.crt"
    assert (seen[0].plain_text, seen[0].token, seen[0].timeout) == (False, None, 5.0)


@pytest.mark.parametrize("alias", ["s2cs", "control_server"])
def test_the_old_words_are_aliases(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({alias: "gateway.example:5001", "server_cert": "/old.crt"}):
        module = AnsibleModule(argument_spec=CONTROL_ARGUMENTS)
    assert module.params["control_server"] == "gateway.example:5001"
    assert module.params["server_certificate"] == "/old.crt"


def test_the_token_comes_from_the_environment_and_is_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCISTREAM_TOKEN", _SECRET)
    seen: list[Any] = []
    result = run(lambda module: seen.append(control_server(module)) or {"words": _SECRET})
    assert seen[0].token == _SECRET
    assert _SECRET not in json.dumps(result)
    assert _SECRET not in repr(seen[0])


def _ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **said: str
) -> tuple[list[Any], str, list[str]]:
    """The tokens for both ends of a stream, what a task tells that returns the environment's, and its warnings."""
    warned: list[str] = []
    # Where a process has imported Ansible's controller, what a module warns of goes to its display.
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, words, **__: warned.append(words))
    monkeypatch.setenv("SCISTREAM_TOKEN", _SECRET)
    ends = {"from": {"control_server": "a.example"}, "to": {"control_server": "b.example", **said}}
    found: list[Any] = []
    with patch_module_args({"name": "beam", **ends}):
        module = AnsibleModule(argument_spec=STREAM_ARGUMENTS)
        with pytest.raises(SystemExit):
            report(module, lambda: found.append(stream_ends(module)) or {"words": _SECRET})
    (both,) = found
    tokens = [both.outbound.control_server.token, both.inbound.control_server.token]
    return tokens, capsys.readouterr().out, warned


def test_of_two_gateways_none_gets_the_environments_token_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, _, (warning,) = _ends(monkeypatch, capsys)
    assert tokens == [None, None]
    assert "The token in SCISTREAM_TOKEN was not sent to b.example:5000, a.example:5000: " in warning


def test_of_two_gateways_the_one_that_was_named_gets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCISTREAM_TOKEN_FOR", "a.example")
    tokens, output, warned = _ends(monkeypatch, capsys, token="of-b")
    assert tokens == [_SECRET, "of-b"]
    assert _SECRET not in output
    assert warned == []


def test_a_gateway_with_a_token_of_its_own_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, _, (warning,) = _ends(monkeypatch, capsys, token="of-b")
    assert tokens == [None, "of-b"]
    assert "was not sent to a.example:5000: " in warning


def test_plain_text_is_told_apart_from_a_token_in_plain_text(run: Run) -> None:
    seen: list[Any] = []
    given = {"insecure_plain_text": True, "token": "one"}
    run(lambda module: seen.append(control_server(module)) or {}, **given)
    run(lambda module: seen.append(control_server(module)) or {}, **given, insecure_plain_text_token=True)
    assert [server.insecure_plain_text_token for server in seen] == [False, True]
    with pytest.raises(SciStreamError) as refusal:
        dial(seen[0])
    assert refusal.value.code is Code.TOKEN_IN_PLAIN_TEXT
    assert "insecure_plain_text_token: true" in str(refusal.value)
    dial(seen[1]).close()


@pytest.mark.parametrize("seconds", [0, -1, "inf", "nan"])
def test_a_timeout_that_is_none_is_refused(run: Run, seconds: object) -> None:
    result = run(lambda module: {"never": control_server(module)}, timeout=seconds)
    assert result["failure"]["code"] == "BAD_CONFIGURATION"
    assert "timeout" in result["msg"]


def test_null_for_what_is_required_is_refused(run: Run) -> None:
    result = run(lambda module: {"never": control_server(module)}, control_server=None)
    assert result["failure"]["code"] == "BAD_CONFIGURATION"
    assert "control_server" in result["msg"]


def test_a_control_server_that_is_no_address_is_refused(run: Run) -> None:
    result = run(lambda module: {"never": control_server(module)}, control_server="a:b:c")
    assert result["failure"]["code"] == "BAD_ADDRESS"
    assert "'a:b:c' is not an address" in result["msg"]
