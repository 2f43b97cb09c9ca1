"""Writes docs/faults.md, the faults of the deployed system with our tests: `python tools/faults_page.py [--check]`.

A row's tests are found by their names: `test_u23_...` belongs to U23, `test_u22_u23_...` to both.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "faults.md"
_ROWS_OF_NAME = re.compile(r"test((?:_u\d\d)+)(?=_|$)")
_NAMED = re.compile(r"`([^`\s]+::test_\w+)`")
_SHOWN = 6

ROWS: Mapping[str, str] = {
    "U01": "Only a peer with the session's key or certificate gets through; others are counted and logged.",
    "U02": "TLS 1.3 with AEAD suites is the default; going without is asked for, and every status says so.",
    "U03": "Both gateways prove themselves, on every engine that encrypts; every entry point can have a source list: "
    "Stunnel's is kept by the kernel.",
    "U04": "Control port and entry points listen on the address that was given, and on no other.",
    "U05": "A uid is a name; the key is 256 random bits in files of mode 0600, never printed, gone after release.",
    "U06": "The published mock uid never gets a key, a certificate or the legacy form.",
    "U07": "Addresses are parsed and printed anew; text of a request never reaches a proxy's configuration.",
    "U08": "A uid has letters, digits and hyphens, 1 to 64 of them, so that it cannot leave its directory.",
    "U09": "An operator lists the targets that may be asked for, by everybody or by one user.",
    "U11": "Who calls is settled before anything of the request is looked at; any uid then answers alike.",
    "U12": "A session belongs to who opened it; others cannot register, retarget, renew, drain or release it.",
    "U13": "No control server starts unless authentication is set up, or off by name; then its status says NO_AUTH.",
    "U14": "A token is taken bare and after `Bearer`.",
    "U15": "No token is printed, logged, or part of an error.",
    "U16": "`s2uc logout` names the scope; logins lie under the user's configuration directory, mode 0600.",
    "U17": "A login that runs out is refreshed before it is used.",
    "U18": "Nothing is written to the current directory.",
    "U19": "The client secret comes from a file, the environment or a systemd credential, never from a command line.",
    "U20": "While the provider is down, answers that it gave before hold for a short time; nobody else gets in.",
    "U21": "A `req` that waits costs no thread and delays nobody, and goes when its client goes.",
    "U22": "Each answer belongs to its own session, however many are asked for at once.",
    "U23": "Each session has a data server, files and ports of its own.",
    "U24": "Release gives the ports back to the pool.",
    "U25": "A request gets as many entry points as it asks for, or an error, and then none.",
    "U26": "1 to 1024 entry points; anything else is refused in words, and the pool stays whole.",
    "U27": "Ports are bound before they are promised, and foreign holders are named.",
    "U28": "`update` answers when the entry points accept; else it fails with the data server's last words.",
    "U29": "A second `update` sends new connections to the new target, or says why it cannot.",
    "U30": "A `hello` that comes before its `req` is held for a moment; no client sleeps.",
    "U31": "A `req` that fails leaves no session, port or file.",
    "U32": "An `update` without targets is refused in words.",
    "U33": "Releasing what is not there has an error of its own, and breaks nothing.",
    "U34": "Sessions are listed, leased and journalled; a restart takes their data servers over.",
    "U35": "A role that is none is refused, and what a session was opened as is what it is.",
    "U36": "One uid can be both ends on one gateway: the key is uid and direction.",
    "U37": "More targets than entry points are refused.",
    "U38": "A second control server on a port or a state directory refuses to start and names the first.",
    "U39": "Release ends every process of a data server and proves that its ports are free.",
    "U40": "SIGTERM leaves the streams running and the next start takes them over; SIGINT releases them all.",
    "U41": "A data server's output goes to a file: thousands of connections do not freeze it.",
    "U42": "A frozen data server is killed at release, and no zombie stays.",
    "U43": "Configuration, key, log and pid files go with their session.",
    "U44": "An idle stream is cut by no timer of an engine's, and keep-alive watches both legs.",
    "U47": "An engine's name that is none is an error that lists the engines.",
    "U48": "The case of an engine's name does not matter, and the deployed names are known.",
    "U50": "Each class of failure has its exit code; 0 means that it worked.",
    "U51": "Every call has a deadline, `--timeout` sets it.",
    "U52": "`Listeners` is printed once the entry points accept; `--verify` tells what it proved of the path.",
    "U53": "The ports that an outbound request names are those that it gets.",
    "U54": "Commands and options are taken with hyphens and with underscores.",
    "U55": "Both ends share their defaults.",
    "U56": "As many entry points as there are targets, where nobody says more.",
    "U57": "The kernel keeps a session to its rate, over all its connections; where it cannot, that is refused.",
    "U58": "IPv6 addresses work as control port, entry point and target.",
    "U59": "`appctrl` ends what it started and nothing else, and takes host names.",
    "U60": "Every failure has its gRPC status, a code of the catalogue and the deployed words.",
    "U61": "Nothing is printed but what was asked for; an unforeseen error is one sentence.",
    "U62": "The log goes where it was told, at the level that was told, without secrets.",
    "U63": "UDP is carried by Nginx and nftables, and refused by name elsewhere.",
    "U64": "Health, reflection, version, metrics, `--json`, completion and a configuration file are there.",
    "U72": "Bytes arrive whole at early close and half-close; Stunnel refuses by name what it may lose some of.",
}
"""Each row, with what ours does; nothing where that is still to come."""

OPEN: Mapping[str, str] = {}
"""Rows without a repair yet."""

PARTLY: Mapping[str, str] = {}
"""Rows with more to come."""

_HEAD = """\
# The deployed system's faults, and what became of them

Each row is a fault of the SciStream that was deployed when this project began. The tests named beside it fail without
the repair: a row's tests are those whose name begins with its number (`test_u23_...`). This page is generated by
`tools/faults_page.py`, and `tests/unit/test_fault_rows.py` fails when a row loses its last test.

| row | ours | tests |
| --- | --- | --- |
"""


def tests_by_row() -> dict[str, list[str]]:
    """The tests of each row, as `file::name`, in the order of their files."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((_ROOT / "tests").rglob("test_*.py")):
        for name in _functions(path):
            if match := _ROWS_OF_NAME.match(name):
                for row in match.group(1).strip("_").split("_"):
                    found[row.upper()].append(f"{path.relative_to(_ROOT)}::{name}")
    return found


def _functions(path: Path) -> list[str]:
    """The test functions of a file, in their order, as the parser sees them: a name in a comment is none."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [node.name for node in sorted(found, key=lambda node: node.lineno)]


def page(tests: Mapping[str, Sequence[str]]) -> str:
    """The page, with the first tests of each row."""
    return _HEAD + "".join(f"{_start(row)}{_spelled(tests.get(row, ()))} |\n" for row in ROWS)


def stale(text: str, tests: Mapping[str, Sequence[str]]) -> list[str]:
    """What is wrong with a page. More tests than it names are no fault: whoever adds one need not write it anew."""
    lines = text.removeprefix(_HEAD).splitlines()
    if not text.startswith(_HEAD) or len(lines) != len(ROWS):
        return ["its head or its number of rows"]
    return [row for row, line in zip(ROWS, lines, strict=True) if not _is_good(row, line, tests.get(row, ()))]


def _is_good(row: str, line: str, tests: Sequence[str]) -> bool:
    named = set(_NAMED.findall(line.removeprefix(_start(row))))
    there = {test.removeprefix("tests/") for test in tests}
    return line.startswith(_start(row)) and named <= there and bool(named or row in OPEN)


def _start(row: str) -> str:
    words = f"Open: {OPEN[row]}." if row in OPEN else ROWS[row]
    more = f" Open: {PARTLY[row]}." if row in PARTLY else ""
    return f"| {row} | {words}{more} | "


def _spelled(tests: Sequence[str]) -> str:
    return "<br>".join(f"`{test.removeprefix('tests/')}`" for test in tests[:_SHOWN])


def main() -> int:
    """Write the page, or with `--check` say what is stale in it."""
    tests = tests_by_row()
    if sys.argv[1:] != ["--check"]:
        _PAGE.write_text(page(tests))
        return 0
    if found := stale(_PAGE.read_text(), tests):
        sys.stderr.write(f"docs/faults.md is stale ({', '.join(found)}); run: python tools/faults_page.py\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
