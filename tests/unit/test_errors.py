"""The catalogue is whole, and an error keeps its meaning on its way to a person."""

from __future__ import annotations

import ast
import json
import re
import string
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scistream
from scistream.errors import CATALOGUE, Code, ExitCode, SciStreamError, one_line


def _facts(code: Code) -> dict[str, Any]:
    """A value for each fact that the entry's templates name: a number where they format one."""
    entry = CATALOGUE[code]
    fields = [
        field
        for template in (entry.seen, entry.cause, entry.remedy, entry.deployed)
        for field in string.Formatter().parse(template)
    ]
    return {name: 3 if spec else f"<{name}>" for _, name, spec, _ in fields if name}


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_words_a_status_and_an_exit_code(code: Code) -> None:
    error = SciStreamError(code, **_facts(code))
    assert error.seen
    assert error.cause
    assert error.remedy
    assert error.seen in str(error)
    assert "{" not in str(error).replace("{ENGINE}", "")
    assert hasattr(grpc.StatusCode, error.entry.status)
    assert error.exit_code not in (ExitCode.OK, ExitCode.INTERRUPTED)


@pytest.mark.parametrize("code", list(Code))
def test_every_sentence_ends_once(code: Code) -> None:
    text = str(SciStreamError(code, **_facts(code)))
    assert text.endswith((".", "?"))
    assert not {"..", "?.", ".?"} & {text[index : index + 2] for index in range(len(text))}


@pytest.mark.parametrize("code", list(Code))
def test_every_error_crosses_the_wire_unchanged(code: Code) -> None:
    error = SciStreamError(code, **_facts(code))
    received = SciStreamError.from_wire(error.to_wire())
    assert received is not None
    assert (received.code, str(received)) == (error.code, str(error))


def _said() -> set[str]:
    """The codes that some module names otherwise than to compare with them."""
    root = Path(scistream.__file__).parent
    paths = {*root.rglob("*.py"), *(root.parents[1] / "plugins").rglob("*.py")} - {root / "errors.py"}
    trees = [ast.parse(path.read_text()) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    compared = {id(inner) for node in nodes if isinstance(node, ast.Compare) for inner in ast.walk(node)}
    named = (node for node in nodes if isinstance(node, ast.Attribute) and id(node) not in compared)
    return {node.attr for node in named if ast.unparse(node.value).rpartition(".")[2] == "Code"}


def test_every_code_is_raised_somewhere() -> None:
    assert {code.name for code in Code} - _said() == set()


def test_the_catalogue_is_in_the_order_of_its_codes() -> None:
    assert list(CATALOGUE) == list(Code)
    assert [code.value for code in Code] == sorted(code.value for code in Code)


_DRAFT = {
    "AUTH_ERROR": {"UNAUTHENTICATED", "PERMISSION_DENIED"},
    "INVALID_UID": {"NOT_FOUND", "ALREADY_EXISTS"},
    "NO_RESOURCE": {"RESOURCE_EXHAUSTED"},
    "CONN_ERROR": {"UNAVAILABLE"},
    "BAD_FORMAT": {"INVALID_ARGUMENT"},
    "SERVER_ERR": {"INTERNAL", "FAILED_PRECONDITION"},
    "TIMEOUT": {"DEADLINE_EXCEEDED"},
    "NOT_IMPLEMENTED": {"UNIMPLEMENTED"},
}


@pytest.mark.parametrize("code", list(Code))
def test_u60_draft_codes_and_grpc_statuses_fit(code: Code) -> None:
    entry = CATALOGUE[code]
    assert entry.status in _DRAFT[entry.draft]


def test_deployed_words_are_kept() -> None:
    assert SciStreamError(Code.UID_UNKNOWN, uid="u1").deployed == "entry not found for uid 'u1'"
    assert SciStreamError(Code.UID_EXISTS, uid="u1", state="active").deployed == "Entry already found for uid"


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"{}", b"[]", b'{"code": "NEW_ONE", "facts": {}}', b'{"code": "BAD_UID", "facts": {}}', b"null"],
)
def test_foreign_error_details_are_not_trusted(data: bytes) -> None:
    assert SciStreamError.from_wire(data) is None


@given(st.binary(max_size=200))
def test_no_bytes_from_the_wire_raise(data: bytes) -> None:
    assert SciStreamError.from_wire(data) is None or json.loads(data)


def test_a_fact_cannot_break_the_line_it_is_told_in() -> None:
    error = SciStreamError(Code.BAD_UID, uid="a\nroot: done\x1b[2J\x9b2J\u202e\u2028")
    assert not set("\n\x1b\x9b\u202e\u2028") & set(str(error))


def test_long_foreign_words_keep_their_end() -> None:
    assert one_line("x" * 1000 + "the end").endswith("the end")
    assert len(one_line("x" * 1000)) == 401


_COMMAND = re.compile(r"(--?\w|(sudo|apt-get|s2cs|s2uc|appctrl|ansible[\w-]*|ss|ps|openssl|chmod|telnet)\b)")


@pytest.mark.parametrize("code", list(Code))
def test_no_remedy_begins_with_a_command_that_its_sentence_would_capitalise(code: Code) -> None:
    assert not _COMMAND.match(CATALOGUE[code].remedy)


def test_words_for_two_edges_name_both() -> None:
    for code in (Code.PLAIN_TEXT_SERVER, Code.TLS_SERVER, Code.CERTIFICATE_NOT_TRUSTED):
        error = SciStreamError(code, **_facts(code))
        assert "--s" in str(error)
        assert "(module: " in str(error)


def test_a_control_server_that_is_not_reached_can_be_tried_by_hand() -> None:
    error = SciStreamError(Code.CONTROL_SERVER_UNREACHABLE, server="[::1]:5000", reason="the name does not resolve")
    assert error.remedy.endswith("curl -v telnet://[::1]:5000")
    assert "lead there over SSH with --via (module: via, inventory: scistream_via)" in error.remedy
    assert "its name or its port is another" in error.cause


def test_what_did_not_end_is_said_plainly() -> None:
    error = SciStreamError(Code.DATA_SERVER_STUCK, engine="nginx", uid="u", pid=7, left="pid 8")
    assert error.seen == "nginx of session u (pid 7) did not end: pid 8 is still there"


def test_an_error_knows_whether_a_control_server_sent_it() -> None:
    error = SciStreamError(Code.UID_UNKNOWN, uid="u")
    received = SciStreamError.from_wire(error.to_wire())
    assert received is not None
    assert (error.was_sent, received.was_sent) == (False, True)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (Code.AUTHENTICATION_REQUIRED, "--provider URL --client-id CLIENT_ID"),
        (Code.BAD_LEASE, "8h"),
        (Code.CERTIFICATE_EXPIRED, "s2cs stop, then s2cs start"),
        (Code.CERTIFICATE_MISSING, "get it from the gateway's operator"),
        (Code.ENGINE_CANNOT, "s2uc status --s2cs HOST:PORT"),
        (Code.LOGIN_FAILED, "--provider <provider> --client-id CLIENT_ID"),
        (Code.LOGIN_WANTED, "--provider URL --client-id CLIENT_ID"),
        (Code.NOT_RUNNING, "name its --state-directory"),
        (Code.TOKEN_REFUSED, "--s2cs HOST:PORT"),
    ],
)
def test_a_next_step_can_be_followed_as_it_stands(code: Code, words: str) -> None:
    assert words in SciStreamError(code, **_facts(code)).remedy
