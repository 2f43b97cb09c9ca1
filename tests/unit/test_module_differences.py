"""Differences: what changed, and what its diff shows."""

from __future__ import annotations

from ansible_collections.scistream.core.plugins.module_utils._differences import Differences


def test_nothing_noted_changes_nothing() -> None:
    differences = Differences("session beam")
    assert not differences.changed
    assert differences.names == []
    assert differences.diff == {
        "before_header": "session beam",
        "after_header": "session beam",
        "before": {},
        "after": {},
    }


def test_equal_facts_are_no_difference_and_are_not_shown() -> None:
    differences = Differences("session beam")
    assert not differences.compare("rate", 10, 10)
    assert not differences.changed
    assert differences.diff["before"] == {}


def test_only_the_facts_that_differ_are_shown() -> None:
    differences = Differences("session beam")
    differences.compare_all({"rate": 10, "engine": "nginx"}, {"rate": 20, "engine": "nginx"})
    assert differences.changed
    assert differences.names == ["rate"]
    assert differences.diff["before"] == {"rate": 10}
    assert differences.diff["after"] == {"rate": 20}


def test_a_fact_that_one_side_lacks_is_shown_on_the_other_only() -> None:
    differences = Differences("session beam")
    differences.compare_all({"old": 1}, {"new": 2})
    assert differences.names == ["new", "old"]
    assert differences.diff["before"] == {"old": 1}
    assert differences.diff["after"] == {"new": 2}


def test_falsy_values_are_facts() -> None:
    differences = Differences("session beam")
    differences.compare_all({"tls": False, "rate": 0}, {"tls": True, "rate": 1})
    assert differences.diff["before"] == {"tls": False, "rate": 0}


def test_a_secret_is_never_shown() -> None:
    differences = Differences("session beam")
    assert differences.compare("token", "hunter2", "hunter3", secret=True)
    assert differences.changed
    assert "hunter" not in str(differences.diff)
    assert differences.diff["before"] != differences.diff["after"]


def test_a_secret_that_is_new_is_masked_on_one_side() -> None:
    differences = Differences("session beam")
    differences.compare("token", None, "hunter3", secret=True)
    assert differences.diff["before"] == {}
    assert list(differences.diff["after"]) == ["token"]
    assert "hunter" not in str(differences.diff)
