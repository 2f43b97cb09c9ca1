"""Modules certificate and certificate_info, by real runs of Ansible: predicted, done, and again; what they refuse."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_runs import Result, Run, run_play, steps
from scistream import certificates

_ACTION = "scistream.core.certificate"
_INFO = "scistream.core.certificate_info"


def args(directory: Path, name: str = "server", **more: Any) -> dict[str, Any]:
    pair = {"path": str(directory / f"{name}.crt"), "private_key_path": str(directory / f"{name}.key")}
    return {**pair, "names": ["gateway.example", "192.0.2.7"]} | more


def authority(directory: Path, **more: Any) -> dict[str, Any]:
    return args(directory, "ca", is_ca=True, **{"names": ["Facility A"], "days": 3650} | more)


def signed(directory: Path, **more: Any) -> dict[str, Any]:
    ca = {"ca_path": str(directory / "ca.crt"), "ca_private_key_path": str(directory / "ca.key")}
    return args(directory, **ca, **more)


def step(directory: Path, name: str, **more: Any) -> dict[str, Any]:
    """A step to the next authority."""
    return {"name": name, _ACTION: authority(directory, succession=name.split(maxsplit=1)[0]), **more}


def assert_walks(run: Run, *, before: int = 0) -> list[Result]:
    """Check predicts what do does; then there is nothing left to do."""
    assert run.code == 0, run.output
    check, do, check_again, do_again = walk = list(run.results[before : before + 4])
    assert [one.changed for one in walk] == [True, True, False, False]
    assert check["diff"] == do["diff"]
    assert check["reasons"] == do["reasons"]
    assert check_again["certificate"] == do_again["certificate"] == do["certificate"]
    assert check_again["diff"]["before"] == {}
    return walk


def predicted(result: Result) -> dict[str, Any]:
    """The facts of a certificate that do not depend on when, and with which key, it was issued."""
    unknown = ("fingerprint", "not_before", "not_after", "issuer", "self_signed")
    return {key: value for key, value in result["certificate"].items() if key not in unknown}


def test_issues_and_removes_a_self_signed_certificate(tmp_path: Path) -> None:
    absent = args(tmp_path, state="absent")
    look = {"name": "look", "ansible.builtin.stat": {"path": str(tmp_path / "server.key")}}
    tasks = [*steps(_ACTION, args(tmp_path)), look, *steps(_ACTION, absent), look]
    tasks.insert(1, look)
    run = run_play(tasks, directory=tmp_path)
    looks = [one for one in run.results if one.task == "look"]
    assert [one["stat"]["exists"] for one in looks] == [False, True, False]
    walked = Run(run.code, run.output, tuple(one for one in run.results if one.task != "look"))
    check, do, *_ = assert_walks(walked)
    assert predicted(check) == predicted(do)
    assert check["certificate"]["fingerprint"] is None
    assert do["certificate"]["names"] == ["gateway.example", "192.0.2.7"]
    assert do["certificate"]["self_signed"]
    gone = assert_walks(walked, before=4)
    assert gone[1]["certificate"] is None
    assert set(gone[0]["diff"]["before"]) == {"certificate", "private_key"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "play.yml", "record.jsonl"]


def test_an_authority_and_what_it_signs_walk_from_nothing(tmp_path: Path) -> None:
    tasks = [
        {"name": "ca in check", _ACTION: authority(tmp_path), "check_mode": True},
        {"name": "leaf in check", _ACTION: signed(tmp_path), "check_mode": True},
        *steps(_ACTION, authority(tmp_path)),
        *steps(_ACTION, signed(tmp_path)),
    ]
    run = run_play(tasks, directory=tmp_path)
    first, second = run.results[:2]
    assert first.changed
    assert second.changed
    ca = assert_walks(run, before=2)[1]["certificate"]
    leaf = assert_walks(run, before=6)[1]["certificate"]
    assert (ca["is_ca"], leaf["is_ca"]) == (True, False)
    assert leaf["issuer"] == ca["subject"]
    # What was predicted before the authority was there is what came.
    assert second["diff"] == run.results[7]["diff"]
    assert second["certificate"]["issuer"] is None
    assert f"The authority {tmp_path}/ca.crt is not there yet" in run.output
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.[ck]??")}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}


def test_issues_anew_only_for_a_reason(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    key = str(tmp_path / "server.key")
    tasks = [
        {"name": "ca", _ACTION: authority(tmp_path)},
        {"name": "first", _ACTION: signed(tmp_path)},
        {"name": "other order", _ACTION: signed(tmp_path, names=["192.0.2.7", "gateway.example", "GATEWAY.example."])},
        {"name": "more names", _ACTION: signed(tmp_path, names=["gateway.example", "192.0.2.7", "::1"])},
        {"name": "back", _ACTION: signed(tmp_path)},
        {"ansible.builtin.file": {"path": key, "state": "absent"}},
        {"name": "key missing, predicted", _ACTION: signed(tmp_path), "check_mode": True},
        {"name": "key missing", _ACTION: signed(tmp_path)},
        {"name": "a pair of its own", _ACTION: args(other)},
        {"ansible.builtin.copy": {"src": str(other / "server.key"), "dest": key, "mode": "0600"}},
        {"name": "key of another", _ACTION: signed(tmp_path)},
        {"ansible.builtin.file": {"path": key, "mode": "0644"}},
        {"name": "key open, predicted", _ACTION: signed(tmp_path), "check_mode": True},
        {"name": "key open", _ACTION: signed(tmp_path)},
        {"name": "no authority", _ACTION: args(tmp_path)},
        {"name": "authority again", _ACTION: signed(tmp_path)},
        {"name": "authority renamed", _ACTION: authority(tmp_path, names=["Facility B"])},
        {"name": "in the end", _ACTION: signed(tmp_path)},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    reasons = {one.task: one["reasons"] for one in run.results if one.action == _ACTION}
    assert reasons == {
        "ca": ["missing"],
        "first": ["missing"],
        "other order": [],
        "more names": ["names"],
        "back": ["names"],
        "key missing, predicted": ["private_key"],
        "key missing": ["private_key"],
        "a pair of its own": ["missing"],
        "key of another": ["private_key"],
        "key open, predicted": [],
        "key open": [],
        "no authority": ["signed_by"],
        "authority again": ["signed_by"],
        "authority renamed": [],
        "in the end": [],
    }
    for name in ("key missing", "key open"):
        assert run.named(f"{name}, predicted")["diff"] == run.named(name)["diff"]
        assert run.named(name).changed
    assert run.named("key open")["diff"]["before"] == {"private_key_mode": "0644"}
    assert not run.named("in the end").changed
    assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600
    facts = run.named("in the end")["certificate"]
    assert certificates.read(tmp_path / "server.crt").fingerprint == facts["fingerprint"]


def test_renews_before_the_end_and_not_beyond_the_authority(tmp_path: Path) -> None:
    tasks = [
        {"name": "ca", _ACTION: authority(tmp_path, days=20, renew_before_days=1)},
        {"name": "first", _ACTION: signed(tmp_path, days=10, renew_before_days=1)},
        {"name": "near its end", _ACTION: signed(tmp_path, days=15, renew_before_days=12)},
        {"name": "longer than the authority", _ACTION: signed(tmp_path, days=400, renew_before_days=300)},
        {"name": "as long as the authority", _ACTION: signed(tmp_path, days=400, renew_before_days=300)},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert [one["reasons"] for one in run.results] == [["missing"], ["missing"], ["not_after"], ["not_after"], []]
    ends = [one["certificate"]["not_after"] for one in run.results]
    assert ends[1] < ends[2] < ends[3] == ends[4] == ends[0]


@pytest.mark.parametrize("checked", [False, True])
def test_bad_input_is_refused_in_a_sentence_with_a_code(tmp_path: Path, checked: bool) -> None:
    (tmp_path / "text.crt").write_text("a shopping list\n")
    wrong = {
        "BAD_ADDRESS": args(tmp_path, names=["not a name"]),
        "BAD_CONFIGURATION": args(tmp_path, days=10, renew_before_days=10),
        "CERTIFICATE_UNREADABLE": args(tmp_path, "text"),
        "UNSUPPORTED_HERE": signed(tmp_path, is_ca=True),
    }
    if not checked:
        wrong |= {
            "CERTIFICATE_MISSING": signed(tmp_path),
            "FILE_UNWRITABLE": args(tmp_path / "nowhere"),
        }
    tasks = [{"name": code, _ACTION: given, "ignore_errors": True} for code, given in wrong.items()]
    tasks += [
        {"name": "two names", _ACTION: authority(tmp_path, names=["A", "B"]), "ignore_errors": True},
        {"name": "null for names", _ACTION: args(tmp_path, names=None), "ignore_errors": True},
        {"name": "no names", _ACTION: {"path": "/a.crt", "private_key_path": "/a.key"}, "ignore_errors": True},
        {"name": "days", _ACTION: args(tmp_path, days=10**9), "ignore_errors": True},
        {"name": "half an authority", _ACTION: args(tmp_path, ca_path="/ca.crt"), "ignore_errors": True},
    ]
    run = run_play(tasks, directory=tmp_path, options=["--check"] if checked else [])
    assert {one.task: one.failure for one in run.results if one.task in wrong} == {code: code for code in wrong}
    assert all(one.outcome == "failed" and one["msg"].endswith((".", "?")) for one in run.results if one.failure)
    assert run.named("two names").failure == "BAD_CONFIGURATION"
    assert run.named("days").failure == "BAD_CONFIGURATION"
    assert run.named("null for names").failure == "BAD_CONFIGURATION"
    assert "state is present but all of the following are missing: names" in run.named("no names")["msg"]
    assert "ca_private_key_path" in run.named("half an authority")["msg"]
    assert (tmp_path / "text.crt").read_text() == "a shopping list\n"
    assert not list(tmp_path.glob("*.key"))


def test_two_runs_at_once_make_one_authority(tmp_path: Path) -> None:
    task = {
        "name": "ca",
        _ACTION: authority(tmp_path),
        "delegate_to": "localhost",
        "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
    }
    hosts = ",".join(f"gateway{number}" for number in range(4)) + ","
    run = run_play([task], directory=tmp_path, options=["-i", hosts], hosts="all")
    assert run.code == 0, run.output
    assert sorted(one.changed for one in run.results) == [False, False, False, True]
    assert len({one["certificate"]["fingerprint"] for one in run.results}) == 1


def test_a_rotation_issues_what_is_good(tmp_path: Path) -> None:
    tasks = [
        {"name": "ca", _ACTION: authority(tmp_path)},
        {"name": "first", _ACTION: signed(tmp_path)},
        {"name": "predicted", _ACTION: signed(tmp_path, force=True), "check_mode": True},
        {"name": "rotated", _ACTION: signed(tmp_path, force=True)},
        {"name": "again", _ACTION: signed(tmp_path)},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    assert [one.changed for one in run.results] == [True, True, True, True, False]
    assert run.named("predicted")["reasons"] == run.named("rotated")["reasons"] == ["force"]
    assert run.named("predicted")["diff"] == run.named("rotated")["diff"]
    first, second = run.named("first")["certificate"], run.named("rotated")["certificate"]
    assert run.named("rotated")["diff"]["before"] == {"fingerprint": first["fingerprint"]}
    assert second["fingerprint"] not in {first["fingerprint"], None}
    assert run.named("again")["certificate"] == second


def test_one_authority_follows_the_other_in_three_steps(tmp_path: Path) -> None:
    refused = {"ignore_errors": True}
    tasks = [
        {"name": "ca", _ACTION: authority(tmp_path)},
        {"name": "leaf", _ACTION: signed(tmp_path)},
        step(tmp_path, "switched with none announced"),
        step(tmp_path, "finished with none announced"),
    ]
    for name in ("announced", "switched"):
        tasks += [step(tmp_path, f"{name} predicted", check_mode=True), step(tmp_path, name)]
        tasks += [step(tmp_path, f"{name} again"), step(tmp_path, f"finished before {name} is done", **refused)]
    tasks += [
        {"name": "leaf of the new one", _ACTION: signed(tmp_path)},
        step(tmp_path, "finished predicted", check_mode=True),
        step(tmp_path, "finished"),
        step(tmp_path, "finished again"),
        {"name": "look", _INFO: {"path": str(tmp_path / "ca.crt")}},
        {"name": "a leaf has no successor", _ACTION: signed(tmp_path, succession="announced"), **refused},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    for name in ("announced", "switched", "finished"):
        predicted, done, again = (run.named(f"{name}{more}") for more in (" predicted", "", " again"))
        assert [one.changed for one in (predicted, done, again)] == [True, True, False]
        assert predicted["diff"] == done["diff"]
        assert run.named(f"{name} again")["trusted"] == done["trusted"]
    for name in ("switched with none announced", "finished with none announced"):
        assert not run.named(name).changed
    for name in ("announced", "switched"):
        assert run.named(f"finished before {name} is done").failure == "AUTHORITY_STILL_NEEDED"
    (old,) = run.named("ca")["trusted"]
    _old, new = run.named("announced")["trusted"]
    assert run.named("announced")["certificate"]["fingerprint"] == old
    assert run.named("switched predicted")["certificate"] == run.named("switched")["certificate"]
    assert run.named("switched")["trusted"] == [new, old]
    assert run.named("leaf of the new one")["reasons"] == ["signed_by"]
    assert run.named("finished")["trusted"] == run.named("look")["trusted"] == [new]
    assert run.named("a leaf has no successor").failure == "BAD_CONFIGURATION"
    assert "PRIVATE KEY" not in run.output


def test_an_authority_that_is_replaced_stays_trusted(tmp_path: Path) -> None:
    tasks = [
        {"name": "ca", _ACTION: authority(tmp_path, days=20, renew_before_days=1, warn_before_days=60)},
        {"name": "near its end", _ACTION: authority(tmp_path, days=100, renew_before_days=30)},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    (old,) = run.named("ca")["trusted"]
    assert run.named("near its end")["trusted"][1:] == [old]
    assert f"The certificate authority {tmp_path}/ca.crt ends in 19 days" in " ".join(run.output.split())


def test_what_a_certificate_says_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "text.crt").write_text("a shopping list\n")
    path, key = str(tmp_path / "server.crt"), str(tmp_path / "server.key")
    looks = {
        "good": {"private_key_path": key, "chain_path": str(tmp_path / "ca.crt"), "names": ["gateway.example"]},
        "soon": {"chain_path": str(tmp_path / "ca.crt"), "warn_before_days": 40},
        "wrong": {"private_key_path": str(tmp_path / "ca.key"), "names": ["other.example"]},
        "none": {"path": str(tmp_path / "none.crt")},
        "text": {"path": str(tmp_path / "text.crt")},
    }
    tasks = [
        {"name": "ca", _ACTION: authority(tmp_path)},
        {"name": "leaf", _ACTION: signed(tmp_path, days=35, renew_before_days=1)},
        {"ansible.builtin.file": {"path": str(tmp_path / "ca.key"), "mode": "0644"}},
        *({"name": name, _INFO: {"path": path} | more} for name, more in looks.items()),
        {"name": "refused", _INFO: {"path": path, "warn_before_days": -1}, "ignore_errors": True},
    ]
    run = run_play(tasks, directory=tmp_path)
    assert run.code == 0, run.output
    assert not any(run.named(name).changed for name in looks)
    good, soon, wrong = (run.named(name) for name in ("good", "soon", "wrong"))
    assert good["problems"] == soon["problems"] == []
    assert (good["days_left"], good["ends_soon"], soon["ends_soon"], good["trusted"]) == (34, False, True, [])
    issued = run.named("leaf")["certificate"]
    assert good["certificate"] == issued
    assert {problem["part"]: problem["code"] for problem in wrong["problems"]} == {
        "private_key": "CERTIFICATE_KEY_MISMATCH",
        "chain": "CERTIFICATE_CHAIN_BROKEN",
        "names": "CERTIFICATE_WRONG_NAME",
    }
    codes = {name: [one["code"] for one in run.named(name)["problems"]] for name in ("none", "text")}
    assert codes == {"none": ["CERTIFICATE_MISSING"], "text": ["CERTIFICATE_UNREADABLE"]}
    assert run.named("none")["certificate"] is None
    assert run.named("refused").failure == "BAD_CONFIGURATION"
    words = " ".join(run.output.split())
    assert f"The certificate {path} ends in 34 days" in words
    assert f"Others can read the private key {tmp_path}/ca.key (mode 0644): chmod 600" in words
