"""Every fault of the deployed system that was repaired has a test that is named after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_TOOL = Path(__file__).resolve().parents[2] / "tools" / "faults_page.py"


def _rows(*spans: str) -> set[str]:
    """Rows by their numbers: `11-38`."""
    ends = (span.partition("-") for span in spans)
    return {f"U{number:02}" for first, _, last in ends for number in range(int(first), int(last or first) + 1)}


# What stands in issue 2 and issue 3 under "Done when".
_DONE = _rows("4", "7-8", "28", "39", "41", "47-48", "50", "54", "58") | _rows(
    "11-38", "42-43", "51-53", "55-57", "59-64"
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults_page", _TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_is_told_and_says_what_ours_does_or_that_it_is_open(tool: ModuleType) -> None:
    assert set(tool.ROWS) == _rows("1-9", "11-44", "47-48", "50-64", "72")
    assert {row for row, words in tool.ROWS.items() if not words} == set(tool.OPEN)
    assert _DONE.isdisjoint(tool.OPEN)


def test_every_row_that_is_not_open_has_its_test(tool: ModuleType) -> None:
    tests = tool.tests_by_row()
    assert [row for row in tool.ROWS if row not in tool.OPEN and not tests.get(row)] == []
    assert set(tests) <= set(tool.ROWS)


def test_a_name_in_a_comment_or_a_string_is_no_test(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text('# def test_u01_one(): ...\n"""def test_u02_two(): ..."""\n\nasync def test_u03_u04_both(): ...\n')
    assert tool._functions(path) == ["test_u03_u04_both"]


def test_a_row_that_loses_its_tests_makes_the_page_stale(tool: ModuleType) -> None:
    tests = tool.tests_by_row()
    page = tool.page(tests)
    assert tool.stale(page, tests) == []
    assert tool.stale(page, {**tests, "U12": ["tests/unit/test_more.py::test_u12_x", *tests["U12"]]}) == []
    assert tool.stale(page, {**tests, "U12": ["tests/unit/test_more.py::test_u12_x"]}) == ["U12"]
    assert tool.stale(page, {**tests, "U12": []}) == ["U12"]
    assert tool.stale(tool.page({**tests, "U12": []}), tests) == ["U12"]
    assert tool.stale(page.replace("| U30 |", "| U10 |"), tests) == ["U30"]
    assert tool.stale("", tests) == ["its head or its number of rows"]


def test_the_page_is_fresh(tool: ModuleType) -> None:
    assert tool.stale(tool._PAGE.read_text(), tool.tests_by_row()) == [], "run: python tools/faults_page.py"
